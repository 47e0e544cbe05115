"""Requests that wait for money, in order. In virtual time."""

from __future__ import annotations

import asyncio

import pytest

from actors.errors.families import BudgetExceeded, Permanent
from actors.ledger.config import LedgerConfig
from actors.ledger.errors import StillUnsettled
from actors.ledger.messages import CloseAccount, GetHeld, Resolve
from actors.money import Micros
from runtime import AskTimeout
from tests.actors.ledger.bank import DOLLAR, money, settle


async def test_an_asker_waits_for_what_calls_under_way_may_give_back_in_order():
    async with money() as bank:
        first = await bank.reserve("a", 10 * DOLLAR)
        tasks = [bank.start(key, 6 * DOLLAR, wait=True) for key in "bcd"]
        await settle()
        small = bank.start("small", 1 * DOLLAR, wait=True)
        await settle()
        bank.tell(first, "yes", 3 * DOLLAR)
        await settle()
        assert [task.done() for task in (*tasks, small)] == [True, False, False, False], "no request overtakes another"
        bank.tell(await tasks[0], "no")
        second = await tasks[1]
        bank.tell(second, "yes", 2 * DOLLAR)
        # 5 are spent; 6 will not be there any more, and the one behind is not held up by it.
        with pytest.raises(BudgetExceeded) as refused:
            await tasks[2]
        assert (refused.value.needed, refused.value.available) == (6 * DOLLAR, 5 * DOLLAR)
        bank.tell(await small)


async def test_without_wait_an_asker_is_refused_at_once_also_where_others_wait_for_what_there_is():
    async with money() as bank:
        first = await bank.reserve("a", 6 * DOLLAR)
        with pytest.raises(BudgetExceeded) as refused:
            await bank.reserve("b", 5 * DOLLAR)
        assert (refused.value.cap, refused.value.available) == ("run", 4 * DOLLAR)
        waiting = bank.start("c", 5 * DOLLAR, wait=True)
        await settle()
        with pytest.raises(BudgetExceeded):
            await bank.reserve("d", 1 * DOLLAR)
        bank.tell(first, "no")
        bank.tell(await waiting)


async def test_a_request_that_gives_up_leaves_the_queue_and_the_next_may_want_less():
    async with money() as bank:
        first = await bank.reserve("a", 6 * DOLLAR)
        large = bank.start("large", 9 * DOLLAR, wait=True, timeout=5.0)
        await settle()
        small = bank.start("small", 3 * DOLLAR, wait=True)
        with pytest.raises(AskTimeout):
            await large
        bank.tell(await small)
        cancelled = bank.start("cancelled", 7 * DOLLAR, wait=True)
        await settle()
        cancelled.cancel()
        await settle()
        bank.tell(await bank.reserve("b", 1 * DOLLAR))
        bank.tell(first)


async def test_order_holds_over_all_the_accounts_that_two_askers_share():
    async with money(accounts={"run": 10, "batch": 10}) as bank:
        batch = await bank.reserve("a", 8 * DOLLAR, accounts=("batch",))
        run = await bank.reserve("b", 8 * DOLLAR, accounts=("run",))
        first = bank.start("first", 6 * DOLLAR, accounts=("run",), wait=True)
        await settle()
        second = bank.start("second", 5 * DOLLAR, accounts=("batch", "run"), wait=True)
        await settle()
        bank.tell(batch, "no")
        await settle()
        assert not second.done(), "the account it waited for has enough, but in the other one a request came before"
        bank.tell(run, "no")
        bank.tell(await first, "no")
        bank.tell(await second)


async def test_no_more_wait_than_may():
    async with money(config=LedgerConfig(max_waiting=1)) as bank:
        first = await bank.reserve("a", 10 * DOLLAR)
        waiting = bank.start("b", wait=True)
        await settle()
        with pytest.raises(BudgetExceeded):
            await bank.reserve("c", wait=True)
        bank.tell(first, "no")
        bank.tell(await waiting)


async def test_a_key_is_looked_at_again_when_its_turn_comes():
    async with money() as bank:
        first = await bank.reserve("a", 10 * DOLLAR)
        twins = [bank.start("twin", wait=True, intent=intent) for intent in ("first", "first")]
        await settle()
        bank.tell(first, "no")
        bank.tell(await twins[0])
        with pytest.raises(StillUnsettled):
            await twins[1]


async def test_a_repetition_of_what_is_held_waits_behind_no_other():
    async with money() as bank:
        held = await bank.reserve("held", 6 * DOLLAR)
        bank.tell(held, "held")
        other = await bank.reserve("other", 4 * DOLLAR)
        waiting = bank.start("waiting", 2 * DOLLAR, wait=True)
        await settle()
        repeated = await bank.reserve("held", 6 * DOLLAR, intent="repeat")
        assert (repeated.number, repeated.attempt) == (held.number, 2)
        with pytest.raises(BudgetExceeded):
            await bank.reserve("held too", 1, intent="repeat")
        for one in (repeated, other):
            bank.tell(one, "no")
        bank.tell(await waiting, "no")


async def test_many_requests_that_give_up_leave_nothing_behind():
    async with money() as bank:
        first = await bank.reserve("a", 10 * DOLLAR)
        stuck = bank.start("stuck", wait=True)
        await settle()
        for number in range(500):
            waiting = bank.start(f"{number}", wait=True)
            await settle()
            waiting.cancel()
        await settle()
        queues = bank.instances[0].queues
        assert len(queues) == 1
        assert len(queues._queues["run"].numbers) < 200
        assert repr(queues) == "<ReserveQueues 1 waiting for run>"
        bank.tell(first, "no")
        bank.tell(await stuck)


async def test_an_account_is_closed_at_once_and_answers_when_the_last_call_has_ended():
    async with money() as bank:
        first, second = await bank.reserve("a", 3), await bank.reserve("b", 4)
        closing = asyncio.create_task(bank.ref.ask(CloseAccount(name="run"), timeout=1e6))
        await settle()
        with pytest.raises(Permanent):
            await bank.reserve("c")
        bank.tell(first)
        await settle()
        assert not closing.done()
        bank.tell(second, "held")
        account = await closing
        assert (account.reserved, account.held, account.settled) == (0, 4, 3)
        (held,) = await bank.ref.ask(GetHeld("run"), timeout=1)
        await bank.ref.ask(Resolve(held.reservation, "yes", Micros(2)), timeout=1)
        assert await bank.figures(None) == (0, 0, 5)
