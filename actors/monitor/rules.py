"""Alert rules with hysteresis: when an alert is raised and when it is cleared, as pure decisions.

An alert is raised when the rule's value passes `threshold`. It is cleared when the value has passed `clear_threshold`
on the way back, or when there is no value any more, and this has lasted for `clear_after` seconds. Between the two
nothing changes, so an alert is raised once and cleared once for each incident, although a breaker that lets probes
through opens again and again meanwhile. Prometheus has the same as `keep_firing_for`
(https://prometheus.io/docs/prometheus/latest/configuration/alerting_rules).

A rule of a rate or an average looks at two windows: its own, and one that is ten times as long. With few requests, the
long one says whether there is enough to go by, and the short one whether it is still so. The idea is that of "Site
Reliability Workbook", chapter 5, "Multiwindow, Multi-Burn-Rate Alerts" (https://sre.google/workbook/alerting-on-slos).
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal, NamedTuple, TypeAlias, TypeVar, get_args

import msgspec

from actors.events import AlertCleared, AlertRaised
from actors.money import AmountField, take_amount
from actors.validation import check_count, check_text

T = TypeVar("T")
Scope = Literal["all", "provider", "service"]
"""The subjects of a rule: all requests together, the calls to each provider, or the requests for each service."""
SCOPES: tuple[Scope, ...] = get_args(Scope)
LONG = 10.0
"""How many times as long as a rule's window its long one is."""
CHANCE = 1e-3
"""So improbable must failures be, if all were as the rule asks for, for few requests to raise an alert."""
CLEAR_AFTER = 120.0
"""Seconds: more than the longest wait of a breaker (60 s) and the window of a rule (60 s), in which nothing is seen."""
FEW_LATENCIES = 5
"""So many requests of the long window make an average."""


def _check(
    name: str,
    *,
    window: float | None = None,
    has_window: bool = False,
    min_requests: int = 1,
    scope: Scope = "all",
    clear_after: float = 0.0,
) -> None:
    check_text("the name of a rule", name)
    if scope not in SCOPES:
        raise ValueError(f"scope of rule {name!r} must be one of {', '.join(SCOPES)}, got {scope!r}")
    if not name:
        raise ValueError("the name of a rule must not be empty: its alerts are identified by it")
    may_be_none = window is None and not has_window
    if not (may_be_none or (isinstance(window, float | int) and 0 < window < math.inf)):
        raise ValueError(f"window of rule {name!r} must be > 0 seconds and finite, got {window!r}")
    if not 0 <= clear_after < math.inf:
        raise ValueError(f"clear_after of rule {name!r} must be >= 0 seconds and finite, got {clear_after}")
    check_count(f"min_requests of rule {name!r}", min_requests)


class SuccessRateRule(msgspec.Struct, frozen=True, kw_only=True, tag="success_rate", tag_field="kind"):
    """Raised if less than `threshold` of at least `min_requests` within `window` seconds succeeded.

    With fewer, it is raised too if so many of those within ten windows failed as would by chance only once in 1,000
    times, such as 3 of 3 at 0.95.

    Cleared after `clear_after` seconds at `clear_threshold` or more, even with fewer requests or with none left in the
    window. What was raised by ten windows is cleared by ten windows, or by `min_requests` in one.
    """

    name: str = "success_rate"
    threshold: float = 0.95
    clear_threshold: float = 0.97
    window: float = 60.0
    min_requests: int = 20
    scope: Scope = "all"
    clear_after: float = CLEAR_AFTER

    def __post_init__(self) -> None:
        _check(
            self.name,
            window=self.window,
            has_window=True,
            min_requests=self.min_requests,
            scope=self.scope,
            clear_after=self.clear_after,
        )
        if not 0 < self.threshold <= self.clear_threshold <= 1:
            raise ValueError(
                f"thresholds of rule {self.name!r} must be 0 < threshold <= clear_threshold <= 1, "
                f"got {self.threshold} and {self.clear_threshold}"
            )

    def is_bad(self, value: float) -> bool:
        """Tell whether a success rate raises an alert."""
        return value < self.threshold

    def is_shown_by(self, long: LongReading) -> bool:
        """Tell whether the requests of the long window are enough to raise an alert."""
        if long.value is None or not self.is_bad(long.value):
            return False
        failures = round(long.requests * (1 - long.value))
        return tail(failures, long.requests, 1 - self.threshold) <= CHANCE

    def is_good(self, value: float) -> bool:
        """Tell whether a success rate clears the alert."""
        return value >= self.clear_threshold


class LatencyRule(msgspec.Struct, frozen=True, kw_only=True, tag="latency", tag_field="kind"):
    """Raised if at least `min_requests` within `window` seconds took more than `threshold` seconds on average.

    With fewer, 5 within ten windows are enough. Cleared after `clear_after` seconds at `clear_threshold` seconds or
    less, even with fewer requests or with none left in the window. What was raised by ten windows is cleared by ten
    windows, or by `min_requests` in one.
    """

    name: str = "latency"
    threshold: float = 5.0
    clear_threshold: float = 4.0
    window: float = 60.0
    min_requests: int = 20
    scope: Scope = "all"
    clear_after: float = CLEAR_AFTER

    def __post_init__(self) -> None:
        _check(
            self.name,
            window=self.window,
            has_window=True,
            min_requests=self.min_requests,
            scope=self.scope,
            clear_after=self.clear_after,
        )
        _check_falling(self.name, self.threshold, self.clear_threshold)

    def is_bad(self, value: float) -> bool:
        """Tell whether an average latency raises an alert."""
        return value > self.threshold

    def is_shown_by(self, long: LongReading) -> bool:
        """Tell whether the requests of the long window are enough to raise an alert."""
        is_enough = long.requests >= min(FEW_LATENCIES, self.min_requests)
        return is_enough and long.value is not None and self.is_bad(long.value)

    def is_good(self, value: float) -> bool:
        """Tell whether an average latency clears the alert."""
        return value <= self.clear_threshold


class OnOffRule(msgspec.Struct, frozen=True, kw_only=True):
    """What rules have in common whose value is 1 while something is wrong, and 0 while it is not."""

    threshold: ClassVar[float] = 1.0
    min_requests: ClassVar[int] = 0
    name: str
    clear_after: float = 0.0

    def __post_init__(self) -> None:
        _check(self.name, clear_after=self.clear_after)

    def is_bad(self, value: float) -> bool:
        """Tell whether it is wrong."""
        return value > 0

    def is_good(self, value: float) -> bool:
        """Tell whether it is right again."""
        return value == 0


class CircuitOpenRule(OnOffRule, frozen=True, kw_only=True, tag="circuit_open", tag_field="kind"):
    """Raised at once when the breaker of a provider opens or is isolated by hand.

    Cleared once it has been closed for `clear_after` seconds. Its value is 1 while the breaker is open or half-open,
    and 0 while it is closed.
    """

    name: str = "circuit_open"
    clear_after: float = CLEAR_AFTER


class LeftAloneRule(OnOffRule, frozen=True, kw_only=True, tag="left_alone", tag_field="kind"):
    """Raised at once when a provider is left alone, because it refuses something or charges more than it lists.

    Its subject is the provider and what it is left alone for, such as "alder: the key", and the alert names the cause.
    Its value is 1 while that lasts, and 0 when the provider has answered, was released, or is listed otherwise.
    """

    name: str = "left_alone"


class BudgetRule(msgspec.Struct, frozen=True, kw_only=True, tag="budget", tag_field="kind"):
    """Raised if the share `threshold` of `cap` is used; cleared below `clear_threshold`.

    `cap` is in dollars as str, int or Decimal.

    It counts the cost of calls on `account`, or of all calls if that is None; within the last `window` seconds, or
    since counting began if that is None.
    """

    name: str = "budget"
    cap: AmountField
    account: str | None = None
    threshold: float = 0.80
    clear_threshold: float = 0.80
    window: float | None = None
    min_requests: ClassVar[int] = 0
    clear_after: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        _check(self.name, window=self.window)
        _check_falling(self.name, self.threshold, self.clear_threshold)
        take_amount(self, "cap")
        if self.cap <= 0:
            raise ValueError(f"cap of rule {self.name!r} must be > 0 dollars, got {self.cap}")

    def is_bad(self, value: float) -> bool:
        """Tell whether so much of the cap raises an alert."""
        return value >= self.threshold

    def is_good(self, value: float) -> bool:
        """Tell whether so much of the cap clears the alert."""
        return value < self.clear_threshold


def _check_falling(name: str, threshold: float, clear_threshold: float) -> None:
    if not 0 < clear_threshold <= threshold < math.inf:
        raise ValueError(
            f"thresholds of rule {name!r} must be 0 < clear_threshold <= threshold, "
            f"got {clear_threshold} and {threshold}"
        )


Rule: TypeAlias = SuccessRateRule | LatencyRule | CircuitOpenRule | LeftAloneRule | BudgetRule
DEFAULT_RULES: tuple[Rule, ...] = (SuccessRateRule(), LatencyRule(), CircuitOpenRule(), LeftAloneRule())
"""The rules that need no cap; add a `BudgetRule` for a cap of yours."""


class LongReading(NamedTuple):
    """The value of a rule over its long window, and the requests there."""

    value: float | None = None
    requests: int = 0


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """The value of a rule for one subject, computed from so many requests; None if there were none.

    `cause` tells a person why, if more is known than the value. `long` is the same over the long window.
    """

    subject: str
    value: float | None
    requests: int = 0
    cause: str | None = None
    long: LongReading = LongReading()


def tail(failures: int, requests: int, chance: float) -> float:
    """Return the probability of so many failures or more, if each request fails with probability `chance`.

    >>> round(tail(3, 3, 0.05), 6), round(tail(1, 3, 0.05), 6)
    (0.000125, 0.142625)
    """
    return sum(
        math.comb(requests, count) * chance**count * (1 - chance) ** (requests - count)
        for count in range(failures, requests + 1)
    )


def _is_shown_by_long(rule: Rule, reading: Reading) -> bool:
    return isinstance(rule, SuccessRateRule | LatencyRule) and rule.is_shown_by(reading.long)


class Alerts(msgspec.Struct, frozen=True):
    """The alerts that are raised now, by the name of their rule and their subject. Immutable.

    Those in `by_long` were raised by a long window, because there were few requests. `good_since` is the time since
    which those are fine again that are not cleared yet.
    """

    raised: dict[tuple[str, str], AlertRaised] = {}
    by_long: frozenset[tuple[str, str]] = frozenset()
    good_since: dict[tuple[str, str], float] = {}


def judge(
    alerts: Alerts, rule: Rule, reading: Reading, *, now: float
) -> tuple[Alerts, AlertRaised | AlertCleared | None]:
    """Return the alerts after a reading at `now`, and the alert that it raises or clears, if any.

    >>> slow = Reading(subject="all", value=6.0, requests=20)
    >>> alerts, change = judge(Alerts(), LatencyRule(), slow, now=10.0)
    >>> change
    AlertRaised(rule='latency', subject='all', value=6.0, threshold=5.0, at=10.0, cause=None)
    >>> judge(alerts, LatencyRule(), slow, now=11.0)[1]
    >>> alerts, change = judge(alerts, LatencyRule(), Reading(subject="all", value=None), now=70.0)
    >>> judge(alerts, LatencyRule(), Reading(subject="all", value=None), now=190.0)[1]
    AlertCleared(rule='latency', subject='all', value=None, lasted=180.0)
    """
    key, value = (rule.name, reading.subject), reading.value
    alert = alerts.raised.get(key)
    if alert is None:
        if value is None or not rule.is_bad(value):
            return alerts, None
        is_few = reading.requests < rule.min_requests
        if is_few and not _is_shown_by_long(rule, reading):
            return alerts, None
        alert = AlertRaised(
            rule=rule.name,
            subject=reading.subject,
            value=value,
            threshold=rule.threshold,
            at=now,
            cause=reading.cause,
        )
        by_long = alerts.by_long | {key} if is_few else alerts.by_long
        return Alerts({**alerts.raised, key: alert}, by_long, alerts.good_since), alert
    if key in alerts.by_long:
        if reading.requests < rule.min_requests:
            value = reading.long.value
        else:
            # By now there are enough.
            alerts = Alerts(alerts.raised, alerts.by_long - {key}, alerts.good_since)
    if value is not None and not rule.is_good(value):
        if key in alerts.good_since:
            alerts = Alerts(alerts.raised, alerts.by_long, _without(alerts.good_since, key))
        return alerts, None
    since = alerts.good_since.get(key, now)
    if now - since < rule.clear_after:
        if key not in alerts.good_since:
            alerts = Alerts(alerts.raised, alerts.by_long, {**alerts.good_since, key: now})
        return alerts, None
    rest = Alerts(_without(alerts.raised, key), alerts.by_long - {key}, _without(alerts.good_since, key))
    return rest, AlertCleared(rule=rule.name, subject=reading.subject, value=value, lasted=now - alert.at)


def _without(table: dict[tuple[str, str], T], key: tuple[str, str]) -> dict[tuple[str, str], T]:
    return {other: value for other, value in table.items() if other != key}


def passed_on(alerts: Alerts, event: AlertRaised | AlertCleared) -> tuple[Alerts, AlertRaised | AlertCleared | None]:
    """Return the alerts after one that a ledger has published, and it again if that is news.

    A ledger that starts anew raises again what is still so.
    """
    key = (event.rule, event.subject)
    is_raised = key in alerts.raised
    if isinstance(event, AlertRaised) == is_raised:
        return alerts, None
    raised = {**alerts.raised, key: event} if isinstance(event, AlertRaised) else _without(alerts.raised, key)
    return Alerts(raised, alerts.by_long, alerts.good_since), event
