"""Alert rules with hysteresis: when an alert is raised and when it is cleared, as pure decisions.

An alert is raised when the rule's value passes `threshold`. It is cleared when the value has passed `clear_threshold`
on the way back, or when there is no value any more. Between the two nothing changes, so an alert is raised once and
cleared once.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal, TypeAlias, get_args

import msgspec

from actors.events import AlertCleared, AlertRaised
from actors.money import AmountField, take_amount
from actors.validation import check_count, check_text

Scope = Literal["all", "provider", "service"]
"""The subjects of a rule: all requests together, the calls to each provider, or the requests for each service."""
SCOPES: tuple[Scope, ...] = get_args(Scope)


def _check(
    name: str,
    *,
    window: float | None = None,
    has_window: bool = False,
    min_requests: int = 1,
    scope: Scope = "all",
) -> None:
    check_text("the name of a rule", name)
    if scope not in SCOPES:
        raise ValueError(f"scope of rule {name!r} must be one of {', '.join(SCOPES)}, got {scope!r}")
    if not name:
        raise ValueError("the name of a rule must not be empty: its alerts are identified by it")
    may_be_none = window is None and not has_window
    if not (may_be_none or (isinstance(window, float | int) and 0 < window < math.inf)):
        raise ValueError(f"window of rule {name!r} must be > 0 seconds and finite, got {window!r}")
    check_count(f"min_requests of rule {name!r}", min_requests)


class SuccessRateRule(msgspec.Struct, frozen=True, kw_only=True, tag="success_rate", tag_field="kind"):
    """Raised if less than `threshold` of at least `min_requests` within `window` seconds succeeded.

    Cleared at `clear_threshold` or more, even with fewer requests, or when none are left in the window.
    """

    name: str = "success_rate"
    threshold: float = 0.95
    clear_threshold: float = 0.97
    window: float = 60.0
    min_requests: int = 20
    scope: Scope = "all"

    def __post_init__(self) -> None:
        _check(self.name, window=self.window, has_window=True, min_requests=self.min_requests, scope=self.scope)
        if not 0 < self.threshold <= self.clear_threshold <= 1:
            raise ValueError(
                f"thresholds of rule {self.name!r} must be 0 < threshold <= clear_threshold <= 1, "
                f"got {self.threshold} and {self.clear_threshold}"
            )

    def is_bad(self, value: float) -> bool:
        """Tell whether a success rate raises an alert."""
        return value < self.threshold

    def is_good(self, value: float) -> bool:
        """Tell whether a success rate clears the alert."""
        return value >= self.clear_threshold


class LatencyRule(msgspec.Struct, frozen=True, kw_only=True, tag="latency", tag_field="kind"):
    """Raised if at least `min_requests` within `window` seconds took more than `threshold` seconds on average.

    Cleared at `clear_threshold` seconds or less, even with fewer requests, or when none are left in the window.
    """

    name: str = "latency"
    threshold: float = 5.0
    clear_threshold: float = 4.0
    window: float = 60.0
    min_requests: int = 20
    scope: Scope = "all"

    def __post_init__(self) -> None:
        _check(self.name, window=self.window, has_window=True, min_requests=self.min_requests, scope=self.scope)
        _check_falling(self.name, self.threshold, self.clear_threshold)

    def is_bad(self, value: float) -> bool:
        """Tell whether an average latency raises an alert."""
        return value > self.threshold

    def is_good(self, value: float) -> bool:
        """Tell whether an average latency clears the alert."""
        return value <= self.clear_threshold


class OnOffRule(msgspec.Struct, frozen=True, kw_only=True):
    """What rules have in common whose value is 1 while something is wrong, and 0 while it is not."""

    threshold: ClassVar[float] = 1.0
    min_requests: ClassVar[int] = 0
    name: str

    def __post_init__(self) -> None:
        _check(self.name)

    def is_bad(self, value: float) -> bool:
        """Tell whether it is wrong."""
        return value > 0

    def is_good(self, value: float) -> bool:
        """Tell whether it is right again."""
        return value == 0


class CircuitOpenRule(OnOffRule, frozen=True, kw_only=True, tag="circuit_open", tag_field="kind"):
    """Raised at once when the breaker of a provider opens or is isolated by hand; cleared when it closes.

    Its value is 1 while the breaker is open or half-open, and 0 while it is closed.
    """

    name: str = "circuit_open"


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


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """The value of a rule for one subject, computed from so many requests; None if there were none.

    `cause` tells a person why, if more is known than the value.
    """

    subject: str
    value: float | None
    requests: int = 0
    cause: str | None = None


class Alerts(msgspec.Struct, frozen=True):
    """The alerts that are raised now, by the name of their rule and their subject. Immutable."""

    raised: dict[tuple[str, str], AlertRaised] = {}


def judge(
    alerts: Alerts, rule: Rule, reading: Reading, *, now: float
) -> tuple[Alerts, AlertRaised | AlertCleared | None]:
    """Return the alerts after a reading at `now`, and the alert that it raises or clears, if any.

    >>> slow = Reading(subject="all", value=6.0, requests=20)
    >>> alerts, change = judge(Alerts(), LatencyRule(), slow, now=10.0)
    >>> change
    AlertRaised(rule='latency', subject='all', value=6.0, threshold=5.0, at=10.0, cause=None)
    >>> judge(alerts, LatencyRule(), slow, now=11.0)[1]
    >>> judge(alerts, LatencyRule(), Reading(subject="all", value=None), now=70.0)[1]
    AlertCleared(rule='latency', subject='all', value=None, lasted=60.0)
    """
    key, value = (rule.name, reading.subject), reading.value
    alert = alerts.raised.get(key)
    if alert is None:
        if value is None or reading.requests < rule.min_requests or not rule.is_bad(value):
            return alerts, None
        alert = AlertRaised(
            rule=rule.name,
            subject=reading.subject,
            value=value,
            threshold=rule.threshold,
            at=now,
            cause=reading.cause,
        )
        return Alerts({**alerts.raised, key: alert}), alert
    if value is not None and not rule.is_good(value):
        return alerts, None
    rest = {other: raised for other, raised in alerts.raised.items() if other != key}
    return Alerts(rest), AlertCleared(rule=rule.name, subject=reading.subject, value=value, lasted=now - alert.at)
