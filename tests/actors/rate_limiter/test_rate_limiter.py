"""One quota shared by many callers, in virtual time."""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from actors import Acquire, Permanent, RateLimiter
from actors.errors import RateLimited
from actors.limits.quota import RateLimit
from actors.limits.reported import ReportedLimit
from actors.rate_limiter.messages import LimiterGrant, ReportThrottled, Settle
from actors.rate_limiter.rate_limiter import PendingAcquire
from runtime import ActorFailed, ActorSystem, AskTimeout
from runtime.simulation import explore
from tests.proofs import repeated

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from runtime import ActorRef
    from runtime.simulation import Simulation


class Quota:
    """A running limiter, and its grants in order: which caller, and when."""

    def __init__(self, system: ActorSystem, **options: Any) -> None:
        made: list[RateLimiter] = []

        def make() -> RateLimiter:
            made.append(RateLimiter("quota", **options))
            return made[-1]

        self.ref: ActorRef[Acquire | Settle | ReportThrottled] = system.spawn(make)
        self.instances = made
        self.failures: list[ActorFailed] = []
        self.granted: list[tuple[int, float]] = []
        system.events.subscribe(ActorFailed, self.failures.append)

    @property
    def actor(self) -> RateLimiter:
        assert self.failures == []
        return self.instances[0]

    async def acquire(self, number: int, *, weight: int = 1, timeout: float = 1e6) -> LimiterGrant:  # noqa: ASYNC109 - a deadline.
        grant = await self.ref.ask(Acquire(weight=weight), timeout=timeout)
        self.granted.append((number, asyncio.get_running_loop().time()))
        return grant

    def start(self, number: int, **options: Any) -> asyncio.Task[LimiterGrant]:
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
async def test_a_thousand_waiting_askers_get_the_whole_rate_in_order_and_never_more(burst: int):
    async with quota(rate=100.0, burst=burst) as limiter:
        await asyncio.gather(*(limiter.start(number) for number in range(1000)))
        times = [time for _, time in limiter.granted]
        assert [number for number, _ in limiter.granted] == list(range(1000))
        assert (1000 - burst) / now() >= 99.5
        assert most_in_one_second(times) <= 100 + burst
        limiter.assert_idle()


@pytest.mark.parametrize("burst", [1, 7, 100])
@pytest.mark.parametrize("seed", range(20))
async def test_no_asker_is_overtaken_though_many_give_up_at_any_moment(seed: int, burst: int):
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


async def test_an_asker_that_gives_up_in_the_moment_of_its_turn_is_no_crash_and_costs_no_token():
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
            limiter.actor._serve_queue()
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


async def test_a_grant_is_passed_on_without_a_turn_of_the_loop_and_an_end_without_one_in_the_next():
    loop, called, abandoned = asyncio.get_running_loop(), list[object](), list[object]()
    granted, left = (PendingAcquire({}, loop, abandoned=abandoned.append) for _ in range(2))
    for waiter in (granted, left):
        waiter.add_done_callback(called.append)
    granted.set_result(LimiterGrant(0.0, 1, None, None))
    assert called == [granted]
    assert left.cancel()
    assert not left.cancel()
    assert (called, abandoned) == ([granted], [])
    await asyncio.sleep(0)
    assert (called, abandoned) == ([granted, left], [left])
    granted.add_done_callback(called.append)
    await asyncio.sleep(0)
    assert called == [granted, left, granted]


async def test_when_an_asker_of_much_gives_up_the_next_asker_of_little_is_served_at_once():
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


async def test_a_limiter_that_stops_leaves_no_asker_waiting():
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
        true_serve = limiter.actor._serve_queue

        def counting() -> None:
            nonlocal turns
            turns += 1
            true_serve()

        limiter.actor._serve_queue = counting  # type: ignore[method-assign]
        await asyncio.gather(*(limiter.start(number) for number in range(1000)))
        assert turns <= 2 * 1000


def test_what_cannot_be_is_refused_when_it_is_made():
    with pytest.raises(ValueError, match="weight"):
        Acquire(weight=0)
    with pytest.raises(ValueError, match="max_waiting"):
        RateLimiter("q", rate=1.0, max_waiting=-1)
    with pytest.raises(ValueError, match="rate"):
        RateLimiter("q", rate=0.0)


async def acquire_for(limiter: Quota, tenant: str, log: list[tuple[str, float]], **weights: int) -> LimiterGrant:
    grant = await limiter.ref.ask(Acquire(tenant=tenant, weights=weights), timeout=1e6)
    log.append((tenant, now()))
    return grant


async def test_several_limits_are_kept_at_once_and_the_scarcest_decides():
    tokens = RateLimit(dimension="tokens", rate=100.0, burst=500)
    async with quota(rate=10.0, burst=10, limits=[tokens]) as limiter:
        log: list[tuple[str, float]] = []
        await asyncio.gather(*(acquire_for(limiter, "default", log, tokens=100) for _ in range(15)))
        assert [time for _, time in log[:5]] == [0.0] * 5
        assert now() == pytest.approx(10.0)
        # Of requests there were enough all the while: the last has left nine.
        await asyncio.gather(*(acquire_for(limiter, "default", log, tokens=0) for _ in range(9)))
        assert now() == pytest.approx(10.0)
        limiter.assert_idle()


async def test_a_weight_above_the_burst_of_any_dimension_is_refused_for_good_also_in_line():
    tokens = RateLimit(dimension="tokens", rate=1.0, burst=100)
    async with quota(rate=0.1, limits=[tokens]) as limiter:
        await limiter.acquire(0)
        waiting = limiter.start(1)
        await steps(2)
        with pytest.raises(Permanent, match="101 tokens of 'tokens'"):
            await limiter.ref.ask(Acquire(weights={"tokens": 101}), timeout=1.0)
        assert now() == 0.0
        await waiting


async def test_what_a_call_really_weighed_is_charged_or_given_back():
    tokens = RateLimit(dimension="tokens", rate=10.0, burst=100)
    async with quota(limits=[tokens]) as limiter:
        log: list[tuple[str, float]] = []
        first = await acquire_for(limiter, "default", log, tokens=100)
        limiter.ref.tell(Settle(grant=first, weights={"tokens": 150}))
        await acquire_for(limiter, "default", log, tokens=10)
        assert now() == pytest.approx(6.0)
        second = await acquire_for(limiter, "default", log, tokens=100)
        assert now() == pytest.approx(16.0)
        waiting = asyncio.create_task(acquire_for(limiter, "default", log, tokens=60))
        await steps(2)
        limiter.ref.tell(Settle(grant=second, weights={"tokens": 40}))
        await waiting
        assert now() == pytest.approx(16.0)
        limiter.assert_idle()


async def test_a_call_that_never_ran_gives_its_tokens_to_the_next_and_only_once():
    async with quota(rate=0.01) as limiter:
        grant = await limiter.acquire(0)
        following = [limiter.start(number) for number in range(1, 4)]
        await steps(2)
        for _ in range(3):
            limiter.ref.tell(Settle(grant=grant, outcome="never_ran"))
        await asyncio.wait(following)
        assert limiter.granted == [(0, 0.0), (1, 0.0), (2, 100.0), (3, 200.0)]
        assert list(limiter.actor.broken_invariants()) == []


async def test_a_grant_from_before_a_restart_gives_nothing_back_to_the_quota_after_it():
    async with quota(rate=0.01) as limiter:
        foreign = msgspec.structs.replace(await limiter.acquire(0), number=-1)
        limiter.ref.tell(Settle(grant=foreign, outcome="never_ran"))
        await limiter.acquire(1)
        assert now() == 100.0


async def test_after_a_429_all_askers_wait_and_then_go_one_by_one():
    async with quota() as limiter:
        for number in range(100):
            await limiter.acquire(number)
            await asyncio.sleep(0.1)
        grant = await limiter.acquire(100)
        began = now()
        limiter.ref.tell(ReportThrottled(retry_after=5.0, grant=grant))
        limiter.granted.clear()
        await asyncio.gather(*(limiter.start(number) for number in range(60)))
        times = [time for _, time in limiter.granted]
        assert [number for number, _ in limiter.granted] == list(range(60))
        assert began + 5.0 <= times[0] <= began + 5.2 + 1e-9
        assert most_in_one_second([time for time in times if time < times[0] + 1.0]) in {5, 6}
        assert all(later - earlier >= 0.1 - 1e-6 for earlier, later in pairwise(times))
        assert len(limiter.actor.context.timers) == 0


async def test_the_first_429_that_is_reported_holds_back_all_and_a_failure_that_is_settled_none():
    async with quota() as limiter:
        stray, reported = await limiter.acquire(0), await limiter.acquire(1)
        began = now()
        limiter.ref.tell(Settle(grant=stray, outcome="failed"))
        await limiter.acquire(2)
        assert now() - began < 1.0
        limiter.ref.tell(ReportThrottled(retry_after=5.0, grant=reported))
        began = now()
        await limiter.acquire(3)
        assert now() - began >= 5.0


async def test_a_429_reaches_askers_that_wait_for_tokens_already():
    async with quota(rate=10.0) as limiter:
        tasks = [limiter.start(number) for number in range(20)]
        await asyncio.sleep(0.55)
        limiter.ref.tell(ReportThrottled(retry_after=10.0))
        await asyncio.wait(tasks)
        times = [time for _, time in limiter.granted]
        assert sum(1 for time in times if time < 0.6) == 6
        assert times[6] >= 10.55
        assert most_in_one_second(times) <= 11


async def test_what_an_answer_says_remains_is_not_exceeded():
    async with quota() as limiter:
        grant = await limiter.acquire(0)
        limiter.ref.tell(Settle(grant=grant, limits=(ReportedLimit(remaining=2, reset=30.0),)))
        await asyncio.gather(*(limiter.start(number) for number in range(1, 6)))
        assert limiter.granted == [(0, 0.0), (1, 0.0), (2, 0.0), (3, 30.0), (4, 30.0), (5, 30.0)]


async def test_a_bulk_job_and_an_interactive_caller_share_and_each_is_served_in_order():
    async with quota(rate=10.0, shares={"interactive": 3.0}) as limiter:
        log: list[tuple[str, float]] = []
        bulk = [asyncio.create_task(acquire_for(limiter, "bulk", log)) for _ in range(1000)]
        await asyncio.sleep(1.05)
        for _ in range(20):
            asked = now()
            await acquire_for(limiter, "interactive", log)
            assert now() - asked <= 0.2 + 1e-6
            await asyncio.sleep(0.5)
        # Both wait all the while: three to one.
        log.clear()
        crowd = [asyncio.create_task(acquire_for(limiter, "interactive", log)) for _ in range(200)]
        await asyncio.sleep(10.0)
        assert abs(sum(1 for tenant, _ in log if tenant == "interactive") - 75) <= 2
        for task in bulk + crowd:
            task.cancel()
        await asyncio.wait(bulk + crowd)
        await steps(3)
        limiter.assert_idle()


async def test_a_thousand_in_line_wake_it_up_once_or_twice_a_grant_and_it_has_one_timer():
    async with quota(rate=100.0) as limiter:
        tenants = [f"tenant {number % 7}" for number in range(1000)]
        tasks = [asyncio.create_task(acquire_for(limiter, tenant, [])) for tenant in tenants]
        while not all(task.done() for task in tasks):
            assert len(limiter.actor.context.timers) <= 1
            await asyncio.sleep(0.1)
        assert (1000 - 1) / now() >= 99.0


class Call(msgspec.Struct):
    """One that was let through, and what became of it."""

    tenant: str
    number: int
    at: float
    grant: LimiterGrant
    ran: bool = True
    retry_after: float | None = None


def end(call: Call, ref: ActorRef[Settle | ReportThrottled], dice: random.Random) -> None:
    grant = call.grant
    match dice.choice(["nothing", "served", "never_ran", "less", "throttled"]):
        case "served":
            ref.tell(Settle(grant=grant))
        case "never_ran":
            call.ran = False
            ref.tell(Settle(grant=grant, outcome="never_ran"))
        case "less":
            ref.tell(Settle(grant=grant, weights={"tokens": 0}))
        case "throttled" if dice.random() < 0.1:
            call.retry_after = dice.uniform(0.0, 2.0)
            ref.tell(ReportThrottled(retry_after=call.retry_after, grant=grant))
        case _:
            pass


async def crowd(simulation: Simulation, calls: list[Call], burst: int) -> None:
    """Tenants, several limits, askers that give up at any moment, calls that end in any way, and 429s."""
    dice = simulation.random
    limits = [RateLimit(dimension="tokens", rate=200.0, burst=50)] if dice.random() < 0.5 else []
    async with ActorSystem("limits") as system:
        ref = system.spawn(lambda: RateLimiter("quota", rate=20.0, burst=burst, limits=limits, shares={"a": 2.0}))

        async def caller(tenant: str, number: int, weights: dict[str, int]) -> None:
            grant = await ref.ask(Acquire(tenant=tenant, weights=weights), timeout=1e6)
            calls.append(Call(tenant, number, simulation.now(), grant))
            end(calls[-1], ref, dice)

        tasks: list[asyncio.Task[None]] = []
        for number in range(60):
            weights = {"tokens": dice.randrange(20)} if limits else {}
            tasks.append(asyncio.create_task(caller(dice.choice("abc"), number, weights)))
            # A pause after each, so that a tenant's mail arrives in the order of its numbers.
            await asyncio.sleep(dice.choice([0.001, 0.001, 0.05, 0.1]))
            if dice.random() < 0.5:
                dice.choice(tasks).cancel()
        await asyncio.wait(tasks)
        assert [task for task in tasks if not task.cancelled() and task.exception()] == []


async def no_overtaking(simulation: Simulation) -> None:
    calls: list[Call] = []
    burst = simulation.random.choice([1, 3, 20])
    await crowd(simulation, calls, burst)
    # Those granted in the same moment are woken in any order.
    calls.sort(key=lambda call: call.grant.number)
    for tenant in "abc":
        order = [call.number for call in calls if call.tenant == tenant]
        assert order == sorted(order)
    assert most_in_one_second([call.at for call in calls if call.ran]) <= 20 + burst
    for throttled in calls:
        if throttled.retry_after is not None:
            opens = throttled.at + throttled.retry_after - 1e-9
            assert not any(throttled.at < call.at < opens for call in calls)


def test_over_many_orders_no_asker_is_overtaken_and_the_rate_is_kept_under_cancellation():
    assert explore(no_overtaking, seeds=range(repeated(400))).runs == repeated(400)
