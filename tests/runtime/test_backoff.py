"""Waits grow, up to a cap, spread by jitter: pure."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime import IMMEDIATELY, Backoff

BACKOFFS = st.builds(
    lambda initial, more, jitter: Backoff(initial=initial, cap=initial + more, jitter=jitter),
    st.floats(0.0, 1e3),
    st.floats(0.0, 1e6),
    st.floats(0.0, 1.0),
)
RANDOM = st.floats(0.0, 1.0, exclude_max=True)


@given(BACKOFFS, st.integers(1, 10_000), RANDOM)
def test_a_wait_lies_between_its_jittered_and_its_full_length(backoff: Backoff, attempt: int, random: float):
    full = backoff.delay(attempt, random=0.0)
    assert 0.0 <= full * (1.0 - backoff.jitter) <= backoff.delay(attempt, random=random) <= full <= backoff.cap


@given(BACKOFFS, st.integers(1, 10_000), RANDOM)
def test_no_wait_is_shorter_than_the_one_before(backoff: Backoff, attempt: int, random: float):
    assert backoff.delay(attempt, random=random) <= backoff.delay(attempt + 1, random=random)


def test_immediately_is_immediate():
    assert [IMMEDIATELY.delay(attempt, random=0.9) for attempt in (1, 2, 1000)] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"initial": -1.0}, "need 0 <= initial <= cap"),
        ({"initial": 2.0, "cap": 1.0}, "got initial=2.0, cap=1.0"),
        ({"initial": float("nan")}, "need 0 <= initial <= cap"),
        ({"cap": float("nan")}, "need 0 <= initial <= cap"),
        ({"jitter": 1.1}, "jitter must be between 0 and 1, got 1.1"),
        ({"jitter": float("nan")}, "jitter must be between 0 and 1"),
        ({"reset_after": -1.0}, "reset_after must be >= 0 seconds"),
        ({"reset_after": float("nan")}, "reset_after must be >= 0 seconds"),
    ],
)
def test_a_backoff_that_makes_no_sense_is_refused(options: dict[str, float], message: str):
    with pytest.raises(ValueError, match=message):
        Backoff(**options)
