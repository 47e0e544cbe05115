"""A provider under supervision: its breaker, its gateway and the calls in it; in virtual time."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from actors import (
    AllProvidersFailed,
    BreakerConfig,
    FunctionTransport,
    GetStatus,
    Listing,
    Provider,
    ProviderFilter,
    Retry,
    Throttled,
    Unclassified,
)
from actors.errors import QuotaExhausted
from actors.events import BreakerOpened
from actors.provider_gateway.messages import TRANSPORT_GRACE
from runtime import ActorEnded, ActorFailed
from tests.actors.supervisor.stage import FRAGILE, Buggy, Script, flaky, now, offer, staged, steps, trip

if TYPE_CHECKING:
    from actors import ProviderCall


async def test_the_breaker_opens_at_five_failures_in_a_row_and_stops_the_gateway():
    a, b = Script(flaky("a")), Script("b")
    async with staged(offer("a", a, price=1), offer("b", b, price=2)) as stage:
        for _ in range(4):
            await stage.request()
        gateway = stage.actor.targets.named("a").gateway
        assert gateway is not None
        assert stage.of(BreakerOpened) == []
        await stage.request()
        assert [event.provider for event in stage.of(BreakerOpened)] == ["a"]
        await gateway.terminated()
        assert [event.ref for event in stage.of(ActorEnded)] == [gateway]
        await stage.request()
        assert (len(a.calls), len(b.calls)) == (5, 6)
        (status, _) = await stage.ref.ask(GetStatus(), timeout=1)
        assert (status.breaker, status.failures, status.trips) == ("open", 5, 1)


async def test_the_breaker_opens_at_the_failure_rate_without_a_streak():
    script = Script(*[flaky("a"), "done"] * 20)
    config = BreakerConfig(failure_threshold=5, failure_rate=0.5, min_calls=20)
    async with staged(offer("a", script), retry=Retry(max_retries=0), breaker=config) as stage:
        outcomes = await asyncio.gather(*(stage.request() for _ in range(10)), return_exceptions=True)
        assert stage.of(BreakerOpened) == []
        for _ in range(30):
            if stage.of(BreakerOpened):
                break
            outcomes.extend(await asyncio.gather(stage.request(), return_exceptions=True))
        # The failure that makes at least half of at least 20 calls.
        assert len(script.calls) == 21
        assert len(stage.of(BreakerOpened)) == 1


async def test_the_waits_grow_with_each_probe_that_fails():
    script = Script(flaky("a"))
    async with staged(offer("a", script), retry=Retry(max_retries=0), breaker=FRAGILE) as stage:
        await trip(stage, script)
        for probes in range(1, 6):
            await asyncio.sleep(stage.of(BreakerOpened)[-1].wait)
            with pytest.raises(AllProvidersFailed):
                await stage.request(timeout=1)
            assert len(script.calls) == probes
        waits = [event.wait for event in stage.of(BreakerOpened)]
        ceilings = [30.0, 60.0, 120.0, 240.0, 300.0, 300.0]
        assert len(waits) == len(ceilings)
        for wait, ceiling in zip(waits, ceilings, strict=True):
            assert 0.9 * ceiling <= wait <= min(300.0, 1.1 * ceiling)


async def test_a_failure_of_a_call_admitted_before_the_breaker_opened_is_ignored():
    script = Script(*[flaky("a")] * 5, lasts=1.0)
    late = Script(flaky("a"), lasts=10.0)
    scripts = [late, *[script] * 5]

    async def answer(call: ProviderCall) -> Any:
        return await scripts.pop(0)(call) if scripts else "done"

    async with staged(offer("a", answer), retry=Retry(max_retries=0), breaker=FRAGILE) as stage:
        requests = [asyncio.create_task(stage.request()) for _ in range(6)]
        await asyncio.wait(requests)
        assert len(stage.of(BreakerOpened)) == 1
        first_wait = stage.of(BreakerOpened)[0].wait
        await asyncio.sleep(1.0 + first_wait - now())
        assert (await stage.request()).output == "done"
        assert len(stage.of(BreakerOpened)) == 1


async def test_throttling_an_exhausted_quota_and_cancelled_callers_never_trip():
    script = Script(
        *[QuotaExhausted("pay first", provider="a")] * 30,
        *[Throttled("slow down", provider="a", retry_after=0.0)] * 30,
        "done",
        lasts=1.0,
    )
    async with staged(offer("a", script, max_concurrency=100), retry=Retry(max_retries=0)) as stage:
        for _ in range(60):
            with pytest.raises(AllProvidersFailed):
                await stage.request(timeout=1_000)
        await asyncio.sleep(60)
        tasks = [asyncio.create_task(stage.request()) for _ in range(40)]
        await steps(10)
        assert script.under_way > 0
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await steps(5)
        assert stage.of(BreakerOpened) == []
        assert script.under_way == 0
        await stage.assert_at_rest()
        assert (await stage.request()).output == "done"


async def test_a_provider_that_is_eased_in_gets_only_a_part_of_the_requests():
    script = Script(*[flaky("a")] * 5, "a")
    config = BreakerConfig(open_for=5.0, jitter=0.0, slow_start=10.0)
    async with staged(offer("a", script, price=1), offer("b", Script("b"), price=2), breaker=config) as stage:
        for _ in range(6):
            assert (await stage.request(strategy="cheapest")).output == "b"
        await asyncio.sleep(6.0)
        assert (await stage.request(strategy="cheapest")).output == "a"
        outputs = [(await stage.request(strategy="cheapest")).output for _ in range(200)]
        assert 5 <= outputs.count("a") <= 50
        await asyncio.sleep(10.0)
        assert (await stage.request(strategy="cheapest")).output == "a"


async def test_a_transport_that_crashes_takes_down_neither_the_supervisor_nor_the_request():
    def make() -> Buggy:
        return Buggy(Script(), paid=False, idempotent="no", provider="bad")

    bad = Listing(provider=Provider(name="bad", services={"s"}, price=0), transport=make)
    Buggy.closed = 0
    async with staged(bad, offer("b", Script("b"), price=2)) as stage:
        for _ in range(10):
            assert (await stage.request()).output == "b"
        assert len(stage.of(BreakerOpened)) == 1
        assert stage.of(ActorFailed) == []
        assert Buggy.closed == 1  # With the gateway, when the breaker opened.
        await stage.assert_at_rest()


async def test_a_provider_whose_transport_cannot_be_made_is_that_providers_failure():
    def make() -> FunctionTransport:
        raise KeyError("no address")

    bad = Listing(provider=Provider(name="bad", services={"s"}, price=0), transport=make)
    async with staged(bad, offer("b", Script("b"), price=2)) as stage:
        for _ in range(10):
            result = await stage.request()
            assert result.output == "b"
        for _ in range(10):
            result = await stage.request(health_check=True)
            assert result.output == "b"
        assert [event.provider for event in stage.of(BreakerOpened)] == ["bad"]
        (status, _) = await stage.ref.ask(GetStatus(check_health=True), timeout=5)
        assert status.problem is not None
        assert "no address" in status.problem
        stage.actor.targets.named("bad").state = type(stage.actor.targets.named("bad").state)()
        with pytest.raises(AllProvidersFailed) as failed:
            await stage.request(where=ProviderFilter(max_price="0"))
        assert failed.value.attempts[0].kind == Unclassified.__name__
        await stage.assert_at_rest()


async def test_a_gateway_killed_from_outside_is_replaced():
    script = Script("done", lasts=1.0)
    async with staged(offer("a", script, price=5, idempotent="key")) as stage:
        await stage.request()
        gateway = stage.actor.targets.named("a").gateway
        assert gateway is not None
        gateway.kill()
        await gateway.terminated()
        assert (await stage.request()).output == "done"
        call = asyncio.create_task(stage.request())
        await steps(10)
        second = stage.actor.targets.named("a").gateway
        assert second is not None
        assert second != gateway
        second.kill()
        result = await call
        assert (result.output, result.attempts, result.cost) == ("done", 2, 5)
        await stage.assert_at_rest()


@pytest.mark.parametrize("is_prompt", [True, False])
async def test_a_call_runs_in_the_task_of_its_request_only_where_it_ends_when_cancelled(is_prompt: bool):  # noqa: FBT001
    tasks: list[Any] = []

    async def answer(_call: ProviderCall) -> str:
        tasks.append(asyncio.current_task())
        await asyncio.sleep(1.0)
        return "done"

    def transport() -> FunctionTransport:
        return FunctionTransport(answer, paid=False, idempotent="no", provider="a", ends_when_cancelled=is_prompt)

    async with staged(Listing(provider=Provider(name="a", services={"s"}), transport=transport)) as stage:
        await stage.request()  # Only now is it known of whom to ask how.
        assert (await stage.request()).output == "done"
        assert (tasks[-1] is asyncio.current_task()) is is_prompt


async def test_a_call_that_will_not_end_holds_up_no_request_beyond_its_deadline():
    async def deaf(_call: ProviderCall) -> str:
        for _ in range(10):
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(3.0)
        return "too late"

    listing = Listing(
        provider=Provider(name="a", services={"s"}),
        transport=lambda: FunctionTransport(deaf, paid=False, idempotent="no", provider="a"),
        timeout=1.0,
    )
    async with staged(listing, offer("b", Script("b"), price=2)) as stage:
        assert (await stage.request(timeout=5.0)).output == "b"
        assert now() == pytest.approx(1.0 + TRANSPORT_GRACE)
        await asyncio.sleep(60.0)  # It does end, at last.
