"""The ledger's journal: what was answered is on disk, and what cannot be relied on is refused."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.errors.families import BudgetExceeded, Permanent
from actors.events import AlertCleared, AlertRaised
from actors.ledger.config import LedgerConfig
from actors.ledger.entries import AccountOpened, CapChanged, Entry
from actors.ledger.errors import AlreadyPaid, JournalError, JournalFailed, StillUnsettled
from actors.ledger.journal import Journal
from actors.ledger.ledger import Ledger
from actors.ledger.messages import (
    BookCall,
    CloseAccount,
    GetHeld,
    GetStatement,
    OpenAccount,
    Reservation,
    Reserve,
    Resolve,
    SetCap,
)
from actors.ledger.opening import SLICE
from runtime import ActorFailed, ActorSystem
from runtime.simulation import Simulation, explore

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime import ActorRef

ACCOUNTS = {"run": "0.001", "batch": None}
PROGRAM = Path(__file__).with_name("ledger_program.py")


def spawn(system: ActorSystem, path: Path, **options: Any) -> tuple[ActorRef[Any], list[Ledger]]:
    made: list[Ledger] = []

    def make() -> Ledger:
        made.append(Ledger(**{"accounts": ACCOUNTS, "journal": path, **options}))
        return made[-1]

    return system.spawn(make, name="ledger"), made


async def reserve(ledger: ActorRef[Any], key: str, amount: int = 100, **more: Any) -> Reservation:
    wish = Reserve(**{"key": key, "provider": "alder", "amount": amount, "accounts": ("run", "batch"), **more})
    return await ledger.ask(wish, timeout=5)


async def figures(ledger: ActorRef[Any], account: str | None = "run") -> tuple[int, int, int]:
    statement = await ledger.ask(GetStatement(account), timeout=1)
    return statement.reserved, statement.held, statement.settled


def entries_of(path: Path) -> list[Entry]:
    journal = Journal(path)
    try:
        return list(journal.read())
    finally:
        journal.close()


async def test_a_program_that_starts_again_knows_its_accounts_its_keys_and_what_was_open(tmp_path):
    path = tmp_path / "ledger.db"
    async with ActorSystem("first") as system:
        ledger, _ = spawn(system, path)
        await ledger.ask(OpenAccount(name="mine", cap=500), timeout=1)
        paid, held, free, _left = [await reserve(ledger, key) for key in ("paid", "held", "free", "open")]
        ledger.tell(BookCall(paid, "yes", 70))
        ledger.tell(BookCall(held, "held"))
        ledger.tell(BookCall(free, "no"))
        assert await figures(ledger) == (100, 100, 70)
    async with ActorSystem("second") as system:
        ledger, made = spawn(system, path)
        assert await figures(ledger) == (0, 200, 70)
        assert {one.key for one in await ledger.ask(GetHeld(), timeout=1)} == {"held", "open"}
        with pytest.raises(AlreadyPaid) as already:
            await reserve(ledger, "paid")
        assert (already.value.paid, already.value.paid_to) == (70, "alder")
        for key in ("held", "open"):
            with pytest.raises(StillUnsettled):
                await reserve(ledger, key)
        with pytest.raises(BudgetExceeded):
            await reserve(ledger, "large", 731)
        ledger.tell(BookCall(await reserve(ledger, "open", intent="repeat"), "yes", 90))
        new = await reserve(ledger, "free")
        assert new.number > max(one.number for one in (paid, held, free))
        ledger.tell(BookCall(new, "no"))
        assert await ledger.ask(OpenAccount(name="mine", cap=600), timeout=1) == "mine", "taken on"
        assert (await ledger.ask(GetStatement("mine"), timeout=1)).cap == 600
        await ledger.ask(Resolve(held.number, "yes", 10), timeout=1)
        assert await figures(ledger) == (0, 0, 170)
        assert list(made[0].broken_invariants()) == []


async def test_a_cap_that_is_changed_between_two_runs_holds_from_then_on(tmp_path):
    path = tmp_path / "ledger.db"
    async with ActorSystem("first") as system:
        ledger, _ = spawn(system, path)
        ledger.tell(BookCall(await reserve(ledger, "k", 900)))
        await figures(ledger)
    async with ActorSystem("second") as system:
        ledger, _ = spawn(system, path, accounts={"run": "0.002"})
        await reserve(ledger, "other", 1100)
    assert [one.cap for one in entries_of(path) if isinstance(one, CapChanged)] == [2000]


async def test_an_account_beyond_its_alert_is_told_of_again_in_the_next_run(tmp_path):
    path, alerts = tmp_path / "ledger.db", list[AlertRaised | AlertCleared]()
    async with ActorSystem("first") as system:
        ledger, _ = spawn(system, path)
        for number in range(3):
            ledger.tell(BookCall(await reserve(ledger, f"{number}", 800), "no"))
        ledger.tell(BookCall(await reserve(ledger, "k", 800)))
        await figures(ledger)
    async with ActorSystem("second") as system:
        for kind in (AlertRaised, AlertCleared):
            system.events.subscribe(kind, alerts.append)
        ledger, _ = spawn(system, path)
        await figures(ledger)
    assert [(type(one), one.subject) for one in alerts] == [(AlertRaised, "run")]


async def test_a_ledger_that_is_stopped_before_it_has_answered_leaves_nothing_reserved(tmp_path):
    path = tmp_path / "ledger.db"
    async with ActorSystem("first") as system:
        ledger, _ = spawn(system, path)
        await figures(ledger)
        asking = asyncio.create_task(reserve(ledger, "k"))
        asyncio.get_running_loop().call_soon(ledger.stop)
        outcome = (await asyncio.gather(asking, return_exceptions=True))[0]
        await ledger.terminated()
    async with ActorSystem("second") as system:
        ledger, _ = spawn(system, path)
        is_answered = isinstance(outcome, Reservation)
        assert await figures(ledger) == (0, 100 if is_answered else 0, 0)
        assert not is_answered


async def test_an_account_that_was_taken_on_for_somebody_who_had_gone_can_still_be_taken_on(tmp_path):
    path = tmp_path / "ledger.db"
    async with ActorSystem("first") as system:
        ledger, _ = spawn(system, path)
        await ledger.ask(OpenAccount(name="mine", cap=500), timeout=1)
        ledger.tell(BookCall(await reserve(ledger, "k", accounts=("mine",))))
        await figures(ledger)
    async with ActorSystem("second") as system:
        ledger, _ = spawn(system, path)
        ledger.tell(OpenAccount(name="mine", cap=500))
        await asyncio.sleep(0.1)
        assert await ledger.ask(OpenAccount(name="mine", cap=500), timeout=1) == "mine"
        assert await figures(ledger, "mine") == (0, 0, 100)


async def test_an_account_that_was_closed_is_gone_in_the_next_run_and_one_with_held_money_is_not(tmp_path):
    path = tmp_path / "ledger.db"
    async with ActorSystem("first") as system:
        ledger, _ = spawn(system, path)
        for name in ("gone", "left"):
            await ledger.ask(OpenAccount(name=name, cap=500), timeout=1)
        ledger.tell(BookCall(await reserve(ledger, "a", accounts=("gone",))))
        left = await reserve(ledger, "b", accounts=("left",))
        ledger.tell(BookCall(left, "held"))
        for name in ("gone", "left"):
            await ledger.ask(CloseAccount(name=name), timeout=1)
    async with ActorSystem("second") as system:
        ledger, made = spawn(system, path)
        await ledger.ask(Resolve(left.number, "yes", 1), timeout=1)
        assert await figures(ledger, None) == (0, 0, 101)
        assert made[0].book.open_accounts() == ["run", "batch"]


async def test_a_key_that_memory_has_forgotten_is_known_to_the_journal(tmp_path):
    async with ActorSystem("bank") as system:
        ledger, made = spawn(system, tmp_path / "l.db", config=LedgerConfig(max_paid_keys=2))
        for number in range(5):
            ledger.tell(BookCall(await reserve(ledger, f"k{number}", 10), "yes", 10 + number))
        ledger.tell(BookCall(await reserve(ledger, "k1", 10, intent="again", provider="birch"), "yes", 1))
        for number in (0, 2, 3, 4):
            with pytest.raises(AlreadyPaid) as already:
                await reserve(ledger, f"k{number}")
            assert already.value.paid == 10 + number
        with pytest.raises(AlreadyPaid) as already:
            await reserve(ledger, "k1")
        assert (already.value.paid, already.value.paid_to) == (12, "birch")
        assert len(made[0].book.paid_keys) == 2


async def test_a_key_that_was_paid_and_forgotten_while_somebody_waited_is_not_paid_again(tmp_path):
    async with ActorSystem("bank") as system:
        ledger, _ = spawn(system, tmp_path / "l.db", config=LedgerConfig(max_paid_keys=1))
        everything = await reserve(ledger, "all", 1_000)
        waiting = asyncio.create_task(reserve(ledger, "k", wait=True))
        await asyncio.sleep(0)
        for key in ("k", "another"):
            ledger.tell(BookCall(await reserve(ledger, key, accounts=("batch",)), "yes"))
        ledger.tell(BookCall(everything, "no"))
        with pytest.raises(AlreadyPaid):
            await waiting


async def test_what_was_paid_before_a_key_was_forgotten_counts_against_the_budget_of_its_request(tmp_path):
    """Also where the second payment is found out later, and where the journal is read back."""
    path, config = tmp_path / "l.db", LedgerConfig(max_paid_keys=1)
    async with ActorSystem("first") as system:
        ledger, _ = spawn(system, path, config=config)
        ledger.tell(BookCall(await reserve(ledger, "k"), "yes"))
        held = await reserve(ledger, "k", intent="again")
        ledger.tell(BookCall(held, "held"))
        ledger.tell(BookCall(await reserve(ledger, "another"), "yes"))
        await ledger.ask(Resolve(held.number, "yes"), timeout=1)
        with pytest.raises(BudgetExceeded):
            await reserve(ledger, "k", intent="again", budget=250)
    async with ActorSystem("second") as system:
        ledger, _ = spawn(system, path, config=config)
        with pytest.raises(BudgetExceeded):
            await reserve(ledger, "k", intent="again", budget=250)


# Written before it is answered.


async def test_an_answer_comes_after_its_entry_is_on_disk_and_many_share_one_commit(tmp_path):
    async with ActorSystem("bank") as system:
        ledger, made = spawn(system, tmp_path / "l.db")
        await figures(ledger)
        await asyncio.sleep(0)
        journal: Any = made[0].bookkeeper.commits.journal
        before = journal.commits
        tasks = [asyncio.create_task(reserve(ledger, f"k{number}", 10)) for number in range(50)]
        commit, seen = journal.commit, []

        def watched() -> None:
            seen.append([task.done() for task in tasks])
            commit()

        journal.commit = watched
        await asyncio.gather(*tasks)
        assert seen == [[False] * 50]
        assert journal.commits == before + 1
        assert not journal.has_unwritten


async def test_one_who_is_cancelled_before_the_entry_is_written_leaves_nothing_reserved(tmp_path):
    async with ActorSystem("bank") as system:
        ledger, _ = spawn(system, tmp_path / "l.db")
        await figures(ledger)
        for turns in range(5):
            task = asyncio.create_task(reserve(ledger, f"k{turns}"))
            for _ in range(turns):
                await asyncio.sleep(0)
            was_done = task.done()
            task.cancel()
            (outcome,) = await asyncio.gather(task, return_exceptions=True)
            if was_done:
                ledger.tell(BookCall(outcome, "no"))
            await asyncio.sleep(0)
            assert await figures(ledger) == (0, 0, 0)
    entries = entries_of(tmp_path / "l.db")
    assert len([one for one in entries if type(one).__name__ == "MoneyReserved"]) == len(
        [one for one in entries if type(one).__name__ == "MoneyReleased"]
    )


async def askers_who_are_cancelled_at_any_step(simulation: Simulation) -> None:
    dice, taken = simulation.random, 0
    async with ActorSystem("bank") as system:
        ledger = system.spawn(lambda: Ledger(accounts={"run": None, "batch": None}, journal=":memory:"))
        await figures(ledger)
        tasks = [asyncio.create_task(reserve(ledger, f"k{number}", 1)) for number in range(20)]
        for task in tasks:
            for _ in range(dice.randint(0, 2)):
                await asyncio.sleep(0)
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            taken += isinstance(outcome, Reservation)
        await asyncio.sleep(1)
        assert await figures(ledger) == (taken, 0, 0)


def test_an_asker_that_is_cancelled_while_its_entry_is_written_has_either_got_it_or_not():
    assert explore(askers_who_are_cancelled_at_any_step, seeds=range(100)).runs == 100


async def test_one_who_waits_for_money_is_answered_after_its_entry_is_written_too(tmp_path):
    async with ActorSystem("bank") as system:
        ledger, _ = spawn(system, tmp_path / "l.db")
        first = await reserve(ledger, "a", 1000)
        waiting = asyncio.create_task(reserve(ledger, "b", 600, wait=True))
        await asyncio.sleep(0.1)
        ledger.tell(BookCall(first, "no"))
        reservation = await waiting
        assert reservation.number in {getattr(one, "reservation", 0) for one in peek(tmp_path / "l.db")}
        ledger.tell(BookCall(reservation))


def peek(path: Path) -> list[Entry]:
    """Read what is on disk while the ledger has it open: a copy of both files, as a crash would leave them."""
    copy = path.with_name("copy.db")
    for suffix in ("", "-wal"):
        copy.with_name(copy.name + suffix).write_bytes(path.with_name(path.name + suffix).read_bytes())
    return entries_of(copy)


async def test_a_restart_of_the_actor_goes_on_by_the_journal_and_open_calls_settle_what_is_held(tmp_path):
    async with ActorSystem("bank") as system:
        ledger, made = spawn(system, tmp_path / "l.db")
        first, second = await reserve(ledger, "a"), await reserve(ledger, "b")
        cell: Any = ledger.recipient
        cell.failed(RuntimeError("made to crash"), None)
        await asyncio.sleep(10)
        assert len(made) == 2
        assert await figures(ledger) == (0, 200, 0)
        ledger.tell(BookCall(first, "yes", 60))
        ledger.tell(BookCall(second, "no"))
        assert await figures(ledger) == (0, 0, 60)
        assert list(made[1].broken_invariants()) == []


async def test_a_cap_that_was_lowered_stays_so_when_the_actor_restarts_and_not_when_the_program_does(tmp_path):
    for _ in range(2):
        async with ActorSystem("bank") as system:
            ledger, made = spawn(system, tmp_path / "l.db")
            assert await ledger.ask(OpenAccount(name="mine", cap=50), timeout=1) == "mine"
            caps = [(await ledger.ask(GetStatement(name), timeout=1)).cap for name in ("run", "mine")]
            assert caps == [1000, 50]
            for name in ("run", "mine"):
                await ledger.ask(SetCap(name, 5), timeout=1)
            cell: Any = ledger.recipient
            cell.failed(RuntimeError("made to crash"), None)
            await asyncio.sleep(10)
            assert len(made) == 2
            with pytest.raises(Permanent, match="is open already"):
                await ledger.ask(OpenAccount(name="mine", cap=50), timeout=1)
            caps = [(await ledger.ask(GetStatement(name), timeout=1)).cap for name in ("run", "mine")]
            assert caps == [5, 5]


@pytest.mark.parametrize(
    ("request_", "entry"),
    [
        (OpenAccount(name="new", cap=1), "AccountOpened"),
        (SetCap("run", 1), "CapChanged"),
        (CloseAccount(name="run"), "AccountClosed"),
    ],
)
async def test_what_is_answered_is_on_disk(tmp_path, request_: Any, entry: str):
    async with ActorSystem("bank") as system:
        ledger, made = spawn(system, tmp_path / "l.db")
        await figures(ledger)
        commits: Any = made[0].bookkeeper.commits.journal
        before = commits.commits
        await ledger.ask(request_, timeout=1)
        assert type(peek(tmp_path / "l.db")[-1]).__name__ == entry
        assert commits.commits == before + 1


async def test_an_account_whose_opener_goes_while_it_is_written_down_is_closed_again(tmp_path):
    async with ActorSystem("bank") as system:
        ledger, _ = spawn(system, tmp_path / "l.db")
        await figures(ledger)
        opening = asyncio.create_task(ledger.ask(OpenAccount(name="new", cap=1), timeout=1))
        await asyncio.sleep(0)
        opening.cancel()
        await asyncio.sleep(1)
        assert opening.cancelled()
        with pytest.raises(Permanent, match="there is no account 'new'"):
            await figures(ledger, "new")


async def test_a_cap_that_could_not_be_written_is_not_taken_for_one_that_was_set(tmp_path):
    async with ActorSystem("bank") as system:
        ledger, _ = spawn(system, tmp_path / "l.db")
        await ledger.ask(OpenAccount(name="mine", cap=1000), timeout=1)
    async with ActorSystem("bank") as system:
        ledger, made = spawn(system, tmp_path / "l.db")
        await figures(ledger)
        journal: Any = made[0].bookkeeper.commits.journal
        journal._file = FullDisk(journal._file)
        with pytest.raises(JournalFailed):
            await ledger.ask(OpenAccount(name="mine", cap=100), timeout=1)
        await asyncio.sleep(10)
        assert len(made) == 2
        assert await ledger.ask(OpenAccount(name="mine", cap=100), timeout=1) == "mine"
        assert (await ledger.ask(GetStatement("mine"), timeout=1)).cap == 100


async def test_an_account_that_was_closed_and_holds_money_still_does_not_keep_a_program_from_starting(tmp_path):
    for is_first in (True, False):
        async with ActorSystem("bank") as system:
            ledger, made = spawn(system, tmp_path / "l.db")
            if is_first:
                ledger.tell(BookCall(await reserve(ledger, "a"), "held"))
                await ledger.ask(CloseAccount(name="batch"), timeout=1)
                cell: Any = ledger.recipient
                cell.failed(RuntimeError("made to crash"), None)
                await asyncio.sleep(10)
                assert len(made) == 2
            (held,) = await ledger.ask(GetHeld(), timeout=1)
            with pytest.raises(Permanent, match="account 'batch'"):
                await reserve(ledger, "b")
    assert held.key == "a"


async def test_who_closes_an_account_is_told_what_was_written(tmp_path):
    async with ActorSystem("bank") as system:
        ledger, made = spawn(system, tmp_path / "l.db")
        first = await reserve(ledger, "a")
        closing = asyncio.create_task(ledger.ask(CloseAccount(name="batch"), timeout=5))
        await asyncio.sleep(0.1)
        journal: Any = made[0].bookkeeper.commits.journal
        journal._file = FullDisk(journal._file)
        ledger.tell(BookCall(first))
        with pytest.raises(JournalFailed):
            await closing
        await asyncio.sleep(10)
        assert await figures(ledger) == (0, 100, 0)


class FullDisk:
    """Stands for the file once nothing can be written to it any more."""

    def __init__(self, file: Any) -> None:
        self.file = file

    def execute(self, *args: Any) -> Any:
        if args[0] == "COMMIT":
            self.file.execute("ROLLBACK")
            raise sqlite3.OperationalError("database or disk is full")
        return self.file.execute(*args)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


async def test_what_cannot_be_written_is_not_allowed_and_the_ledger_begins_anew_by_what_could(tmp_path):
    failures: list[ActorFailed] = []
    async with ActorSystem("bank") as system:
        system.events.subscribe(ActorFailed, failures.append)
        ledger, made = spawn(system, tmp_path / "l.db")
        first = await reserve(ledger, "a")
        journal: Any = made[0].bookkeeper.commits.journal
        journal._file = FullDisk(journal._file)
        outcomes = await asyncio.gather(*(reserve(ledger, key) for key in "bc"), return_exceptions=True)
        assert [type(one) for one in outcomes] == [JournalFailed] * 2
        await asyncio.sleep(10)
        assert len(made) == 2
        assert isinstance(failures[0].error, JournalError)
        ledger.tell(BookCall(first))
        ledger.tell(BookCall(await reserve(ledger, "b")))
        assert await figures(ledger) == (0, 0, 200)


async def test_a_booking_that_cannot_be_written_makes_the_ledger_begin_anew_and_is_held(tmp_path):
    async with ActorSystem("bank") as system:
        ledger, made = spawn(system, tmp_path / "l.db")
        first = await reserve(ledger, "a")
        journal: Any = made[0].bookkeeper.commits.journal
        journal._file = FullDisk(journal._file)
        ledger.tell(BookCall(first))
        await asyncio.sleep(10)
        assert len(made) == 2
        assert [one.key for one in await ledger.ask(GetHeld(), timeout=1)] == ["a"]
        assert {type(one).__name__ for one in peek(tmp_path / "l.db")} == {
            "AccountOpened",
            "MoneyReserved",
            "MoneyHeld",
        }


# Files that cannot be relied on.


def filled(path: Path, count: int = 60) -> list[Entry]:
    journal = Journal(path)
    list(journal.read())
    made: list[Entry] = [AccountOpened(account=f"account {number}", cap=number, at=1.0) for number in range(count)]
    for start in range(0, count, 7):
        for entry in made[start : start + 7]:
            journal.append(entry)
        journal.commit()
    journal.close()
    return made


def test_what_is_written_is_read_back(tmp_path):
    made = filled(tmp_path / "l.db")
    assert entries_of(tmp_path / "l.db") == made


def test_what_was_not_committed_was_never_written(tmp_path):
    made = filled(tmp_path / "l.db")
    journal = Journal(tmp_path / "l.db")
    list(journal.read())
    journal.append(AccountOpened(account="lost", cap=1, at=1.0))
    assert repr(journal).endswith(f"{len(made) + 1} entries, 1 unwritten>")
    journal.close()
    assert entries_of(tmp_path / "l.db") == made


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        ("UPDATE entries SET entry = replace(entry, '\"cap\":30', '\"cap\":31')", "damaged at entry 31"),
        ("DELETE FROM entries WHERE number = 30", "damaged at entry 30"),
        ("UPDATE entries SET entry = '{}' WHERE number = 3", "damaged at entry 3"),
        ("PRAGMA application_id = 7", "is a database of something else"),
        ("PRAGMA user_version = 9", "is of format 9, and this program reads 1"),
    ],
)
def test_a_journal_that_somebody_has_changed_is_refused(tmp_path, damage: str, problem: str):
    filled(tmp_path / "l.db")
    with sqlite3.connect(tmp_path / "l.db") as file:
        file.execute(damage)
    file.close()
    with pytest.raises(JournalError, match=problem):
        entries_of(tmp_path / "l.db")


def test_a_file_of_somebody_else_and_a_directory_that_does_not_exist_are_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("These are notes, " * 100)
    with pytest.raises(JournalError, match="not a database"):
        Journal(tmp_path / "notes.txt")
    with pytest.raises(JournalError, match="see that its directory exists"):
        Journal(tmp_path / "nowhere" / "l.db")
    file = sqlite3.connect(tmp_path / "other.db")
    file.execute("CREATE TABLE t (x)")
    file.close()
    with pytest.raises(JournalError, match="something else"):
        Journal(tmp_path / "other.db")


def test_a_journal_belongs_to_one_ledger_at_a_time(tmp_path):
    journal = Journal(tmp_path / "l.db")
    with pytest.raises(JournalError, match="in use by another ledger"):
        Journal(tmp_path / "l.db")
    journal.close()
    Journal(tmp_path / "l.db").close()


def test_a_journal_that_lost_its_beginning_is_refused_and_an_empty_file_is_a_new_one(tmp_path):
    path = tmp_path / "l.db"
    path.touch()
    assert entries_of(path) == []
    path.write_bytes(b"")
    path.with_name("l.db-wal").write_bytes(b"x" * 100)
    with pytest.raises(JournalError, match="is empty, though entries were written"):
        Journal(path)


async def test_others_have_their_turns_while_a_long_journal_is_read(tmp_path):
    filled(tmp_path / "l.db", 20 * SLICE)
    turns = 0

    async def neighbour() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with ActorSystem("bank") as system:
        other = asyncio.create_task(neighbour())
        ledger, _ = spawn(system, tmp_path / "l.db")
        assert (await ledger.ask(GetStatement(f"account {20 * SLICE - 1}"), timeout=1.0)).cap == 20 * SLICE - 1
        assert turns >= 20
        other.cancel()


@pytest.mark.parametrize("ending", ["stop", "kill"])
async def test_a_ledger_that_ends_while_it_reads_its_journal_lets_go_of_it(tmp_path, ending: str):
    made = filled(tmp_path / "l.db", 20 * SLICE)
    async with ActorSystem("bank") as system:
        ledger, _ = spawn(system, tmp_path / "l.db")
        for _ in range(5):
            await asyncio.sleep(0)
        with pytest.raises(JournalError, match="in use by another ledger"):
            Journal(tmp_path / "l.db")
        getattr(ledger, ending)()
        await asyncio.sleep(1)
        assert entries_of(tmp_path / "l.db")[: len(made)] == made


async def test_a_journal_that_does_not_add_up_ends_the_system_with_an_error_that_says_so(tmp_path):
    journal = Journal(tmp_path / "l.db")
    for _ in range(2):
        journal.append(AccountOpened(account="run", cap=1, at=1.0))
    journal.commit()
    journal.close()

    async def run() -> None:
        async with ActorSystem("bank") as system:
            spawn(system, tmp_path / "l.db")
            await asyncio.sleep(1000)

    with pytest.raises(JournalError, match="does not add up: it opens an account that is open"):
        await run()


def crashed_files(path: Path) -> tuple[bytes, bytes, list[Entry]]:
    """Return the two files of a journal whose program was killed, and what it had written."""
    journal = Journal(path)
    list(journal.read())
    made: list[Entry] = [AccountOpened(account=f"account {number}", cap=number, at=1.0) for number in range(120)]
    for entry in made:
        journal.append(entry)
        journal.commit()
    files = path.read_bytes(), path.with_name(path.name + "-wal").read_bytes()
    journal.close()
    return (*files, made)


@pytest.fixture(scope="module")
def crashed(tmp_path_factory) -> tuple[bytes, bytes, list[Entry]]:
    return crashed_files(tmp_path_factory.mktemp("crashed") / "l.db")


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), cut=st.booleans(), in_log=st.booleans())
def test_whatever_is_cut_off_or_flipped_a_journal_is_read_as_far_as_it_is_whole_or_refused(
    crashed,
    tmp_path,
    where: float,
    bit: int,
    cut: bool,  # noqa: FBT001
    in_log: bool,  # noqa: FBT001
):
    main, log, made = crashed
    content = bytearray(log if in_log else main)
    place = int(where * len(content))
    if cut:
        del content[place:]
    else:
        content[place] ^= 1 << bit
    path = tmp_path / "l.db"
    path.write_bytes(main if in_log else content)
    path.with_name("l.db-wal").write_bytes(content if in_log else log)
    try:
        found = entries_of(path)
    except JournalError:
        return
    assert found == made[: len(found)]


# Killed in the middle of it.


@pytest.mark.slow
@pytest.mark.real_time
@pytest.mark.parametrize("after", [1, 40, 400, 2500])
def test_a_process_that_is_killed_has_on_disk_whatever_it_was_answered(tmp_path, after: int):
    path = tmp_path / "l.db"
    environment = {**os.environ, "PYTHONPATH": str(PROGRAM.parents[3])}
    with subprocess.Popen([sys.executable, PROGRAM, path], stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        answered, booked = set[int](), set[int]()
        for line in process.stdout:
            what, number = line.split()
            (answered if what == b"answered" else booked).add(int(number))
            if len(answered) == after:
                os.kill(process.pid, signal.SIGKILL)
        # What it said before it died counts too; a line that was cut off does not.
    assert process.returncode == -signal.SIGKILL
    entries = entries_of(path)
    reserved = {one.reservation for one in entries if type(one).__name__ == "MoneyReserved"}
    assert answered <= reserved
    assert len(answered) >= after

    async def go_on() -> None:
        async with ActorSystem("again") as system:
            made: list[Ledger] = []

            def make() -> Ledger:
                made.append(Ledger(journal=path))
                return made[-1]

            ledger = system.spawn(make)
            held = await ledger.ask(GetHeld(), timeout=5)
            settled = {one.reservation for one in entries if type(one).__name__ == "MoneySettled"}
            assert {one.reservation for one in held} == reserved - settled
            assert list(made[0].broken_invariants()) == []

    asyncio.run(go_on())


# In a simulation.


async def a_ledger_with_a_journal(simulation: Simulation, path: Callable[[], str]) -> None:
    async with ActorSystem("bank") as system:
        ledger = system.spawn(lambda: Ledger(accounts=ACCOUNTS, journal=path()), name="ledger")

        async def worker(number: int) -> None:
            for _ in range(3):
                try:
                    reservation = await reserve(ledger, f"{number}/{simulation.random.random()}", wait=True)
                except BudgetExceeded:
                    return
                await asyncio.sleep(simulation.random.random())
                ledger.tell(BookCall(reservation, simulation.random.choice(["yes", "no", "held"])))

        await asyncio.gather(*(worker(number) for number in range(20)))
        await asyncio.sleep(1)
        reserved, held, settled = await figures(ledger)
        assert reserved == 0
        assert held + settled <= 1000


def test_a_journal_works_in_virtual_time(tmp_path):
    in_memory = explore(
        lambda simulation: a_ledger_with_a_journal(simulation, lambda: ":memory:"), seeds=range(20), processes=1
    )
    assert in_memory.runs == 20

    async def on_disk(simulation: Simulation) -> None:
        await a_ledger_with_a_journal(simulation, lambda: str(tmp_path / f"{simulation.seed}.db"))

    digests = []
    for _ in range(2):
        digests.append(Simulation(7).run(on_disk).digest)
        for file in tmp_path.iterdir():
            file.unlink()
    assert digests[0] == digests[1]
