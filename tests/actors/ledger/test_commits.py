"""What was answered is on disk, and what cannot be written is not answered."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from actors.errors.families import BudgetExceeded, Permanent
from actors.ledger.config import LedgerConfig
from actors.ledger.errors import JournalDown, JournalFailed
from actors.ledger.ledger import Ledger
from actors.ledger.messages import BookCall, CloseAccount, GetHeld, OpenAccount, Reservation, SetCap
from actors.money import Micros
from runtime import ActorFailed, ActorSystem
from runtime.persistence import SqliteJournal
from runtime.simulation import Simulation, explore
from tests.actors.ledger.journalled import (
    ACCOUNTS,
    FullDisk,
    entries_of,
    figures,
    fill_disk,
    peek,
    reserve,
    spawn,
    store_of,
)
from tests.proofs import repeated

if TYPE_CHECKING:
    from collections.abc import Callable


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


async def test_an_answer_comes_after_its_entry_is_on_disk_and_many_share_one_commit(tmp_path):
    async with ActorSystem("bank") as system:
        ledger, made = spawn(system, tmp_path / "l.db")
        await figures(ledger)
        await asyncio.sleep(0)
        journal = store_of(made[0])
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


async def test_an_asker_that_is_cancelled_before_the_entry_is_written_leaves_nothing_reserved(tmp_path):
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


async def askers_that_are_cancelled_at_any_step(simulation: Simulation) -> None:
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
    assert explore(askers_that_are_cancelled_at_any_step, seeds=range(repeated(100))).runs == repeated(100)


async def test_a_request_that_waits_for_money_is_answered_after_its_entry_is_written_too(tmp_path):
    async with ActorSystem("bank") as system:
        ledger, _ = spawn(system, tmp_path / "l.db")
        first = await reserve(ledger, "a", 1000)
        waiting = asyncio.create_task(reserve(ledger, "b", 600, wait=True))
        await asyncio.sleep(0.1)
        ledger.tell(BookCall(first, "no"))
        reservation = await waiting
        assert reservation.number in {getattr(one, "reservation", 0) for one in peek(tmp_path / "l.db")}
        ledger.tell(BookCall(reservation))


@pytest.mark.parametrize(
    ("request_", "entry"),
    [
        (OpenAccount(name="new", cap=Micros(1)), "AccountOpened"),
        (SetCap("run", Micros(1)), "CapChanged"),
        (CloseAccount(name="run"), "AccountClosed"),
    ],
)
async def test_what_is_answered_is_on_disk(tmp_path, request_: Any, entry: str):
    async with ActorSystem("bank") as system:
        ledger, made = spawn(system, tmp_path / "l.db")
        await figures(ledger)
        store = store_of(made[0])
        before = store.commits
        await ledger.ask(request_, timeout=1)
        assert type(peek(tmp_path / "l.db")[-1]).__name__ == entry
        assert store.commits == before + 1


async def test_an_account_whose_asker_gives_up_while_it_is_written_is_closed_again(tmp_path):
    async with ActorSystem("bank") as system:
        ledger, _ = spawn(system, tmp_path / "l.db")
        await figures(ledger)
        opening = asyncio.create_task(ledger.ask(OpenAccount(name="new", cap=Micros(1)), timeout=1))
        await asyncio.sleep(0)
        opening.cancel()
        await asyncio.sleep(1)
        assert opening.cancelled()
        with pytest.raises(Permanent, match="there is no account 'new'"):
            await figures(ledger, "new")


async def test_a_cap_that_cannot_be_written_is_answered_once_it_is(tmp_path):
    async with ActorSystem("bank") as system:
        ledger, made = spawn(system, tmp_path / "l.db")
        await figures(ledger)
        disk = fill_disk(made[0])
        asking = asyncio.create_task(ledger.ask(SetCap("run", Micros(100)), timeout=100))
        await asyncio.sleep(10)
        assert not asking.done()
        assert not [one for one in peek(tmp_path / "l.db") if type(one).__name__ == "CapChanged"]
        disk.is_full = False
        assert (await asking).cap == 100
        assert [one.cap for one in peek(tmp_path / "l.db") if type(one).__name__ == "CapChanged"] == [100]  # type: ignore[union-attr]
        assert len(made) == 1


async def test_closing_an_account_is_answered_once_it_is_written(tmp_path):
    async with ActorSystem("bank") as system:
        ledger, made = spawn(system, tmp_path / "l.db")
        first = await reserve(ledger, "a")
        closing = asyncio.create_task(ledger.ask(CloseAccount(name="batch"), timeout=50))
        await asyncio.sleep(0.1)
        disk = fill_disk(made[0])
        ledger.tell(BookCall(first))
        await asyncio.sleep(10)
        assert not closing.done()
        disk.is_full = False
        assert (await closing).settled == 100


async def test_what_cannot_be_written_is_not_allowed_and_nothing_is_paid_until_something_can(tmp_path):
    failures: list[ActorFailed] = []
    path = tmp_path / "l.db"
    async with ActorSystem("bank") as system:
        system.events.subscribe(ActorFailed, failures.append)
        ledger, made = spawn(system, path)
        first = await reserve(ledger, "a")
        disk = fill_disk(made[0])
        opening = ledger.ask(OpenAccount(name="new", cap=Micros(1)), timeout=1)
        outcomes = await asyncio.gather(*(reserve(ledger, key) for key in "bc"), opening, return_exceptions=True)
        assert [type(one) for one in outcomes] == [JournalFailed] * 3
        assert await figures(ledger) == (100, 0, 0)
        with pytest.raises(Permanent, match="there is no account 'new'"):
            await figures(ledger, "new")
        for _ in range(5):
            await asyncio.sleep(7)
            with pytest.raises(JournalDown, match="nothing is paid until it can be written"):
                await reserve(ledger, "d")
        ledger.tell(BookCall(first, "yes", Micros(60)))
        assert await figures(ledger) == (0, 0, 60)
        assert {type(one).__name__ for one in peek(path)} == {"AccountOpened", "MoneyReserved"}
        disk.is_full = False
        await asyncio.sleep(1.1)
        ledger.tell(BookCall(await reserve(ledger, "b")))
        assert await figures(ledger) == (0, 0, 160)
        assert [one.key for one in peek(path) if type(one).__name__ == "MoneySettled"][:1] == ["a"]  # type: ignore[union-attr]
    assert (failures, len(made)) == ([], 1)
    async with ActorSystem("bank") as system:
        ledger, made = spawn(system, path)
        assert await figures(ledger) == (0, 0, 160)
        assert list(made[0].broken_invariants()) == []


async def test_what_was_not_written_when_the_program_ended_is_held_at_the_next_start(tmp_path):
    path = tmp_path / "l.db"
    async with ActorSystem("bank") as system:
        ledger, made = spawn(system, path)
        first = await reserve(ledger, "a")
        fill_disk(made[0])
        ledger.tell(BookCall(first))
        await asyncio.sleep(10)
    async with ActorSystem("bank") as system:
        ledger, made = spawn(system, path)
        assert [one.key for one in await ledger.ask(GetHeld(), timeout=1)] == ["a"]
        assert {type(one).__name__ for one in peek(path)} == {"AccountOpened", "MoneyReserved", "MoneyHeld"}


async def test_nothing_is_paid_while_the_disk_might_not_take_the_answers_of_calls_under_way(tmp_path, monkeypatch):
    free = 64_000_000 + 3_100_000

    monkeypatch.setattr(SqliteJournal, "free_bytes", lambda _: free)
    async with ActorSystem("bank") as system:
        ledger, made = spawn(system, tmp_path / "l.db")
        await figures(ledger)
        store_of(made[0]).put("shop", "order", b"head", b"x" * 1_000_000, at=1.0)
        calls = [await reserve(ledger, f"k{number}", 1) for number in range(4)]
        with pytest.raises(JournalDown, match="has only 67 MB left on its disk"):
            await reserve(ledger, "one more", 1)
        ledger.tell(BookCall(calls[0]))
        await reserve(ledger, "one more", 1)
        free = 63_000_000
        await asyncio.sleep(2)
        ledger.tell(BookCall(calls[1]))
        with pytest.raises(JournalDown, match="has only 63 MB left"):
            await reserve(ledger, "and more", 1)
        free = 10**12
        await asyncio.sleep(2)
        await reserve(ledger, "and more", 1)


async def test_a_ledger_whose_disk_is_full_at_its_start_is_there_and_pays_nothing(tmp_path, monkeypatch):
    path = tmp_path / "l.db"
    async with ActorSystem("bank") as system:
        ledger, _ = spawn(system, path)
        await reserve(ledger, "a")
    full: list[FullDisk] = []
    connect = SqliteJournal._connect

    def to_full_disk(journal: Any) -> Any:
        full.append(FullDisk(connect(journal)))
        full[-1].is_full = False
        return full[-1]

    monkeypatch.setattr(SqliteJournal, "_connect", to_full_disk)
    async with ActorSystem("bank") as system:
        ledger, _ = spawn(system, path)
        for _ in range(20):
            if not full:
                await asyncio.sleep(0)
        full[0].is_full = True
        await asyncio.sleep(5)
        assert await figures(ledger) == (0, 100, 0)
        with pytest.raises(JournalDown):
            await reserve(ledger, "b")
        full[0].is_full = False
        await asyncio.sleep(1.1)
        await reserve(ledger, "b")


PROGRAM = Path(__file__).with_name("ledger_program.py")


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
        # What it printed before it was killed counts too; a line that was cut off does not.
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


async def test_what_is_paid_under_a_key_adds_up_whether_the_book_has_all_of_it_or_not(tmp_path):
    for keys in (100_000, 1):
        async with ActorSystem("bank") as system:
            ledger, made = spawn(system, tmp_path / f"{keys}.db", config=LedgerConfig(max_paid_keys=keys))
            for cost, key in ((10, "a"), (20, "b"), (30, "a"), (0, "c"), (40, "a"), (50, "b")):
                call = await reserve(ledger, key, cost, intent="again")
                ledger.tell(BookCall(call, "yes", Micros(cost)))
            await figures(ledger)
            commits = made[0].bookkeeper.commits
            assert commits is not None
            paid = [commits.journal.paid(key) for key in "abc"]
            assert paid == [(80, "alder"), (70, "alder"), None]
