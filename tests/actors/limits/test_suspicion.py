"""What tells a limit from stray 429s: how they come together, and whether fewer come at a lower rate."""

from __future__ import annotations

import math
import random

import pytest

from actors.limits.learned import LearnedLimit, ThrottledCall, after_success, after_throttled
from actors.limits.suspicion import STRAY_SHARE, Suspicion


def with_share(share: float, *, rate: float, lasts: float, seed: int = 1) -> LearnedLimit:
    """Let calls be refused at random, whatever their rate; each takes its pace."""
    dice, state, now = random.Random(seed), LearnedLimit(), 0.0
    while now < lasts:
        now += max(1 / rate, state.wait(now))
        state, _ = state.take(now)
        if dice.random() < share:
            state = after_throttled(state, now, ThrottledCall(0.5, started=now))
        else:
            state = after_success(state, now, started=now)
    return state


def test_a_lone_429_holds_nothing_back_but_until_the_next_answer():
    lone = after_throttled(LearnedLimit(), 1.0, ThrottledCall(60.0, hold=0.5))
    assert lone.wait(1.0) == 0.5
    assert after_success(lone, 1.1).wait(1.1) == 0.0
    assert after_throttled(LearnedLimit(), 1.0, ThrottledCall(60.0)).wait(1.0) == 0.0


def test_429s_in_a_row_shut_the_gate():
    state = LearnedLimit()
    for number in range(10):
        state = after_throttled(state, number * 0.01, ThrottledCall(5.0))
    assert state.gated_until >= 5.0
    assert state.rate(state.gated_until) < math.inf


@pytest.mark.parametrize("share", [0.001, 0.01, 0.05])
@pytest.mark.parametrize("rate", [20.0, 200.0, 2_000.0])
def test_strays_cost_little_of_the_rate(share: float, rate: float):
    rates = [min(rate, with_share(share, rate=rate, lasts=30.0, seed=seed).rate(30.0)) for seed in range(10)]
    assert sum(rates) >= 0.9 * 10 * rate


def test_a_share_that_stays_at_a_lower_rate_is_found_to_stray():
    state = with_share(0.05, rate=500.0, lasts=20.0)
    assert state.throttled_rate == math.inf
    assert state.suspicion.stray_share == pytest.approx(0.05, abs=0.03)


def test_a_rate_is_lowered_from_what_was_served_since_the_first_429_though_all_wait_now():
    state, now = LearnedLimit(), 0.0
    while now < 0.5:  # 1,000 calls, one in twenty of which strays.
        now += 0.0005
        if round(now * 2_000) % 20:
            state = after_success(state, now, started=now)
        else:
            state = after_throttled(state, now, ThrottledCall(3.5, started=now))
    for now in (3.0, 3.1, 3.2):  # All wait for their own 429s; the first come back.
        state = after_success(state, now, started=now)
    assert state.throttled_rate == math.inf
    state = after_throttled(state, 3.5, ThrottledCall(3.5, started=3.5))
    assert 250 <= state.throttled_rate <= 350


@pytest.mark.parametrize("limit", [20.0, 100.0, 500.0])
@pytest.mark.parametrize("excess", [1.05, 1.2, 1.5, 3.0])
def test_a_limit_is_found_and_held(limit: float, excess: float):
    state, now, tokens, filled = LearnedLimit(), 0.0, limit, 0.0
    served: list[float] = []
    refused = 0
    while now < 120.0:
        now += max(1 / (excess * limit), state.wait(now))
        state, _ = state.take(now)
        tokens, filled = min(limit, tokens + (now - filled) * limit), now
        if tokens >= 1:
            tokens -= 1
            served.append(now)
            state = after_success(state, now, started=now)
        else:
            refused += now > 60.0
            state = after_throttled(state, now, ThrottledCall(started=now))
    late = sum(at > 60.0 for at in served)
    assert 0.9 * limit * 60.0 <= late <= 1.1 * limit * 60.0
    assert refused <= (0.01 if limit >= 100 else 0.04) * (late + refused)


def test_a_stated_rate_is_never_undercut_but_by_the_gate():
    state = LearnedLimit(stated=80.0)
    for number in range(20):
        state = after_throttled(state, 1.0 + number * 0.01, ThrottledCall(2.0))
    assert state.rate(state.gated_until) >= 80.0
    assert state.gated_until <= 1.2 + 2.0


def test_false_alarms_are_rare_at_the_share_that_is_expected_of_strays():
    dice, suspicion, alarms = random.Random(7), Suspicion(), 0
    for number in range(200_000):
        now = number / 500
        thrown = dice.random() < STRAY_SHARE
        suspicion = suspicion.after_throttled(now, memory=60.0) if thrown else suspicion.after_served(now)
        if suspicion.is_alarmed(500.0):
            alarms, suspicion = alarms + 1, Suspicion()
    # 200,000 calls at 500 a second are 400 seconds.
    assert alarms <= 4
