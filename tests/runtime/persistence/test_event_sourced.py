"""Actors whose state outlives them: what was answered is there again, whatever is killed, and nothing else is."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from runtime import (
    IMMEDIATELY,
    ActorCrashed,
    ActorRef,
    ActorSystem,
    AskTimeout,
    Message,
    Request,
    RestartIntensity,
    Supervision,
    handles,
)
from runtime.persistence import EventSourced, JournalError, MemoryDisk, MemoryJournal, NotRecorded, SqliteJournal
from runtime.persistence import qualified as in_room
from runtime.simulation import explore
from tests.proofs import repeated

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from runtime.persistence import Journal
    from runtime.simulation import Simulation


TIRELESS = Supervision(backoff=IMMEDIATELY, intensity=RestartIntensity(max_restarts=1_000))


class Earned(msgspec.Struct, frozen=True, tag=in_room("test")):
    amount: int


class Paid(msgspec.Struct, frozen=True, tag=in_room("test")):
    amount: int


class Promised(msgspec.Struct, frozen=True, tag=in_room("test")):
    at: float


class Balance(msgspec.Struct, frozen=True):
    """The state: what is there, and when the next payment is due."""

    amount: int = 0
    due: float | None = None
    payments: int = 0


class Earn(Request[int], frozen=True):
    amount: int
    crashes: bool = False


class Pay(Request[int], frozen=True):
    """Pay twice: two events, which are written together."""

    amount: int


class Promise(Request[int], frozen=True):
    at: float


class Look(Request[tuple[int, int, str]], frozen=True): ...


class Due(Message, frozen=True): ...


class Wallet(EventSourced[Earn | Pay | Promise | Look | Due, Earned | Paid | Promised, Balance]):
    def initial(self) -> Balance:
        return Balance()

    def evolve(self, state: Balance, event: Earned | Paid | Promised) -> Balance:
        match event:
            case Earned(amount):
                return msgspec.structs.replace(state, amount=state.amount + amount)
            case Paid(amount):
                if amount > state.amount:
                    raise ValueError("more than there is")
                paid = state.amount - amount
                return msgspec.structs.replace(state, amount=paid, due=None, payments=state.payments + 1)
            case Promised(at):
                return msgspec.structs.replace(state, due=at)

    def recovered(self) -> None:
        if self.state.due is not None:
            self.context.timers.once(self.seconds_until(self.state.due), Due())

    @handles(Earn)
    async def earn(self, command: Earn) -> int:
        state = await self.record(Earned(command.amount))
        if command.crashes:
            raise RuntimeError("after it was recorded")
        return state.amount

    @handles(Pay)
    async def pay(self, command: Pay) -> int:
        return (await self.record(Paid(command.amount), Paid(command.amount))).amount

    @handles(Promise)
    async def promise(self, command: Promise) -> int:
        await self.record(Promised(command.at))
        self.recovered()
        return self.number

    @handles(Due)
    async def pay_what_is_due(self, _: Due) -> None:
        await self.record(Paid(1))

    @handles(Look)
    def look(self, _: Look) -> tuple[int, int, str]:
        return self.state.amount, self.state.payments, self.call_key(2)


def spawn(system: ActorSystem, disk: MemoryDisk, **options: Any) -> ActorRef[Any]:
    return system.spawn(lambda: Wallet("wallet", lambda: MemoryJournal(disk), **options), name="wallet")


async def test_what_was_answered_is_there_after_a_restart_of_the_program(tmp_path: Path) -> None:
    path = tmp_path / "wallet.journal"
    for life in range(1, 4):
        async with ActorSystem("shop", log=False) as system:
            wallet = system.spawn(lambda: Wallet("wallet", path))
            assert await wallet.ask(Earn(5), timeout=1.0) == 5 * life
            assert await wallet.ask(Look(), timeout=1.0) == (5 * life, 0, f"wallet/{life}/2")


async def test_an_owner_before_records_nothing_and_ends() -> None:
    disk = MemoryDisk()

    def claimed() -> MemoryJournal:
        journal = MemoryJournal(disk)
        journal.claim()
        return journal

    async with ActorSystem("shop", log=False) as system:
        wallet = system.spawn(lambda: Wallet("wallet", claimed), name="wallet")
        assert await wallet.ask(Earn(5), timeout=1.0) == 5
        disk.owner = None  # As if it were on another machine.
        later = system.spawn(lambda: Wallet("wallet", claimed), name="later wallet")
        assert await later.ask(Earn(1), timeout=1.0) == 6
        with pytest.raises(NotRecorded, match="belongs to a later owner"):
            await wallet.ask(Earn(7), timeout=1.0)
        assert (await wallet.terminated()).error is None
        assert await later.ask(Earn(1), timeout=1.0) == 7
        assert len(disk.entries) == 3


async def test_a_crash_after_the_record_keeps_it_and_gives_the_next_call_another_key() -> None:
    disk = MemoryDisk()
    async with ActorSystem("shop", log=False) as system:
        wallet = spawn(system, disk)
        with pytest.raises(ActorCrashed, match="after it was recorded"):
            await wallet.ask(Earn(5, crashes=True), timeout=1.0)
        assert await wallet.ask(Look(), timeout=5.0) == (5, 0, "wallet/1/2")


async def test_an_event_that_the_state_does_not_bear_is_not_written() -> None:
    disk = MemoryDisk()
    async with ActorSystem("shop", log=False) as system:
        wallet = spawn(system, disk)
        await wallet.ask(Earn(5), timeout=1.0)
        with pytest.raises(ActorCrashed, match="more than there is"):
            await wallet.ask(Pay(3), timeout=1.0)  # The first would do, the second would not: neither is written.
        assert len(disk.entries) == 1
        assert await wallet.ask(Look(), timeout=5.0) == (5, 0, "wallet/1/2")


async def test_what_cannot_be_written_has_not_happened_and_can_be_tried_again() -> None:
    disk = MemoryDisk()
    async with ActorSystem("shop", log=False) as system:
        wallet = spawn(system, disk)
        await wallet.ask(Earn(5), timeout=1.0)
        disk.is_full = True
        for _ in range(2):
            with pytest.raises(NotRecorded, match="changed nothing, because its events were not written") as refused:
                await wallet.ask(Earn(7), timeout=1.0)
            assert (refused.value.actor, refused.value.problem) == (
                "shop/wallet",
                "cannot be written: its disk is full",
            )
        assert (await wallet.ask(Look(), timeout=1.0))[0] == 5
        disk.is_full = False
        assert await wallet.ask(Earn(7), timeout=1.0) == 12
    assert [row.number for row in disk.entries] == [1, 2]
    assert len(list(MemoryJournal(disk).replay())) == 2  # The chain is whole.


async def test_a_snapshot_stands_for_the_events_before_it() -> None:
    disk = MemoryDisk()
    async with ActorSystem("shop", log=False) as system:
        wallet = spawn(system, disk, snapshot_every=10)
        for _ in range(25):
            await wallet.ask(Earn(1), timeout=1.0)
    assert disk.snapshot is not None
    assert disk.snapshot.number == 20
    assert [row.number for row in disk.entries] == [21, 22, 23, 24, 25]
    async with ActorSystem("shop", log=False) as system:
        assert await spawn(system, disk, snapshot_every=10).ask(Look(), timeout=1.0) == (25, 0, "wallet/25/2")


async def test_what_was_due_while_the_program_was_down_is_due_at_once_and_once() -> None:
    disk = MemoryDisk()
    async with ActorSystem("shop", log=False) as system:
        wallet = spawn(system, disk)
        await wallet.ask(Earn(5), timeout=1.0)
        await wallet.ask(Promise(time.time() + 3_600.0), timeout=1.0)
    async with ActorSystem("shop", log=False) as system:
        wallet = spawn(system, disk)
        assert (await wallet.ask(Look(), timeout=1.0))[:2] == (5, 0)
        await wallet.ask(Promise(time.time() - 10.0), timeout=1.0)
    for _ in range(2):
        async with ActorSystem("shop", log=False) as system:
            wallet = spawn(system, disk)
            await asyncio.sleep(1.0)
            assert (await wallet.ask(Look(), timeout=1.0))[:2] == (4, 1)


async def test_a_journal_of_other_events_is_refused_and_named() -> None:
    disk = MemoryDisk()
    journal = MemoryJournal(disk)
    journal.append(msgspec.msgpack.encode({"type": "other.Thing"}))
    journal.commit()
    journal.close()

    async def run() -> None:
        async with ActorSystem("shop", supervision=Supervision(backoff=IMMEDIATELY), log=False) as system:
            spawn(system, disk)
            await asyncio.sleep(60.0)

    with pytest.raises(JournalError, match="give each actor a journal of its own"):
        await run()
    assert disk.owner is None  # It was let go of.


class Vague(EventSourced):  # type: ignore[type-arg]  # pyright: ignore[reportMissingTypeArgument]
    def initial(self) -> int:
        return 0


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Wallet("", "w.journal"), "name must not be empty"),
        (lambda: Wallet("w", "w.journal", snapshot_every=0), "snapshot_every must be at least 1"),
        (lambda: Vague("w", "w.journal"), r"class Vague\(EventSourced\[Messages, Events, State\]\)"),
    ],
)
def test_bad_input_is_refused_at_once(make: Callable[[], object], says: str) -> None:
    with pytest.raises((ValueError, TypeError), match=says):
        make()


class SlowJournal(SqliteJournal):
    """Writes as slowly as a test says, in the thread in which a journal that waits for the disk writes."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, safety="power")
        self.may_write = threading.Event()
        self.is_writing = threading.Event()

    def write(self, batch: Any) -> None:
        self.is_writing.set()
        self.may_write.wait(10.0)
        super().write(batch)


@pytest.mark.real_time
async def test_an_asker_that_leaves_while_it_is_written_leaves_it_written(tmp_path: Path) -> None:
    journal = SlowJournal(tmp_path / "wallet.journal")
    opened: list[Journal] = []

    def open_journal() -> Journal:
        opened.append(journal if not opened else SqliteJournal(tmp_path / "wallet.journal"))
        return opened[-1]

    async with ActorSystem("shop", log=False) as system:
        wallet = system.spawn(lambda: Wallet("wallet", open_journal))
        with pytest.raises(AskTimeout):
            await wallet.ask(Earn(5), timeout=0.05)
        await asyncio.to_thread(journal.is_writing.wait, 10.0)
        journal.may_write.set()
        assert await wallet.ask(Look(), timeout=5.0) == (5, 0, "wallet/1/2")
        assert await wallet.ask(Earn(5), timeout=5.0) == 10


def test_nothing_that_was_answered_is_lost_whatever_is_killed_or_full() -> None:
    async def scenario(simulation: Simulation) -> None:
        disk, rng = MemoryDisk(), simulation.random
        recorded = asked = 0
        for _ in range(3):
            async with ActorSystem("shop", supervision=TIRELESS, log=False) as system:
                wallet = spawn(system, disk, snapshot_every=rng.choice((1, 3, None)))
                for _ in range(10):
                    disk.is_full = rng.random() < 0.2
                    asked += 1
                    try:
                        await wallet.ask(Earn(1, crashes=rng.random() < 0.1), timeout=rng.choice((0.0001, 5.0)))
                    except (NotRecorded, AskTimeout):
                        pass
                    except ActorCrashed:
                        recorded += 1
                    else:
                        recorded += 1
                disk.is_full = False
                balance, _, _ = await wallet.ask(Look(), timeout=30.0)
                assert recorded <= balance <= asked

    explore(scenario, seeds=range(repeated(300)))
