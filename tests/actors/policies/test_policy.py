import asyncio
import math
import pickle
import random
from collections import Counter

import msgspec
import pytest

from actors.errors.families import (
    BreakerOpen,
    BulkheadFull,
    ConnectionFailed,
    Permanent,
    RateLimited,
    Throttled,
    Transient,
)
from actors.policies.breaker.circuit_breaker import CircuitBreaker
from actors.policies.breaker.config import BreakerConfig
from actors.policies.breaker.states import Closed, HalfOpen, Open
from actors.policies.bulkhead import Bulkhead
from actors.policies.hedge import Hedge, LatencyQuantile
from actors.policies.limiter import Limiter
from actors.policies.policy import Policy
from actors.policies.retry import Retry, RetryBudget
from actors.policies.timeout import CallTimedOut
from runtime import current_deadline
from runtime.simulation import Simulation, explore
from tests.proofs import repeated

RETRY = Retry(base=1.0, jitter="none")
TRIPPING = BreakerConfig(failure_threshold=2, open_for=10.0, jitter=0.0)


def now():
    return asyncio.get_running_loop().time()


class Calls:
    """Calls that fail as planned, and succeed once the plan is over."""

    def __init__(self, *errors, takes=0.0):
        self.errors = list(errors)
        self.takes = takes
        self.made = 0

    async def __call__(self):
        self.made += 1
        if self.takes:
            await asyncio.sleep(self.takes)
        if self.errors:
            raise self.errors.pop(0)
        return "answer"


async def hang():
    await asyncio.sleep(1e6)


def down():
    return Transient("down")


async def test_an_answer_comes_back():
    assert await Policy().execute(Calls()) == "answer"


async def test_a_failure_is_retried_after_its_wait():
    calls, policy = Calls(down(), down()), Policy(retry=RETRY)
    assert await policy.execute(calls) == "answer"
    assert (calls.made, now(), policy.calls, policy.retries) == (3, 3.0, 1, 2)


async def test_the_last_error_is_raised_when_retries_are_used_up():
    calls = Calls(*(Transient(str(number)) for number in range(9)))
    with pytest.raises(Transient, match="3"):
        await Policy(retry=RETRY).execute(calls)
    assert calls.made == 4


async def test_what_is_not_retryable_is_raised_at_once():
    calls = Calls(Permanent("400"))
    with pytest.raises(Permanent):
        await Policy(retry=RETRY).execute(calls)
    assert (calls.made, now()) == (1, 0.0)


async def test_a_wait_that_is_asked_for_is_kept():
    assert await Policy(retry=RETRY).execute(Calls(Throttled("429", retry_after=7.0))) == "answer"
    assert now() == 7.0


async def test_no_retry_is_waited_for_that_would_come_too_late():
    calls = Calls(Throttled("429", retry_after=7.0))
    with pytest.raises(Throttled):
        await Policy(retry=RETRY, timeout=5.0).execute(calls)
    assert now() == 0.0
    token = current_deadline.set(2.0)
    with pytest.raises(Transient):
        await Policy(retry=RETRY).execute(Calls(*(down() for _ in range(5))))
    current_deadline.reset(token)
    assert now() == 1.0


async def test_retries_never_multiply_the_load_of_an_outage():
    policy = Policy(retry=Retry(base=0.0), budget=RetryBudget(min_per_second=0.0, tokens=0.0))
    calls = Calls(*(down() for _ in range(10_000)))
    for _ in range(1000):
        with pytest.raises(Transient):
            await policy.execute(calls)
    assert 1090 <= calls.made <= 1100


async def test_a_call_is_cut_off_by_its_timeout_and_the_task_is_not_left_cancelled():
    policy = Policy(timeout=5.0)
    with pytest.raises(CallTimedOut) as caught:
        await policy.execute(hang)
    assert (caught.value.after, now()) == (5.0, pytest.approx(5.0, abs=0.002))
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(1.0)


async def test_each_attempt_has_its_own_timeout_within_that_of_all():
    policy = Policy(retry=Retry(max_retries=9, base=1.0, jitter="none"), timeout=5.5, attempt_timeout=2.0)
    with pytest.raises(CallTimedOut) as caught:
        await policy.execute(hang)
    assert now() == pytest.approx(5.0, abs=0.01)
    assert caught.value.after == 2.0


async def test_one_timer_watches_the_timeouts_of_all_calls():
    policy = Policy(timeout=5.0)
    tasks = [asyncio.ensure_future(policy.execute(hang)) for _ in range(100)]
    await asyncio.sleep(0)
    assert policy._timers._watch is not None
    assert len(policy._timers._watch) == 100
    await asyncio.wait(tasks)
    assert [type(task.exception()) for task in tasks] == [CallTimedOut] * 100
    assert list(policy.broken_invariants()) == []


async def test_a_caller_cancelled_at_the_moment_of_its_timeout_stays_cancelled():
    policy = Policy(timeout=5.0)
    task = asyncio.ensure_future(policy.execute(hang))
    await asyncio.sleep(0)
    assert policy._timers._watch is not None
    [timer] = next(iter(policy._timers._watch._waiting.values()))
    timer.expire()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (task.cancelled(), task.cancelling()) == (True, 1)


async def test_an_answer_that_comes_although_it_was_cut_off_is_an_answer():
    async def stubborn():
        try:
            await hang()
        except asyncio.CancelledError:
            return "late"

    policy = Policy(timeout=5.0)
    assert await policy.execute(stubborn) == "late"
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_timeout_of_a_policy_inside_is_an_error_like_any_other():
    inner = Policy(timeout=1.0)
    outer = Policy(breaker=CircuitBreaker("b", TRIPPING), timeout=60.0)
    for _ in range(2):
        with pytest.raises(CallTimedOut) as caught:
            await outer.execute(lambda: inner.execute(hang))
        assert caught.value.after == 1.0
    assert outer.breaker is not None
    assert isinstance(outer.breaker.state, Open)


async def test_the_token_of_a_call_that_never_left_comes_back():
    limiter = Limiter("q", rate=1.0)
    with pytest.raises(ConnectionFailed):
        await Policy(limiter=limiter).execute(Calls(ConnectionFailed("p", "refused")))
    assert await Policy(limiter=limiter, timeout=0.1).execute(Calls()) == "answer"
    assert now() == 0.0


async def test_timeouts_of_the_standard_library_nest_inside_and_outside():
    async def inner():
        async with asyncio.timeout(1.0):
            await hang()

    with pytest.raises(TimeoutError) as caught:
        await Policy(timeout=5.0).execute(inner)
    assert not isinstance(caught.value, CallTimedOut)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1.0):
            await Policy(timeout=5.0).execute(hang)
    assert now() == 2.0


async def test_hanging_calls_open_the_breaker():
    breaker = CircuitBreaker("b", TRIPPING)
    policy = Policy(breaker=breaker, attempt_timeout=1.0)
    for _ in range(2):
        with pytest.raises(CallTimedOut):
            await policy.execute(hang)
    assert isinstance(breaker.state, Open)


async def test_a_call_that_had_little_time_left_proves_nothing_by_not_ending():
    breaker = CircuitBreaker("b", TRIPPING)
    policy = Policy(retry=RETRY, breaker=breaker, timeout=2.5)
    with pytest.raises(CallTimedOut):
        await policy.execute(Calls(down(), takes=1.0))
    assert breaker.state == Closed(failures=1, window=breaker.state.window)


async def test_an_open_breaker_refuses_without_a_call_a_slot_or_a_token():
    breaker, bulkhead, limiter = CircuitBreaker("b", TRIPPING), Bulkhead("p", 1), Limiter("q", rate=1.0)
    breaker._state = Open(1, until=10.0)
    policy, calls = Policy(retry=RETRY, breaker=breaker, bulkhead=bulkhead, limiter=limiter), Calls()
    with pytest.raises(BreakerOpen):
        await policy.execute(calls)
    assert (calls.made, bulkhead.under_way, limiter.bucket.spent, now()) == (0, 0, 0, 0.0)


async def test_no_caller_joins_a_queue_for_a_provider_that_is_down():
    breaker, bulkhead = CircuitBreaker("b", TRIPPING), Bulkhead("p", 1)
    policy = Policy(breaker=breaker, bulkhead=bulkhead)
    async with bulkhead.slot():
        breaker._state = Open(1, until=10.0)
        with pytest.raises(BreakerOpen):
            await policy.execute(Calls())
    assert now() == 0.0


async def test_a_refused_retry_tells_what_had_failed_before():
    breaker = CircuitBreaker("b", BreakerConfig(failure_threshold=1))
    error = down()
    with pytest.raises(BreakerOpen) as caught:
        await Policy(retry=RETRY, breaker=breaker).execute(Calls(error))
    assert caught.value.__cause__ is error


async def test_what_is_short_is_waited_for_in_a_queue_and_then_refused():
    bulkhead, limiter = Bulkhead("p", 1), Limiter("q", rate=1.0)
    policy = Policy(bulkhead=bulkhead, timeout=3.0)
    async with bulkhead.slot():
        with pytest.raises(BulkheadFull):
            await policy.execute(Calls())
    assert now() == 3.0
    policy = Policy(limiter=limiter, timeout=1.5)
    assert await asyncio.gather(policy.execute(Calls()), policy.execute(Calls())) == ["answer", "answer"]
    assert now() == 4.0
    with pytest.raises(RateLimited):
        await Policy(limiter=limiter, timeout=0.5).execute(Calls())
    assert now() == 4.0


async def test_no_caller_holds_a_probe_while_it_waits_in_a_queue():
    breaker, limiter = CircuitBreaker("b", TRIPPING), Limiter("q", rate=0.1)
    await limiter.acquire()
    breaker._state = Open(1, until=0.0)
    waiting = asyncio.ensure_future(Policy(breaker=breaker, limiter=limiter).execute(Calls()))
    await asyncio.sleep(5.0)
    assert isinstance(breaker.state, Open)
    assert await waiting == "answer"
    assert isinstance(breaker.state, Closed)


async def test_a_provider_that_came_back_is_eased_in():
    breaker = CircuitBreaker("b", BreakerConfig(slow_start=100.0))
    bulkhead = Bulkhead("p", 10)
    policy = Policy(breaker=breaker, bulkhead=bulkhead)
    breaker._state = Open(1, until=0.0)
    await policy.execute(Calls())
    assert bulkhead.allowed == 1
    await asyncio.sleep(50.0)
    assert bulkhead.allowed == 5
    await asyncio.sleep(50.0)
    assert bulkhead.allowed == 10


async def test_an_attempt_whose_way_is_free_starts_no_timer_and_no_task(monkeypatch):
    policy = Policy(
        retry=RETRY,
        breaker=CircuitBreaker("b"),
        limiter=Limiter("q", rate=1000.0, burst=1000),
        bulkhead=Bulkhead("p", 10, adaptive=True),
        timeout=10.0,
    )
    loop = asyncio.get_running_loop()
    # The one timer that all calls share is there after the first.
    await policy.execute(Calls())

    def fail(*_args, **_kwargs):
        raise AssertionError

    for name in ("call_at", "call_later", "call_soon", "create_future", "create_task"):
        monkeypatch.setattr(loop, name, fail)
    answers = [await policy.execute(Calls()) for _ in range(100)]
    monkeypatch.undo()
    assert answers == ["answer"] * 100
    policy.close()


async def test_a_late_call_is_hedged_with_a_slot_and_a_token_of_its_own():
    def hedge():
        hedge = Hedge(idempotent=True, paid=False)
        hedge.estimate, hedge.budget = LatencyQuantile(1.0, 1000), msgspec.structs.replace(hedge.budget, tokens=10.0)
        return hedge

    async def call():
        nonlocal made
        made += 1
        await asyncio.sleep(10.0 if made == 1 else 0.5)
        return made

    made, bulkhead = 0, Bulkhead("p", 2)
    limiter = Limiter("q", rate=1.0, burst=2)
    assert await Policy(hedge=hedge(), bulkhead=bulkhead, limiter=limiter, timeout=60.0).execute(call) == 2
    assert (now(), bulkhead.under_way) == (1.5, 0)
    made, bulkhead = 0, Bulkhead("p", 1)
    assert await Policy(hedge=hedge(), bulkhead=bulkhead).execute(call) == 1
    assert (now(), bulkhead.under_way) == (11.5, 0)


@pytest.mark.parametrize("part", ["retry", "breaker", "limiter", "bulkhead", "hedge", "budget"])
def test_a_part_of_the_wrong_kind_is_refused_by_name(part: str):
    with pytest.raises(TypeError, match=f"{part} must be a "):
        Policy(**{part: 3})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_an_impossible_timeout_is_refused_by_name():
    for setting in ({"timeout": 0.0}, {"attempt_timeout": math.inf}):
        with pytest.raises(ValueError, match=next(iter(setting))):
            Policy(**setting)


def test_the_error_of_a_call_that_timed_out_can_be_pickled():
    again = pickle.loads(pickle.dumps(CallTimedOut(2.0)))  # noqa: S301 - its own.
    assert (again.after, str(again)) == (2.0, "no answer within 2 s")


def test_its_repr_tells_its_state():
    policy = Policy(breaker=CircuitBreaker("b"), bulkhead=Bulkhead("p", 2))
    assert repr(policy) == (
        "<Policy 0 calls, 0 retries, <CircuitBreaker 'b' closed, 0 of 5 failures in a row>, "
        "<Bulkhead 'p' 0 of 2 under way, 0 waiting>>"
    )


async def callers_are_cancelled_anywhere(simulation: Simulation) -> None:
    dice = simulation.random
    breaker = CircuitBreaker(
        "b", BreakerConfig(failure_threshold=2, open_for=0.5, slow_start=1.0), rng=random.Random(simulation.seed)
    )
    bulkhead = Bulkhead("p", dice.randint(1, 4), dice.randint(0, 8), adaptive=dice.random() < 0.5)
    limiter = Limiter("q", rate=dice.choice([5.0, 1000.0]), burst=3)
    policy = Policy(
        retry=Retry(base=0.1, max_retries=2),
        breaker=breaker,
        bulkhead=bulkhead,
        limiter=limiter,
        timeout=2.0,
        attempt_timeout=0.5,
        hedge=Hedge(idempotent=True, paid=False) if dice.random() < 0.3 else None,
        rng=random.Random(simulation.seed),
    )
    if policy.hedge is not None:
        policy.hedge.estimate = LatencyQuantile(0.1, 100)
        policy.hedge.budget = msgspec.structs.replace(policy.hedge.budget, tokens=10.0)
    running = probes = 0

    async def call() -> None:
        nonlocal running, probes
        running += 1
        is_probe = isinstance(breaker.state, HalfOpen)
        probes += is_probe
        try:
            assert running <= bulkhead.max_concurrency
            assert policy.hedge is not None or probes <= 1, "two probes at once"
            await asyncio.sleep(dice.choice([0, 0, 0.1, 0.5, 1.0]))
            if dice.random() < 0.4:
                raise down()
        finally:
            running -= 1
            probes -= is_probe

    async def come() -> None:
        await asyncio.sleep(dice.choice([0, 0.1, 0.5, 1.0]))
        await policy.execute(call)

    tasks = [asyncio.ensure_future(come()) for _ in range(15)]
    cancelled: Counter[asyncio.Task[None]] = Counter()
    for _ in range(8):
        await asyncio.sleep(dice.choice([0, 0.1, 0.5]))
        task = dice.choice(tasks)
        cancelled[task] += task.cancel()
    await asyncio.wait(tasks)
    for task in tasks:
        expected = type(None) | Transient | CallTimedOut | BreakerOpen | BulkheadFull | RateLimited
        assert task.cancelled() or isinstance(task.exception(), expected), repr(task)
        # No cancellation of a timeout's own is left, and none from outside is lost.
        assert task.cancelling() == cancelled[task]
    assert running == 0
    assert not isinstance(breaker.state, HalfOpen)
    assert list(policy.broken_invariants()) == []
    # Once all is well again, everything is served.
    await asyncio.sleep(1000.0)
    assert await policy.execute(Calls()) == "answer"
    policy.close()


def test_wherever_a_caller_is_cancelled_everything_comes_back():
    assert explore(callers_are_cancelled_anywhere, seeds=range(repeated(500))).runs == repeated(500)
