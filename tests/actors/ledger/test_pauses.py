"""Accounts that are paused: nothing draws on them, whatever becomes of their caps, until they are resumed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from actors.errors.families import BudgetExceeded, Permanent
from actors.ledger.book import Book
from actors.ledger.entries import AccountPaused, AccountResumed
from actors.ledger.ledger import Ledger
from actors.ledger.messages import (
    AnswerQuestion,
    BookCall,
    GetStatement,
    OpenAccount,
    PauseAccount,
    Reserve,
    ResumeAccount,
    SetCap,
)
from runtime import ActorSystem
from tests.actors.ledger.clock import Clock
from tests.actors.ledger.journalled import entries_of

if TYPE_CHECKING:
    from pathlib import Path

    from runtime import ActorRef

DAY = 86_400.0


async def buy(ledger: ActorRef[Any], key: str, *, account: str = "a", amount: str = "1", wait: bool = False) -> None:
    wish = Reserve(key=key, provider="alder", amount=amount, accounts=(account,), wait=wait)
    ledger.tell(BookCall(await ledger.ask(wish, timeout=60.0)))


async def refused(ledger: ActorRef[Any], key: str, **terms: Any) -> str:
    with pytest.raises(BudgetExceeded) as refusal:
        await buy(ledger, key, **terms)
    assert (refusal.value.is_paused, refusal.value.may_free_up, refusal.value.retry_after) == (True, False, None)
    return str(refusal.value)


@pytest.mark.parametrize("cap", [None, "5", "5/day", "5/day rolling"])
async def test_nothing_draws_on_it_and_its_owner_is_not_asked(cap: str | None):
    asked: list[Any] = []

    async def owner(*question: Any) -> None:
        asked.append(question)

    async with ActorSystem("shop", log=False) as system:
        ledger = system.spawn(lambda: Ledger(accounts={"a": cap}, on_exhausted=owner))
        await ledger.ask(OpenAccount(name="below", parent="a"), timeout=1.0)
        await buy(ledger, "before")
        for _ in range(2):
            paused = await ledger.ask(PauseAccount("a"), timeout=1.0)
        assert (paused.is_paused, paused.settled) == (True, 1_000_000)
        for account in ("a", "below"):
            said = await refused(ledger, "k", account=account, wait=True)
            assert "account 'a' is paused, so that no call draws on it; resume it" in said
        assert not asked
        resumed = await ledger.ask(ResumeAccount("a"), timeout=1.0)
        assert (resumed.is_paused, str(resumed.cap)) == (False, "None" if cap is None else "$5.00")
        await buy(ledger, "k", account="below")
        with pytest.raises(Permanent, match="no open account 'b'"):
            await ledger.ask(PauseAccount("b"), timeout=1.0)


async def test_what_waits_for_money_is_refused_at_once_and_a_call_under_way_ends_as_it_began():
    async with ActorSystem("shop", log=False) as system:
        ledger = system.spawn(lambda: Ledger(accounts={"a": "1"}))
        wish = Reserve(key="under way", provider="alder", amount="1", accounts=("a",))
        reservation = await ledger.ask(wish, timeout=1.0)
        waiting = asyncio.create_task(refused(ledger, "waits", wait=True))
        await asyncio.sleep(1.0)
        await ledger.ask(PauseAccount("a"), timeout=1.0)
        assert "is paused" in await waiting
        ledger.tell(BookCall(reservation))
        assert (await ledger.ask(GetStatement("a"), timeout=1.0)).settled == 1_000_000


async def test_a_cap_that_was_raised_for_a_period_is_not_made_to_last(monkeypatch: pytest.MonkeyPatch):
    clock = Clock(monkeypatch)

    async def owner(*_: Any) -> str:
        return "8"

    async with ActorSystem("shop", log=False) as system:
        ledger = system.spawn(lambda: Ledger(accounts={"a": "1/day"}, on_exhausted=owner))
        await buy(ledger, "k", amount="2")
        await ledger.ask(PauseAccount("a"), timeout=1.0)
        assert str((await ledger.ask(ResumeAccount("a"), timeout=1.0)).cap) == "$8.00"
        await buy(ledger, "l", amount="6")
        clock.ahead += DAY
        await buy(ledger, "m", amount="1")
        assert str((await ledger.ask(GetStatement("a"), timeout=1.0)).cap) == "$1.00"


async def test_it_outlives_restarts_other_caps_snapshots_and_a_question_of_before(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    async def never(*_: Any) -> None:
        await asyncio.sleep(1e6)

    monkeypatch.setattr("actors.ledger.commits.MIN_UNSAVED", 1)
    for number in range(3):
        async with ActorSystem("shop", log=False) as system:
            caps = {"a": f"{number + 1}", "b": "1/day"}
            ledger = system.spawn(lambda caps=caps: Ledger(accounts=caps, journal=tmp_path / "j", on_exhausted=never))
            if not number:
                asking = asyncio.create_task(refused(ledger, "k", amount="2"))
                await asyncio.sleep(0.1)
                for name in caps:
                    await ledger.ask(PauseAccount(name), timeout=5.0)
                await asking
            statement = await ledger.ask(GetStatement("a"), timeout=5.0)
            assert (str(statement.cap), statement.is_paused) == (f"${number + 1}.00", True)
            for name in caps:
                await refused(ledger, f"{number}", account=name)
            await ledger.ask(SetCap("b", "2"), timeout=5.0)
    async with ActorSystem("shop", log=False) as system:
        ledger = system.spawn(lambda: Ledger(accounts={"a": "3", "b": "2/day"}, journal=tmp_path / "j"))
        for name in ("a", "b"):
            await ledger.ask(ResumeAccount(name), timeout=5.0)
            await buy(ledger, name, account=name)
    facts = [type(one) for one in entries_of(tmp_path / "j") if isinstance(one, AccountPaused | AccountResumed)]
    assert facts[-2:] == [AccountResumed] * 2


async def test_a_ledger_that_crashes_keeps_it_and_an_answer_does_not_end_it():
    async def never(*_: Any) -> None:
        await asyncio.sleep(1e6)

    book = Book()
    async with ActorSystem("shop", log=False) as system:
        ledger = system.spawn(lambda: Ledger(accounts={"a": "1"}, book=book, on_exhausted=never))
        asking = asyncio.create_task(refused(ledger, "k", amount="2"))
        await asyncio.sleep(0.1)
        question = (await ledger.ask(GetStatement("a"), timeout=1.0)).question
        await ledger.ask(PauseAccount("a"), timeout=1.0)
        await asking
        system.restart(ledger.path)
        await asyncio.sleep(1.0)
        answered = await ledger.ask(AnswerQuestion(question=question, cap="5"), timeout=1.0)
        assert (str(answered.cap), answered.is_paused) == ("$5.00", True)
        await refused(ledger, "k", amount="2")
        assert list(book.broken_invariants()) == []
