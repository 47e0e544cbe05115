"""Pausing at a cap to ask for more money. In virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from actors.errors.families import BudgetExceeded, Permanent
from actors.ledger.messages import CloseAccount, GetStatement, SetCap
from runtime import ActorSystem, AskTimeout
from tests.actors.ledger.bank import DOLLAR, Money, money, settle


class Owner:
    """Is asked for more money, and answers as planned."""

    def __init__(self, *answers: Any, takes: float = 1.0) -> None:
        self.answers = list(answers)
        self.takes = takes
        self.asked: list[tuple[str, int]] = []
        self.under_way = self.max_under_way = 0

    async def __call__(self, statement: Any, needed: int) -> Any:
        self.asked.append((statement.name, needed))
        self.under_way += 1
        self.max_under_way = max(self.max_under_way, self.under_way)
        try:
            await asyncio.sleep(self.takes)
        finally:
            self.under_way -= 1
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer


async def test_at_the_cap_the_owner_is_asked_once_and_all_requests_wait_in_order_for_the_answer():
    owner = Owner("20")
    async with money(on_exhausted=owner) as bank:
        bank.tell(await bank.reserve("a", 8 * DOLLAR))
        tasks = [bank.start(key, 3 * DOLLAR) for key in "bcd"]
        await asyncio.sleep(0.5)
        small = bank.start("small", 1)
        await settle()
        assert not any(task.done() for task in (*tasks, small))
        reservations = [await task for task in (*tasks, small)]
        assert [one.number for one in reservations] == sorted(one.number for one in reservations)
        assert owner.asked == [("run", 3 * DOLLAR)]
        assert (await bank.ref.ask(GetStatement("run"), timeout=1)).cap == 20 * DOLLAR
        for reservation in reservations:
            bank.tell(reservation)


async def test_a_refusal_refuses_all_that_wait_and_holds_until_the_cap_changes():
    owner = Owner(None, "50")
    async with money(on_exhausted=owner) as bank:
        bank.tell(await bank.reserve("a", 10 * DOLLAR))
        tasks = [bank.start(key) for key in "bc"]
        refusals = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(one) for one in refusals] == [BudgetExceeded] * 2
        with pytest.raises(BudgetExceeded):
            await bank.reserve("d")
        assert len(owner.asked) == 1
        await bank.ref.ask(SetCap("run", 11 * DOLLAR), timeout=1)
        bank.tell(await bank.reserve("e"))
        assert len(owner.asked) == 2


@pytest.mark.parametrize("answer", [ValueError("no idea"), 0.5, "many", asyncio.CancelledError(), object()])
async def test_an_answer_that_is_none_harms_only_the_requests_that_waited_for_it(answer: Any):
    owner = Owner(answer, "30")
    async with money(on_exhausted=owner) as bank:
        bank.tell(await bank.reserve("a", 10 * DOLLAR))
        with pytest.raises(BudgetExceeded):
            await bank.reserve("b")
        bank.tell(await bank.reserve("c"))
        assert len(owner.asked) == 2


async def test_an_owner_that_never_answers_costs_each_asker_its_own_deadline_and_no_more():
    owner = Owner(takes=1e6)
    async with money(on_exhausted=owner, accounts={"run": 10, "other": 10}) as bank:
        bank.tell(await bank.reserve("a", 10 * DOLLAR))
        loop = asyncio.get_running_loop()
        begun = loop.time()
        for seconds in (2.0, 3.0):
            with pytest.raises(AskTimeout):
                await bank.reserve(f"b{seconds}", timeout=seconds)
        assert loop.time() - begun == pytest.approx(5.0, abs=0.1)
        bank.tell(await bank.reserve("c", accounts=("other",)))
        with pytest.raises(BudgetExceeded):
            await bank.reserve("patient")  # The question itself has a limit.
        assert loop.time() - begun == pytest.approx(600.0, abs=1.0)
        assert (len(owner.asked), owner.max_under_way) == (1, 1)


async def test_an_answer_that_is_too_little_refuses_the_request_for_which_it_was_asked():
    owner = Owner("11", "20")
    async with money(on_exhausted=owner) as bank:
        bank.tell(await bank.reserve("a", 9 * DOLLAR))
        large, larger = bank.start("large", 8 * DOLLAR), bank.start("larger", 9 * DOLLAR)
        with pytest.raises(BudgetExceeded):
            await large
        bank.tell(await larger)
        assert owner.asked == [("run", 8 * DOLLAR), ("run", 9 * DOLLAR)]


async def test_an_answer_to_what_was_asked_before_a_cap_was_changed_by_hand_does_not_undo_that():
    owner = Owner("99", "12", takes=10.0)
    async with money(on_exhausted=owner) as bank:
        waiting = bank.start("a", 11 * DOLLAR)
        await asyncio.sleep(1)
        await bank.ref.ask(SetCap("run", 5 * DOLLAR), timeout=1)
        await asyncio.sleep(9.5)
        assert (await bank.ref.ask(GetStatement("run"), timeout=1)).cap == 5 * DOLLAR
        bank.tell(await waiting)  # The owner was asked again, and knows of it.
        assert owner.asked == [("run", 11 * DOLLAR)] * 2


async def test_an_account_that_is_closed_while_the_owner_is_asked_refuses_the_requests_that_wait():
    owner = Owner("99", takes=100.0)
    async with money(on_exhausted=owner) as bank:
        waiting = bank.start("a", 11 * DOLLAR)
        await asyncio.sleep(1)
        await bank.ref.ask(CloseAccount(name="run"), timeout=1)
        with pytest.raises(Permanent, match="no open account 'run'"):
            await waiting
        await asyncio.sleep(200)
        assert owner.under_way == 0


async def test_a_ledger_that_ends_while_the_owner_is_asked_leaves_nothing():
    owner = Owner("99", takes=1e6)
    async with ActorSystem("bank") as system:
        bank = Money(system, on_exhausted=owner)
        waiting = bank.start("a", 11 * DOLLAR)
        await asyncio.sleep(1)
    assert owner.under_way == 0
    assert isinstance((await asyncio.gather(waiting, return_exceptions=True))[0], Exception)
