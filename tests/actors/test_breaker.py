import asyncio
import math
import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.breaker import (
    BreakerConfig,
    BreakerState,
    CircuitBreaker,
    Closed,
    HalfOpen,
    Isolated,
    Open,
    Permit,
    Refused,
    admit,
    after_cancellation,
    after_failure,
    after_success,
    isolate,
    release,
)
from actors.errors import BreakerOpen, Permanent, QuotaExhausted, Throttled, Transient

CONFIG = BreakerConfig()


def admitted(state: BreakerState, now: float, config: BreakerConfig = CONFIG) -> tuple[BreakerState, Permit]:
    admission = admit(state, now=now, config=config)
    assert not isinstance(admission, Refused)
    return admission


def succeed(state: BreakerState, permit: Permit, now: float, config: BreakerConfig = CONFIG) -> BreakerState:
    return after_success(state, permit, now=now, config=config, random=0.5)


def fail(state: BreakerState, permit: Permit, now: float, config: BreakerConfig = CONFIG) -> BreakerState:
    return after_failure(state, permit, now=now, config=config, random=0.5)


def play(results: str, config: BreakerConfig = CONFIG, *, spacing: float = 0.1) -> BreakerState:
    """Play calls one after another from a closed breaker: "s" succeeds, "f" fails."""
    state: BreakerState = Closed()
    now = 0.0
    for result in results:
        now += spacing
        state, permit = admitted(state, now, config)
        state = (succeed if result == "s" else fail)(state, permit, now, config)
    return state


# The pure transitions.


def test_five_failures_in_a_row_open_it_and_four_do_not():
    assert isinstance(play("ffff"), Closed)
    assert isinstance(play("fffff"), Open)
    assert isinstance(play("ffffsffff"), Closed)


def test_alternating_failures_open_it_at_half_the_calls():
    assert isinstance(play("sf" * 9 + "s"), Closed)
    assert isinstance(play("sf" * 10), Open)


def test_a_failure_rate_below_the_limit_never_opens_it():
    assert isinstance(play("ssf" * 200), Closed)


def test_failures_that_left_the_window_no_longer_count():
    assert isinstance(play("sf" * 200, spacing=4.0), Closed)


def test_slow_answers_open_it_at_their_rate_although_they_succeed():
    config = BreakerConfig(slow_call=2.0)
    state: BreakerState = Closed()
    for number in range(20):
        assert isinstance(state, Closed)
        state, permit = admitted(state, float(number), config)
        state = succeed(state, permit, number + (2.0 if number % 2 else 1.9), config)
    assert isinstance(state, Open)


def test_an_open_breaker_refuses_until_its_wait_is_over_and_says_how_long():
    state = Open(1, until=30.0)
    assert admit(state, now=10.0, config=CONFIG) == Refused(20.0)
    probing, permit = admitted(state, 30.0)
    assert isinstance(probing, HalfOpen)
    assert permit.probe


def test_a_half_open_breaker_lets_exactly_one_probe_through():
    state, _ = admitted(Open(1, until=0.0), 100.0)
    assert [admit(state, now=100.0, config=CONFIG) for _ in range(1000)] == [Refused(30.0)] * 1000


def test_a_successful_probe_closes_it_with_a_clean_record():
    state, permit = admitted(Open(1, until=0.0, reopened=3), 1.0)
    assert succeed(state, permit, 2.0) == Closed(3)


def test_a_slow_probe_opens_it_again():
    config = BreakerConfig(slow_call=2.0)
    state, permit = admitted(Open(1, until=0.0), 1.0, config)
    assert isinstance(succeed(state, permit, 3.0, config), Open)


def test_each_failed_probe_doubles_the_wait_up_to_its_limit():
    state, waits, now = play("fffff"), [], 0.5
    for _ in range(6):
        assert isinstance(state, Open)
        waits.append(state.until - now)
        now = state.until
        state, permit = admitted(state, now)
        state = fail(state, permit, now)
    assert waits == pytest.approx([30.0, 60.0, 120.0, 240.0, 300.0, 300.0])


@given(st.floats(min_value=0, max_value=1, exclude_max=True), st.integers(min_value=0, max_value=5000))
def test_jitter_spreads_the_wait_and_never_passes_its_limit(draw, reopened):
    state = HalfOpen(4, lease_ends=30.0, reopened=reopened)
    opened = after_failure(state, Permit(4, probe=True, admitted=0.0), now=0.0, config=CONFIG, random=draw)
    assert isinstance(opened, Open)
    plain = min(300.0, 30.0 * 2 ** min(reopened + 1, 20))
    assert 0.9 * plain - 1e-9 <= opened.until <= min(300.0, 1.1 * plain + 1e-9)


def test_a_cancelled_probe_gives_its_place_to_the_next_caller_at_once():
    state, permit = admitted(Open(1, until=0.0, reopened=2), 5.0)
    state = after_cancellation(state, permit, now=6.0)
    assert state == Open(3, until=6.0, reopened=2)
    state, permit = admitted(state, 6.0)
    assert permit.probe


def test_a_lost_probe_is_replaced_when_its_lease_ends_and_its_late_result_is_ignored():
    state, lost = admitted(Open(1, until=0.0), 0.0)
    assert isinstance(admit(state, now=29.9, config=CONFIG), Refused)
    state, second = admitted(state, 30.0)
    assert second.probe
    for late in (succeed(state, lost, 31.0), fail(state, lost, 31.0), after_cancellation(state, lost, now=31.0)):
        assert late is state
    assert isinstance(succeed(state, second, 32.0), Closed)


def test_a_call_admitted_before_the_breaker_opened_does_not_move_it():
    _, early = admitted(Closed(), 0.0)
    opened = play("fffff")
    assert succeed(opened, early, 1.0) is opened
    assert fail(opened, early, 1.0) is opened


def test_an_isolated_breaker_refuses_whatever_happens_until_it_is_released():
    closed, permit = admitted(Closed(), 0.0)
    state = isolate(closed)
    assert admit(state, now=1e9, config=CONFIG) == Refused(None)
    assert succeed(state, permit, 1.0) is state
    assert isolate(state) is state
    assert release(state) == Closed(2)


def test_a_release_does_not_close_a_breaker_that_opened_by_itself():
    state = Open(1, until=30.0)
    assert release(state) is state


@pytest.mark.parametrize("state", [Closed(), Open(1, 2.0), HalfOpen(2, 3.0), Isolated(3)], ids=repr)
def test_a_state_survives_the_way_over_the_wire(state):
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=BreakerState) == state


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["admit", "admit", "success", "failure", "cancellation", "isolate", "release"]),
        st.integers(min_value=0, max_value=20),
        st.floats(min_value=0, max_value=40),
    ),
    max_size=150,
)


@given(EVENTS)
def test_at_most_one_probe_is_out_cancellation_is_neutral_and_stale_results_are_ignored(events):
    config = BreakerConfig(failure_threshold=2, min_calls=4)
    state: BreakerState = Closed()
    now = 0.0
    permits: list[Permit] = []
    for event, which, passed in events:
        now += passed
        before = state
        if event == "admit":
            admission = admit(state, now=now, config=config)
            if not isinstance(admission, Refused):
                state, permit = admission
                permits.append(permit)
                assert permit.epoch == state.epoch
                assert permit.probe == isinstance(state, HalfOpen)
        elif event in {"isolate", "release"}:
            state = isolate(state) if event == "isolate" else release(state)
        elif permits:
            permit = permits[which % len(permits)]  # It stays in the list: double reports happen too.
            if event == "cancellation":
                state = after_cancellation(state, permit, now=now)
                assert not isinstance(before, Closed | Open | Isolated) or state is before
            else:
                state = (succeed if event == "success" else fail)(state, permit, now, config)
            assert permit.epoch == before.epoch or state is before
        live_probes = [permit for permit in permits if permit.probe and permit.epoch == state.epoch]
        assert len(live_probes) == (1 if isinstance(state, HalfOpen) else 0)
        assert type(state) is type(before) or state.epoch > before.epoch


@pytest.mark.parametrize(
    "setting",
    [
        {"failure_threshold": 0},
        {"failure_rate": 0.0},
        {"min_calls": 0},
        {"window": -1.0},
        {"open_for": math.nan},
        {"max_open_for": 1.0},
        {"jitter": 1.0},
        {"slow_call": 0.0},
        {"slow_rate": 1.1},
        {"probe_lease": 0.0},
    ],
    ids=str,
)
def test_an_impossible_configuration_is_refused_by_name(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        BreakerConfig(**setting)


# The shell.


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock) -> CircuitBreaker:
    return CircuitBreaker("acme", BreakerConfig(jitter=0.0), clock=clock, rng=random.Random(1))


async def answer() -> str:
    return "answer"


def failing(error: BaseException):
    async def call() -> None:
        raise error

    return call


async def trip(breaker: CircuitBreaker) -> None:
    for _ in range(5):
        with pytest.raises(RuntimeError):
            await breaker.execute(failing(RuntimeError("down")))
    assert isinstance(breaker.state, Open)


async def test_an_answer_comes_back_and_an_error_is_raised(breaker):
    assert await breaker.execute(answer) == "answer"
    error = Transient("down")
    with pytest.raises(Transient) as caught:
        await breaker.execute(failing(error))
    assert caught.value is error


async def test_an_open_breaker_refuses_without_calling(breaker, clock):
    await trip(breaker)
    clock.now = 10.0
    with pytest.raises(BreakerOpen) as caught:
        await breaker.execute(failing(AssertionError("it was called")))
    assert (caught.value.provider, caught.value.retry_after) == ("acme", 20.0)


async def test_of_a_thousand_concurrent_callers_one_is_the_probe(breaker, clock):
    await trip(breaker)
    clock.now = 30.0
    probed = 0
    finish = asyncio.Event()

    async def probe() -> None:
        nonlocal probed
        probed += 1
        await finish.wait()

    async def knock() -> None:
        try:
            await breaker.execute(probe)
        except BreakerOpen:
            finish.set()

    await asyncio.gather(*(knock() for _ in range(1000)))
    assert probed == 1
    assert isinstance(breaker.state, Closed)


async def test_a_cancelled_probe_leaves_the_breaker_ready_to_probe(breaker, clock):
    await trip(breaker)
    clock.now = 30.0
    began = asyncio.Event()

    async def hang() -> None:
        began.set()
        await asyncio.Event().wait()

    probe = asyncio.ensure_future(breaker.execute(hang))
    await began.wait()
    assert isinstance(breaker.state, HalfOpen)
    probe.cancel()
    with pytest.raises(asyncio.CancelledError):
        await probe
    assert await breaker.execute(answer) == "answer"
    assert isinstance(breaker.state, Closed)


@pytest.mark.parametrize(
    "error",
    [
        Permanent("400"),
        Throttled("429"),
        QuotaExhausted("402"),
        BreakerOpen("inner", retry_after=1.0),
        ValueError("input"),
        asyncio.CancelledError(),
    ],
    ids=repr,
)
async def test_what_the_provider_is_not_to_blame_for_never_moves_a_closed_breaker(breaker, error):
    before = breaker.state
    for _ in range(100):
        with pytest.raises(type(error)):
            await breaker.execute(failing(error))
    assert breaker.state == before


async def test_a_probe_that_fails_by_the_callers_mistake_proves_nothing(breaker, clock):
    await trip(breaker)
    clock.now = 30.0
    with pytest.raises(Permanent):
        await breaker.execute(failing(Permanent("400")))
    assert isinstance(breaker.state, Open)
    assert await breaker.execute(answer) == "answer"


async def test_a_broken_judge_of_failures_does_not_hold_the_probe_for_ever(clock):
    def judge(error: Exception) -> bool:
        raise LookupError(str(error))

    breaker = CircuitBreaker("acme", clock=clock, counts_as_failure=judge)
    breaker._state = Open(1, until=0.0)
    with pytest.raises(LookupError):
        await breaker.execute(failing(RuntimeError("down")))
    assert isinstance(breaker.state, Open)


async def test_a_breaker_can_be_isolated_and_released_by_hand(breaker):
    breaker.isolate()
    with pytest.raises(BreakerOpen, match="release it by hand"):
        await breaker.execute(answer)
    breaker.release()
    assert await breaker.execute(answer) == "answer"


async def test_without_a_clock_it_reads_the_time_of_the_running_loop():
    breaker = CircuitBreaker("acme", BreakerConfig(failure_threshold=1, jitter=0.0))
    before = asyncio.get_running_loop().time()
    with pytest.raises(RuntimeError):
        await breaker.execute(failing(RuntimeError("down")))
    assert isinstance(breaker.state, Open)
    assert before + 30.0 <= breaker.state.until <= asyncio.get_running_loop().time() + 30.0


async def test_its_repr_tells_its_state(breaker, clock):
    assert repr(breaker) == "<CircuitBreaker 'acme' closed, 0 of 5 failures in a row>"
    await trip(breaker)
    assert repr(breaker) == "<CircuitBreaker 'acme' open until 30.000, 0 probes failed>"
    clock.now = 30.0

    async def look() -> str:
        return repr(breaker)

    assert await breaker.execute(look) == "<CircuitBreaker 'acme' half-open, one probe until 60.000>"
    breaker.isolate()
    assert repr(breaker) == "<CircuitBreaker 'acme' isolated by hand>"
