"""What others read of a ledger's journal: the figures that the ledger itself has, at one moment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from actors.ledger import BookCall, Costing, GetStatement, MarkUnderWay, OpenAccount, Resolve, provider_key
from actors.ledger.entries import MoneyHeld, MoneyReserved, MoneySettled
from actors.ledger.journal import MoneyJournal
from actors.ledger.messages import AwaitCommit
from actors.ledger.reading import read_book, reading_entries
from actors.money import Micros
from actors.tariffs import Usage
from runtime import ActorSystem
from runtime.persistence import JournalError, owner_of
from tests.actors.ledger.journalled import entries_of, filled, reserve, spawn
from tests.runtime.persistence.disks import copy_as_killed

if TYPE_CHECKING:
    from pathlib import Path

    from runtime import ActorRef


async def spend(ledger: ActorRef[Any]) -> None:
    """Leave one call of each kind: paid, held, held with a time of its own, passed over, and under way."""
    paid = await reserve(ledger, "paid")
    usage = Usage(input=10, output=5)
    ledger.tell(BookCall(paid, "yes", Micros(70), costing=Costing(basis="provider", usage=usage)))
    ledger.tell(BookCall(await reserve(ledger, "held", 50), "held"))
    ledger.tell(BookCall(await reserve(ledger, "short", 40, held_for=60.0), "held"))
    passed = await reserve(ledger, "passed", 30)
    ledger.tell(BookCall(passed, "held"))
    more = await reserve(ledger, "passed", 20, provider="birch", intent="again", passes_over=(passed.number,))
    ledger.tell(BookCall(more, "no"))
    await reserve(ledger, "free", 0)
    await reserve(ledger, "open", 10)
    await ledger.ask(AwaitCommit(), timeout=1)


async def test_the_figures_are_those_of_the_ledger_while_it_runs(tmp_path: Path) -> None:
    path = tmp_path / "run.journal"
    async with ActorSystem("bank") as system:
        ledger, _ = spawn(system, path)
        await spend(ledger)
        await ledger.ask(OpenAccount(name="child", cap="0.0001", parent="run"), timeout=1)
        seen = read_book(path)
        assert seen.owner == owner_of(path) != None  # noqa: E711
        assert seen.total == await ledger.ask(GetStatement(), timeout=1)
        names = ["run", "batch", "child"]
        assert list(seen.accounts) == [await ledger.ask(GetStatement(name), timeout=1) for name in names]
        assert [(one.provider, one.amount, one.accounts, one.told_key) for one in seen.held] == [
            ("alder", Micros(50), ("run", "batch"), provider_key("held")),
            ("alder", Micros(40), ("run", "batch"), provider_key("short")),
            ("alder", Micros(30), ("run", "batch"), provider_key("passed")),
        ]
        assert [one.until and one.until - one.since for one in seen.held] == [None, pytest.approx(60.0, abs=1e-3), None]
        assert seen.under_way == 2
        ledger.tell(MarkUnderWay(seen.held[1].reservation))
        await ledger.ask(Resolve(seen.held[0].reservation, "no"), timeout=1)
        again = read_book(path)
        assert [(one.is_under_way, one.until) for one in again.held] == [(True, None), (False, None)]


async def test_what_a_killed_ledger_has_left_open_may_have_been_paid(tmp_path: Path) -> None:
    path, copy = tmp_path / "run.journal", tmp_path / "copy.journal"
    async with ActorSystem("bank") as system:
        ledger, _ = spawn(system, path)
        await spend(ledger)
        await ledger.ask(AwaitCommit(), timeout=1)
        copy_as_killed(path, copy)
    seen = read_book(copy)
    assert seen.owner is None
    assert ([int(one.amount) for one in seen.held], seen.under_way) == ([50, 40, 30, 10], 0)
    assert (seen.total.held, seen.total.reserved, seen.accounts[0].held) == (130, 0, 130)
    assert not copy.with_name("copy.journal.lock").exists()


async def test_its_entries_are_read_with_their_numbers(tmp_path: Path) -> None:
    path = tmp_path / "run.journal"
    async with ActorSystem("bank") as system:
        ledger, _ = spawn(system, path)
        await spend(ledger)
        await ledger.ask(AwaitCommit(), timeout=1)
        with reading_entries(path) as entries:
            seen = list(entries)
    assert [number for number, _ in seen] == list(range(1, len(seen) + 1))
    assert [entry for _, entry in seen] == entries_of(path)[: len(seen)]
    kinds = {type(entry) for _, entry in seen}
    assert {MoneyReserved, MoneySettled, MoneyHeld} <= kinds


def test_entries_that_do_not_add_up_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.journal"
    filled(path, 3)
    assert len(read_book(path).accounts) == 3
    again = [*entries_of(path)]
    path.unlink()
    journal = MoneyJournal(path)
    for entry in (*again, again[0]):
        journal.append(entry)
    journal.commit()
    journal.close()
    with pytest.raises(JournalError, match="does not add up: it opens an account that is open"):
        read_book(path)
