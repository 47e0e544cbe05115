"""Requests wait in three classes, and tenants share each by the tokens that they reserve; in virtual time."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from actors.limits import RateLimit
from actors.limits.class_queue import PRIORITIES
from actors.market import SharedQuota
from actors.supervisor import RequestOptions
from tests.actors.supervisor.stage import Script, Stage, now, offer, staged, steps
from tests.proofs import repeated

if TYPE_CHECKING:
    from actors import ProviderCall

SIZES = {"small": 100, "large": 400}
"""The tokens that each request of a tenant reserves."""
SECONDS = repeated(40, at_least=12)
LIMITS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "places": ({"max_concurrency": 6}, {}),
    "rate": ({"max_concurrency": 500, "rate_limit": 40.0, "burst": 1, "headroom": 1.0}, {}),
    "quota": (
        {"max_concurrency": 500, "quota": "org"},
        {
            "quotas": {
                "org": SharedQuota(limits=(RateLimit(dimension="tokens", rate=10_000.0, burst=1_000),), headroom=1.0)
            }
        },
    ),
}


def asked(priority: Any, tenant: str, **weights: int) -> RequestOptions:
    return RequestOptions(priority=priority, tenant=tenant, timeout=10_000.0, weights=weights)


@pytest.mark.parametrize("short", LIMITS)
async def test_classes_have_their_shares_of_what_is_short_and_tenants_share_each_by_tokens(short: str):
    served: list[tuple[float, str, str, int]] = []

    async def answer(call: ProviderCall) -> str:
        served.append((now(), *call.input))
        await asyncio.sleep(0.1)
        return "done"

    listing, market = LIMITS[short]
    async with staged(offer("a", answer, **listing), **market) as stage:

        async def keep_asking(priority: Any, tenant: str) -> None:
            given = (priority, tenant, SIZES[tenant])
            while True:
                await stage.request(input=given, options=asked(priority, tenant, tokens=given[2]))

        askers = [(priority, tenant) for priority in PRIORITIES for tenant in SIZES for _ in range(6)]
        await run_for(SECONDS, [keep_asking(*one) for one in askers])
    for start in range(1, SECONDS - 9):
        seen = [one for one in served if start <= one[0] < start + 10]
        of_class, of_tenant = Counter[str](), Counter[tuple[str, str]]()
        for _, priority, tenant, size in seen:
            of_class[priority] += size
            of_tenant[priority, tenant] += size
        for priority, weight in PRIORITIES.items():
            assert of_class[priority] / of_class.total() == pytest.approx(weight / 13, rel=0.1)
            small, large = (of_tenant[priority, tenant] for tenant in SIZES)
            assert small / (small + large) == pytest.approx(0.5, rel=0.1)


async def run_for(seconds: int, work: list[Any]) -> None:
    tasks = [asyncio.create_task(one) for one in work]
    await asyncio.sleep(seconds)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def start(stage: Stage, count: int, priority: Any, **options: Any) -> list[asyncio.Task[Any]]:
    tasks = [
        asyncio.create_task(stage.request(**{"input": (priority, number), "options": asked(priority, "t")} | options))
        for number in range(count)
    ]
    await steps(8)
    return tasks


@pytest.mark.parametrize("short", LIMITS)
async def test_however_many_low_ones_wait_a_high_one_is_delayed_by_one_call_at_most(short: str):
    script = Script("done", lasts=1.0)
    listing, market = LIMITS[short]
    async with staged(offer("a", script, **listing), max_waiting=20_000, **market) as stage:
        low = await start(stage, repeated(10_000, part=20), "low")
        for number in range(3):
            await asyncio.sleep(1.5)
            before = len(script.calls)
            (high,) = await start(stage, 1, "high")
            await high
            began = [call.input[0] for call in script.calls[before:]]
            assert began[: began.index("high")].count("low") <= 1, number
        for one in low:
            one.cancel()
        await asyncio.wait(low)
        await stage.assert_at_rest()


async def test_a_joined_call_waits_in_the_highest_class_of_those_that_wait_for_it():
    script = Script("done", lasts=1.0)
    async with staged(offer("a", script, price=1, max_concurrency=1)) as stage:
        await start(stage, 1, "normal")
        (mine,) = await start(stage, 1, "low", input="mine", idempotency_key="k")
        others = await start(stage, 20, "normal")
        (high,) = await start(stage, 1, "high", input="mine", idempotency_key="k")
        await asyncio.gather(mine, high)
        assert [call.input for call in script.calls[:2]] == [("normal", 0), "mine"]
        assert now() == 2.0
        (again,) = await start(stage, 1, "low", input="again", idempotency_key="j")
        (high,) = await start(stage, 1, "high", input="again", idempotency_key="j")
        high.cancel()
        await steps(4)
        (call,) = stage.actor.deps.keyed._calls
        assert call.job.entry.priority == "low"
        await again
        await asyncio.gather(*others)
        await stage.assert_at_rest()


async def test_a_joined_call_that_waits_for_a_quota_is_raised_there_too():
    script = Script("done")
    quotas = {"org": SharedQuota(limits=(RateLimit(rate=1.0),), headroom=1.0)}
    async with staged(offer("a", script, price=1, quota="org", max_concurrency=50), quotas=quotas) as stage:
        await stage.request(input="first")
        low = await start(stage, 5, "low")
        (mine,) = await start(stage, 1, "low", input="mine", idempotency_key="k")
        (high,) = await start(stage, 1, "high", input="mine", idempotency_key="k")
        await asyncio.gather(mine, high)
        assert [call.input for call in script.calls] == ["first", "mine"]
        await asyncio.gather(*low)
        await stage.assert_at_rest()


async def test_what_is_no_class_is_refused_where_it_is_given():
    async with staged(offer("a", Script())) as stage:
        with pytest.raises(ValueError, match='priority must be "high", "normal" or "low"'):
            await stage.request(priority="urgent")
    with pytest.raises(ValueError, match="priority must be"):
        RequestOptions(priority="urgent")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
