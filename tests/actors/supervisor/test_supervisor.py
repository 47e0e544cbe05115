"""What a supervisor is asked besides requests, and what outlives it; in virtual time."""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from typing import Any

import pytest

from actors import (
    AllProvidersFailed,
    BreakerOpen,
    FunctionTransport,
    GetStatus,
    Isolate,
    Listing,
    Market,
    Provider,
    Release,
    Retry,
    Supervisor,
    Throttled,
    smart_request,
)
from actors.errors import RateLimited
from actors.ledger import OpenAccount
from actors.supervisor import OpenQuota
from runtime import ActorCrashed, ActorSystem, AskTimeout, handles
from tests.actors.supervisor.stage import Script, Stage, healthy_for, now, offer, staged, steps


async def test_names_that_look_alike_do_not_collide():
    names = ["a/b", "a-b", "quota", "discovery", "gateway-1-a-b"]
    async with staged(*(offer(name, Script(name)) for name in names)) as stage:
        await stage.ref.ask(OpenQuota(name="q", rate=1.0), timeout=1)
        for name in names:
            await stage.ref.ask(Isolate(provider=name), timeout=1)
        for name in names:
            await stage.ref.ask(Release(provider=name), timeout=1)
            assert (await stage.request()).output == name
            await stage.ref.ask(Isolate(provider=name), timeout=1)


async def test_a_quota_that_cannot_be_is_refused_before_it_is_asked_for():
    for rate in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="rate"):
            OpenQuota(name="q", rate=rate)
    with pytest.raises(ValueError, match="burst"):
        OpenQuota(name="q", rate=1.0, burst=0)


async def test_made_up_account_names_avoid_those_in_use():
    async with staged(offer("a", Script())) as stage:
        await stage.ref.ask(OpenAccount(name="unnamed account 1"), timeout=1)
        names = [await stage.ref.ask(OpenAccount(), timeout=1) for _ in range(3)]
        assert len({*names, "unnamed account 1"}) == 4


async def test_what_was_opened_for_somebody_who_had_gone_is_closed_again():
    kept = 0
    for k in range(5):
        async with staged(offer("a", Script())) as stage:
            await steps(3)
            accounts = [asyncio.create_task(stage.ref.ask(OpenAccount(), timeout=1)) for _ in range(200)]
            quotas = [asyncio.create_task(stage.ref.ask(OpenQuota(name="q", rate=1.0), timeout=1)) for _ in range(50)]
            await steps(k)
            for asking in (*accounts, *quotas):
                asking.cancel()
            await asyncio.wait([*accounts, *quotas])
            await steps(10)
            opened = len(stage.ledger.book.open_accounts())
            assert opened == sum(not asking.cancelled() for asking in accounts)
            limiters = [name for name in stage.actor.context.children if name.startswith("quota")]
            assert len(limiters) == sum(not asking.cancelled() for asking in quotas)
            kept += opened
    assert kept > 0
    async with staged(offer("a", Script())) as stage:
        await steps(1)
        stage.actor.unclaimed(OpenAccount(), await stage.ref.ask(OpenAccount(), timeout=1))
        await steps(2)
        assert stage.ledger.book.open_accounts() == []


async def test_asking_for_the_health_of_an_isolated_provider_does_not_leave_a_gateway_behind():
    checks: list[str] = []
    async with staged(offer("a", Script(), check=healthy_for("a", checks))) as stage:
        await stage.ref.ask(Isolate(provider="a"), timeout=1)
        (status,) = await stage.ref.ask(GetStatus(check_health=True), timeout=5)
        assert (status.breaker, status.healthy, checks) == ("isolated", True, ["a"])
        assert stage.actor.targets.named("a").gateway is None


async def test_calls_in_flight_when_a_provider_is_isolated_finish_and_move_nothing():
    script = Script("done", lasts=5.0)
    async with staged(offer("a", script, price=7)) as stage:
        call = asyncio.create_task(stage.request())
        await steps(10)
        gateway = stage.actor.targets.named("a").gateway
        await stage.ref.ask(Isolate(provider="a"), timeout=1)
        with pytest.raises(BreakerOpen) as refused:
            await stage.request()
        assert refused.value.retry_after is None
        result = await call
        assert (result.output, result.cost) == ("done", 7)
        assert gateway is not None
        await gateway.terminated()
        (status,) = await stage.ref.ask(GetStatus(), timeout=1)
        assert (status.breaker, status.trips) == ("isolated", 0)
        await stage.ref.ask(Release(provider="a"), timeout=1)
        assert (await stage.request()).output == "done"
        await stage.assert_at_rest()


async def test_isolating_fails_those_who_have_nobody_else_at_once():
    script = Script("done", lasts=5.0)
    async with staged(offer("a", script, max_concurrency=1)) as stage:
        busy = asyncio.create_task(stage.request())
        await steps(10)
        waiting = [asyncio.create_task(stage.request(timeout=60)) for _ in range(20)]
        await steps(10)
        assert len(stage.actor.queues) == 20
        await stage.ref.ask(Isolate(provider="a"), timeout=1)
        await asyncio.wait(waiting)
        assert now() == 0.0
        assert all(isinstance(task.exception(), BreakerOpen) for task in waiting)
        await busy
        await stage.assert_at_rest()


class Quitting(Supervisor):
    """Crashes when it is told to open a quota."""

    @handles(OpenQuota)
    def open_quota(self, message: OpenQuota) -> Any:
        raise RuntimeError("a bug")


async def test_who_was_isolated_by_hand_stays_so_when_the_supervisor_restarts():
    market = Market(providers=[offer("a", Script("a")), offer("b", Script("b"), price=2)])
    async with ActorSystem("stage", seed=1) as system:
        supervisor = system.spawn(lambda: Quitting(market))
        await supervisor.ask(Isolate(provider="a"), timeout=1.0)
        with pytest.raises(ActorCrashed):
            await supervisor.ask(OpenQuota(name="q", rate=1.0), timeout=1.0)
        assert (await smart_request(supervisor, service="s", input="x")).output == "b"
        await supervisor.ask(Release(provider="a"), timeout=1.0)
        assert (await smart_request(supervisor, service="s", input="x", strategy="cheapest")).output == "a"


async def test_who_is_released_by_hand_is_asked_at_once_whatever_it_has_said():
    a = Script(*[Throttled("slow down", provider="a", retry_after=1e6)] * 8, "done")
    async with staged(offer("a", a), retry=Retry(max_retries=0)) as stage:
        for _ in range(8):
            with suppress(AllProvidersFailed, RateLimited):
                await stage.request()
        a.outcomes = ["done"]
        with pytest.raises(RateLimited):
            await stage.request()
        await stage.ref.ask(Isolate(provider="a"), timeout=1.0)
        await stage.ref.ask(Release(provider="a"), timeout=1.0)
        assert (await stage.request()).output == "done"


async def test_leaving_the_system_ends_every_request_and_every_transport():
    closed: list[str] = []

    class Closing(FunctionTransport):
        async def aclose(self) -> None:
            closed.append(self.provider)

    script = Script("done", lasts=100.0)
    listing = Listing(
        provider=Provider(name="a", services={"s"}),
        transport=lambda: Closing(script, paid=False, idempotent="no", provider="a"),
        timeout=200.0,
        max_concurrency=3,
    )
    async with ActorSystem("stage") as system:
        stage = Stage(system, Market(providers=[listing]))
        tasks = [asyncio.create_task(stage.request(timeout=150)) for _ in range(10)]
        await steps(20)
        assert script.under_way == 3
    await asyncio.wait(tasks)
    assert all(isinstance(task.exception(), ActorCrashed | AskTimeout) for task in tasks)
    assert closed == ["a"]
    assert script.under_way == 0
    assert len(asyncio.all_tasks()) == 1
