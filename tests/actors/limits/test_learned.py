"""What is learned of a limit: gates, the pace behind them, and what headers say."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.limits.headers import parse_limits, parse_reset
from actors.limits.learned import (
    LearnedLimit,
    LearningConfig,
    ThrottledCall,
    after_grant,
    after_headers,
    after_no_run,
    after_success,
    after_throttled,
)
from actors.limits.reported import ReportedLimit
from tests.proofs import repeated

NOW = datetime(2030, 1, 1, tzinfo=UTC)
NEW = LearnedLimit()


def after_429(
    state: LearnedLimit,
    now: float,
    retry_after: float | None = None,
    *,
    started: float | None = None,
    random: float = 0.0,
) -> LearnedLimit:
    """Return the limit after a 429 that is known to come from a limit."""
    return after_throttled(state, now, ThrottledCall(retry_after, started, at_once=True), random=random)


def served(state: LearnedLimit, begin: float, *, rate: float, lasts: float) -> LearnedLimit:
    """Return the state after calls at an even rate."""
    for number in range(round(rate * lasts)):
        state = after_success(state, begin + number / rate)
    return state


def begun_in(state: LearnedLimit, begin: float, *, until: float) -> tuple[LearnedLimit, list[float]]:
    """Let calls begin as fast as is allowed, and say when they did."""
    now, times = begin, []
    while True:
        wait = state.wait(now)
        if now + wait >= until:
            return state, times
        now += wait
        if state.wait(now) > 0:
            # A hair of rounding.
            now += 1e-9
            continue
        state, _ = state.take(now)
        times.append(now)
        assert len(times) < 100_000


def test_a_limit_that_knows_nothing_holds_no_call_back_and_costs_next_to_nothing():
    assert NEW.wait(5.0) == 0.0
    assert NEW.take(5.0) == (NEW, None)
    assert NEW.rate(5.0) == math.inf


def test_all_wait_at_the_gate_until_retry_after_has_passed():
    state = after_429(served(NEW, 0.0, rate=10.0, lasts=10.0), 10.0, 7.0)
    assert state.wait(10.0) == 7.0
    assert state.wait(16.0) == pytest.approx(1.0)
    assert state.wait(17.0) == 0.0


def test_without_retry_after_the_gate_stays_shut_longer_each_time_up_to_twenty_seconds():
    state, now, waits = NEW, 100.0, []
    for _ in range(9):
        state = after_429(state, now)
        waits.append(state.gated_until - now)
        now = state.gated_until
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 20.0, 20.0, 20.0, 20.0]


def test_a_retry_after_that_proved_too_soon_is_believed_to_be_the_least():
    state, now, waits = NEW, 100.0, []
    for stated in (5.0, 5.0, 5.0, 5.0, 5.0, 30.0):
        state = after_429(state, now, stated)
        waits.append(state.gated_until - now)
        now = state.gated_until
    assert waits == [5.0, 5.0, 5.0, 8.0, 16.0, 30.0]


def test_a_success_behind_the_gate_or_a_long_calm_makes_the_next_gate_a_first_one():
    twice = after_429(after_429(NEW, 0.0), 1.0)
    assert after_429(twice, 3.0).gated_until == 7.0
    assert after_429(after_success(twice, 3.5), 4.0).gated_until == 5.0
    assert after_429(twice, 3.0 + 60.0).gated_until == 64.0
    # A call from before the gate, answered behind it, tells nothing of what is allowed now.
    assert after_429(after_success(twice, 3.5, started=0.9), 4.0).gated_until == 8.0


def test_calls_that_were_under_way_together_lower_the_rate_once():
    first = after_429(served(NEW, 0.0, rate=10.0, lasts=10.0), 10.0, started=9.9)
    assert after_429(first, 10.3, started=9.95) == first
    assert after_429(first, 11.5, started=10.0) == first
    later = after_429(first, 10.3, 5.0, started=9.95)
    assert (later.gated_until, later.throttled_rate, later.gates_in_a_row) == (15.3, first.throttled_rate, 1)
    assert later.wait(15.0) == pytest.approx(0.3)
    assert after_429(first, 11.5, started=11.2).gates_in_a_row == 2


def test_behind_the_gate_calls_go_one_by_one_at_half_the_rate_and_are_back_after_the_ramp():
    state = after_429(served(NEW, 0.0, rate=10.0, lasts=20.0), 20.0, 5.0)
    assert state.throttled_rate == pytest.approx(10.0)
    state, times = begun_in(state, 20.0, until=25.0 + 20.0)
    assert times[0] == 25.0
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert gaps[0] == pytest.approx(1 / 5.0)
    assert max(gaps) == gaps[0]
    assert sum(1 for time in times if time < 26.0) in {5, 6}
    in_the_ramps_last_second = sum(1 for time in times if 34.0 <= time < 35.0)
    assert in_the_ramps_last_second in {9, 10}
    assert state.rate(25.0 + 40.0) > 100.0


def test_another_429_soon_behind_the_gate_lowers_the_rate_that_was_allowed_then():
    first = after_429(served(NEW, 0.0, rate=10.0, lasts=20.0), 20.0, 5.0)
    succeeded = after_success(first, 25.4, started=25.2)
    second = after_429(succeeded, 26.0, 5.0, started=25.5)
    assert second.throttled_rate == first.rate(26.0)
    assert second.rate(31.0) == pytest.approx(second.throttled_rate / 2)


def test_a_429_with_nothing_served_since_the_last_says_nothing_of_the_pace():
    first = after_429(served(NEW, 0.0, rate=10.0, lasts=20.0), 20.0, 5.0)
    assert after_429(first, 26.0, 5.0, started=25.5).throttled_rate == first.throttled_rate


def test_what_was_not_used_of_a_pace_is_caught_up_with_once_the_pace_has_held():
    state = after_429(served(NEW, 0.0, rate=10.0, lasts=20.0), 20.0, 5.0)
    for quiet_until, most in ((30.0, 1), (40.0, 6), (50.0, 31)):
        _, times = begun_in(state, quiet_until, until=quiet_until + 1e-6)
        assert len(times) <= most
        assert len(times) >= most / 2


def test_a_caller_below_the_limit_begins_at_a_share_of_the_rate_it_used():
    state = after_429(NEW, 0.0, 0.0)
    state = served(state, 400.0, rate=2.0, lasts=30.0)
    assert state.rate(430.0) > 100.0
    assert after_429(state, 430.0).throttled_rate == pytest.approx(2.0, rel=0.1)


@given(st.floats(0.5, 200.0), st.floats(0.0, 20.0), st.floats(0.0, 0.999))
@settings(max_examples=repeated(50, at_least=10))
def test_there_is_no_burst_at_the_end_of_the_gate(rate, retry_after, random):
    state = after_429(served(NEW, 0.0, rate=rate, lasts=20.0), 20.0, retry_after, random=random)
    _, times = begun_in(state, 20.0, until=state.gated_until + 5.0)
    assert all(time >= 20.0 + retry_after for time in times)
    for begin in times:
        within = [time for time in times if begin <= time < begin + 1.0]
        assert len(within) <= 1 + state.rate(state.gated_until + 5.0)


@given(st.floats(1.0, 50.0), st.integers(0, 3))
@settings(max_examples=repeated(25, at_least=5), deadline=None)
def test_it_settles_close_to_the_true_limit_of_a_provider_that_states_none(limit, phase):
    """A provider that allows `limit` calls in each second and answers 429 beyond; the last of ten minutes count."""
    state, now, admitted, refused = NEW, phase / 4, 0, 0
    window, used = -1, 0.0
    while now < 600.0:
        wait = max(state.wait(now), 0.5 / limit if state.throttled_rate == math.inf else 0.0)
        now += max(wait, 1e-6)
        if state.wait(now) > 0:
            continue
        state, _ = state.take(now)
        if int(now) != window:
            window, used = int(now), min(0.0, used - limit)
        used += 1
        if used <= limit:
            state = after_success(state, now)
            admitted += now >= 300.0
        else:
            state = after_429(state, now)
            refused += now >= 300.0
    assert admitted >= 0.6 * math.floor(limit) * 300.0
    assert refused <= max(0.05 * admitted, 60)


@given(st.lists(st.tuples(st.sampled_from(["429", "ok", "take", "old 429"]), st.floats(0.0, 100.0)), max_size=60))
def test_whatever_comes_the_gate_only_moves_forward_and_the_rate_is_never_below_the_least(events):
    state, now, config = NEW, 0.0, LearningConfig()
    for event, passed in events:
        now += passed
        before = state.gated_until
        match event:
            case "429":
                state = after_429(state, now)
                assert state.wait(now) > 0
            case "old 429":
                state = after_429(state, now, 3.0, started=now - 50.0)
            case "ok":
                state = after_success(state, now)
            case _:
                if state.wait(now) == 0.0:
                    state, _ = state.take(now)
        assert state.gated_until >= before
        assert state.rate(now) >= config.min_rate
        assert state.wait(now) <= max(0.0, state.gated_until - now) + 1 / config.min_rate + 1e-9


def test_what_remains_is_counted_down_and_then_waited_for():
    state = after_headers(NEW, [ReportedLimit(remaining=2, reset=30.0)], 100.0)
    for _ in range(2):
        assert state.wait(101.0) == 0.0
        state, _ = state.take(101.0)
    assert state.wait(101.0) == 29.0
    assert state.wait(130.0) == 0.0
    assert after_headers(state, [ReportedLimit(remaining=5, reset=20.0)], 110.0).wait(110.0) == 0.0


def test_what_is_left_but_not_enough_is_waited_for_a_minute_at_most():
    state = after_headers(NEW, [ReportedLimit(dimension="tokens", remaining=500, reset=3600.0)], 0.0)
    assert state.wait(0.0, {"tokens": 500}) == 0.0
    assert state.wait(0.0, {"tokens": 501}) == 60.0
    assert state.wait(60.0, {"tokens": 501}) == 0.0
    used_up = after_headers(NEW, [ReportedLimit(dimension="tokens", remaining=0, reset=3600.0)], 0.0)
    assert used_up.wait(0.0, {"tokens": 1}) == 3600.0
    assert used_up.wait(0.0) == 0.0


def test_a_stated_limit_for_a_short_window_is_a_ceiling_with_headroom():
    state = after_headers(NEW, [ReportedLimit(limit=600, window=60.0)], 0.0)
    assert state.rate(0.0) == pytest.approx(8.0)
    _, times = begun_in(state, 0.0, until=60.0 - 1e-6)
    # Eight a second, and those of one second more that was not used before the first.
    assert len(times) in {488, 489}
    assert after_headers(NEW, [ReportedLimit(limit=5_000, window=86_400.0)], 0.0) == NEW
    assert after_headers(NEW, [ReportedLimit(dimension="tokens", limit=5_000, window=60.0)], 0.0) == NEW


def test_a_limit_of_a_day_is_no_pace_and_gates_until_its_reset_but_for_an_hour_at_most():
    day = {"x-ratelimit-limit-requests-day": "1000", "x-ratelimit-reset-requests-day": "1200.5"}
    left = after_headers(NEW, parse_limits(day | {"x-ratelimit-remaining-requests-day": "2"}, now=NOW), 0.0)
    assert left.rate(0.0) == math.inf
    for _ in range(2):
        assert left.wait(0.0) == 0.0
        left, _ = left.take(0.0)
    assert left.wait(1.0) == 1199.5
    used_up = day | {"x-ratelimit-remaining-requests-day": "0", "x-ratelimit-reset-requests-day": "33011.3"}
    assert after_headers(NEW, parse_limits(used_up, now=NOW), 0.0).wait(0.0) == 3600.0


def test_a_limit_of_a_minute_beside_one_of_a_day_stays_the_pace():
    minute = {"x-ratelimit-limit-requests-minute": "60", "x-ratelimit-remaining-requests-minute": "50"}
    day = {"x-ratelimit-limit-requests-day": "1000", "x-ratelimit-remaining-requests-day": "40"}
    paced = after_headers(NEW, parse_limits(minute, now=NOW), 0.0)
    assert paced.rate(0.0) == pytest.approx(0.8)
    assert after_headers(paced, parse_limits(minute | day, now=NOW), 1.0).rate(1.0) == pytest.approx(0.8)


def test_a_call_that_never_ran_gives_back_its_place_and_what_it_took():
    state = after_headers(NEW, [ReportedLimit(remaining=1, reset=30.0)], 0.0)
    after, begun = state.take(1.0)
    assert after.wait(1.0) == 29.0
    assert after_no_run(after, begun).wait(1.0) == 0.0
    heard_again = after_headers(after, [ReportedLimit(remaining=0, reset=29.0)], 1.0)
    assert after_no_run(heard_again, begun).wait(1.0) == 29.0
    paced = after_429(served(NEW, 0.0, rate=1.0, lasts=20.0), 20.0, 1.0)
    first, begun = paced.take(21.0)
    assert first.wait(21.0) > 1.0
    assert after_no_run(first, begun).wait(21.0) == 0.0
    second, _ = first.take(25.0)
    assert after_no_run(second, begun) == second
    assert after_no_run(second, None) == second


def test_a_call_that_never_ran_gives_back_no_more_than_its_own_place():
    paced = after_429(served(NEW, 0.0, rate=10.0, lasts=20.0), 20.0, 1.0)
    now, begun = 60.0, 0
    while paced.wait(now) == 0.0:
        paced, _ = paced.take(now)
    now += paced.wait(now)
    one, grant = paced.take(now)
    given_back = after_no_run(one, grant)
    while given_back.wait(now) == 0.0:
        given_back, _ = given_back.take(now)
        begun += 1
    assert begun == 1


def test_grants_are_observed_if_outcomes_are_not_reported():
    state = NEW
    for number in range(200):
        state = after_grant(state, number / 20)
    assert state.observed_rate(10.0) == pytest.approx(20.0, rel=0.05)


def test_what_was_learned_survives_the_way_over_the_wire():
    state, _ = after_429(after_headers(NEW, [ReportedLimit(remaining=7, reset=9.0)], 1.0), 2.0, 0.0).take(2.0)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=LearnedLimit) == state


@pytest.mark.parametrize(
    "setting",
    [
        {"first_gate": 0.0},
        {"first_gate": 99.0},
        {"share": 0.0},
        {"share": 1.5},
        {"ramp": 0.0},
        {"min_rate": 0.0},
        {"headroom": 2.0},
        {"observed_for": math.inf},
        {"window": 0.0},
        {"catch_up": -1.0},
    ],
    ids=str,
)
def test_impossible_settings_are_refused_by_name(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        LearningConfig(**setting)


@pytest.mark.parametrize(
    ("headers", "reported"),
    [
        (
            {
                "x-ratelimit-limit-requests": "60",
                "x-ratelimit-remaining-requests": "59",
                "x-ratelimit-reset-requests": "1s",
                "x-ratelimit-limit-tokens": "150000",
                "x-ratelimit-remaining-tokens": "149984",
                "x-ratelimit-reset-tokens": "6m0s",
            },
            [
                ReportedLimit(limit=60, remaining=59, reset=1.0),
                ReportedLimit(dimension="tokens", limit=150_000, remaining=149_984, reset=360.0),
            ],
        ),
        (
            {
                "Acme-RateLimit-Requests-Remaining": "0",
                "Acme-RateLimit-Requests-Reset": "2030-01-01T00:00:30Z",
                "acme-ratelimit-input-tokens-limit": "5",
            },
            [ReportedLimit(remaining=0, reset=30.0), ReportedLimit(dimension="input_tokens", limit=5)],
        ),
        (
            {"X-RateLimit-Limit": "5000", "X-RateLimit-Reset": str(int(NOW.timestamp()) + 77)},
            [ReportedLimit(limit=5000, reset=77.0)],
        ),
        (
            {"RateLimit": '"default";r=50;t=30', "RateLimit-Policy": '"default";q=100;w=60,"day";q=1000;w=86400'},
            [ReportedLimit(limit=100, remaining=50, reset=30.0, window=60.0)],
        ),
        (
            {"ratelimit": '"hour";r=50;t=30, "minute";r=3;t=7'},
            [ReportedLimit(remaining=3, reset=7.0)],
        ),
        (
            {"ratelimit": "limit=100, remaining=50, reset=30", "ratelimit-policy": "100;w=60"},
            [ReportedLimit(limit=100, remaining=50, reset=30.0, window=60.0)],
        ),
        (
            {"RateLimit-Limit": "100, 100;w=60", "RateLimit-Remaining": "9", "RateLimit-Reset": "30"},
            [ReportedLimit(limit=100, remaining=9, reset=30.0, window=60.0)],
        ),
        (
            {"ratelimit-policy": '"t";q=1000;w=60;qu="tokens", "r";q=5;w=1'},
            [ReportedLimit(dimension="tokens", limit=1000, window=60.0), ReportedLimit(limit=5, window=1.0)],
        ),
        ({"x-ratelimit-limit": "-4", "x-ratelimit-reset": "soon", "ratelimit": ",=;;=", "content-type": "a/b"}, []),
        ({}, []),
    ],
)
def test_headers_are_read_in_the_dialects_that_providers_write(headers, reported):
    assert parse_limits(headers, now=NOW) == tuple(reported)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30", 30.0),
        (" 0.25 ", 0.25),
        ("1s", 1.0),
        ("20ms", 0.02),
        ("6m0s", 360.0),
        ("1h2m3.5s", 3723.5),
        ("2d", 172_800.0),
        (f"{NOW.timestamp() + 5:.0f}", 5.0),
        (f"{(NOW.timestamp() + 5) * 1000:.0f}", 5.0),
        (f"{NOW.timestamp() - 5:.0f}", 0.0),
        ("2030-01-01T00:01:00+00:00", 60.0),
        ("2030-01-01T00:01:00", 60.0),
        ("2029-01-01T00:01:00Z", 0.0),
        ("", None),
        ("-1", None),
        ("1x", None),
        ("inf", None),
        ("nan", None),
        ("٣", None),
        ("9" * 400, None),
    ],
)
def test_a_reset_is_seconds_a_duration_or_a_moment(text, seconds):
    assert parse_reset(text, now=NOW) == seconds


names = st.sampled_from(
    [
        "RateLimit",
        "RateLimit-Policy",
        "X-RateLimit-Limit",
        "X-RateLimit-Reset-Tokens",
        "RateLimit-Limit",
        "a-ratelimit-b-reset",
    ]
)


@given(
    st.dictionaries(
        names, st.text(alphabet='0123456789.;=,"qrtwmshdlimterag -:TZ+', max_size=60) | st.text(max_size=20)
    )
)
@settings(max_examples=repeated(500))
def test_whatever_a_header_holds_is_read_as_numbers_or_left_out(headers):
    state = NEW
    for said in parse_limits(headers, now=NOW):
        for value in (said.limit, said.remaining, said.reset, said.window):
            assert value is None or 0 <= value < math.inf
        state = after_headers(state, [said], 0.0)
    assert state.wait(0.0) < math.inf
    assert state.rate(0.0) > 0


def test_microseconds_since_1970_are_a_moment_too():
    assert parse_reset(f"{int(NOW.timestamp() * 1_000_000) + 5_000_000}", now=NOW) == pytest.approx(5.0)


def test_no_provider_is_left_alone_for_longer_than_an_hour_because_it_says_so():
    assert after_429(LearnedLimit(), 0.0, 1e9).wait(0.0) == pytest.approx(3600.0, abs=10.0)
    reported = after_headers(LearnedLimit(), [ReportedLimit(remaining=0.0, reset=1e9)], 0.0)
    assert reported.wait(0.0) == 3600.0
