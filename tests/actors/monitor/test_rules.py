"""Alert rules: what raises them, what clears them, and that each is told once."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.events import AlertCleared, AlertRaised
from actors.money import Micros
from actors.monitor.rules import (
    DEFAULT_RULES,
    Alerts,
    BudgetRule,
    CircuitOpenRule,
    LatencyRule,
    Reading,
    Rule,
    SuccessRateRule,
    judge,
)


def changes(rule: Rule, *values: float | None, requests: int = 100, subject: str = "all") -> str:
    """Return what a rule does with readings a second apart: R for raised, C for cleared, - for nothing."""
    alerts, seen = Alerts(), ""
    for now, value in enumerate(values):
        count = 0 if value is None else requests
        reading = Reading(subject=subject, value=value, requests=count)
        alerts, change = judge(alerts, rule, reading, now=float(now))
        seen += "-" if change is None else "R" if isinstance(change, AlertRaised) else "C"
    return seen


def test_the_thresholds_are_those_of_the_seed():
    success, latency, circuit, _ = DEFAULT_RULES
    assert isinstance(success, SuccessRateRule)
    assert isinstance(latency, LatencyRule)
    assert isinstance(circuit, CircuitOpenRule)
    assert (success.threshold, latency.threshold, BudgetRule(cap=Micros(1)).threshold) == (0.95, 5.0, 0.80)


@pytest.mark.parametrize(
    ("rule", "values", "seen"),
    [
        (SuccessRateRule(clear_after=0), (1.0, 0.95, 0.949, 0.5, 0.96, 0.97, 1.0), "--R--C-"),
        (SuccessRateRule(clear_after=0), (0.0, None, None, 0.0), "RC-R"),
        (LatencyRule(clear_after=0), (4.9, 5.0, 5.1, 60.0, 4.1, 4.0, 0.1), "--R--C-"),
        (LatencyRule(clear_after=0), (None, 6.0, None), "-RC"),
        (CircuitOpenRule(clear_after=0), (0.0, 1.0, 1.0, 0.0, 0.0), "-R-C-"),
        (BudgetRule(cap=Micros(100)), (0.79, 0.80, 1.0, 0.80, 0.79), "-R--C"),
        (BudgetRule(cap=Micros(100), clear_threshold=0.5), (0.8, 0.7, 0.5, 0.49), "R--C"),
    ],
)
def test_an_alert_is_raised_once_beyond_its_threshold_and_cleared_once_on_the_way_back(
    rule: Rule, values: tuple[float | None, ...], seen: str
):
    assert changes(rule, *values) == seen


@pytest.mark.parametrize(
    "rule", [SuccessRateRule(clear_after=0), LatencyRule(clear_after=0, threshold=0.1, clear_threshold=0.1)]
)
def test_few_requests_raise_nothing_but_are_enough_to_clear(rule: Rule):
    bad, good = (0.0, 1.0) if isinstance(rule, SuccessRateRule) else (1.0, 0.0)
    assert changes(rule, bad, bad, requests=19) == "--"
    alerts, _ = judge(Alerts(), rule, Reading(subject="all", value=bad, requests=20), now=0.0)
    # Still bad, though few: nothing has proved that it is over.
    assert judge(alerts, rule, Reading(subject="all", value=bad, requests=1), now=1.0) == (alerts, None)
    alerts, change = judge(alerts, rule, Reading(subject="all", value=good, requests=1), now=2.0)
    assert (alerts, change) == (Alerts(), AlertCleared(rule=rule.name, subject="all", value=good, lasted=2.0))


def test_subjects_and_rules_are_told_apart():
    alerts = Alerts()
    alerts, a = judge(alerts, CircuitOpenRule(clear_after=0), Reading(subject="alder", value=1.0), now=0.0)
    alerts, b = judge(alerts, CircuitOpenRule(clear_after=0), Reading(subject="birch", value=1.0), now=1.0)
    alerts, c = judge(alerts, CircuitOpenRule(name="page", clear_after=0), Reading(subject="alder", value=1.0), now=2.0)
    assert [a, b, c] == list(alerts.raised.values())
    alerts, _ = judge(alerts, CircuitOpenRule(clear_after=0), Reading(subject="alder", value=0.0), now=3.0)
    assert list(alerts.raised) == [("circuit_open", "birch"), ("page", "alder")]


def test_an_alert_is_over_once_it_was_fine_for_so_long_without_a_break():
    rule, alerts, told = CircuitOpenRule(clear_after=120.0), Alerts(), []
    for now, value in ((0, 1.0), (10, 0.0), (100, 0.0), (129, 1.0), (130, 0.0), (249, 0.0), (250, 0.0), (251, 0.0)):
        alerts, change = judge(alerts, rule, Reading(subject="alder", value=value), now=float(now))
        told += [(now, type(change).__name__)] if change is not None else []
    assert told == [(0, "AlertRaised"), (250, "AlertCleared")]
    assert alerts == Alerts()


def test_a_state_that_was_given_is_never_changed():
    before = Alerts()
    after, _ = judge(before, CircuitOpenRule(), Reading(subject="alder", value=1.0), now=0.0)
    judge(after, CircuitOpenRule(), Reading(subject="alder", value=0.0), now=1.0)
    assert (len(before.raised), len(after.raised)) == (0, 1)


RULES = st.sampled_from(
    [SuccessRateRule(), LatencyRule(threshold=0.5, clear_threshold=0.4), CircuitOpenRule(), BudgetRule(cap=Micros(1))]
)
READINGS = st.lists(st.tuples(st.none() | st.floats(min_value=0, max_value=1), st.integers(0, 40)))


@given(rule=RULES, readings=READINGS)
def test_raised_and_cleared_take_turns_whatever_is_read(rule: Rule, readings: list[tuple[float | None, int]]):
    alerts, told = Alerts(), list[type]()
    for now, (value, requests) in enumerate(readings):
        reading = Reading(subject="x", value=value, requests=requests)
        alerts, change = judge(alerts, rule, reading, now=float(now))
        if change is not None:
            told.append(type(change))
        # The same reading again says nothing new, unless it can both clear and raise.
        assert bool(alerts.raised) == (len(told) % 2 == 1)
        assert judge(alerts, rule, reading, now=float(now)) == (alerts, None)
    assert told == [AlertRaised, AlertCleared] * (len(told) // 2) + [AlertRaised] * (len(told) % 2)


@pytest.mark.parametrize(
    ("make", "options", "problem"),
    [
        (SuccessRateRule, {"threshold": 0.0}, "0 < threshold <= clear_threshold <= 1"),
        (SuccessRateRule, {"threshold": 0.9, "clear_threshold": 0.8}, "0 < threshold <= clear_threshold <= 1"),
        (SuccessRateRule, {"clear_threshold": 1.1}, "0 < threshold <= clear_threshold <= 1"),
        (CircuitOpenRule, {"clear_after": -1.0}, "clear_after of rule 'circuit_open' must be >= 0 seconds"),
        (SuccessRateRule, {"window": 0.0}, "window of rule 'success_rate' must be > 0 seconds"),
        (SuccessRateRule, {"min_requests": 0}, "min_requests of rule 'success_rate' must be >= 1"),
        (LatencyRule, {"threshold": 3.0}, "0 < clear_threshold <= threshold"),
        (LatencyRule, {"threshold": math.inf}, "0 < clear_threshold <= threshold"),
        (LatencyRule, {"window": math.nan}, "window of rule 'latency' must be > 0 seconds"),
        (CircuitOpenRule, {"name": ""}, "the name of a rule must not be empty"),
        (BudgetRule, {"cap": 0}, "cap of rule 'budget' must be > 0 dollars"),
        (BudgetRule, {"cap": 5, "clear_threshold": 0.9}, "0 < clear_threshold <= threshold"),
        (BudgetRule, {"cap": 5, "window": -1.0}, "window of rule 'budget' must be > 0 seconds"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(make: Any, options: dict[str, Any], problem: str):
    with pytest.raises(ValueError, match=problem):
        make(**options)


def test_rules_are_read_from_data():
    data = [{"kind": "budget", "cap": 5, "name": "day", "window": 86400.0}, {"kind": "latency", "scope": "provider"}]
    assert msgspec.convert(data, list[Rule]) == [
        BudgetRule(cap=Micros(5), name="day", window=86_400.0),
        LatencyRule(scope="provider"),
    ]
