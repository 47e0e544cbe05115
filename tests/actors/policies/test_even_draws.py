"""Draws for waits: however few there are, they lie all over the interval, and their mean is the half."""

from __future__ import annotations

from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.policies.even_draws import EvenDraws


@given(first=st.floats(0.0, 1.0, exclude_max=True), count=st.integers(2, 300))
def test_however_many_there_are_no_gap_between_them_is_wider_than_three_times_the_mean(first: float, count: int):
    draws = EvenDraws(first)
    drawn = sorted(draws.draw() for _ in range(count))
    assert drawn[0] >= 0.0
    assert drawn[-1] < 1.0
    gaps = [after - before for before, after in zip(drawn, [*drawn[1:], drawn[0] + 1.0], strict=True)]
    assert max(gaps) <= 3.0 / count


@pytest.mark.parametrize("every", [1, 2, 3, 5, 8])
def test_those_of_every_other_caller_are_even_too(every: int):
    draws = EvenDraws(0.3)
    drawn = [draws.draw() for _ in range(200 * every)][::every]
    assert mean(drawn) == pytest.approx(0.5, abs=0.02)


def test_processes_that_begin_elsewhere_wait_for_other_times():
    one, other = EvenDraws(0.1), EvenDraws(0.2)
    assert not {one.draw() for _ in range(100)} & {other.draw() for _ in range(100)}
