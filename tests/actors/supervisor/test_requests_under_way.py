"""`GetRequests` says of each request under way what it waits for, since when and until when; so do refusals."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from actors import AllProvidersFailed, BudgetExceeded, Isolate, NotAdmitted, Retry, Throttled
from actors.money import Micros
from actors.supervisor import GetRequests
from tests.actors.supervisor.stage import FRAGILE, Script, flaky, now, offer, staged, trip

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from actors.limits import Waiting
    from actors.supervisor import RequestsUnderWay
    from tests.actors.supervisor.stage import Stage


async def look(stage: Stage, most: int = 100) -> RequestsUnderWay:
    return await stage.ref.ask(GetRequests(most=most), timeout=1)


async def waiting_of(stage: Stage, request_id: str = "late") -> Waiting:
    (status,) = [one for one in (await look(stage)).requests if one.request_id == request_id]
    return status.waiting[0]


@asynccontextmanager
async def asked(stage: Stage, count: int, **options: Any) -> AsyncIterator[list[asyncio.Task[Any]]]:
    """Have `count` requests under way, the last of which is `late`."""
    ids = [*(f"r{number}" for number in range(count - 1)), "late"]
    requests = [asyncio.create_task(stage.request(**{"timeout": 100.0, "request_id": one} | options)) for one in ids]
    await asyncio.sleep(0.5)
    try:
        yield requests
    finally:
        for one in requests:
            one.cancel()
        await asyncio.gather(*requests, return_exceptions=True)


async def test_a_request_under_way_is_told_with_its_calls_and_what_failed():
    script = Script(flaky("a"), "done", lasts=2.0)
    async with (
        staged(offer("a", script), retry=Retry(base=3.0, cap=3.0, jitter="none")) as stage,
        asked(stage, 1, account=None),
    ):
        (status,) = (await look(stage)).requests
        assert (status.request_id, status.service, status.since, status.deadline) == ("late", "s", 0.0, 100.0)
        assert (status.calls, status.provider, status.attempts, status.waiting) == (1, "a", (), ())
        await asyncio.sleep(2.0)
        told = await look(stage)
        (status,) = told.requests
        assert (status.calls, status.provider) == (1, None)
        assert [one.kind for one in status.attempts] == ["Transient"]
        (waiting,) = status.waiting
        assert (waiting.reason, waiting.provider, waiting.since) == ("backoff", "a", 2.0)
        assert (told.count, told.calling, told.waiting) == (1, 0, {"backoff": 1})
        assert waiting.until is not None
        await asyncio.sleep(waiting.until - now() + 0.1)
        (status,) = (await look(stage)).requests
        assert status.calls == 2
    assert (await empty()) == 0


async def empty() -> int:
    async with staged(offer("a", Script())) as stage:
        await stage.request()
        return (await look(stage)).count


async def test_a_place_is_told_with_those_before_and_when_it_will_presumably_be_free():
    script = Script(lasts=4.0)
    async with staged(offer("a", script, max_concurrency=2)) as stage:
        for _ in range(3):
            await stage.request()
        async with asked(stage, 7) as requests:
            waiting = await waiting_of(stage)
            assert (waiting.reason, waiting.before, waiting.provider) == ("place", 4, "a")
            assert waiting.until == pytest.approx(now() - 0.5 + 12.0)  # pyright: ignore[reportUnknownMemberType]
            assert (await look(stage)).waiting == {"place": 5}
            await asyncio.wait(requests[-1:])
            assert now() == pytest.approx(waiting.until + 4.0)  # pyright: ignore[reportUnknownMemberType]


async def test_of_two_providers_the_sooner_is_told_first():
    alder, birch = Script(lasts=8.0), Script(lasts=5.0)
    listings = offer("a", alder, max_concurrency=1), offer("b", birch, max_concurrency=1, price=1)
    async with staged(*listings) as stage:
        await asyncio.gather(*(stage.request(timeout=100.0) for _ in range(4)))
        async with asked(stage, 4):
            (status,) = [one for one in (await look(stage)).requests if one.request_id == "late"]
            assert {one.provider for one in status.waiting} == {"a", "b"}
            first = status.waiting[0]
            assert (first.provider, first.before) == ("b", 1)
            # The one before it goes on at b, after 5 s, and it does at a itself, after 8 s.
            assert first.until == pytest.approx(now() - 0.5 + 8.0)  # pyright: ignore[reportUnknownMemberType]


async def test_a_breaker_its_probe_and_an_isolation_are_told():
    script = Script(*[flaky("a")] * 5, "done")
    async with staged(offer("a", script), breaker=FRAGILE, retry=Retry(max_retries=0)) as stage:
        await trip(stage, script)
        async with asked(stage, 2):
            waiting = await waiting_of(stage, "r0")
            assert waiting.reason == "breaker"
            assert waiting.until is not None
            script.lasts = 10.0
            await asyncio.sleep(waiting.until - now() + 0.1)
            assert (await waiting_of(stage)).reason == "probe"
            assert (await look(stage)).calling == 1
    async with staged(offer("a", Script())) as stage:
        await stage.ref.ask(Isolate(provider="a"), timeout=1)
        with pytest.raises(NotAdmitted) as refused:
            await stage.request()
        assert refused.value.waiting is not None
        assert (refused.value.waiting.reason, refused.value.waiting.until) == ("isolated", None)


async def test_a_stated_limit_is_told_with_the_time_of_the_last_in_the_queue():
    async with staged(offer("a", Script(), rate_limit=0.5, burst=2)) as stage, asked(stage, 6) as requests:
        waiting = await waiting_of(stage)
        assert (waiting.reason, waiting.before) == ("stated limit", 3)
        await asyncio.wait(requests)
        assert waiting.until == pytest.approx(now())  # pyright: ignore[reportUnknownMemberType]


async def test_a_learned_limit_is_told():
    script = Script("done", Throttled("429", retry_after=8.0, provider="a"), "done")
    async with staged(offer("a", script)) as stage:
        await stage.request()
        async with asked(stage, 1) as requests:
            waiting = await waiting_of(stage)
            assert waiting.reason in {"learned limit", "backoff"}
            await asyncio.wait(requests)
            assert waiting.until == pytest.approx(now(), abs=0.5)  # pyright: ignore[reportUnknownMemberType]


async def test_money_that_calls_under_way_may_leave_is_told():
    script = Script(lasts=5.0)
    async with (
        staged(offer("a", script, price=60, idempotent="repeatable"), budget=Micros(100)) as stage,
        asked(stage, 3),
    ):
        waiting = await waiting_of(stage)
        assert (waiting.reason, waiting.provider, waiting.until) == ("money", "a", None)
        assert "budget" in waiting.text(now())


async def test_a_refusal_has_what_was_waited_for():
    async with staged(offer("a", Script(lasts=30.0), max_concurrency=1)) as stage, asked(stage, 1):
        with pytest.raises(NotAdmitted) as refused:
            await stage.request(timeout=3.0)
        waiting = refused.value.waiting
        assert waiting is not None
        assert (waiting.reason, waiting.since, waiting.provider) == ("place", 0.5, "a")
    async with staged(offer("a", Script(), price=60), budget=Micros(50)) as stage:
        with pytest.raises(BudgetExceeded) as broke:
            await stage.request()
        assert broke.value.waiting is not None
        assert broke.value.waiting.reason == "money"
    script = Script(flaky("a"))
    async with staged(offer("a", script), breaker=FRAGILE, retry=Retry(max_retries=9, cap=1.0, jitter="none")) as stage:
        with pytest.raises(AllProvidersFailed) as failed:
            await stage.request(timeout=20.0)
        (refusal,) = failed.value.refused
        assert isinstance(refusal, NotAdmitted)
        assert refusal.waiting is not None
        assert (refusal.waiting.reason, refusal.waiting.until is not None) == ("breaker", True)


async def test_a_few_requests_are_listed_and_all_are_counted():
    async with staged(offer("a", Script(lasts=50.0), max_concurrency=1)) as stage, asked(stage, 305):
        told = await look(stage, most=10)
        assert [one.request_id for one in told.requests] == [f"r{number}" for number in range(10)]
        assert (told.count, told.calling, told.waiting) == (305, 1, {"place": 304})
        assert (await look(stage, most=0)).requests == ()
    with pytest.raises(ValueError, match="most must be <= 1,000"):
        GetRequests(most=1_001)
