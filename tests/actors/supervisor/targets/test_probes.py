"""One call finds out whether a provider has recovered, and a check may spare it; in virtual time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from actors import (
    AllProvidersFailed,
    BreakerConfig,
    BreakerOpen,
    CallFailed,
    FunctionTransport,
    Listing,
    Permanent,
    Provider,
    ProviderReply,
    Retry,
)
from actors.errors import DeadlineTooShort
from actors.events import BreakerClosed, BreakerHalfOpened, BreakerOpened, CallEnded
from actors.money import Micros
from actors.policies.breaker.states import HalfOpen, Open
from tests.actors.supervisor.stage import FRAGILE, Script, flaky, now, offer, staged, steps, trip, wait_is_over

if TYPE_CHECKING:
    from actors import ProviderCall
    from tests.actors.supervisor.stage import Stage


def gateways_started(stage: Stage) -> int:
    return stage.actor.targets.named("a")._deps.gateways_started


async def test_half_open_starts_one_fresh_gateway_for_one_probe_among_a_thousand_callers():
    script = Script(*[flaky("a")] * 5, "done", lasts=1.0)
    listing = offer("a", script, max_concurrency=1000)
    async with staged(listing, retry=Retry(max_retries=0), breaker=FRAGILE) as stage:
        await trip(stage, script)
        started = gateways_started(stage)
        await asyncio.sleep(stage.of(BreakerOpened)[0].wait)
        tasks = [asyncio.create_task(stage.request(timeout=100)) for _ in range(1000)]
        await steps(50)
        assert script.under_way == 1
        assert isinstance(stage.actor.targets.named("a").state.breaker, HalfOpen)
        assert len(stage.of(BreakerHalfOpened)) == 1
        assert gateways_started(stage) == started + 1
        results = await asyncio.gather(*tasks)
        assert len(results) == 1000
        assert len(stage.of(BreakerClosed)) == 1
        assert gateways_started(stage) == started + 1
        await stage.assert_at_rest()


class Checkup:
    """A health check that plays its problems in turn, the last one for good; None is health."""

    def __init__(self, *problems: Exception | None, lasts: float = 0.0) -> None:
        self.problems, self.lasts, self.count = list(problems), lasts, 0

    async def __call__(self, _timeout: float) -> None:
        self.count += 1
        await asyncio.sleep(self.lasts)
        problem = self.problems.pop(0) if len(self.problems) > 1 else self.problems[0]
        if problem is not None:
            raise problem


async def test_who_fails_its_own_check_is_not_probed_and_costs_no_request_anything():
    a, b = Script(*[flaky("a")] * 5, "a"), Script("b")
    check = Checkup(flaky("a"), flaky("a"), None, lasts=0.5)
    async with staged(
        offer("a", a, price=1, check=check), offer("b", b, price=2), retry=Retry(max_retries=0), breaker=FRAGILE
    ) as stage:
        for _ in range(5):
            await stage.request()
        a.calls.clear()
        ended = len(stage.of(CallEnded))
        waits: list[float] = []
        for _ in range(2):
            waits.append(await wait_is_over(stage))
            result = await stage.request()
            assert (result.output, result.attempts, result.failures, result.cost) == ("b", 1, (), 2)
        assert (a.calls, check.count) == ([], 2)
        assert len(stage.of(CallEnded)) == ended + 2  # Those of the other provider.
        waits.append(await wait_is_over(stage))
        assert waits[2] > waits[1] > waits[0]
        assert len(stage.of(BreakerOpened)) == 1  # A check that fails is no trip.
        assert stage.actor.targets.named("a").trips == 1
        assert (await stage.request()).output == "a"
        assert check.count == 3
        await stage.assert_at_rest()


async def test_who_was_a_probe_in_vain_is_served_in_its_turn_all_the_same():
    a, b = Script(flaky("a"), lasts=0.1), Script("b", lasts=1.0)
    config = BreakerConfig(open_for=2.5, jitter=0.0)
    async with staged(
        offer("a", a, price=1), offer("b", b, price=2, max_concurrency=1), retry=Retry(max_retries=0), breaker=config
    ) as stage:
        await asyncio.gather(*(stage.request(input="before") for _ in range(5)))
        await asyncio.sleep(2.0)
        stage.actor.targets.named("a").become(Open(7, until=now() + 2.5))
        a.calls.clear()
        b.calls.clear()
        requests = []
        for number in range(6):
            requests.append(asyncio.create_task(stage.request(input=number)))
            await steps(20)
        await asyncio.gather(*requests)
        assert [call.input for call in a.calls] == [3]
        assert [call.input for call in b.calls] == [0, 1, 2, 3, 4, 5]
        await stage.assert_at_rest()


async def test_a_check_that_fails_while_calls_would_succeed_is_found_out_and_no_longer_asked_for_advice():
    script, check = Script(*[flaky("a")] * 5, "done"), Checkup(flaky("check"))
    async with staged(offer("a", script, check=check), retry=Retry(max_retries=0), breaker=FRAGILE) as stage:
        await trip(stage, script)
        for _ in range(4):
            await wait_is_over(stage)
            with pytest.raises(BreakerOpen):
                await stage.request(timeout=1)
        await wait_is_over(stage)
        assert (await stage.request(timeout=1)).output == "done"
        script.outcomes[:] = [*[flaky("a")] * 5, "done"]
        await trip(stage, script)
        await wait_is_over(stage)
        assert (await stage.request(timeout=1)).output == "done"


async def test_who_has_no_check_to_answer_is_probed():
    script = Script(*[flaky("a")] * 5, "done")
    check = Checkup(Permanent("404 Not Found", provider="a", status=404))
    async with staged(offer("a", script, check=check), retry=Retry(max_retries=0), breaker=FRAGILE) as stage:
        await trip(stage, script)
        await wait_is_over(stage)
        assert (await stage.request(timeout=1)).output == "done"
        # What its check said is no mark against it.
        assert (await stage.request(timeout=1)).output == "done"


async def test_who_is_cancelled_during_the_check_before_its_probe_leaves_both_to_the_next():
    script, check = Script(*[flaky("a")] * 5, "done"), Checkup(None, lasts=1.0)
    async with staged(offer("a", script, price=5, check=check), retry=Retry(max_retries=0), breaker=FRAGILE) as stage:
        await trip(stage, script)
        await wait_is_over(stage)
        probe = asyncio.create_task(stage.request())
        await asyncio.sleep(0.5)
        others = [asyncio.create_task(stage.request()) for _ in range(5)]
        await steps(10)
        probe.cancel()
        await asyncio.wait([probe])
        assert {(await one).output for one in others} == {"done"}
        assert len(script.calls) == 5
        await stage.assert_at_rest()


async def test_a_check_that_takes_all_of_the_time_leaves_neither_money_nor_the_place_of_the_probe_behind():
    class Slow(FunctionTransport):
        async def check(self, *, timeout: float) -> None:  # noqa: ASYNC109 - the interface of `Transport`.
            await asyncio.sleep(0.35)

    script = Script(*[flaky("a")] * 5, "done")
    listing = Listing(
        provider=Provider(name="a", services={"s"}, price=Micros(5)),
        transport=lambda: Slow(script, paid=True, idempotent="no", provider="a"),
    )
    async with staged(listing, retry=Retry(max_retries=0), breaker=FRAGILE) as stage:
        await trip(stage, script)
        await wait_is_over(stage)
        with pytest.raises(DeadlineTooShort):
            await stage.request(timeout=0.3)
        await stage.assert_at_rest()
        assert (await stage.request(timeout=5)).output == "done"


async def test_a_probe_that_is_cancelled_gives_its_place_to_the_next_who_waits():
    script = Script(*[flaky("a")] * 5, "done", lasts=2.0)
    async with staged(offer("a", script), retry=Retry(max_retries=0), breaker=FRAGILE) as stage:
        await trip(stage, script)
        await asyncio.sleep(stage.of(BreakerOpened)[0].wait)
        probe = asyncio.create_task(stage.request())
        await steps(10)
        others = [asyncio.create_task(stage.request()) for _ in range(5)]
        await steps(10)
        assert script.under_way == 1
        probe.cancel()
        await asyncio.wait([probe])
        await steps(10)
        assert script.under_way == 1
        assert {result.output for result in await asyncio.gather(*others)} == {"done"}
        assert len(stage.of(BreakerOpened)) == 1  # A cancelled probe is no trip.
        assert len(stage.of(BreakerClosed)) == 1
        await stage.assert_at_rest()


async def test_those_who_wait_for_a_probe_that_never_reports_probe_again_when_its_lease_ends():
    forever = 1e6

    class Deaf(FunctionTransport):
        async def call(self, call: ProviderCall) -> ProviderReply:
            script.calls.append(call)
            if len(script.calls) == 1:
                await asyncio.sleep(forever)
            return ProviderReply(output="done")

    script = Script()
    listing = Listing(
        provider=Provider(name="a", services={"s"}),
        transport=lambda: Deaf(script, paid=False, idempotent="no", provider="a"),
        timeout=100.0,
    )
    config = BreakerConfig(probe_lease=5.0)
    async with staged(listing, retry=Retry(max_retries=0), breaker=config) as stage:
        await steps(1)  # The supervisor starts.
        target = stage.actor.targets.named("a")
        target.state = type(target.state)(breaker=Open(epoch=1, until=0.0))
        lost = asyncio.create_task(stage.request(timeout=200))
        await steps(10)
        assert (await stage.request(timeout=20)).output == "done"
        assert now() == pytest.approx(5.0)
        with pytest.raises(AllProvidersFailed):
            await lost
        assert len(stage.of(BreakerOpened)) == 0  # The result of the lost probe is stale.
        await stage.assert_at_rest()


async def hang(_: ProviderCall) -> str:
    await asyncio.sleep(1e6)
    raise AssertionError("it hangs")


async def test_a_check_that_passes_stands_in_for_a_probe_that_would_cost_its_request_all_of_its_time():
    a, b = Script(*[flaky("a")] * 5, "a"), Script("b")
    check = Checkup(flaky("a"), None, lasts=0.1)
    async with staged(
        offer("a", a, price=1, check=check), offer("b", b, price=2), retry=Retry(max_retries=0), breaker=FRAGILE
    ) as stage:
        for _ in range(5):
            await stage.request()
        target = stage.actor.targets.named("a")
        a.calls.clear()
        await wait_is_over(stage)
        assert (await stage.request()).output == "b"  # Its check fails.
        await wait_is_over(stage)
        result = await stage.request()
        assert result.failures == ()
        assert len(stage.of(BreakerClosed)) == 1
        assert not target.probe_check.misled
        await stage.assert_at_rest()


async def test_a_check_that_closed_the_breaker_of_a_provider_that_hangs_does_not_do_so_again():
    check = Checkup(None)
    async with staged(
        offer("a", hang, price=1, check=check, timeout=1.0), retry=Retry(max_retries=0), breaker=FRAGILE
    ) as stage:
        closed: list[int] = []
        for _ in range(12):
            if stage.of(BreakerOpened):
                await wait_is_over(stage)
            with pytest.raises(CallFailed):
                await stage.request(timeout=3)
            closed.append(len(stage.of(BreakerClosed)))
        assert closed[-1] == 1
        assert stage.actor.targets.named("a").probe_check.misled
        await stage.assert_at_rest()
