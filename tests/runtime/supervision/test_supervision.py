"""Which children restart, and how often: pure decisions behind G7."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime import ExitReason, Reroute, Restart, RestartIntensity, Strategy, Supervision
from runtime.supervision import calls_for_restart, ended_by, restart_set

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize(
    ("strategy", "restarted"),
    [(Strategy.ONE_FOR_ONE, "c"), (Strategy.ONE_FOR_ALL, "abcd"), (Strategy.REST_FOR_ONE, "cd")],
)
def test_a_strategy_chooses_who_restarts_in_start_order(strategy: Strategy, restarted: str):
    """G7."""
    assert restart_set(strategy, list("abcd"), "c") == list(restarted)


@given(st.sampled_from(Strategy), st.integers(1, 20), st.data())
def test_the_failed_one_always_restarts_and_nobody_twice(strategy: Strategy, size: int, data: st.DataObject):
    children = list(range(size))
    failed = data.draw(st.sampled_from(children))
    chosen = list(restart_set(strategy, children, failed))
    assert failed in chosen
    assert chosen == sorted(set(chosen))


@pytest.mark.parametrize(
    ("restart", "after_crash", "after_self_stop"),
    [(Restart.PERMANENT, True, True), (Restart.TRANSIENT, True, False), (Restart.TEMPORARY, False, False)],
)
def test_a_restart_type_says_which_end_is_final(restart: Restart, after_crash: bool, after_self_stop: bool):  # noqa: FBT001
    """G7."""
    assert calls_for_restart(restart, crashed=True) is after_crash
    assert calls_for_restart(restart, crashed=False) is after_self_stop


def test_an_end_is_a_crash_where_there_is_an_error():
    error = OSError()
    assert (ended_by(error).reason, ended_by(error).error) == (ExitReason.CRASHED, error)
    assert (ended_by(None).reason, ended_by(None).error) == (ExitReason.STOPPED, None)


@given(
    st.integers(0, 5),
    st.floats(0.1, 10.0),
    st.lists(st.floats(0.0, 5.0), max_size=40),
)
def test_no_window_ever_holds_more_restarts_than_the_intensity(most: int, within: float, gaps: list[float]):
    """G7: and one that is refused would have been one too many."""
    intensity = RestartIntensity(max_restarts=most, within=within)
    granted: list[float] = []
    remembered: deque[float] = deque()
    now = 0.0
    for gap in gaps:
        now += gap
        recent = [at for at in granted if now - at < within]
        # A refusal ends the supervisor, so what comes after one does not matter.
        if not intensity.tolerates(remembered, now=now):
            assert len(recent) >= most
            return
        granted.append(now)
        assert len(recent) + 1 <= most
        assert len(remembered) <= most


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_restarts": -1}, "max_restarts must be >= 0, got -1"),
        ({"within": 0.0}, "within must be > 0 seconds, got 0.0"),
        ({"within": float("nan")}, "within must be > 0 seconds"),
    ],
)
def test_an_intensity_that_makes_no_sense_is_refused(options: dict[str, float], message: str):
    with pytest.raises(ValueError, match=message):
        RestartIntensity(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: Supervision(strategy="one_for_all"), "strategy must be a Strategy, got 'one_for_all'"),
        (lambda: Supervision(intensity=3), "intensity must be a RestartIntensity, got 3"),
        (lambda: Supervision(backoff=1.0), "backoff must be a Backoff, got 1.0"),
        (lambda: Supervision(decide="restart"), "decide must be a function"),
        (lambda: Supervision(reroute="b"), "reroute must be a Reroute or None"),
        (lambda: Reroute(to=5), "to must be the name of a child or the ref of an actor, got 5"),
        (lambda: Reroute(to="b", when=True), "when must be a function"),
    ],
)
def test_a_policy_of_the_wrong_type_is_refused_where_it_is_made(make: Callable[[], object], problem: str):
    with pytest.raises(TypeError, match=problem):
        make()
