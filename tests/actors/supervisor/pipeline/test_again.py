"""A provider that is at work on a call already, and one below which another layer repeats each call."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from loguru import logger

from actors import AllProvidersFailed, GetStatus, OutcomeUnknown, ProviderReply, Transient
from actors.errors.classification import classify_status
from actors.events import CallEnded, Retried
from actors.policies.breaker.states import Closed
from actors.policies.retry import RetryBudget
from tests.actors.supervisor.stage import Script, now, offer, staged

if TYPE_CHECKING:
    from actors import ProviderCall


class AtWork:
    """A provider that takes its time, whatever becomes of the client, and says 409 meanwhile."""

    def __init__(self, *, takes: float, paid: bool = True, retry_after: float | None = None) -> None:
        self.takes, self.paid, self.retry_after = takes, paid, retry_after
        self.begun: float | None = None
        self.at: list[float] = []

    async def __call__(self, call: ProviderCall) -> Any:
        self.at.append(now())
        if self.begun is None:
            self.begun = now()
            await asyncio.sleep(self.takes)
        elif now() < self.begun + self.takes:
            busy = classify_status(409, provider="a", paid=self.paid, idempotent=True)
            busy.retry_after = self.retry_after
            raise busy
        return "done"


@pytest.mark.parametrize("price", [0, 5])
@pytest.mark.parametrize("takes", [15.0, 59.0])
async def test_a_call_that_is_at_work_is_waited_for_until_the_deadline(takes: float, price: int):
    a = AtWork(takes=takes, paid=price > 0)
    no_retries = RetryBudget(ratio=0.0, min_per_second=0.0, tokens=0.0)
    listing = offer("a", a, price=price, idempotent="key", timeout=2.0)
    async with staged(listing, retry_budget=no_retries if price else RetryBudget()) as stage:
        result = await stage.request(timeout=61.0)
        assert result.output == "done"
        waits = [after - before for before, after in zip(a.at[2:], a.at[3:], strict=False)]
        assert waits[0] < 1.0
        assert waits == sorted(waits) or takes > 50
        assert len(a.at) < 20
        target = stage.actor.targets.named("a")
        assert isinstance(target.state.breaker, Closed)
        assert target.failures == 1  # Its timeout alone.
        assert len(stage.of(Retried)) == 1, "the first repetition; the looks after it are none"
        assert sum(not one.is_blameless and one.error is not None for one in stage.of(CallEnded)) == 1
        await stage.assert_at_rest()


async def test_a_call_that_is_still_at_work_at_the_deadline_leaves_its_money_held():
    a = AtWork(takes=500.0)
    async with staged(offer("a", a, price=5, idempotent="key", timeout=2.0)) as stage:
        with pytest.raises(OutcomeUnknown) as failed:
            await stage.request(timeout=30.0)
        assert failed.value.charged == "held"
        assert 29.0 < a.at[-1] < 30.0
        assert isinstance(stage.actor.targets.named("a").state.breaker, Closed)


@pytest.mark.parametrize("price", [0, 5])
@pytest.mark.parametrize("retry_after", [30.0, 600.0])
async def test_a_call_at_work_is_looked_at_even_if_its_provider_asks_for_more_time_than_there_is(
    retry_after: float, price: int
):
    a = AtWork(takes=12.0, paid=price > 0, retry_after=retry_after)
    async with staged(offer("a", a, price=price, idempotent="key", timeout=2.0)) as stage:
        assert (await stage.request(timeout=30.0)).output == "done"
        assert now() - a.at[0] < 18.0
        assert len(a.at) < 15
        await stage.assert_at_rest()


async def test_a_shorter_wait_that_the_provider_asks_for_is_kept():
    a = AtWork(takes=12.0, retry_after=9.0)
    async with staged(offer("a", a, price=5, idempotent="key", timeout=2.0)) as stage:
        await stage.request(timeout=30.0)
        assert all(after - before >= 9.0 for before, after in zip(a.at[1:], a.at[2:], strict=False))


async def test_the_error_says_that_the_call_is_still_at_work():
    a = AtWork(takes=500.0, retry_after=600.0)
    async with staged(offer("a", a, price=5, idempotent="key", timeout=2.0)) as stage:
        with pytest.raises(OutcomeUnknown, match="at work") as failed:
            await stage.request(timeout=30.0)
        assert 29.0 < a.at[-1] - a.at[0] < 30.0
        assert failed.value.charged == "held"


async def test_no_other_is_paid_while_a_paid_call_is_at_work_even_if_its_error_does_not_say_so():
    a = Script(Transient("in progress", provider="a", status=409), Transient("in progress", status=409), "done")
    b = Script("b")
    async with staged(offer("a", a, price=5, idempotent="key"), offer("b", b, price=9)) as stage:
        assert (await stage.request()).provider == "a"
        assert b.calls == []


async def test_a_409_of_a_provider_without_keys_is_a_failure_as_any_other():
    a = Script(Transient("conflict", provider="a", status=409))
    async with staged(offer("a", a, idempotent="repeatable")) as stage:
        with pytest.raises(AllProvidersFailed):
            await stage.request()
        assert len(a.calls) == 4
        assert stage.actor.targets.named("a").failures == 4


def thrice(*, fails: bool) -> Script:
    """A provider whose client sends each call three times."""
    outcome = Transient("down", provider="a", wire_calls=3) if fails else ProviderReply(output="x", wire_calls=3)
    return Script(outcome)


async def test_a_provider_whose_calls_are_repeated_below_is_called_twice_and_then_once_for_each_request():
    a = thrice(fails=True)
    async with staged(offer("a", a, idempotent="repeatable")) as stage:
        for attempts in (2, 1, 1):
            a.calls.clear()
            with pytest.raises(AllProvidersFailed):
                await stage.request()
            assert len(a.calls) == attempts


async def test_others_are_asked_all_the_same():
    a, b = thrice(fails=True), Script(Transient("down", provider="b"), "answer")
    listings = offer("a", a, price=0, idempotent="repeatable"), offer("b", b, price=1, idempotent="key")
    async with staged(*listings) as stage:
        assert (await stage.request()).output == "answer"
        a.calls.clear()
        b.outcomes.insert(0, Transient("down", provider="b"))
        assert (await stage.request()).output == "answer"
        assert len(a.calls) == 1


async def test_an_answer_shows_it_too():
    a = thrice(fails=False)
    async with staged(offer("a", a, idempotent="repeatable")) as stage:
        await stage.request()
        a.outcomes = [Transient("down", provider="a", wire_calls=3)]
        a.calls.clear()
        with pytest.raises(AllProvidersFailed):
            await stage.request()
        assert len(a.calls) == 1


async def test_the_requests_that_a_client_hides_are_told_in_one_line_and_in_the_status():
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(str(line)), level="WARNING", format="{message}")
    try:
        async with staged(offer("a", thrice(fails=False), idempotent="repeatable")) as stage:
            for _ in range(3):
                await stage.request()
            (status,) = await stage.ref.ask(GetStatus(), timeout=1.0)
            assert (status.calls, status.hidden_calls) == (3, 6)
    finally:
        logger.remove(sink)
    told = [line for line in lines if "its client sent 3 requests for one call" in line]
    assert len(told) == 1
    assert told[0].startswith("provider a: ")


async def test_no_request_in_a_crowd_makes_more_than_two_attempts():
    a = thrice(fails=True)
    a.lasts = 0.1
    async with staged(offer("a", a, idempotent="repeatable")) as stage:
        await asyncio.gather(*(stage.request(input=number) for number in range(5)), return_exceptions=True)
        assert max(sum(call.input == number for call in a.calls) for number in range(5)) <= 2
