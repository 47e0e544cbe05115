import asyncio
import contextlib
import math
import random

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.errors.families import BudgetExceeded, Permanent, Throttled, Transient
from actors.money import Micros
from actors.policies.retry import ResultRejected, Retry, RetryBudget, RetryStats, SharedRetryBudget, with_retry
from runtime import current_deadline

draws = st.floats(min_value=0, max_value=1, exclude_max=True)
policies = st.builds(
    Retry,
    base=st.floats(min_value=0, max_value=100),
    cap=st.floats(min_value=100, max_value=1e6),
    jitter=st.sampled_from(["full", "equal", "proportional", "decorrelated", "none"]),
    proportion=st.floats(min_value=0, max_value=1),
)


class Clock:
    """Virtual time: a sleep moves it and returns at once."""

    def __init__(self) -> None:
        self.now = 100.0
        self.waits: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, wait: float) -> None:
        self.waits.append(wait)
        self.now += wait


class Script:
    """A call that plays its outcomes in turn, each after `lasts` seconds of the virtual clock."""

    def __init__(self, clock: Clock, *outcomes: object, lasts: float = 0.0) -> None:
        self.clock = clock
        self.outcomes = list(outcomes)
        self.lasts = lasts
        self.calls = 0

    async def __call__(self) -> object:
        self.calls += 1
        self.clock.now += self.lasts
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


@pytest.fixture
def clock() -> Clock:
    return Clock()


@given(policies, st.integers(min_value=1, max_value=10**9), draws)
def test_no_wait_is_negative_or_longer_than_the_cap(policy, attempt, draw):
    assert 0 <= policy.delay(attempt, random=draw) <= policy.cap


@given(policies, st.integers(min_value=1, max_value=100), draws, st.floats(min_value=0, max_value=1e9))
def test_retry_after_is_a_floor_that_is_never_shortened(policy, attempt, draw, floor):
    assert policy.delay(attempt, random=draw, retry_after=floor) == max(floor, policy.delay(attempt, random=draw))


@pytest.mark.parametrize(
    ("jitter", "least", "most"),
    [("full", 0.0, 8.0), ("equal", 4.0, 8.0), ("proportional", 5.6, 10.4), ("none", 8.0, 8.0)],
)
def test_each_jitter_draws_from_its_own_range(jitter, least, most):
    policy = Retry(base=2.0, jitter=jitter)
    assert policy.delay(3, random=0.0) == pytest.approx(least)
    assert policy.delay(3, random=1.0) == pytest.approx(most)


@pytest.mark.parametrize("jitter", ["full", "equal", "proportional", "decorrelated"])
def test_jitter_still_spreads_the_waits_that_have_reached_the_cap(jitter):
    policy = Retry(jitter=jitter)
    waits = {policy.delay(50, random=step / 100) for step in range(100)}
    assert len(waits) == 100
    assert max(waits) <= policy.cap


@given(policies, st.integers(1, 50), draws, st.none() | st.floats(min_value=0, max_value=1e9))
def test_whatever_the_wait_before_was_the_cap_holds_after_jitter(policy, attempt, draw, previous):
    assert 0 <= policy.delay(attempt, random=draw, previous=previous) <= policy.cap


def test_decorrelated_jitter_draws_from_base_to_three_times_the_wait_before():
    policy = Retry(base=2.0, jitter="decorrelated")
    assert [policy.delay(1, random=draw) for draw in (0.0, 0.5, 1.0)] == [2.0, 4.0, 6.0]
    assert [policy.delay(7, random=draw, previous=5.0) for draw in (0.0, 0.5, 1.0)] == [2.0, 8.5, 15.0]
    assert [policy.delay(7, random=draw, previous=29.0) for draw in (0.0, 1.0)] == [2.0, 30.0]
    # An unknown wait before is assumed to be the longest.
    assert [policy.delay(attempt, random=1.0) for attempt in (1, 2, 3)] == [6.0, 18.0, 30.0]


def test_a_late_decorrelated_wait_without_a_wait_before_is_no_overflow():
    assert Retry(jitter="decorrelated").delay(10**9, random=0.5) == 15.5


async def test_decorrelated_waits_grow_from_one_another(clock):
    call = Script(clock, *[Transient("down") for _ in range(4)])
    rng = random.Random(3)
    with pytest.raises(Transient):
        await with_retry(
            call, policy=Retry(jitter="decorrelated"), rng=random.Random(3), sleep=clock.sleep, clock=clock
        )
    expected, before = [], 1.0
    for _ in range(3):
        before = 1.0 + rng.random() * (min(30.0, 3 * before) - 1.0)
        expected.append(before)
    assert clock.waits == expected


@pytest.mark.parametrize("draw", [0.0, 0.25, 0.999])
def test_the_jitter_of_the_page_keeps_within_20_to_30_percent(draw):
    for proportion in (0.2, 0.3):
        policy = Retry(jitter="proportional", proportion=proportion)
        for attempt, centre in ((1, 1.0), (2, 2.0), (3, 4.0), (4, 8.0)):
            assert abs(policy.delay(attempt, random=draw) - centre) <= proportion * centre + 1e-9


def test_a_retry_before_the_first_is_a_mistake():
    with pytest.raises(ValueError, match="from 1, got 0"):
        Retry().delay(0, random=0.5)


@pytest.mark.parametrize(
    "setting",
    [
        {"max_retries": -1},
        {"base": -1.0},
        {"base": math.nan},
        {"cap": 0.5},
        {"cap": math.inf},
        {"jitter": "some"},
        {"proportion": 1.5},
    ],
    ids=str,
)
def test_an_impossible_policy_is_refused_by_name(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        Retry(**setting)


async def test_the_answer_after_two_failures_is_returned(clock):
    call = Script(clock, TimeoutError(), TimeoutError(), "answer")
    policy = Retry(jitter="none")
    assert await with_retry(call, policy=policy, sleep=clock.sleep, clock=clock) == "answer"
    assert clock.waits == [1.0, 2.0]


async def test_the_last_error_is_raised_and_never_returned(clock):
    errors = [Transient(f"failure {number}") for number in range(4)]
    call = Script(clock, *errors)
    with pytest.raises(Transient) as caught:
        await with_retry(call, sleep=clock.sleep, clock=clock)
    assert caught.value is errors[-1]
    assert call.calls == 4


@pytest.mark.parametrize(
    "error",
    [ValueError("input"), Permanent("400"), BudgetExceeded(needed=Micros(2), available=Micros(1), cap="run")],
    ids=repr,
)
async def test_what_is_not_retryable_is_raised_at_once(clock, error):
    call = Script(clock, error)
    with pytest.raises(type(error)):
        await with_retry(call, sleep=clock.sleep, clock=clock)
    assert (call.calls, clock.waits) == (1, [])


async def test_the_caller_may_say_what_is_retryable(clock):
    call = Script(clock, KeyError("odd"), "answer")
    answer = await with_retry(
        call, is_retryable=lambda error: isinstance(error, KeyError), sleep=clock.sleep, clock=clock
    )
    assert answer == "answer"


async def test_a_cancellation_is_never_retried(clock):
    call = Script(clock, asyncio.CancelledError())
    with pytest.raises(asyncio.CancelledError):
        await with_retry(call, is_retryable=lambda _: True, sleep=clock.sleep, clock=clock)
    assert call.calls == 1


async def test_the_wait_the_provider_asks_for_is_honoured(clock):
    call = Script(clock, Throttled("slow down", retry_after=40.0), "answer")
    assert await with_retry(call, sleep=clock.sleep, clock=clock) == "answer"
    assert clock.waits == [40.0]


async def test_a_wait_longer_than_what_is_left_raises_at_once(clock):
    call = Script(clock, Throttled("slow down", retry_after=5.0))
    with pytest.raises(Throttled):
        await with_retry(call, timeout=5.0, sleep=clock.sleep, clock=clock)
    assert (call.calls, clock.waits) == (1, [])


async def test_the_time_the_attempts_took_counts_against_the_timeout(clock):
    call = Script(clock, *[TimeoutError(f"failure {number}") for number in range(3)], lasts=2.0)
    policy = Retry(jitter="none", max_retries=10)
    with pytest.raises(TimeoutError, match="failure 1"):
        await with_retry(call, policy=policy, timeout=6.0, sleep=clock.sleep, clock=clock)
    assert clock.waits == [1.0]


async def test_an_attempt_that_is_still_running_at_the_timeout_is_cancelled():
    cancelled = False

    async def hang() -> None:
        nonlocal cancelled
        try:
            await anyio.sleep_forever()
        finally:
            cancelled = True

    with pytest.raises(TimeoutError, match="no answer within 0 s, in attempt 1"):
        await with_retry(hang, timeout=0.0)
    assert cancelled


async def test_each_retry_is_reported_before_its_wait(clock):
    seen: list[tuple[int, str, float, int]] = []
    call = Script(clock, Transient("one"), Transient("two"), "answer")
    await with_retry(
        call,
        policy=Retry(jitter="none"),
        on_retry=lambda attempt, error, wait: seen.append((attempt, str(error), wait, len(clock.waits))),
        sleep=clock.sleep,
        clock=clock,
    )
    assert seen == [(1, "one", 1.0, 0), (2, "two", 2.0, 1)]


async def test_one_seed_gives_one_row_of_waits():
    rows = []
    for _ in range(2):
        clock = Clock()
        call = Script(clock, *[Transient("down") for _ in range(4)])
        with pytest.raises(Transient):
            await with_retry(call, rng=random.Random(7), sleep=clock.sleep, clock=clock)
        rows.append(clock.waits)
    assert rows[0] == rows[1]
    assert len(set(rows[0])) == 3


async def test_a_retry_after_within_the_deadline_of_the_request_is_kept_and_beyond_it_raises_at_once(clock):
    token = current_deadline.set(clock.now + 10.0)
    try:
        call = Script(clock, Throttled("slow down", retry_after=9.0), Throttled("again", retry_after=1.0))
        with pytest.raises(Throttled, match="again"):
            await with_retry(call, timeout=60.0, sleep=clock.sleep, clock=clock)
    finally:
        current_deadline.reset(token)
    assert clock.waits == [9.0]


async def test_an_unwanted_result_is_retried_until_it_is_wanted(clock):
    call = Script(clock, None, "", "answer")
    stats = RetryStats()
    answer = await with_retry(
        call, retry_on_result=lambda result: not result, stats=stats, sleep=clock.sleep, clock=clock
    )
    assert (answer, stats.attempts, stats.gave_up) == ("answer", 3, None)


async def test_a_result_that_is_never_wanted_is_raised_and_not_lost(clock):
    call = Script(clock, *["draft"] * 4)
    seen: list[str] = []
    with pytest.raises(ResultRejected, match="rejected its result") as caught:
        await with_retry(
            call,
            retry_on_result=lambda result: result == "draft",
            is_retryable=lambda _: False,
            on_retry=lambda _, error, __: seen.append(type(error).__name__),
            sleep=clock.sleep,
            clock=clock,
        )
    assert (caught.value.result, caught.value.outcome, caught.value.charged) == ("draft", "done", "held")
    assert (call.calls, seen) == (4, ["ResultRejected"] * 3)


async def test_a_result_that_a_call_further_in_rejected_is_an_error_like_any_other(clock):
    call = Script(clock, ResultRejected("draft"))
    with pytest.raises(ResultRejected):
        await with_retry(call, retry_on_result=bool, is_retryable=lambda _: False, sleep=clock.sleep, clock=clock)
    assert call.calls == 1


@pytest.mark.parametrize(
    ("outcomes", "options", "reported"),
    [
        (["answer"], {}, (1, None)),
        ([Transient("1"), "answer"], {}, (2, None)),
        ([Transient("1"), ValueError("2")], {}, (2, "permanent")),
        ([Transient(str(number)) for number in range(4)], {}, (4, "max_retries")),
        ([Throttled("1", retry_after=99.0)], {"timeout": 5.0}, (1, "timeout")),
        ([Transient("1")], {"budget": SharedRetryBudget(RetryBudget(tokens=0.0, min_per_second=0.0))}, (1, "budget")),
    ],
    ids=str,
)
async def test_the_number_of_attempts_and_the_reason_for_the_last_are_reported(clock, outcomes, options, reported):
    stats = RetryStats()
    call = Script(clock, *outcomes)
    last = outcomes[-1]
    raised: BaseException | None = None
    try:
        assert await with_retry(call, stats=stats, sleep=clock.sleep, clock=clock, **options) == last
    except (Transient, Throttled, ValueError) as error:
        raised = error
    assert raised is (last if isinstance(last, Exception) else None)
    assert (stats.attempts, stats.gave_up) == reported
    assert stats.waited == pytest.approx(sum(clock.waits))


async def test_a_call_that_hangs_until_the_timeout_is_reported_as_such():
    stats = RetryStats()
    with pytest.raises(TimeoutError, match="within 3 s, in attempt 1"):
        await with_retry(anyio.sleep_forever, timeout=3.0, stats=stats)
    assert (stats.attempts, stats.gave_up) == (1, "timeout")


async def test_calls_share_one_budget_so_that_an_outage_costs_a_tenth_more_and_not_four_times_as_much(clock):
    budget, calls = SharedRetryBudget(RetryBudget(tokens=10.0, min_per_second=0.0)), 0

    async def down() -> None:
        nonlocal calls
        calls += 1
        raise Transient("down")

    for _ in range(1_000):
        with pytest.raises(Transient):
            await with_retry(down, budget=budget, sleep=clock.sleep, clock=clock)
    assert 1_000 + 100 <= calls <= 1_000 + 10 + 100
    assert repr(budget).startswith("<SharedRetryBudget 0.")


async def test_even_a_quiet_client_has_its_floor_of_retries(clock):
    budget = SharedRetryBudget(RetryBudget(tokens=0.0, min_per_second=0.5))
    for passed, calls in ((0.0, 1), (2.0, 2), (0.0, 1)):
        clock.now += passed
        call = Script(clock, Transient("1"), "answer")
        with contextlib.suppress(Transient):
            await with_retry(call, budget=budget, policy=Retry(base=0.0), sleep=clock.sleep, clock=clock)
        assert call.calls == calls


async def test_a_retry_that_is_cancelled_while_it_waits_goes_back_to_the_budget():
    budget = SharedRetryBudget(RetryBudget(tokens=5.0, ratio=0.0, min_per_second=0.0))

    async def down() -> None:
        raise Transient("down")

    task = asyncio.create_task(with_retry(down, budget=budget, policy=Retry(jitter="none")))
    await asyncio.sleep(2.0)
    # The first retry was made, the second waits.
    assert budget.budget.tokens == 3.0
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert budget.budget.tokens == 4.0


async def test_a_report_that_fails_takes_no_retry_from_the_budget(clock):
    budget = SharedRetryBudget(RetryBudget(tokens=5.0, ratio=0.0, min_per_second=0.0))

    def broken(*_: object) -> None:
        raise OSError("pipe closed")

    with pytest.raises(OSError, match="pipe"):
        await with_retry(Script(clock, Transient("1")), on_retry=broken, budget=budget, sleep=clock.sleep, clock=clock)
    assert budget.budget.tokens == 5.0


def test_ten_first_attempts_earn_one_retry():
    budget = RetryBudget(tokens=0.0, min_per_second=0.0)
    for _ in range(9):
        budget = budget.deposit(now=0.0)
    assert budget.withdraw(now=0.0) is None
    after = budget.deposit(now=0.0).withdraw(now=0.0)
    assert after is not None
    assert after.withdraw(now=0.0) is None


def test_a_quiet_target_earns_its_floor_of_retries_with_time():
    budget = RetryBudget(tokens=0.0, min_per_second=0.5).deposit(now=1000.0)
    assert budget.withdraw(now=1001.0) is None
    assert budget.withdraw(now=1002.0) is not None


def test_a_clock_that_steps_back_earns_nothing():
    budget = RetryBudget(tokens=0.0, ratio=0.0).deposit(now=10.0).deposit(now=5.0).deposit(now=10.0)
    assert budget.tokens == 0.0


@given(st.lists(st.tuples(st.sampled_from(["deposit", "withdraw"]), st.floats(min_value=0, max_value=5)), max_size=200))
def test_retries_never_exceed_what_was_there_and_what_was_earned(steps):
    budget, now, deposits, retries = RetryBudget(max_tokens=20.0), 50.0, 0, 0
    for step, passed in steps:
        now += passed
        if step == "deposit":
            budget, deposits = budget.deposit(now), deposits + 1
        elif (after := budget.withdraw(now)) is not None:
            budget, retries = after, retries + 1
        assert 0 <= budget.tokens <= budget.max_tokens
    assert retries <= 10 + 0.1 * deposits + 1.0 * (now - 50.0) + 1e-6


@pytest.mark.parametrize(
    "setting", [{"ratio": 2.0}, {"min_per_second": -1.0}, {"max_tokens": 0.0}, {"tokens": 101.0}], ids=str
)
def test_an_impossible_budget_is_refused_by_name(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        RetryBudget(**setting)
