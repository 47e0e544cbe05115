"""Tests for requests under one key at the same time: one is served, and each asker may leave at any moment."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from actors import BudgetExceeded, CallFailed, Market, OutcomeUnknown, ProviderReply, Supervisor, smart_request
from actors.errors import BadAnswer
from actors.ledger import GetStatement, KeyReused, OpenAccount
from actors.money import ZERO, Micros
from actors.supervisor import RequestOptions, smart_stream
from runtime import ActorSystem
from tests.actors.supervisor.stage import Script, offer, staged
from tests.proofs import repeated


async def both(stage: Any, **second: Any) -> list[Any]:
    first = asyncio.create_task(stage.request(idempotency_key="k"))
    await asyncio.sleep(0.5)
    joined = asyncio.create_task(stage.request(idempotency_key="k", **second))
    return await asyncio.gather(first, joined, return_exceptions=True)


async def test_a_request_that_joins_gets_the_answer_and_pays_nothing():
    script = Script(["done"], lasts=1.0)
    async with staged(offer("a", script, price=10)) as stage:
        first, joined = await both(stage, budget=ZERO)
        assert (first.output, first.cost, first.replayed, first.attempts) == (["done"], 10, False, 1)
        assert (joined.output, joined.cost, joined.paid, joined.replayed) == (["done"], 0, 10, True)
        assert joined.output is not first.output
        assert joined.request_id != first.request_id
        assert round(joined.latency, 3) == 0.5
        assert len(script.calls) == 1
        await stage.assert_at_rest()


async def test_an_error_is_told_to_all_and_so_is_a_key_that_belongs_to_another_request():
    script = Script(BadAnswer("it is empty", reason="empty", charged="yes"), lasts=1.0)
    async with staged(offer("a", script, price=10)) as stage:
        first, joined = await both(stage)
        assert [(type(one), one.replayed, one.key) for one in (first, joined)] == [
            (BadAnswer, False, "k"),
            (BadAnswer, True, "k"),
        ]
        assert first is not joined
    async with staged(offer("a", Script(lasts=1.0), price=10)) as stage:
        first, other = await both(stage, input="y")
        assert first.output == "done"
        assert isinstance(other, KeyReused)
        assert other.fields == ("input",)


async def test_an_asker_leaves_alone_and_the_last_one_ends_the_call():
    script = Script(lasts=2.0)
    async with staged(offer("a", script, price=10)) as stage:
        askers = [asyncio.create_task(stage.request(idempotency_key="k")) for _ in range(3)]
        await asyncio.sleep(0.5)
        askers[0].cancel()
        await asyncio.sleep(0.5)
        assert script.under_way == 1
        askers[1].cancel()
        assert (await askers[2]).output == "done"
        last = asyncio.create_task(stage.request(idempotency_key="another"))
        await asyncio.sleep(0.5)
        last.cancel()
        await asyncio.wait([last])
        assert script.under_way == 0
        await stage.assert_at_rest()


async def test_an_asker_whose_time_is_up_leaves_the_call_to_those_that_have_more():
    script = Script(ConnectionResetError("gone"), "done", lasts=0.7)
    async with staged(offer("a", script, price=10, idempotent="key")) as stage:
        first = asyncio.create_task(stage.request(idempotency_key="k", timeout=1.0))
        joined = asyncio.create_task(stage.request(idempotency_key="k", timeout=9.0))
        with pytest.raises(OutcomeUnknown, match="goes on for others") as late:
            await first
        assert (late.value.key, late.value.charged) == ("k", "held")
        assert (await joined).output == "done"
        await stage.assert_at_rest()


async def test_it_goes_on_by_the_limits_of_the_next_asker_if_it_ends_by_those_of_the_first():
    script = Script(lasts=1.0)
    async with staged(offer("a", script, price=10)) as stage:
        await stage.ref.ask(OpenAccount(name="rich"), timeout=1)
        options = RequestOptions(tenant="t")
        asked = [
            asyncio.create_task(stage.request(idempotency_key="k", options=options, **terms))
            for terms in ({"budget": Micros(5)}, {"budget": Micros(6)}, {"account": "rich"}, {})
        ]
        results = await asyncio.gather(*asked)
        assert [one.cost for one in results] == [0, 0, 10, 0]
        assert (await stage.account("rich")).settled == 10
        assert len(script.calls) == 1
        with pytest.raises(BudgetExceeded):
            await stage.request(idempotency_key="other", budget=Micros(5))
        await stage.assert_at_rest()


async def test_the_cap_of_an_account_above_the_first_askers_is_its_own_limit_and_that_of_the_market_is_none():
    script = Script(lasts=1.0)
    async with staged(offer("a", script, price=10), budget=Micros(15)) as stage:
        for name, cap, parent in (("team", Micros(5), None), ("poor", None, "team"), ("rich", None, None)):
            await stage.ref.ask(OpenAccount(name=name, cap=cap, parent=parent), timeout=1)
        options = RequestOptions(tenant="t")

        async def ask(key: str, *accounts: str) -> list[Any]:
            asked = [stage.request(idempotency_key=key, options=options, account=account) for account in accounts]
            return await asyncio.gather(*asked, return_exceptions=True)

        assert [one.cost for one in await ask("k", "poor", "rich")] == [0, 10]
        assert (await stage.account("rich")).settled == 10
        refusals = await ask("l", "rich", "poor")
        assert [(one.cap, one.account) for one in refusals] == [("run", "run")] * 2
        assert len(script.calls) == 1
        with pytest.raises(BudgetExceeded) as refused:
            await stage.request(idempotency_key="m", account="poor")
        assert (refused.value.cap, refused.value.account) == ("team", "poor")
        await stage.assert_at_rest()


@pytest.mark.simulate(seeds=repeated(500))
async def test_askers_join_and_leave_at_every_moment(simulation: Any):
    dice = simulation.random
    charged: list[int] = []

    async def serve(call: Any) -> Any:
        await asyncio.sleep(dice.choice([0.0, 0.1, 1.0]))
        outcome = dice.random()
        if outcome < 0.15:
            raise ConnectionRefusedError("down")
        if outcome < 0.25:
            charged.append(10)
            raise BadAnswer("it is empty", reason="empty", charged="yes")
        charged.append(10)
        return ProviderReply(output=call.input, cost=Micros(10))

    idempotent = dice.choice(["no", "key"])
    market = Market(providers=[offer(name, serve, price=10, idempotent=idempotent) for name in ("a", "b")])
    async with ActorSystem("test", log=False) as system:
        supervisor = system.spawn(lambda: Supervisor(market))
        outcomes: list[Any] = []

        async def ask() -> None:
            await asyncio.sleep(dice.choice([0.0, 0.1, 1.0, 2.0]))
            for _ in range(dice.randint(0, 12)):
                await asyncio.sleep(0)
            terms = {"budget": dice.choice([None, None, Micros(5)]), "timeout": dice.choice([0.5, 5.0])}
            try:
                outcomes.append(await smart_request(supervisor, service="s", input="x", idempotency_key="k", **terms))
            except CallFailed as error:
                outcomes.append(error)

        tasks = [asyncio.create_task(ask()) for _ in range(6)]
        for task in dice.sample(tasks, 3):
            asyncio.get_running_loop().call_later(dice.uniform(0.0, 3.0), task.cancel)
        await asyncio.wait(tasks)
        await asyncio.sleep(60.0)
        statement = await supervisor.ask(GetStatement(), timeout=1)
        assert statement.reserved == 0
        results = [one for one in outcomes if not isinstance(one, CallFailed)]
        assert all(one.output == "x" for one in results)
        assert sum(one.cost for one in results) <= statement.settled
        assert statement.settled + statement.held >= sum(charged) or idempotent == "key"
        assert len([one for one in results if one.cost]) <= 1, "it was paid by two"
    assert len(asyncio.all_tasks()) == 1


class TestTheTimeOfACallUnderWay:
    """It is until the latest deadline of its askers, as far as its provider is given as much."""

    @pytest.mark.parametrize(("lasts", "own"), [(3.0, 30.0), (8.0, 30.0), (3.0, 2.0)])
    async def test_of_one_without_a_stream(self, lasts: float, own: float):
        script = Script(lasts=lasts)
        async with staged(offer("a", script, price=10, timeout=own)) as stage:
            first = asyncio.create_task(stage.request(idempotency_key="k", timeout=1.0))
            await asyncio.sleep(0.5)
            joined = asyncio.create_task(stage.request(idempotency_key="k", timeout=9.0))
            with pytest.raises(OutcomeUnknown):
                await first
            if own < lasts:
                with pytest.raises(OutcomeUnknown, match="within 2 s"):
                    await joined
            else:
                assert (await joined).output == "done"
                await stage.assert_at_rest()
            assert len(script.calls) == 1

    async def test_of_one_that_a_later_asker_with_less_time_joins(self):
        async with staged(offer("a", Script(lasts=3.0), price=10)) as stage:
            first = asyncio.create_task(stage.request(idempotency_key="k", timeout=5.0))
            with pytest.raises(OutcomeUnknown, match="goes on for others"):
                await stage.request(idempotency_key="k", timeout=1.0)
            assert (await first).output == "done"

    async def test_of_one_that_no_other_joins_is_as_it_began(self):
        async with staged(offer("a", Script(lasts=3.0), price=10)) as stage:
            with pytest.raises(OutcomeUnknown, match="no answer within 1 s"):
                await stage.request(idempotency_key="k", timeout=1.0)

    @pytest.mark.parametrize("first_after", [0.2, 2.0])
    async def test_of_a_stream_and_of_its_first_piece(self, first_after: float):
        async def drip(call: Any) -> str:
            await asyncio.sleep(first_after)
            for number in range(5):
                await call.stream.put(number)
                await asyncio.sleep(0.5)
            return "done"

        async def read(seconds: float) -> list[Any]:
            async with smart_stream(stage.ref, service="s", input="x", idempotency_key="k", timeout=seconds) as stream:
                return [piece async for piece in stream]

        async with staged(offer("a", drip, price=10)) as stage:
            first = asyncio.create_task(read(1.0))
            await asyncio.sleep(0.5)
            assert await read(9.0) == [0, 1, 2, 3, 4]
            with pytest.raises(OutcomeUnknown):
                await first
            await stage.assert_at_rest()

    async def test_of_one_that_waits_for_a_place(self):
        async with staged(offer("a", Script(lasts=2.0), price=10, max_concurrency=1)) as stage:
            other = asyncio.create_task(stage.request(input="other"))
            await asyncio.sleep(0.1)
            first = asyncio.create_task(stage.request(idempotency_key="k", timeout=1.0))
            await asyncio.sleep(0.5)
            joined = asyncio.create_task(stage.request(idempotency_key="k", timeout=9.0))
            await asyncio.gather(first, other, return_exceptions=True)
            assert (await joined).output == "done"
            await stage.assert_at_rest()

    async def test_of_one_that_waits_for_money(self):
        free = Script(ProviderReply(output="done", cost=ZERO), lasts=2.0)
        async with staged(offer("a", free, price=10), budget=Micros(10)) as stage:
            other = asyncio.create_task(stage.request(input="other"))
            await asyncio.sleep(0.1)
            first = asyncio.create_task(stage.request(idempotency_key="k", timeout=1.0))
            await asyncio.sleep(0.5)
            joined = asyncio.create_task(stage.request(idempotency_key="k", timeout=9.0))
            await asyncio.gather(first, other, return_exceptions=True)
            assert (await joined).output == "done"
            await stage.assert_at_rest()
