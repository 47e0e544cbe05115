"""Journals that are mended while no ledger runs: what is entered is what the ledger enters."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from actors.errors import Permanent
from actors.ledger import BookCall, GetHeld, GetStatement, MoneyHeld, MoneyReleased, MoneySettled, Resolve
from actors.ledger.mending import resolve
from actors.ledger.messages import AwaitCommit
from actors.ledger.reading import read_book
from actors.money import Micros
from runtime import ActorSystem
from runtime.persistence import JournalError, owner_of
from tests.actors.ledger.journalled import entries_of, reserve, spawn
from tests.runtime.persistence.disks import copy_as_killed

if TYPE_CHECKING:
    from pathlib import Path


async def held_in(path: Path, **options: Any) -> int:
    """Leave one call of 50 held in a journal; return its number."""
    async with ActorSystem("bank", log=False) as system:
        ledger, _ = spawn(system, path, **options)
        held = await reserve(ledger, "k", 50)
        ledger.tell(BookCall(held, "held"))
        await ledger.ask(AwaitCommit(), timeout=1)
    return held.number


@pytest.mark.parametrize(
    ("charged", "cost"), [("yes", None), ("yes", Micros(20)), ("yes", Micros(0)), ("yes", Micros(90)), ("no", None)]
)
async def test_it_enters_what_the_ledger_would(tmp_path: Path, charged: Any, cost: Micros | None) -> None:
    path, other = tmp_path / "run.journal", tmp_path / "other.journal"
    number = await held_in(path)
    copy_as_killed(path, other)
    before = entries_of(path)
    done = resolve(path, number, charged, cost, at=7.0)
    async with ActorSystem("bank", log=False) as system:
        ledger, _ = spawn(system, other)
        asked = await ledger.ask(Resolve(number, charged, cost), timeout=1)
    assert done.is_new
    assert (type(done.entry), {**as_fields(done.entry), "at": 0}) == (type(asked), {**as_fields(asked), "at": 0})
    assert entries_of(path) == [*before, done.entry]
    # The next ledger goes on with it.
    async with ActorSystem("bank", log=False) as system:
        ledger, _ = spawn(system, path)
        assert await ledger.ask(GetHeld(), timeout=1) == ()
        spent = (50 if cost is None else int(cost)) if charged == "yes" else 0
        assert (await ledger.ask(GetStatement(), timeout=1)).settled == spent


def as_fields(entry: Any) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in entry.__struct_fields__}


async def test_the_same_again_changes_nothing_and_anything_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.journal"
    number = await held_in(path)
    first = resolve(path, number, "yes", Micros(20), at=7.0)
    entries = entries_of(path)
    assert resolve(path, number, "yes", Micros(20), at=8.0) == (first.entry, False)
    assert resolve(path, number, "yes", at=8.0) == (first.entry, False)
    for charged, cost in (("yes", Micros(30)), ("no", None)):
        with pytest.raises(Permanent, match=rf"reservation {number} was entered as paid to 'alder', \$0.00002 before"):
            resolve(path, number, charged, cost, at=8.0)  # type: ignore[arg-type]
    with pytest.raises(Permanent, match="reservation 999 is not held, or no more"):
        resolve(path, 999, "no", at=8.0)
    assert entries_of(path) == entries


async def test_not_paid_twice_is_the_same_too(tmp_path: Path) -> None:
    path = tmp_path / "run.journal"
    number = await held_in(path)
    assert isinstance(resolve(path, number, "no", at=7.0).entry, MoneyReleased)
    assert not resolve(path, number, "no", at=8.0).is_new
    with pytest.raises(Permanent, match="was entered as not paid to 'alder' before"):
        resolve(path, number, "yes", Micros(5), at=8.0)


async def test_what_was_left_open_by_a_kill_is_held_first(tmp_path: Path) -> None:
    path, copy = tmp_path / "run.journal", tmp_path / "copy.journal"
    async with ActorSystem("bank", log=False) as system:
        ledger, _ = spawn(system, path)
        one, two = await reserve(ledger, "k", 50), await reserve(ledger, "l", 60)
        await ledger.ask(AwaitCommit(), timeout=1)
        copy_as_killed(path, copy)
    done = resolve(copy, one.number, "yes", at=7.0)
    assert [type(entry) for entry in entries_of(copy)[-3:]] == [MoneyHeld, MoneyHeld, MoneySettled]
    assert done.entry.reservation == one.number
    assert [call.reservation for call in read_book(copy).held] == [two.number]


async def test_what_counts_as_paid_because_it_was_held_for_too_long_is_corrected(tmp_path: Path) -> None:
    path = tmp_path / "run.journal"
    async with ActorSystem("bank", log=False) as system:
        ledger, _ = spawn(system, path)
        held = await reserve(ledger, "k", 50, held_for=1.0)
        ledger.tell(BookCall(held, "held"))
        await asyncio.sleep(2.0)
    done = resolve(path, held.number, "no", at=7.0)
    assert isinstance(done.entry, MoneyReleased)
    assert read_book(path).total.settled == 0


async def test_a_ledger_that_runs_is_named_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "run.journal"
    async with ActorSystem("bank", log=False) as system:
        ledger, _ = spawn(system, path)
        held = await reserve(ledger, "k", 50)
        ledger.tell(BookCall(held, "held"))
        await ledger.ask(AwaitCommit(), timeout=1)
        with pytest.raises(JournalError, match=f"is in use by {owner_of(path)}"):
            resolve(path, held.number, "no", at=7.0)
        assert len(await ledger.ask(GetHeld(), timeout=1)) == 1


@pytest.mark.parametrize("content", [None, b""])
def test_no_journal_is_made_of_what_is_none(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "run.journal"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(JournalError, match=r"does not exist|has nothing in it yet"):
        resolve(path, 1, "no", at=7.0)
    assert [one.name for one in tmp_path.iterdir()] == ([] if content is None else ["run.journal"])
