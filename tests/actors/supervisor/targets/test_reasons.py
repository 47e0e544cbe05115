"""`GetStatus` says what requests wait for at each provider, whatever decides it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from actors import GetStatus, Isolate, Release, Retry, Throttled
from actors.money import Micros
from tests.actors.supervisor.stage import FRAGILE, Script, flaky, offer, staged, trip

if TYPE_CHECKING:
    from actors import TargetStatus
    from tests.actors.supervisor.stage import Stage


async def look(stage: Stage) -> TargetStatus:
    (status,) = await stage.ref.ask(GetStatus(), timeout=1)
    return status


async def reasons(stage: Stage) -> list[str]:
    return [one.reason for one in (await look(stage)).waiting]


async def all_done(requests: list[asyncio.Task[Any]]) -> None:
    await asyncio.gather(*requests, return_exceptions=True)


async def test_a_provider_that_is_well_holds_nothing_back():
    async with staged(offer("a", Script())) as stage:
        await stage.request()
        assert (await look(stage)).waiting == ()


async def test_a_429_shows_as_a_learned_limit_until_it_is_outgrown():
    refused = Throttled("429", retry_after=2.0, provider="a")
    async with staged(offer("a", Script("done", *[refused] * 8, "done"))) as stage:
        await stage.request()
        await asyncio.gather(*(stage.request(timeout=60) for _ in range(9)))
        status = await look(stage)
        (waiting,) = [one for one in status.waiting if one.reason == "learned limit"]
        assert waiting.since is not None
        assert " 429s, " in status.waits[0]
        assert status.waits[0].startswith("limited to ")


async def test_an_open_breaker_its_probe_and_an_isolation_are_told_apart():
    script = Script(*[flaky("a")] * 5, "done")
    async with staged(offer("a", script), breaker=FRAGILE, retry=Retry(max_retries=0)) as stage:
        await trip(stage, script)
        status = await look(stage)
        (waiting,) = status.waiting
        assert waiting.reason == "breaker"
        assert waiting.since is not None
        assert waiting.until is not None
        assert waiting.since <= status.now < waiting.until
        await asyncio.sleep(40)
        assert "the next call is the probe" in (await look(stage)).waits[0]
        script.lasts = 1.0
        probe = asyncio.create_task(stage.request())
        await asyncio.sleep(0.5)
        assert await reasons(stage) == ["probe"]
        await probe
        assert await reasons(stage) == []
        await stage.ref.ask(Isolate(provider="a"), timeout=1)
        assert await reasons(stage) == ["isolated"]
        await stage.ref.ask(Release(provider="a"), timeout=1)
        assert await reasons(stage) == []


async def test_taken_places_and_a_used_limit_are_told():
    script = Script(lasts=1.0)
    async with staged(offer("a", script, max_concurrency=2, rate_limit=1.0, burst=3)) as stage:
        requests = [asyncio.create_task(stage.request(timeout=60)) for _ in range(5)]
        await asyncio.sleep(0.5)
        assert await reasons(stage) == ["place"]
        await asyncio.sleep(0.75)
        assert "stated limit" in await reasons(stage)
        await all_done(requests)


async def test_requests_that_wait_for_money_are_told_with_their_number():
    script = Script(lasts=5.0)
    async with staged(offer("a", script, price=60, idempotent="repeatable"), budget=Micros(100)) as stage:
        requests = [asyncio.create_task(stage.request(timeout=60)) for _ in range(3)]
        await asyncio.sleep(2.0)
        status = await look(stage)
        (waiting,) = status.waiting
        assert (waiting.reason, waiting.since) == ("money", 0.0)
        assert status.waits[0].startswith(
            "money: 2 requests wait for what calls under way may leave of a budget, for 2"
        )
        for one in requests:
            one.cancel()
        await all_done(requests)
        assert await reasons(stage) == []
