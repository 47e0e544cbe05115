"""What a request is told to wait until, against when it goes on, for each reason and over many seeds."""

from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from actors import BreakerConfig, Permanent, Retry, Throttled, Transient
from actors.limits.quota import per_minute, quota_of
from actors.market import SharedQuota
from actors.policies.retry_budget import RetryBudget
from actors.supervisor import GetRequests
from tests.actors.supervisor.stage import Stage, offer, staged
from tests.proofs import repeated

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from actors import ProviderCall
    from actors.limits import WaitReason

SEEDS = repeated(100, part=20)
LOOK = 0.5
"""Seconds between two looks."""
TIMEOUT = 600.0


def now() -> float:
    return asyncio.get_running_loop().time()


class Watched:
    """A provider that keeps when each request's calls begin, and answers as its `answer` does."""

    def __init__(self, answer: Callable[[ProviderCall], Awaitable[Any]]) -> None:
        self.answer = answer
        self.begun: dict[str, list[float]] = {}
        self.failed: list[float] = []

    async def __call__(self, call: ProviderCall) -> Any:
        self.begun.setdefault(call.request_id, []).append(now())
        try:
            return await self.answer(call)
        except Exception:
            self.failed.append(now())
            raise


class Told(msgspec.Struct):
    """What a request was told at one of the looks at a wait for the same reason: at each with the same probability."""

    reason: WaitReason
    at: float
    until: float | None
    looks: int = 0


class Watch:
    """Looks at the requests under way, and tells how far off what they were told was."""

    def __init__(self, stage: Stage, dice: Random, *providers: Watched) -> None:
        self.stage, self.dice, self.providers = stage, dice, providers
        self.waits: dict[tuple[str, int], Told] = {}

    async def look(self) -> None:
        told = await self.stage.ref.ask(GetRequests(most=1_000), timeout=1.0)
        for one in told.requests:
            if not one.waiting:
                continue
            first = one.waiting[0]
            wait = self.waits.get((one.request_id, one.calls))
            if wait is None or wait.reason != first.reason:
                wait = self.waits[one.request_id, one.calls] = Told(first.reason, told.now, first.until)
            wait.looks += 1
            if self.dice.random() < 1 / wait.looks:
                wait.at, wait.until = told.now, first.until

    async def until_done(self, requests: list[asyncio.Task[Any]]) -> None:
        while not all(one.done() for one in requests):
            await self.look()
            await asyncio.sleep(LOOK)
        await asyncio.gather(*requests, return_exceptions=True)

    def errors(self, reason: WaitReason) -> list[tuple[float, float]]:
        """Return, of each wait for this reason alone, by how much it was told wrongly, and how long it took.

        If a provider was tried again meanwhile, and failed, its breaker is open for a new reason, and so on.
        """
        errors: list[tuple[float, float]] = []
        for (request_id, calls), told in self.waits.items():
            begun = sorted(at for one in self.providers for at in one.begun.get(request_id, ()))
            if told.reason != reason or told.until is None or len(begun) <= calls:
                continue
            went_on = begun[calls]
            has_news = any(told.at < at < went_on for one in self.providers for at in one.failed)
            if not (has_news and reason in {"breaker", "probe", "left alone", "learned limit"}):
                errors.append((told.until - went_on, went_on - told.at))
        return errors


async def burst(stage: Stage, dice: Random, count: int, *, over: float = 0.0) -> list[asyncio.Task[Any]]:
    """Have so many requests under way, which arrive within `over` seconds."""

    async def request(number: int, after: float) -> Any:
        await asyncio.sleep(after)
        return await stage.request(timeout=TIMEOUT, request_id=f"r{number}")

    return [asyncio.create_task(request(number, dice.uniform(0.0, over))) for number in range(count)]


def lasting(dice: Random, mean: float, *, spread: float = 0.2) -> Callable[[ProviderCall], Awaitable[Any]]:
    """Return what answers after a time whose logarithm has this standard deviation.

    Of twenty calls to wait for, the time varies by a twentieth then; no forecast could know better.
    """

    async def answer(_: ProviderCall) -> Any:
        await asyncio.sleep(mean * dice.lognormvariate(0.0, spread))
        return "done"

    return answer


async def places(dice: Random) -> Watch:
    mean = dice.choice([0.3, 1.0, 3.0])
    alder = Watched(lasting(dice, mean))
    async with staged(offer("a", alder, max_concurrency=dice.randint(2, 8))) as stage:
        await asyncio.gather(*(stage.request(timeout=TIMEOUT) for _ in range(24)))
        watch = Watch(stage, dice, alder)
        await watch.until_done(await burst(stage, dice, 60, over=dice.choice([0.0, 5.0])))
    return watch


async def stated(dice: Random) -> Watch:
    alder = Watched(lasting(dice, 0.5))
    limits: dict[str, Any] = {"rate_limit": dice.choice([0.5, 2.0, 5.0]), "burst": dice.randint(1, 10)}
    async with staged(offer("a", alder, **limits, max_concurrency=50)) as stage:
        watch = Watch(stage, dice, alder)
        await watch.until_done(await burst(stage, dice, 60, over=dice.choice([0.0, 5.0])))
    return watch


async def learned(dice: Random) -> Watch:
    limit = quota_of(per_minute("requests", dice.choice([60, 120, 300]), burst=10))

    async def answer(_: ProviderCall) -> Any:
        nonlocal limit
        taken = limit.take(now())
        if not isinstance(taken, tuple):
            raise Throttled("429", retry_after=dice.choice([None, taken.wait, 5.0]), provider="a")
        limit = taken[0]
        await asyncio.sleep(0.3)
        return "done"

    alder = Watched(answer)
    async with staged(offer("a", alder, max_concurrency=50), retry=Retry(max_retries=50)) as stage:
        watch = Watch(stage, dice, alder)
        await watch.until_done(await burst(stage, dice, 100, over=20.0))
    return watch


async def broken(dice: Random) -> Watch:
    mean = dice.choice([0.5, 1.0, 2.0, 4.0])
    answered = lasting(dice, mean)

    async def answer(call: ProviderCall) -> Any:
        if now() % 80.0 >= 40.0:
            await asyncio.sleep(0.2)
            raise Transient("down", provider="a", outcome="not_started")
        return await answered(call)

    alder = Watched(answer)
    breaker = BreakerConfig(open_for=dice.choice([5.0, 20.0]), slow_start=0.0)
    async with staged(offer("a", alder), breaker=breaker, retry=Retry(max_retries=50, base=0.1, cap=0.2)) as stage:
        watch = Watch(stage, dice, alder)
        await watch.until_done(await burst(stage, dice, 200, over=300.0))
    return watch


async def backoff(dice: Random) -> Watch:
    async def answer(_: ProviderCall) -> Any:
        await asyncio.sleep(0.2)
        if dice.random() < 0.3:
            raise Transient("hiccup", provider="a", outcome="not_started")
        return "done"

    alder = Watched(answer)
    policies = {"retry": Retry(max_retries=9, base=4.0, cap=60.0), "breaker": BreakerConfig(failure_threshold=100)}
    async with staged(offer("a", alder), **policies) as stage:
        watch = Watch(stage, dice, alder)
        await watch.until_done(await burst(stage, dice, 20, over=200.0))
    return watch


async def retries(dice: Random) -> Watch:
    async def answer(call: ProviderCall) -> Any:
        await asyncio.sleep(0.2)
        if len(alder.begun[call.request_id]) < 2:
            raise Transient("hiccup", provider="a", outcome="not_started")
        return "done"

    alder = Watched(answer)
    budget = RetryBudget(ratio=0.0, min_per_second=dice.choice([0.2, 1.0]), tokens=1.0)
    policies = {"retry_budget": budget, "breaker": BreakerConfig(failure_threshold=100, failure_rate=1.0)}
    async with staged(offer("a", alder), **policies) as stage:
        watch = Watch(stage, dice, alder)
        await watch.until_done(await burst(stage, dice, 15, over=10.0))
    return watch


async def shared(dice: Random) -> Watch:
    alder = Watched(lasting(dice, 0.5))
    quotas = {"org": SharedQuota(rate_limit=dice.choice([0.5, 2.0]), burst=5)}
    async with staged(offer("a", alder, quota="org", max_concurrency=50), quotas=quotas) as stage:
        watch = Watch(stage, dice, alder)
        await watch.until_done(await burst(stage, dice, 40, over=dice.choice([0.0, 5.0])))
    return watch


async def left_alone(dice: Random) -> Watch:
    well_at = dice.uniform(5.0, 60.0)

    async def answer(_: ProviderCall) -> Any:
        await asyncio.sleep(0.2)
        if now() < well_at:
            raise Permanent("wrong key", provider="a", scope="provider", concerns="key")
        return "done"

    alder = Watched(answer)
    async with staged(offer("a", alder)) as stage:
        watch = Watch(stage, dice, alder)
        await watch.until_done(await burst(stage, dice, 10, over=40.0))
    return watch


WORLDS: dict[WaitReason, Callable[[Random], Awaitable[Watch]]] = {
    "place": places,
    "stated limit": stated,
    "learned limit": learned,
    "breaker": broken,
    "probe": broken,
    "backoff": backoff,
    "retries": retries,
    "quota": shared,
    "left alone": left_alone,
}


@pytest.mark.parametrize("reason", WORLDS)
async def test_nine_of_ten_waits_end_when_they_were_told_to(reason: WaitReason) -> None:
    errors: list[tuple[float, float]] = []
    for seed in range(SEEDS):
        errors += (await WORLDS[reason](Random(seed))).errors(reason)
    right = sum(abs(error) <= max(1.0, 0.1 * waited) for error, waited in errors)
    assert len(errors) >= SEEDS
    assert right >= 0.9 * len(errors), sorted(errors)
