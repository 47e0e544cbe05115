"""What an event-sourced actor promises, a ledger and a batch keep too, though they write to a journal themselves."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from actors import Done, FunctionTransport, Listing, Market, Provider, ProviderCall, Supervisor, robust_batch
from actors.ledger import GetStatement, Ledger, OpenAccount
from runtime import ActorSystem, Refusal, Request, handles
from runtime.persistence import EventSourced, SqliteJournal, qualified
from tests.actors.ledger.journalled import FullDisk, store_of
from tests.runtime.persistence.disks import copy_as_killed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


class Counting(msgspec.Struct, frozen=True, tag=qualified("promises")):
    number: int


class Do(Request[tuple[int, ...]], frozen=True):
    number: int


class Counted(EventSourced[Do, Counting, tuple[int, ...]]):
    def initial(self) -> tuple[int, ...]:
        return ()

    def evolve(self, state: tuple[int, ...], event: Counting) -> tuple[int, ...]:
        return (*state, event.number)

    @handles(Do)
    async def do(self, message: Do) -> tuple[int, ...]:
        if message.number in self.state:
            return self.state
        return await self.record(Counting(message.number))


class Life:
    """One life of a program that keeps what it has done in a journal; `do` raises a refusal, or has done it."""

    def __init__(self, path: Path, system: ActorSystem) -> None:
        self.path = path
        self.system = system

    async def do(self, number: int) -> None:
        raise NotImplementedError

    async def done(self) -> set[int]:
        """Return what is done, as this life knows it."""
        raise NotImplementedError

    @property
    def journal(self) -> Any:
        raise NotImplementedError


class EventSourcedLife(Life):
    def __init__(self, path: Path, system: ActorSystem) -> None:
        super().__init__(path, system)
        self.actor = system.spawn(lambda: Counted("counted", self._open))

    def _open(self) -> SqliteJournal:
        self.store = SqliteJournal(self.path)
        return self.store

    async def do(self, number: int) -> None:
        await self.actor.ask(Do(number), timeout=5)

    async def done(self) -> set[int]:
        return set(await self.actor.ask(Do(0), timeout=5)) - {0}

    @property
    def journal(self) -> Any:
        return self.store


class LedgerLife(Life):
    def __init__(self, path: Path, system: ActorSystem) -> None:
        super().__init__(path, system)
        self.made: list[Ledger] = []
        self.ledger = system.spawn(self._ledger)

    def _ledger(self) -> Ledger:
        self.made.append(Ledger(journal=self.path))
        return self.made[-1]

    async def do(self, number: int) -> None:
        await self.ledger.ask(OpenAccount(name=str(number)), timeout=5)

    async def done(self) -> set[int]:
        await self.ledger.ask(GetStatement(), timeout=5)
        return {int(name) for name in self.made[-1].book.open_accounts() if name.isdecimal()}

    @property
    def journal(self) -> Any:
        return store_of(self.made[-1])


class BatchLife(LedgerLife):
    """An item is done if it is not asked for again."""

    def __init__(self, path: Path, system: ActorSystem) -> None:
        super().__init__(path, system)
        self.asked = set[int]()
        provider = Provider(name="alder", services={"s"}, price="0.01")
        listing = Listing(
            provider=provider, transport=lambda: FunctionTransport(self._serve, paid=True, idempotent="no")
        )
        self.supervisor = system.spawn(lambda: Supervisor(Market(providers=[listing]), ledger=self.ledger))

    async def _serve(self, call: ProviderCall) -> int:
        self.asked.add(call.input)
        return call.input

    async def do(self, number: int) -> None:
        async with robust_batch(self.supervisor, [number], service="s", journal=self.path) as batch:
            (outcome,) = [one async for one in batch]
        if not isinstance(outcome, Done):
            raise outcome.error
        assert outcome.result.output == number

    async def done(self) -> set[int]:
        self.asked.clear()
        async with robust_batch(self.supervisor, range(1, 6), service="s", journal=self.path) as batch:
            assert [one.result.output async for one in batch if isinstance(one, Done)]
        return set(range(1, 6)) - self.asked


LIVES = pytest.mark.parametrize("kind", [EventSourcedLife, LedgerLife, BatchLife])


@asynccontextmanager
async def life(kind: type[Life], path: Path) -> AsyncIterator[Any]:
    async with ActorSystem("life", log=False) as system:
        yield kind(path, system)


@LIVES
async def test_what_was_answered_is_there_in_the_next_life_wherever_the_last_was_killed(
    tmp_path: Path, kind: type[Life]
) -> None:
    path = tmp_path / "a.journal"
    async with life(kind, path) as first:
        for number in (1, 2, 3):
            await first.do(number)
            copy_as_killed(path, tmp_path / f"{number}.journal")
    for number in (1, 2, 3):
        async with life(kind, tmp_path / f"{number}.journal") as second:
            assert await second.done() >= set(range(1, number + 1))
            await second.do(number)  # It changes nothing to say it again.


@LIVES
async def test_what_cannot_be_written_is_refused_and_has_not_happened(tmp_path: Path, kind: type[Life]) -> None:
    path = tmp_path / "a.journal"
    async with life(kind, path) as first:
        await first.do(1)
        disk = first.journal._file = FullDisk(first.journal._file)
        with pytest.raises(Refusal):
            await first.do(2)
        copy_as_killed(path, tmp_path / "b.journal")
        disk.is_full = False
        if kind is EventSourcedLife:
            assert await first.done() == {1}
    async with life(kind, tmp_path / "b.journal") as second:
        assert await second.done() == {1}
