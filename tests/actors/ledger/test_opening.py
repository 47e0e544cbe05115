"""Recovering from a journal, and opening accounts or taking them over."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from actors.errors.families import BudgetExceeded, Permanent
from actors.ledger.config import LedgerConfig
from actors.ledger.entries import AccountOpened, CapChanged
from actors.ledger.errors import AlreadyPaid, StillUnsettled
from actors.ledger.journal import MoneyJournal
from actors.ledger.messages import BookCall, CloseAccount, GetHeld, GetStatement, OpenAccount, Resolve, SetCap
from actors.ledger.opening import SLICE
from actors.money import Micros
from runtime import ActorSystem
from runtime.persistence import JournalError
from tests.actors.ledger.bank import money
from tests.actors.ledger.journalled import entries_of, figures, filled, reserve, spawn


async def test_accounts_are_opened_closed_and_stated():
    async with money() as bank:
        name = await bank.ref.ask(OpenAccount(cap=Micros(100)), timeout=1)
        assert await bank.ref.ask(OpenAccount(name="batch"), timeout=1) == "batch"
        with pytest.raises(Permanent, match="open already"):
            await bank.ref.ask(OpenAccount(name="batch"), timeout=1)
        with pytest.raises(TypeError, match=r"cap: amount 0\.5 is a float"):
            OpenAccount(cap=0.5)  # type: ignore[arg-type]
        bank.tell(await bank.reserve("k", 60, accounts=(name, "batch")), "yes", 50)
        account = await bank.ref.ask(CloseAccount(name=name), timeout=1)
        assert (account.name, account.cap, account.settled) == (name, 100, 50)
        with pytest.raises(Permanent):
            await bank.ref.ask(GetStatement(name), timeout=1)
        with pytest.raises(Permanent, match="no open account"):
            await bank.ref.ask(CloseAccount(name=name), timeout=1)


async def test_a_program_that_starts_again_knows_its_accounts_its_keys_and_what_was_open(tmp_path):
    path = tmp_path / "ledger.db"
    async with ActorSystem("first") as system:
        ledger, _ = spawn(system, path)
        await ledger.ask(OpenAccount(name="mine", cap=Micros(500)), timeout=1)
        paid, held, free, _left = [await reserve(ledger, key) for key in ("paid", "held", "free", "open")]
        ledger.tell(BookCall(paid, "yes", Micros(70)))
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
        ledger.tell(BookCall(await reserve(ledger, "open", intent="repeat"), "yes", Micros(90)))
        new = await reserve(ledger, "free")
        assert new.number > max(one.number for one in (paid, held, free))
        ledger.tell(BookCall(new, "no"))
        assert await ledger.ask(OpenAccount(name="mine", cap=Micros(600)), timeout=1) == "mine", "taken over"
        assert (await ledger.ask(GetStatement("mine"), timeout=1)).cap == 600
        await ledger.ask(Resolve(held.number, "yes", Micros(10)), timeout=1)
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


async def test_an_account_that_was_taken_over_for_an_asker_that_gave_up_can_still_be_taken_over(tmp_path):
    path = tmp_path / "ledger.db"
    async with ActorSystem("first") as system:
        ledger, _ = spawn(system, path)
        await ledger.ask(OpenAccount(name="mine", cap=Micros(500)), timeout=1)
        ledger.tell(BookCall(await reserve(ledger, "k", accounts=("mine",))))
        await figures(ledger)
    async with ActorSystem("second") as system:
        ledger, _ = spawn(system, path)
        ledger.tell(OpenAccount(name="mine", cap=Micros(500)))
        await asyncio.sleep(0.1)
        assert await ledger.ask(OpenAccount(name="mine", cap=Micros(500)), timeout=1) == "mine"
        assert await figures(ledger, "mine") == (0, 0, 100)


async def test_an_account_that_was_closed_is_gone_in_the_next_run_and_one_with_held_money_is_not(tmp_path):
    path = tmp_path / "ledger.db"
    async with ActorSystem("first") as system:
        ledger, _ = spawn(system, path)
        for name in ("gone", "left"):
            await ledger.ask(OpenAccount(name=name, cap=Micros(500)), timeout=1)
        ledger.tell(BookCall(await reserve(ledger, "a", accounts=("gone",))))
        left = await reserve(ledger, "b", accounts=("left",))
        ledger.tell(BookCall(left, "held"))
        for name in ("gone", "left"):
            await ledger.ask(CloseAccount(name=name), timeout=1)
    async with ActorSystem("second") as system:
        ledger, made = spawn(system, path)
        await ledger.ask(Resolve(left.number, "yes", Micros(1)), timeout=1)
        assert await figures(ledger, None) == (0, 0, 101)
        assert made[0].book.open_accounts() == ["run", "batch"]


async def test_a_key_that_memory_has_forgotten_is_known_to_the_journal(tmp_path):
    async with ActorSystem("bank") as system:
        ledger, made = spawn(system, tmp_path / "l.db", config=LedgerConfig(max_paid_keys=2))
        for number in range(5):
            ledger.tell(BookCall(await reserve(ledger, f"k{number}", 10), "yes", Micros(10 + number)))
        ledger.tell(BookCall(await reserve(ledger, "k1", 10, intent="again", provider="birch"), "yes", Micros(1)))
        for number in (0, 2, 3, 4):
            with pytest.raises(AlreadyPaid) as already:
                await reserve(ledger, f"k{number}")
            assert already.value.paid == 10 + number
        with pytest.raises(AlreadyPaid) as already:
            await reserve(ledger, "k1")
        assert (already.value.paid, already.value.paid_to) == (12, "birch")
        assert len(made[0].book.paid_keys) == 2


async def test_a_key_that_was_paid_and_forgotten_while_a_request_waited_is_not_paid_again(tmp_path):
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
            await reserve(ledger, "k", intent="again", budget=Micros(250))
    async with ActorSystem("second") as system:
        ledger, _ = spawn(system, path, config=config)
        with pytest.raises(BudgetExceeded):
            await reserve(ledger, "k", intent="again", budget=Micros(250))


async def test_a_restart_of_the_actor_goes_on_by_the_journal_and_open_calls_settle_what_is_held(tmp_path):
    async with ActorSystem("bank") as system:
        ledger, made = spawn(system, tmp_path / "l.db")
        first, second = await reserve(ledger, "a"), await reserve(ledger, "b")
        cell: Any = ledger.recipient
        cell.failed(RuntimeError("made to crash"), None)
        await asyncio.sleep(10)
        assert len(made) == 2
        assert await figures(ledger) == (0, 200, 0)
        ledger.tell(BookCall(first, "yes", Micros(60)))
        ledger.tell(BookCall(second, "no"))
        assert await figures(ledger) == (0, 0, 60)
        assert list(made[1].broken_invariants()) == []


async def test_a_cap_that_was_lowered_stays_so_when_the_actor_restarts_and_not_when_the_program_does(tmp_path):
    for _ in range(2):
        async with ActorSystem("bank") as system:
            ledger, made = spawn(system, tmp_path / "l.db")
            assert await ledger.ask(OpenAccount(name="mine", cap=Micros(50)), timeout=1) == "mine"
            caps = [(await ledger.ask(GetStatement(name), timeout=1)).cap for name in ("run", "mine")]
            assert caps == [1000, 50]
            for name in ("run", "mine"):
                await ledger.ask(SetCap(name, Micros(5)), timeout=1)
            cell: Any = ledger.recipient
            cell.failed(RuntimeError("made to crash"), None)
            await asyncio.sleep(10)
            assert len(made) == 2
            with pytest.raises(Permanent, match="is open already"):
                await ledger.ask(OpenAccount(name="mine", cap=Micros(50)), timeout=1)
            caps = [(await ledger.ask(GetStatement(name), timeout=1)).cap for name in ("run", "mine")]
            assert caps == [5, 5]


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
        with pytest.raises(JournalError, match="in use by process"):
            MoneyJournal(tmp_path / "l.db")
        getattr(ledger, ending)()
        await asyncio.sleep(1)
        assert entries_of(tmp_path / "l.db")[: len(made)] == made


async def test_a_journal_that_does_not_add_up_ends_the_system_with_an_error_that_says_so(tmp_path):
    journal = MoneyJournal(tmp_path / "l.db")
    for _ in range(2):
        journal.append(AccountOpened(account="run", cap=Micros(1), at=1.0))
    journal.commit()
    journal.close()

    async def run() -> None:
        async with ActorSystem("bank") as system:
            spawn(system, tmp_path / "l.db")
            await asyncio.sleep(1000)

    with pytest.raises(JournalError, match="does not add up: it opens an account that is open"):
        await run()
