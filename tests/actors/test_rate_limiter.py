"""One quota under all who draw on it, in virtual time."""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from actors import Acquire, Permanent, RateLimited, RateLimiter
from runtime import ActorFailed, ActorSystem, AskTimeout

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from actors.token_bucket import Grant
    from runtime import ActorRef


class Quota:
    """A limiter that runs, and who got a grant from it when, in order."""

    def __init__(self, system: ActorSystem, **options: Any) -> None:
        made: list[RateLimiter] = []

        def make() -> RateLimiter:
            made.append(RateLimiter("quota", **options))
            return made[-1]

        self.ref: ActorRef[Acquire] = system.spawn(make)
        self.instances = made
        self.failures: list[ActorFailed] = []
        self.granted: list[tuple[int, float]] = []
        system.events.subscribe(ActorFailed, self.failures.append)

    @property
    def actor(self) -> RateLimiter:
        assert self.failures == []
        return self.instances[0]

    async def acquire(self, number: int, *, weight: int = 1, timeout: float = 1e6) -> Grant:  # noqa: ASYNC109 - a deadline.
        grant = await self.ref.ask(Acquire(weight=weight), timeout=timeout)
        self.granted.append((number, asyncio.get_running_loop().time()))
        return grant

    def start(self, number: int, **options: Any) -> asyncio.Task[Grant]:
        return asyncio.create_task(self.acquire(number, **options))

    def assert_idle(self) -> None:
        assert len(self.actor.context.timers) == 0
        assert self.actor._timer is None
        assert len(self.actor._waiting) == 0


@asynccontextmanager
async def quota(**options: Any) -> AsyncIterator[Quota]:
    async with ActorSystem("limits") as system:
        yield Quota(system, **options)
    assert len(asyncio.all_tasks()) == 1


async def steps(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def now() -> float:
    return asyncio.get_running_loop().time()


def most_in_one_second(times: list[float]) -> int:
    """Return how many fell into the fullest window of one second, its end excluded."""
    most = first = 0
    for last, time in enumerate(times):
        while time - times[first] >= 1.0 - 1e-9:
            first += 1
        most = max(most, last - first + 1)
    return most


@pytest.mark.parametrize("burst", [1, 100])
async def test_a_thousand_who_wait_get_the_whole_rate_in_order_and_never_more(burst: int):
    async with quota(rate=100.0, burst=burst) as limiter:
        await asyncio.gather(*(limiter.start(number) for number in range(1000)))
        times = [time for _, time in limiter.granted]
        assert [number for number, _ in limiter.granted] == list(range(1000))
        assert (1000 - burst) / now() >= 99.5
        assert most_in_one_second(times) <= 100 + burst
        limiter.assert_idle()


@pytest.mark.parametrize("burst", [1, 7, 100])
@pytest.mark.parametrize("seed", range(20))
async def test_nobody_is_overtaken_though_many_give_up_at_any_moment(seed: int, burst: int):
    dice = random.Random(seed)
    async with quota(rate=100.0, burst=burst) as limiter:
        tasks = [limiter.start(number) for number in range(1000)]
        await steps(2)
        for number in dice.sample(range(1000), 600):
            # Also in the very moment in which tokens fall due.
            await asyncio.sleep(dice.choice([0.0, 0.0, 0.01, 0.005]))
            await steps(dice.randrange(3))
            tasks[number].cancel()
        await asyncio.wait(tasks)
        order = [number for number, _ in limiter.granted]
        assert order == sorted(order)
        assert len(order) >= 400
        assert most_in_one_second([time for _, time in limiter.granted]) <= 100 + burst
        assert (len(order) - burst) / now() >= 99.0
        await steps(3)
        limiter.assert_idle()


async def test_one_who_gives_up_in_the_moment_of_its_turn_is_no_crash_and_costs_no_token():
    for k in range(8):
        began = now()
        async with quota(rate=1.0) as limiter:
            await limiter.acquire(0)
            second, third = limiter.start(1), limiter.start(2)
            asyncio.get_running_loop().call_at(began + 1.0, second.cancel)
            await steps(k)
            await asyncio.wait([second, third])
            assert second.cancelled()
            assert limiter.granted == [(0, began), (2, began + 1.0)]
            await steps(3)
            limiter.assert_idle()


async def test_a_grant_that_comes_too_late_is_given_back_to_the_next():
    async with quota(rate=1.0) as limiter:
        await limiter.acquire(0)
        late = limiter.start(1)
        await steps(2)
        next_one = limiter.start(2)

        def cancel_after_grant() -> None:
            assert limiter.actor._waiting
            # The answer is there, and its asker gone before it could take it.
            limiter.actor._serve_line()
            late.cancel()

        asyncio.get_running_loop().call_at(1.0, cancel_after_grant)
        await asyncio.wait([late, next_one])
        assert late.cancelled()
        assert limiter.granted == [(0, 0.0), (2, 1.0)]
        limiter.assert_idle()


async def test_an_asker_whose_time_is_up_leaves_the_line_without_a_trace():
    async with quota(rate=1.0) as limiter:
        await limiter.acquire(0)
        with pytest.raises(AskTimeout):
            await limiter.acquire(1, timeout=0.5)
        await steps(2)
        limiter.assert_idle()
        await limiter.acquire(2)
        assert limiter.granted == [(0, 0.0), (2, 1.0)]


async def test_when_one_who_wants_much_gives_up_the_next_who_wants_little_is_served_at_once():
    async with quota(rate=1.0, burst=10) as limiter:
        await limiter.acquire(0, weight=8)
        much, little = limiter.start(1, weight=10), limiter.start(2, weight=2)
        await steps(2)
        assert not little.done()
        much.cancel()
        await little
        assert now() == 0.0
        limiter.assert_idle()


async def test_many_tokens_are_waited_for_in_order_with_few():
    async with quota(rate=10.0, burst=5) as limiter:
        await asyncio.gather(*(limiter.start(number, weight=1 + number % 5) for number in range(50)))
        assert [number for number, _ in limiter.granted] == list(range(50))
        assert now() == pytest.approx((150 - 5) / 10.0)


async def test_more_tokens_than_the_burst_are_refused_for_good():
    async with quota(rate=10.0, burst=5) as limiter:
        with pytest.raises(Permanent, match="6 tokens"):
            await limiter.acquire(0, weight=6)
        await limiter.acquire(1, weight=5)
        assert limiter.actor.bucket.burst == 5


async def test_one_too_many_in_line_is_refused_with_a_time_to_come_back():
    async with quota(rate=1.0, max_waiting=3) as limiter:
        tasks = [limiter.start(number) for number in range(6)]
        await steps(3)
        refused = [task.exception() for task in tasks if task.done() and task.exception() is not None]
        assert [type(error) for error in refused] == [RateLimited, RateLimited]
        assert [error.retry_after for error in refused if isinstance(error, RateLimited)] == [4.0, 4.0]
        await asyncio.wait(tasks)
        assert [number for number, _ in limiter.granted] == [0, 1, 2, 3]
    async with quota(rate=2.0, max_waiting=0) as limiter:
        await limiter.acquire(0)
        with pytest.raises(RateLimited) as full:
            await limiter.acquire(1)
        assert full.value.retry_after == 0.5


async def test_a_limiter_that_stops_leaves_nobody_waiting():
    async with quota(rate=0.001) as limiter:
        await limiter.acquire(0)
        tasks = [limiter.start(number) for number in range(1, 5)]
        await steps(2)
        limiter.ref.stop()
        await asyncio.wait(tasks)
        assert all(task.exception() is not None for task in tasks)
        assert now() == 0.0


async def test_a_limiter_that_waits_wakes_up_once_or_twice_a_grant():
    async with quota(rate=100.0) as limiter:
        turns = 0
        true_serve = limiter.actor._serve_line

        def counting() -> None:
            nonlocal turns
            turns += 1
            true_serve()

        limiter.actor._serve_line = counting  # type: ignore[method-assign]
        await asyncio.gather(*(limiter.start(number) for number in range(1000)))
        assert turns <= 2 * 1000


def test_what_cannot_be_is_refused_when_it_is_made():
    with pytest.raises(ValueError, match="weight"):
        Acquire(weight=0)
    with pytest.raises(ValueError, match="max_waiting"):
        RateLimiter("q", rate=1.0, max_waiting=-1)
    with pytest.raises(ValueError, match="rate"):
        RateLimiter("q", rate=0.0)
