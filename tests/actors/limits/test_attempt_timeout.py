import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.limits.attempt_timeout import EXCUSED, AttemptTimeout


def learned(latencies, **fields):
    estimate = AttemptTimeout(**fields)
    for latency in latencies:
        estimate = estimate.after(latency)
    return estimate


def test_the_first_sample_is_taken_as_in_the_standard():
    # RFC 6298, 2.2: SRTT = R, RTTVAR = R/2, RTO = SRTT + 4 RTTVAR.
    estimate = learned([2.0], min_samples=1, margin=1.0)
    assert estimate.seconds(configured=100.0) == 6.0


def test_a_later_sample_is_taken_as_in_the_standard():
    # RFC 6298, 2.3: the deviation first, from the smoothed latency as it was before.
    estimate = learned([2.0, 4.0], min_samples=1, margin=1.0)
    assert (estimate.deviation, estimate.smoothed) == (0.75 * 1.0 + 0.25 * 2.0, 2.25)


def test_before_enough_answers_what_was_configured_holds():
    assert learned([0.1] * 19).seconds(configured=30.0) == 30.0
    assert learned([0.1] * 20).seconds(configured=30.0) == 1.0


@given(
    st.lists(st.tuples(st.floats(0, 1000), st.booleans()), max_size=80),
    st.floats(0.001, 100),
    st.floats(0.001, 100),
    st.floats(0, 100),
)
def test_it_is_within_its_bounds_whatever_was_seen(samples, floor, configured, left):
    estimate = AttemptTimeout(floor=floor, min_samples=5)
    for latency, timed_out in samples:
        estimate = estimate.after(latency, timed_out=timed_out)
    seconds = estimate.seconds(configured=configured, left=left)
    assert seconds <= min(configured, left)
    assert seconds >= min(floor, configured, left)


@given(st.floats(0.01, 5.0), st.floats(0.01, 60.0), st.integers(1, 20))
def test_answers_that_come_to_take_longer_are_waited_for_again_soon(before, after, concurrent):
    configured = 60.0
    estimate = learned([before] * 100, floor=0.01)
    cut_off = 0
    # At once many attempts are cut off by the same timeout, and then the next ones are begun.
    for _ in range(100):
        seconds = estimate.seconds(configured=configured)
        for _ in range(concurrent):
            timed_out = after > seconds
            cut_off += timed_out
            estimate = estimate.after(min(after, seconds), timed_out=timed_out)
    assert estimate.seconds(configured=configured) >= after
    assert cut_off <= 12 * concurrent


@pytest.mark.parametrize("part", [0.1, 0.3, 0.5, 0.8])
def test_fast_answers_between_them_do_not_keep_the_slow_ones_cut_off(part):
    dice = random.Random(1)
    estimate = learned([0.1] * 100, floor=0.1)
    cut_off = []
    for _ in range(2000):
        seconds = estimate.seconds(configured=60.0)
        takes = 20.0 if dice.random() < part else 0.1
        cut_off.append(takes > seconds)
        estimate = estimate.after(min(takes, seconds), timed_out=takes > seconds)
    assert sum(cut_off[200:]) < 0.2 * part * 1800


@pytest.mark.parametrize("draw", [lambda dice: dice.expovariate(1.0), lambda dice: dice.lognormvariate(0, 1)])
def test_answers_that_vary_by_nature_are_hardly_ever_cut_off(draw):
    dice = random.Random(1)
    estimate, cut_off, waits = AttemptTimeout(), 0, []
    for _ in range(20_000):
        seconds = estimate.seconds(configured=120.0)
        takes = draw(dice)
        cut_off += takes > seconds
        waits.append(seconds)
        estimate = estimate.after(min(takes, seconds), timed_out=takes > seconds)
    assert cut_off < 0.005 * 20_000
    assert sum(waits) / len(waits) < 40.0


def test_it_becomes_short_again_when_answers_do():
    estimate = learned([20.0] * 50 + [0.5] * 200, floor=0.1)
    assert estimate.seconds(configured=60.0) < 2.0


@pytest.mark.parametrize("setting", [{"floor": 0.0}, {"floor": math.inf}, {"min_samples": 0}, {"margin": 0.5}], ids=str)
def test_an_impossible_setting_is_refused_by_name(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        AttemptTimeout(**setting)


def test_a_call_that_hangs_alone_stretches_the_timeout_until_one_has_had_all_the_time():
    fast = AttemptTimeout(min_samples=1).after(0.2)
    for _ in range(50):
        fast = fast.after(0.2)
    assert fast.after_hanging(1.0, had_all=False) == fast.after(1.0, timed_out=True)
    split = fast.after_hanging(10.0, had_all=True)
    assert split.seconds(configured=10.0) == fast.seconds(configured=10.0)
    for _ in range(EXCUSED - 1):
        split = split.after_hanging(1.0, had_all=False)
    assert split.seconds(configured=10.0) == fast.seconds(configured=10.0)
    sampled = split.after_hanging(1.0, had_all=False)
    assert sampled.seconds(configured=10.0) > fast.seconds(configured=10.0)
    assert sampled.excused == EXCUSED


def test_an_answer_that_comes_late_shows_that_more_time_helps():
    fast = AttemptTimeout(min_samples=1)
    for _ in range(50):
        fast = fast.after(0.2)
    split = fast.after_hanging(10.0, had_all=True)
    assert split.after(0.9).excused == EXCUSED
    late = split.after(6.0)
    assert late.excused == 0
    assert late.after_hanging(8.0, had_all=False) == late.after(8.0, timed_out=True)
