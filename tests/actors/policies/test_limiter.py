import asyncio

import pytest

from actors.errors.families import RateLimited
from actors.limits.token_bucket import TokenBucket
from actors.policies.limiter import Limiter
from runtime import current_deadline


def now():
    return asyncio.get_running_loop().time()


async def test_a_limiter_grants_at_its_rate_in_the_order_of_asking_even_if_some_give_up():
    limiter, granted = Limiter("q", rate=10.0), []

    async def come(number):
        await limiter.acquire()
        granted.append((number, round(now(), 6)))

    tasks = [asyncio.ensure_future(come(number)) for number in range(20)]
    await asyncio.sleep(0.05)
    for number in range(1, 20, 2):
        tasks[number].cancel()
    await asyncio.wait(tasks)
    assert granted == [(2 * turn, round(turn / 10, 6)) for turn in range(10)]
    assert list(limiter.broken_invariants()) == []


async def test_a_limiter_refuses_at_once_what_would_come_too_late_and_says_when_to_come_again():
    limiter = Limiter("q", rate=1.0, max_waiting=5)
    await limiter.acquire()
    with pytest.raises(RateLimited) as caught:
        await limiter.acquire(0.5)
    assert (caught.value.retry_after, now()) == (1.0, 0.0)
    waiting = [asyncio.ensure_future(limiter.acquire()) for _ in range(5)]
    await asyncio.sleep(0)
    with pytest.raises(RateLimited):
        await limiter.acquire()
    await asyncio.gather(*waiting)
    assert now() == 5.0
    assert repr(limiter) == "<Limiter 'q' 1/s burst 1, 0 waiting>"


async def test_a_token_at_hand_takes_no_timer_and_no_future(monkeypatch):
    limiter, loop = Limiter("q", rate=1.0, burst=3), asyncio.get_running_loop()

    def fail(*_args, **_kwargs):
        raise AssertionError

    for name in ("call_at", "call_later", "call_soon", "create_future", "create_task"):
        monkeypatch.setattr(loop, name, fail)
    grants = [await limiter.acquire(5.0) for _ in range(3)]
    monkeypatch.undo()
    assert [grant.at for grant in grants] == [0.0] * 3
    assert limiter.try_take(0.0) is None


async def test_a_token_that_was_not_to_be_had_was_not_taken():
    limiter = Limiter("q", rate=1.0)
    assert limiter.try_take(0.0) is not None
    before = limiter.bucket
    assert limiter.try_take(0.5) is None
    assert limiter.bucket is before
    assert isinstance(before, TokenBucket)


async def test_no_caller_overtakes_those_that_wait():
    limiter = Limiter("q", rate=1.0)
    await limiter.acquire()
    waiting = asyncio.ensure_future(limiter.acquire())
    await asyncio.sleep(0)
    assert limiter.try_take(1.0) is None
    assert (await waiting).at == 1.0


async def test_a_token_that_comes_back_goes_to_the_first_in_the_queue_at_once():
    limiter = Limiter("q", rate=0.01)
    grant = await limiter.acquire()
    waiting = asyncio.ensure_future(limiter.acquire())
    await asyncio.sleep(1.0)
    limiter.refund(grant)
    await waiting
    assert now() == 1.0


async def test_a_wait_ends_at_the_deadline_of_the_request_being_served():
    limiter = Limiter("q", rate=0.5)
    await limiter.acquire()
    token = current_deadline.set(1.0)
    with pytest.raises(RateLimited):
        await limiter.acquire()
    current_deadline.reset(token)
    assert now() == 0.0
    assert (await limiter.acquire()).at == 2.0


def test_an_impossible_limiter_is_refused():
    with pytest.raises(ValueError, match="rate"):
        Limiter("q", rate=0.0)
    with pytest.raises(ValueError, match="max_waiting"):
        Limiter("q", rate=1.0, max_waiting=-1)
