"""429s that our rate does not cause cost little of it, and limits that are not stated are found all the same."""

from __future__ import annotations

import asyncio
import random
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest

from actors import (
    CallFailed,
    Done,
    FunctionTransport,
    Listing,
    Market,
    Provider,
    Retry,
    Supervisor,
    Throttled,
    robust_batch,
    smart_request,
)
from actors.policies import RetryBudget
from runtime import ActorSystem
from runtime.simulation import Simulation
from tests.proofs import repeated

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors import ProviderCall

SEEDS = repeated(30)
FEW_SEEDS = repeated(30, part=30)
ITEMS = 3_000


class Refusing:
    """A provider that refuses the calls that `refuses` says, given their number, with a `Retry-After`."""

    def __init__(self, refuses: Callable[[int, float], bool], *, lasts: float, retry_after: float | None) -> None:
        self.refuses = refuses
        self.lasts = lasts
        self.retry_after = retry_after
        self.calls = 0
        self.refused: list[float] = []

    async def __call__(self, _call: ProviderCall) -> str:
        self.calls += 1
        now = asyncio.get_running_loop().time()
        is_refused = self.refuses(self.calls, now)
        await asyncio.sleep(self.lasts)
        if is_refused:
            self.refused.append(now)
            raise Throttled("429", retry_after=self.retry_after)
        return "done"

    def market(self, **terms: Any) -> Market:
        def transport() -> FunctionTransport:
            return FunctionTransport(self, paid=False, idempotent="repeatable")

        listing = Listing(provider=Provider(name="p", services={"s"}), transport=transport, **terms)
        return Market(providers=[listing], retry=Retry(max_retries=100), retry_budget=RetryBudget(ratio=1.0))


def times_done(provider: Refusing, items: int, seed: int, **terms: Any) -> list[float]:
    """Return when each item of a batch was done, in virtual time."""

    async def batch() -> list[float]:
        done: list[float] = []
        async with ActorSystem("strays", log=False) as system:
            supervisor = system.spawn(lambda: Supervisor(provider.market(**terms)))
            places = terms["max_concurrency"]
            async with robust_batch(supervisor, range(items), service="s", max_concurrency=places, timeout=600) as all_:
                async for outcome in all_:
                    assert isinstance(outcome, Done)
                    done.append(asyncio.get_running_loop().time())
        return done

    return Simulation(seed, logs=False).run(batch).result


@cache
def done_without_429s(seed: int, items: int = ITEMS, **terms: Any) -> list[float]:
    """Return when each item was done at a provider of 40 places and 20 ms a call, which refuses none of them."""
    return times_done(
        Refusing(stray(0.0, seed), lasts=0.02, retry_after=None), items, seed, max_concurrency=40, **terms
    )


def rate_of(done: list[float]) -> float:
    """Return the items a second while all places were in use: a batch ends with the retries of its last items."""
    first, last = len(done) // 10, len(done) * 9 // 10
    return (last - first) / (done[last] - done[first])


def left_by_waits(provider: Refusing, done: list[float]) -> float:
    """Return the part of the rate that is left if each call that strays waits half a second, and nothing else does."""
    first, last = len(done) // 10, len(done) * 9 // 10
    refused = sum(done[first] <= at <= done[last] for at in provider.refused)
    share = refused / (refused + last - first)
    return (1 - share) * provider.lasts / (provider.lasts + share * 0.5)


def stray(share: float, seed: int) -> Callable[[int, float], bool]:
    dice = random.Random(seed)
    return lambda _number, _now: dice.random() < share


@pytest.mark.parametrize(("share", "left"), [(0.001, 0.9), (0.01, 0.7), (0.05, 0.4)])
@pytest.mark.parametrize(
    ("terms", "retry_after"),
    [({}, 0.5), ({}, None), ({"rate_limit": 2_500, "burst": 200}, 0.5)],
    ids=["unstated", "not told when", "stated"],
)
def test_strays_cost_no_more_than_the_waits_of_their_own_calls(
    share: float, left: float, terms: dict[str, Any], retry_after: float | None
):
    """With 5 %, the waits alone leave 42 %, and between 34 and 48 % if by chance more or fewer of so few items stray.

    Reached: 94 to 100 % of what they leave.
    """
    for seed in range(FEW_SEEDS):
        without = rate_of(done_without_429s(seed, **terms))
        provider = Refusing(stray(share, seed), lasts=0.02, retry_after=retry_after)
        done = times_done(provider, ITEMS, seed, max_concurrency=40, **terms)
        assert rate_of(done) >= min(left, 0.93 * left_by_waits(provider, done)) * without


@pytest.mark.parametrize("retry_after", [0.5, None, 3.0])
@pytest.mark.parametrize("number", [5, 100])
def test_one_early_429_costs_its_retry_after_and_two_seconds(number: int, retry_after: float | None):
    without = done_without_429s(1, 1_500)[-1]
    one = Refusing(lambda call, _now: call == number, lasts=0.02, retry_after=retry_after)
    assert times_done(one, 1_500, 1, max_concurrency=40)[-1] <= without + (retry_after or 0.0) + 2.0


def bucket(rate: float, burst: float) -> Callable[[int, float], bool]:
    """Return a limit as a token bucket is one."""
    tokens, filled = burst, 0.0

    def refuses(_number: int, now: float) -> bool:
        nonlocal tokens, filled
        tokens, filled = min(burst, tokens + (now - filled) * rate), now
        if tokens < 1 - 1e-9:
            return True
        tokens -= 1
        return False

    return refuses


def window(limit: int, seconds: float) -> Callable[[int, float], bool]:
    """Return a limit of so many calls in each window of so many seconds."""
    begun: dict[int, int] = {}

    def refuses(_number: int, now: float) -> bool:
        number = int(now / seconds)
        begun[number] = begun.get(number, 0) + 1
        return begun[number] > limit

    return refuses


@pytest.mark.parametrize("lasts", [0.02, 0.2])
def test_a_limit_that_was_not_stated_is_found_with_few_429s(lasts: float):
    for seed in range(SEEDS):
        provider = Refusing(bucket(10.0, 10.0), lasts=lasts, retry_after=5.0)
        assert times_done(provider, 200, seed, max_concurrency=10)[-1] <= 45.0
        assert len(provider.refused) <= 20


@pytest.mark.parametrize(
    ("make", "limit", "retry_after"),
    [
        (lambda: bucket(100.0, 100.0), 100, None),
        (lambda: window(100, 1.0), 100, 1.0),
        (lambda: bucket(40.0, 80.0), 40, 1.0),
        (lambda: window(40, 1.0), 40, None),
    ],
    ids=["bucket", "window", "smaller bucket", "smaller window"],
)
def test_a_steady_load_above_a_limit_is_held_to_it(
    make: Callable[[], Callable[[int, float], bool]], limit: int, retry_after: float | None
):
    served: list[float] = []
    provider = Refusing(make(), lasts=0.05, retry_after=retry_after)

    async def scenario() -> None:
        async with ActorSystem("steady", log=False) as system:
            supervisor = system.spawn(lambda: Supervisor(provider.market(max_concurrency=200)))

            async def one(number: int) -> None:
                try:
                    await smart_request(supervisor, service="s", input=number, timeout=10)
                except CallFailed:
                    return
                served.append(asyncio.get_running_loop().time())

            async with asyncio.TaskGroup() as group:
                for number in range(limit * 120):
                    group.create_task(one(number))
                    await asyncio.sleep(1 / (1.5 * limit))

    Simulation(1, logs=False).run(scenario)
    late = sum(60.0 < at <= 80.0 for at in served)
    refused = sum(60.0 < at <= 80.0 for at in provider.refused)
    assert 0.9 * limit * 20 <= late <= 1.1 * limit * 20
    assert refused <= 0.01 * (late + refused)


def test_without_learning_each_call_waits_for_its_own_retry_after():
    provider = Refusing(bucket(100.0, 10.0), lasts=0.02, retry_after=0.2)
    done = times_done(provider, 400, 1, max_concurrency=10, learning=False)
    assert done[-1] <= 10.0
    assert len(provider.refused) > 20


@pytest.mark.parametrize("share", [0.3, 0.5, 1.0])
@pytest.mark.parametrize("retry_after", [0.0, 1.0, None])
def test_the_rate_is_back_seconds_after_a_spell_of_429s(share: float, retry_after: float | None):
    # One of them at a rate of 2,000/s, the others at 400/s: their requests take four seconds at least.
    places, lasts = (40, 0.02) if (share, retry_after) == (1.0, 1.0) else (20, 0.05)
    dice = random.Random(1)
    spell = Refusing(lambda _call, now: 1.0 < now < 6.0 and dice.random() < share, lasts=lasts, retry_after=retry_after)
    done = times_done(spell, round(4 * places / lasts), 1, max_concurrency=places)
    assert done[-1] <= 6.0 + 25.0
