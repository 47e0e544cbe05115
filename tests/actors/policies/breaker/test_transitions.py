import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.policies.breaker.config import BreakerConfig
from actors.policies.breaker.states import BreakerState, Closed, HalfOpen, Isolated, Open, Permit, Refused
from actors.policies.breaker.transitions import (
    admit,
    after_cancellation,
    after_failed_check,
    after_failure,
    after_success,
    isolate,
    release,
    share,
)

# The waits below are counted in multiples of these thirty seconds.
CONFIG = BreakerConfig(open_for=30.0, max_open_for=300.0, slow_start=30.0, relapse_within=30.0)


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
    assert succeed(state, permit, 2.0) == Closed(3, since=2.0, reopened=3)


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
    assert state == Open(3, until=6.0, reopened=2, earlier=2)
    state, permit = admitted(state, 6.0)
    assert permit.probe


def test_a_lost_probe_is_replaced_when_its_lease_ends_and_only_its_good_answer_still_counts():
    state, lost = admitted(Open(1, until=0.0), 0.0)
    assert isinstance(admit(state, now=29.9, config=CONFIG), Refused)
    state, second = admitted(state, 30.0)
    assert second.probe
    for late in (fail(state, lost, 31.0), after_cancellation(state, lost, now=31.0)):
        assert late is state
    assert isinstance(succeed(state, second, 32.0), Closed)
    assert succeed(state, lost, 32.0) == Closed(4, since=32.0)


@pytest.mark.parametrize("lasts", [0.1, 45.0, 300.0])
def test_a_lease_lasts_as_long_as_its_call_may_take(lasts):
    state = admit(Open(1, until=0.0), now=0.0, config=CONFIG, within=lasts)
    assert not isinstance(state, Refused)
    assert admit(state[0], now=lasts / 2, config=CONFIG, within=1.0) == Refused(lasts / 2)
    strict = BreakerConfig(probe_lease=5.0)
    state = admit(Open(1, until=0.0), now=0.0, config=strict, within=lasts)
    assert not isinstance(state, Refused)
    assert admit(state[0], now=0.0, config=strict, within=lasts) == Refused(5.0)


def test_a_good_answer_to_a_probe_counts_whenever_it_comes():
    state, first = admitted(Open(1, until=0.0, reopened=2), 0.0)
    for lease_ends in (30.0, 60.0, 90.0):
        state, last = admitted(state, lease_ends)
    assert succeed(state, first, 91.0) == Closed(state.epoch + 1, since=91.0, reopened=2)
    # A probe that is cancelled opens the breaker too, and has shown nothing.
    state = after_cancellation(state, last, now=92.0)
    assert isinstance(state, Open)
    assert isinstance(succeed(state, first, 93.0), Closed)


def test_a_good_answer_to_a_probe_is_too_late_after_a_failure_or_a_hand_has_opened_the_breaker():
    state, late = admitted(Open(1, until=0.0), 0.0)
    state, second = admitted(state, 30.0)
    failed = fail(state, second, 31.0)
    assert succeed(failed, late, 32.0) is failed
    assert isinstance(failed, Open)
    state, third = admitted(failed, failed.until)
    assert succeed(state, late, failed.until) is state
    by_hand = isolate(state)
    assert succeed(by_hand, third, failed.until) is by_hand
    released = release(by_hand)
    assert succeed(released, third, failed.until) is released


def test_a_slow_answer_to_a_lost_probe_decides_nothing():
    config = BreakerConfig(slow_call=2.0, probe_lease=30.0)
    state, late = admitted(Open(1, until=0.0), 0.0, config)
    state, _ = admitted(state, 30.0, config)
    assert succeed(state, late, 31.0, config) is state


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


# Slow start.


def came_back(config: BreakerConfig = CONFIG, *, reopened: int = 0) -> BreakerState:
    """Return the state of a breaker that a probe has closed at 0."""
    state, permit = admitted(Open(1, until=-1.0, reopened=reopened), 0.0, config)
    return succeed(state, permit, 0.0, config)


def go_on(state: BreakerState, results: str, start: float, config: BreakerConfig = CONFIG) -> BreakerState:
    """Play calls that come at `start`, one after the other, for as long as they are admitted."""
    for result in results:
        if isinstance(state, Open):
            return state
        state, permit = admitted(state, start, config)
        state = (succeed if result == "s" else fail)(state, permit, start, config)
    return state


def test_a_provider_that_came_back_gets_a_growing_share_of_its_load():
    state = came_back()
    shares = [share(state, now, CONFIG) for now in (-5.0, 0.0, 10.0, 20.0, 30.0, 1e9)]
    assert shares == pytest.approx([0.1, 0.1, 0.4, 0.7, 1.0, 1.0])


@pytest.mark.parametrize("state", [Closed(), Open(1, 2.0), HalfOpen(2, 3.0), Isolated(3)], ids=repr)
def test_a_provider_that_is_not_coming_back_has_no_slow_start(state):
    assert share(state, 0.0, CONFIG) == 1.0


def test_without_a_slow_start_it_has_all_of_its_load_at_once_and_opens_as_late_as_ever():
    config = BreakerConfig(open_for=30.0, slow_start=0.0, relapse_within=0.0)
    state = came_back(config, reopened=3)
    assert share(state, 0.0, config) == 1.0
    assert isinstance(go_on(state, "ffff", 0.0, config), Closed)
    assert go_on(state, "fffff", 0.0, config) == Open(4, until=30.0, reopened=0)


@given(st.floats(0.001, 1000), st.floats(-10, 2000), st.floats(0, 100))
def test_the_share_never_falls_while_time_passes(slow_start, now, passed):
    config = BreakerConfig(slow_start=slow_start)
    before, after = share(came_back(config), now, config), share(came_back(config), now + passed, config)
    assert 0 < before <= after <= 1


@pytest.mark.parametrize(
    ("at", "failures"), [(5.0, 2), (10.0, 2), (15.0, 3), (20.0, 4), (29.9, 5), (30.0, 5), (1000.0, 5)]
)
def test_fewer_failures_in_a_row_open_a_breaker_on_probation(at, failures):
    assert isinstance(go_on(came_back(), "f" * (failures - 1), at), Closed)
    assert isinstance(go_on(came_back(), "f" * failures, at), Open)


@pytest.mark.parametrize(("at", "calls", "failures"), [(0.0, 4, 1), (10.0, 8, 2), (20.0, 14, 5), (30.0, 20, 10)])
def test_a_lower_failure_rate_of_fewer_calls_opens_a_breaker_on_probation(at, calls, failures):
    config = BreakerConfig(failure_threshold=100, relapse_within=30.0)
    # From a quarter to a half of the calls, of which its probe is one while it is on probation.
    successes = "s" * (calls - failures - (at < 30.0))
    assert isinstance(go_on(came_back(config), successes + "f" * failures, at, config), Open)
    assert isinstance(go_on(came_back(config), successes + "s" + "f" * failures, at, config), Closed)


def test_one_failure_after_a_few_successes_does_not_open_a_breaker_on_probation():
    assert isinstance(go_on(came_back(), "f", 0.0), Open)
    assert isinstance(go_on(came_back(), "ssf", 0.0), Open)
    assert isinstance(go_on(came_back(), "sssf" + "s" * 20, 0.0), Closed)


def test_successes_from_before_it_failed_do_not_hide_that_half_of_the_calls_fail():
    state: BreakerState = go_on(Closed(), "s" * 100, 0.0)
    state = go_on(state, "fs" * 9 + "f", 10.0)
    assert isinstance(state, Closed)
    assert isinstance(go_on(state, "sf", 10.0), Open)


def test_a_relapse_is_waited_for_longer_than_a_probe():
    config = BreakerConfig(jitter=0.0)
    state: BreakerState = Open(1, until=0.0, reopened=9)
    probing, permit = admitted(state, 0.0, config)
    assert fail(probing, permit, 0.0, config) == Open(3, until=15.0, reopened=10)
    relapsed = go_on(came_back(config), "f", 0.0, config)
    assert relapsed == Open(4, until=30.0, reopened=1, has_relapsed=True)
    probing, permit = admitted(relapsed, 30.0, config)
    assert fail(probing, permit, 30.0, config) == Open(6, until=60.0, reopened=2, has_relapsed=True)
    back = succeed(probing, permit, 30.0, config)
    assert go_on(back, "f", 30.0, config) == Open(7, until=60.0, reopened=2, has_relapsed=True)
    well = go_on(back, "s", 31.0, config)
    assert go_on(well, "fffff", 90.0, config) == Open(7, until=95.0)


def test_a_check_that_fails_after_a_relapse_is_waited_for_as_a_probe_was_before_it():
    config = BreakerConfig(jitter=0.0)
    probing, permit = admitted(Open(1, until=0.0, reopened=5, has_relapsed=True), 0.0, config)
    state = after_failed_check(probing, permit, now=0.0, config=config, random=0.5)
    assert state == Open(3, until=15.0, reopened=6, has_relapsed=True)
    assert after_failed_check(state, permit, now=1.0, config=config, random=0.5) is state


def test_a_relapse_is_waited_for_no_longer_than_is_configured():
    config = BreakerConfig(open_for=30.0, max_open_for=60.0, jitter=0.0)
    assert go_on(came_back(config), "f", 0.0, config) == Open(4, until=60.0, reopened=1, has_relapsed=True)


def test_a_breaker_with_a_threshold_of_one_keeps_it_on_probation():
    config = BreakerConfig(failure_threshold=1)
    assert isinstance(go_on(came_back(config), "f", 0.0, config), Open)


def test_the_wait_of_a_breaker_that_opens_on_probation_goes_on_growing():
    assert go_on(came_back(reopened=2), "ff", 1.0) == Open(4, 1.0 + 240.0, 3, has_relapsed=True)


def test_after_its_probation_the_wait_begins_anew():
    assert go_on(came_back(reopened=2), "fffff", 30.0) == Open(4, until=30.0 + 30.0, reopened=0)


def test_a_release_by_hand_needs_no_slow_start():
    assert share(release(isolate(came_back())), 0.0, CONFIG) == 1.0


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
            # A probe that was lost or cancelled may close it by a good answer, and only by that.
            is_late = permit.probe and event == "success" and isinstance(before, HalfOpen | Open) and before.earlier
            assert permit.epoch == before.epoch or state is before or (is_late and isinstance(state, Closed))
        live_probes = [permit for permit in permits if permit.probe and permit.epoch == state.epoch]
        assert len(live_probes) == (1 if isinstance(state, HalfOpen) else 0)
        assert type(state) is type(before) or state.epoch > before.epoch
