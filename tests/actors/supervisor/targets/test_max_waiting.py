"""The number of requests that may wait is bounded; one more is refused at once, and told when to come back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from actors import CallFailed, Done, Retry, robust_batch
from actors.errors import TooManyWaiting
from actors.limits import RateLimit
from actors.market import SharedQuota
from actors.supervisor import GetStatus, RequestOptions
from actors.supervisor.targets.waiter_bound import PACED, WaiterBound
from actors.supervisor.targets.waiting import QueueEntry, WaitQueues
from tests.actors.supervisor.stage import FRAGILE, Script, Stage, flaky, now, offer, staged, steps, trip


async def waiting_requests(stage: Stage, count: int, **options: Any) -> list[asyncio.Task[Any]]:
    tasks: list[asyncio.Task[Any]] = []
    for number in range(count):
        tasks.append(asyncio.create_task(stage.request(**{"input": number, "timeout": 1000} | options)))
        await steps(6)
    return tasks


async def test_one_request_too_many_is_refused_at_once_and_those_who_wait_are_served_in_order():
    script = Script("done", lasts=1.0)
    async with staged(offer("a", script, price=10, max_concurrency=1), max_waiting=3, budget="1") as stage:
        await stage.request(input="first")
        began = now()
        tasks = await waiting_requests(stage, 4)
        with pytest.raises(TooManyWaiting) as refused:
            await stage.request(input="too many", account=None)
        assert now() == began
        assert (refused.value.max_waiting, refused.value.outcome, refused.value.charged) == (3, "not_started", "no")
        assert (await stage.account("run")).reserved == 10  # That of the one call under way.
        (status,) = await stage.ref.ask(GetStatus(), timeout=1)
        assert status.queued == 3
        await asyncio.gather(*tasks)
        assert [call.input for call in script.calls] == ["first", 0, 1, 2, 3]
        await stage.assert_at_rest()


async def test_who_comes_back_when_it_is_told_finds_room():
    script = Script("done", lasts=1.0)
    async with staged(offer("a", script, max_concurrency=1), max_waiting=5) as stage:
        for _ in range(5):
            await stage.request()  # So that it is known how long an answer takes.
        tasks = await waiting_requests(stage, 6)
        with pytest.raises(TooManyWaiting) as refused:
            await stage.request()
        assert refused.value.retry_after is not None
        assert 0.9 <= refused.value.retry_after <= 1.1
        await asyncio.sleep(2.5)
        tasks += await waiting_requests(stage, 2)
        with pytest.raises(TooManyWaiting) as later:
            await stage.request()
        # Two have left in 2.5 s; so five will have gone in 6.25 s.
        assert later.value.retry_after == pytest.approx(6.25, rel=0.01)
        await asyncio.sleep(later.value.retry_after)
        assert (await stage.request(timeout=1000)).output == "done"
        await asyncio.gather(*tasks)
        await stage.assert_at_rest()


async def test_those_who_wait_for_tokens_count_and_the_time_is_that_of_the_tokens():
    script = Script("done")
    async with staged(offer("a", script, rate_limit=0.5, burst=1, headroom=1.0), max_waiting=2) as stage:
        await stage.request()
        await is_refused_until_two_have_gone(stage, at_least=1.9)


async def test_those_who_wait_for_a_breaker_count_and_the_time_is_that_of_the_breaker():
    script = Script(*[flaky("a")] * 5, "done")
    async with staged(offer("a", script), retry=Retry(max_retries=0), breaker=FRAGILE, max_waiting=2) as stage:
        await trip(stage, script)
        await is_refused_until_two_have_gone(stage, at_least=20.0)


async def is_refused_until_two_have_gone(stage: Stage, *, at_least: float) -> None:
    tasks = await waiting_requests(stage, 2)
    with pytest.raises(TooManyWaiting) as refused:
        await stage.request(timeout=1000)
    assert refused.value.retry_after is not None
    assert refused.value.retry_after >= at_least
    await asyncio.gather(*tasks)
    await stage.assert_at_rest()


async def test_those_who_wait_for_a_shared_quota_count_too():
    script = Script("done")
    quotas = {"org": SharedQuota(limits=(RateLimit(rate=0.1),), headroom=1.0)}
    async with staged(offer("a", script, max_concurrency=9, quota="org"), max_waiting=2, quotas=quotas) as stage:
        await stage.request()
        tasks = await waiting_requests(stage, 2)
        with pytest.raises(TooManyWaiting):
            await stage.request(timeout=1000)
        await asyncio.gather(*tasks)
        await stage.assert_at_rest()


async def test_a_cancelled_request_makes_room_and_nothing_is_left_of_it():
    script = Script("done", lasts=1.0)
    async with staged(offer("a", script, max_concurrency=1), max_waiting=1) as stage:
        first, second = await waiting_requests(stage, 2)
        second.cancel()
        await steps(6)
        third = asyncio.create_task(stage.request(timeout=10))
        await asyncio.gather(first, third)
        await stage.assert_at_rest()


async def test_nothing_waits_if_none_may_and_free_places_are_used_all_the_same():
    script = Script("done", lasts=1.0)
    async with staged(offer("a", script, max_concurrency=2), max_waiting=0) as stage:
        found = await asyncio.gather(*(stage.request(timeout=10) for _ in range(5)), return_exceptions=True)
        assert [type(one) for one in found if isinstance(one, CallFailed)] == [TooManyWaiting] * 3
        assert now() == 1.0
        await stage.assert_at_rest()


async def test_a_request_that_was_called_may_wait_again_though_too_many_wait():
    script = Script(flaky("a"), "done", lasts=1.0)
    async with staged(offer("a", script, max_concurrency=1), max_waiting=1) as stage:
        first, second = await waiting_requests(stage, 2)
        done = await asyncio.gather(first, second)
        assert [one.output for one in done] == ["done"] * 2
        assert [call.input for call in script.calls] == [0, 1, 0]
        await stage.assert_at_rest()


async def test_those_past_their_deadline_go_first_the_oldest_in_front():
    queues, name = WaitQueues(2), ("provider", "a")
    late, later, fresh = (QueueEntry(deadline=at) for at in (1.0, 2.0, 100.0))
    for entry in (later, late):
        assert queues.may_wait(entry, 0.0)
        queues._move_to(entry, (name,))
        entry.waiter = asyncio.get_running_loop().create_future()
    assert not queues.may_wait(fresh, 0.5)
    assert queues.may_wait(fresh, 5.0)
    assert (late.number, later.number, fresh.number) == (0, 1, 3)
    assert (late.queues, late.waiter is not None and late.waiter.done()) == ((), True)
    assert later.queues == (name,)


@pytest.mark.parametrize("waiting", [100, 1_000, 10_000])
def test_what_one_more_costs_does_not_grow_with_those_that_wait(waiting: int):
    compared = 0

    class Counting(float):
        def __lt__(self, other: Any) -> bool:
            nonlocal compared
            compared += 1
            return float.__lt__(self, other)

        def __le__(self, other: Any) -> bool:
            nonlocal compared
            compared += 1
            return float.__le__(self, other)

    bound = WaiterBound[QueueEntry](waiting)
    entries = [QueueEntry(deadline=Counting(1000 + number)) for number in range(waiting)]
    for entry in entries:
        bound.add(entry, 0.0)
    compared = 0
    for _ in range(100):
        assert bound.is_full
        assert list(bound.take_late(1.0)) == []
    assert compared <= 2 * 100
    for number in range(3 * waiting):
        bound.discard(entries[number % waiting], 1.0)
        bound.add(entries[number % waiting], 1.0)
    assert len(bound._by_deadline) <= 2 * waiting + 100
    assert len(bound._all._left_at) <= PACED + 1


async def test_a_batch_loses_no_item_because_too_many_wait():
    script = Script("done", lasts=0.1)
    async with staged(offer("a", script, price=10, max_concurrency=2), max_waiting=3, budget="1") as stage:
        async with robust_batch(stage.ref, range(50), service="s", max_concurrency=20, timeout=5.0) as outcomes:
            found = [outcome async for outcome in outcomes]
        assert [outcome for outcome in found if not isinstance(outcome, Done)] == []
        assert len(script.calls) == 50
        assert outcomes.summary.cost == 500
        await stage.assert_at_rest()


async def test_a_batch_that_is_left_while_its_items_come_back_later_leaves_nothing():
    script = Script("done", lasts=10.0)
    async with staged(offer("a", script, price=10, max_concurrency=1), max_waiting=0) as stage:
        async with robust_batch(stage.ref, range(50), service="s", max_concurrency=5, timeout=5.0) as outcomes:
            await asyncio.sleep(0.5)
        assert not any([True async for _ in outcomes])
        await steps(20)
        assert stage.actor.queues.bound.count == 0
        await stage.assert_at_rest()


def waiting(tenant: str, count: int, priority: Any = "normal", *, queues: WaitQueues) -> list[QueueEntry]:
    entries = [QueueEntry(tenant, priority=priority) for _ in range(count)]
    for entry in entries:
        assert queues.may_wait(entry, 0.0)
        queues._move_to(entry, (("provider", "a"),))
    return entries


async def test_of_too_many_the_newest_of_the_tenant_with_the_most_in_the_lowest_class_goes():
    queues = WaitQueues(6)
    bulk, small = waiting("bulk", 3, "low", queues=queues), waiting("small", 1, "low", queues=queues)
    normal = waiting("bulk", 2, queues=queues)
    # Of the lowest class there is a tenant with more; of a tenant with as many, the one that comes is refused.
    first, again = QueueEntry("small", priority="low"), QueueEntry("small", priority="low")
    assert queues.may_wait(first, 0.0)
    assert not queues.may_wait(again, 0.0)
    assert [one.is_sent_away for one in (*bulk, *small)] == [False, False, True, False]
    assert bulk[2].queues == ()
    # A higher class goes before a lower one, whatever their numbers are.
    for _ in range(4):
        assert queues.may_wait(QueueEntry("bulk", priority="high"), 0.0)
    assert all(one.is_sent_away for one in (*bulk, *small, first))
    assert not queues.may_wait(again, 0.0)
    assert not any(one.is_sent_away for one in normal)
    assert queues.bound.count == 6


async def test_what_was_called_before_is_never_sent_away():
    queues, called = WaitQueues(2), QueueEntry("a", priority="low")
    called.has_waited = True
    assert queues.may_wait(called, 0.0)
    (fresh,) = waiting("a", 1, queues=queues)
    assert queues.may_wait(QueueEntry("b", priority="high"), 0.0)
    assert (called.is_sent_away, fresh.is_sent_away) == (False, True)
    assert not queues.may_wait(QueueEntry("b", priority="high"), 0.0)


async def test_a_tenant_has_so_many_that_wait_as_its_requests_say_and_no_other_goes_for_it():
    script = Script("done", lasts=1.0)
    async with staged(offer("a", script, max_concurrency=1)) as stage:
        of_acme = RequestOptions(tenant="acme", max_waiting=2, timeout=100.0)
        tasks = await waiting_requests(stage, 3, options=of_acme, timeout=None)
        others = await waiting_requests(stage, 3, options=RequestOptions(tenant="other"))
        await asyncio.sleep(1.5)
        tasks += await waiting_requests(stage, 1, options=of_acme, timeout=None)
        with pytest.raises(TooManyWaiting, match="of its tenant 'acme'") as refused:
            await stage.request(options=of_acme)
        assert refused.value.max_waiting == 2
        # One of the tenant's has gone in 1.5 s, so the two that wait will have in 3.
        assert refused.value.retry_after == pytest.approx(3.0, rel=0.01)
        high = asyncio.create_task(stage.request(options=of_acme, priority="high"))
        done = await asyncio.gather(high, *tasks, *others, return_exceptions=True)
        assert [type(one).__name__ for one in done].count("TooManyWaiting") == 1
        assert isinstance(done[4], TooManyWaiting)  # The newest of the tenant's lower class.
        await stage.assert_at_rest()


@pytest.mark.parametrize("short", ["place", "quota"])
async def test_a_request_that_is_sent_away_while_it_waits_leaves_nothing(short: str):
    script = Script("done", lasts=1.0)
    quotas = {"org": SharedQuota(limits=(RateLimit(rate=1.0),), headroom=1.0)}
    listing = {"max_concurrency": 1} if short == "place" else {"max_concurrency": 9, "quota": "org"}
    async with staged(offer("a", script, price=10, **listing), max_waiting=2, quotas=quotas, budget="1") as stage:
        await stage.request()
        (under_way,) = await waiting_requests(stage, 1)
        low = await waiting_requests(stage, 2, priority="low")
        (high,) = await waiting_requests(stage, 1, priority="high")
        found = await asyncio.gather(under_way, *low, high, return_exceptions=True)
        sent_away = [type(one) is TooManyWaiting for one in found]
        assert sent_away == [False, False, True, False]
        assert (await stage.account("run")).settled == 40
        await stage.assert_at_rest()
