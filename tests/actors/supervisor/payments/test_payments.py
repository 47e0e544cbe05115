"""What is reserved before a call, and what is paid after it; in virtual time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from actors import AllProvidersFailed, BudgetExceeded, OutcomeUnknown, Permanent, ProviderReply, Unclassified
from actors.events import CallEnded
from actors.ledger import CloseAccount, OpenAccount
from actors.money import Micros
from tests.actors.supervisor.stage import Script, flaky, now, offer, staged, steps

if TYPE_CHECKING:
    from actors import ProviderCall
    from actors.provider_gateway.messages import SentMarker


async def test_the_true_cost_is_settled_and_the_rest_is_free_again():
    script = Script(ProviderReply(output="x", cost=Micros(3)), ProviderReply(output="x"), "plain")
    async with staged(offer("a", script, price=10)) as stage:
        await stage.ref.ask(OpenAccount(name="acc", cap=Micros(100)), timeout=1)
        assert [(await stage.request(account="acc")).cost for _ in range(3)] == [3, 10, 10]
        account = await stage.ref.ask(CloseAccount(name="acc"), timeout=1)
        assert (account.settled, account.held, account.reserved) == (23, 0, 0)


async def test_a_price_above_the_budget_is_refused_without_a_call():
    script = Script()
    async with staged(offer("a", script, price=10)) as stage:
        with pytest.raises(BudgetExceeded) as refused:
            await stage.request(budget="0.000009")
        assert (refused.value.needed, refused.value.available, refused.value.cap) == (10, 9, "request")
        assert script.calls == []
        assert (await stage.request(budget="0.00001")).cost == 10


async def test_a_failed_call_that_was_charged_is_paid_and_told():
    charged = Unclassified("garbage", provider="a", charged="yes")
    async with staged(offer("a", Script(charged), price=10), offer("b", Script("b"), price=20)) as stage:
        result = await stage.request()
        assert (result.provider, result.cost) == ("b", 30)
        assert result.failures[0].cost == 10
        with pytest.raises(AllProvidersFailed) as failed:
            await stage.request(budget="0.00002")
        assert failed.value.charged == "yes"
        assert any(isinstance(refusal, BudgetExceeded) for refusal in failed.value.refused)


async def test_a_call_that_may_have_been_paid_is_repeated_under_its_key_and_paid_once():
    lost = ConnectionResetError("gone")
    script = Script(lost, flaky("a"), lost, "done")
    other = Script("other")
    async with staged(offer("a", script, price=10, idempotent="key"), offer("b", other, price=20)) as stage:
        await stage.ref.ask(OpenAccount(name="acc", cap=Micros(10)), timeout=1)
        result = await stage.request(account="acc")
        assert (result.provider, result.cost, result.attempts) == ("a", 10, 4)
        assert len({call.idempotency_key for call in script.calls}) == 1
        assert other.calls == []
        account = await stage.account("acc")
        assert (account.settled, account.held, account.reserved) == (10, 0, 0)


async def test_nobody_else_is_paid_while_a_call_may_have_been():
    lost = ConnectionResetError("gone")
    other = Script("other")
    async with staged(offer("a", Script(lost), price=10, idempotent="key"), offer("b", other, price=20)) as stage:
        await stage.ref.ask(OpenAccount(name="acc", cap="0.001"), timeout=1)
        with pytest.raises(OutcomeUnknown) as unknown:
            await stage.request(account="acc", timeout=5)
        assert (unknown.value.provider, unknown.value.charged) == ("a", "held")
        assert other.calls == []
        account = await stage.account("acc")
        assert (account.settled, account.held, account.reserved) == (0, 10, 0)
    async with staged(offer("a", Script(lost), price=10), offer("b", other, price=20)) as stage:
        with pytest.raises(OutcomeUnknown):
            await stage.request()
        assert other.calls == []


@pytest.mark.parametrize("idempotent", ["no", "key", "repeatable"])
async def test_a_mistake_found_after_a_paid_call_was_sent_does_not_take_the_money_back(idempotent: str):
    a, b = Script(KeyError("choice")), Script("b")
    async with staged(offer("a", a, price=1, idempotent=idempotent), offer("b", b, price=2)) as stage:
        with pytest.raises(
            OutcomeUnknown, match="'a' may have been paid for a call that failed: 'a': KeyError"
        ) as failed:
            await stage.request()
        assert isinstance(failed.value.__cause__, Permanent)
        assert failed.value.key is not None
        assert (len(a.calls), len(b.calls)) == (1, 0)


async def test_a_repetition_that_may_be_charged_again_needs_money_of_its_own():
    lost = ConnectionResetError("gone")
    script = Script(lost, "done")
    async with staged(offer("a", script, price=10, idempotent="repeatable")) as stage:
        await stage.ref.ask(OpenAccount(name="acc", cap=Micros(100)), timeout=1)
        result = await stage.request(account="acc")
        assert (result.output, result.cost) == ("done", 10)
        account = await stage.account("acc")
        assert (account.settled, account.held, account.reserved) == (10, 10, 0)
        script.outcomes = [lost, "done"]
        with pytest.raises(OutcomeUnknown):
            await stage.request(account="acc", budget="0.000019")
        assert len(script.calls) == 3


async def test_a_request_waits_for_money_that_a_call_under_way_gives_back():
    script = Script(ProviderReply(output="x", cost=Micros(1)), lasts=2.0)
    async with staged(offer("a", script, price=10)) as stage:
        await stage.ref.ask(OpenAccount(name="acc", cap=Micros(11)), timeout=1)
        await asyncio.gather(stage.request(account="acc"), stage.request(account="acc"))
        assert script.at == [0.0, 2.0]
        with pytest.raises(BudgetExceeded) as refused:
            await stage.request(account="acc")
        assert (refused.value.cap, refused.value.available) == ("acc", 9)
        assert now() == 4.0
        await stage.assert_at_rest()


async def test_an_account_is_closed_when_its_last_call_has_ended_and_a_new_one_of_its_name_is_another():
    script = Script("done", lasts=1.0)
    async with staged(offer("a", script, price=10)) as stage:
        await stage.ref.ask(OpenAccount(name="acc", cap=Micros(10)), timeout=1)
        request = asyncio.create_task(stage.request(account="acc"))
        await steps(10)
        closing = asyncio.create_task(stage.ref.ask(CloseAccount(name="acc"), timeout=9))
        await steps(10)
        assert not closing.done()
        with pytest.raises(Permanent, match="no open account"):
            await stage.request(account="acc")
        assert (await request).cost == 10
        assert (await closing).settled == 10
        await stage.ref.ask(OpenAccount(name="acc", cap=Micros(10)), timeout=1)
        fresh = await stage.account("acc")
        assert (fresh.reserved, fresh.settled, fresh.available) == (0, 0, 10)
        with pytest.raises(Permanent, match="open already"):
            await stage.ref.ask(OpenAccount(name="acc"), timeout=1)


async def test_a_request_whose_account_is_closed_makes_no_further_call():
    script = Script(flaky("a"), "done", lasts=1.0)
    async with staged(offer("a", script, price=10)) as stage:
        await stage.ref.ask(OpenAccount(name="acc", cap=Micros(10)), timeout=1)
        request = asyncio.create_task(stage.request(account="acc"))
        await steps(10)
        assert (await stage.ref.ask(CloseAccount(name="acc"), timeout=9)).settled == 0
        with pytest.raises(AllProvidersFailed, match="no open account"):
            await request
        assert len(script.calls) == 1


@pytest.mark.parametrize("is_sent", [False, True])
async def test_a_cancelled_call_holds_money_only_if_the_gateway_had_sent_it(
    monkeypatch: pytest.MonkeyPatch, *, is_sent: bool
):
    async with staged(offer("a", Script(), price=10)) as stage:
        await stage.ref.ask(OpenAccount(name="acc", cap="0.001"), timeout=1)

        async def never(_call: ProviderCall, marker: SentMarker) -> None:
            marker.is_sent = is_sent
            await asyncio.get_running_loop().create_future()

        monkeypatch.setattr(stage.actor.targets.named("a"), "call", never)
        request = asyncio.create_task(stage.request(account="acc"))
        await steps(10)
        request.cancel()
        await asyncio.wait([request])
        await steps(5)
        account = await stage.account("acc")
        assert (account.held, account.reserved) == (10 if is_sent else 0, 0)
        await stage.assert_at_rest()


async def test_of_many_calls_cancelled_at_any_step_just_those_that_were_sent_hold_money():
    admitted = sent = 0
    for k in range(20):
        script = Script("done", lasts=1.0)
        async with staged(offer("a", script, price=10, max_concurrency=300)) as stage:
            await stage.request()
            script.calls.clear()
            await stage.ref.ask(OpenAccount(name="acc", cap="0.01"), timeout=1)
            requests = [asyncio.create_task(stage.request(account="acc")) for _ in range(300)]
            await steps(k)
            for request in requests:
                request.cancel()
            await asyncio.wait(requests)
            await steps(20)
            account = await stage.account("acc")
            assert (account.held, account.reserved) == (10 * len(script.calls), 0)
            admitted += stage.actor.targets.named("a").calls - 1
            sent += len(script.calls)
            await stage.assert_at_rest()
    assert 0 < sent <= admitted


async def test_a_cancelled_call_that_had_been_sent_keeps_its_money_held():
    script = Script("done", lasts=1.0)
    async with staged(offer("a", script, price=10)) as stage:
        await stage.ref.ask(OpenAccount(name="acc", cap="0.001"), timeout=1)
        request = asyncio.create_task(stage.request(account="acc"))
        while not script.calls:
            await steps(1)
        request.cancel()
        await asyncio.wait([request])
        await steps(5)
        account = await stage.account("acc")
        assert (account.held, account.reserved) == (10, 0)
        assert [event.error for event in stage.of(CallEnded)] == ["Cancelled"]
