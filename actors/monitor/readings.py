"""The values that a monitor's rules are judged by, read from its running sums."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.monitor.rules import (
    LONG,
    BudgetRule,
    CircuitOpenRule,
    LatencyRule,
    LeftAloneRule,
    LongReading,
    Reading,
    Rule,
    SuccessRateRule,
)
from actors.monitor.tallies import Tally, TallyBook

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from actors.monitor.rolling_window import Totals

ALL = "all"
"""The subject of rules whose scope is `all`."""


def book_of(rules: Sequence[Rule], *, start: float, recent: float, max_subjects: int) -> TallyBook:
    """Return empty running sums with the windows and accounts that the rules need."""
    windows = [getattr(rule, "window", None) for rule in rules]
    windows += [LONG * rule.window for rule in rules if isinstance(rule, SuccessRateRule | LatencyRule)]
    accounts = [rule.account for rule in rules if isinstance(rule, BudgetRule) and rule.account is not None]
    return TallyBook(
        start=start,
        recent=recent,
        windows=[length for length in windows if length is not None],
        accounts=accounts,
        max_subjects=max_subjects,
    )


def readings_of(book: TallyBook, rule: Rule, *, now: float) -> Iterator[Reading]:
    """Yield the reading of a rule for each of its subjects; none for those that follow events."""
    if isinstance(rule, CircuitOpenRule | LeftAloneRule):
        return
    if isinstance(rule, BudgetRule):
        tally = book.total if rule.account is None else book.accounts[rule.account]
        spent = tally.cost if rule.window is None else tally.windows[rule.window].totals(now).cost
        yield Reading(subject=rule.account or ALL, value=spent / rule.cap)
        return
    tallies: dict[str, Tally] = {"all": {ALL: book.total}, "provider": book.providers, "service": book.services}[
        rule.scope
    ]
    for subject, tally in tallies.items():
        totals = tally.windows[rule.window].totals(now)
        value, requests = _value_of(rule, totals), totals.requests
        if requests >= rule.min_requests:
            yield Reading(subject=subject, value=value, requests=requests)
            continue
        long_totals = tally.windows[LONG * rule.window].totals(now)
        long = LongReading(_value_of(rule, long_totals), long_totals.requests)
        yield Reading(subject=subject, value=value, requests=requests, long=long)


def _value_of(rule: SuccessRateRule | LatencyRule, totals: Totals) -> float | None:
    return totals.success_rate if isinstance(rule, SuccessRateRule) else totals.average_latency
