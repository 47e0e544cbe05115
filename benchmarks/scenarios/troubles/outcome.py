"""What came of one trouble, in figures; computed from what the customers got and from the providers' own books."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec

from actors import BreakerConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.scenarios.troubles.provider import TroubledProvider

WINDOW = 10
"""Requests in a row that tell whether a provider is in full use."""
FULL_USE = 0.9
"""The part of its former share that is full use."""
REOPEN_GAP = 0.8 * BreakerConfig().open_for
"""Seconds, less than any wait of a breaker: calls that follow each other faster were let through together."""


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """One request as its customer saw it; `by` is who gave the right answer."""

    question: Any
    begun: float
    ended: float
    by: str | None = None
    is_reported: bool = False
    error: str | None = None


class Span(msgspec.Struct, frozen=True):
    """When the trouble lasts, in seconds of the run; contenders have `settling` seconds to notice it."""

    at: float
    until: float
    settling: float = 15.0

    @property
    def lasts(self) -> float:
        """How long that is, in seconds."""
        return self.until - self.at


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of one run; durations are seconds, None where a figure means nothing for the trouble."""

    requests: int
    success: float
    """The part of the requests that got the right answer, checked."""
    reported: float
    """The part that the contender called a success."""
    amplification: float
    """Calls of providers for each request."""
    throttled: int
    """Calls answered 429."""
    calls_in_trouble: int | None
    """Calls to the failing provider while it failed."""
    calls_per_reopen: int | None
    """The most of them that failed and were let through together, once the contender has had time to notice."""
    time_to_return: float | None
    """From recovery to the full use of who had failed; infinite where that never came."""
    p50: float
    p99: float
    spend: int
    """In micro-units, all that providers charged."""
    paid_twice: int
    """Requests that more than one charge was made for."""
    unknown: int
    """Requests that ended as `OutcomeUnknown`."""
    begun: tuple[tuple[float, bool], ...] = ()
    """When each request began, and whether it got the right answer."""
    span: Span | None = None
    """When the trouble was, if it was at a time."""
    errors: dict[str, int] = {}
    """How requests failed that were said to fail, by the class of the error."""
    more: dict[str, float] = {}
    """What is counted for one trouble alone."""


def outcome_of(
    served: Sequence[Served],
    providers: Sequence[TroubledProvider],
    *,
    span: Span | None = None,
    failing: TroubledProvider | None = None,
    returns: bool = True,
    more: dict[str, float] | None = None,
) -> Outcome:
    """Return the figures of a run."""
    calls = sum(len(provider.attempts) for provider in providers)
    times = sorted(one.ended - one.begun for one in served)
    paid = Counter(question for provider in providers for question in provider.paid_for)
    in_trouble = per_reopen = came_back = None
    if span is not None and failing is not None:
        called = [one for one in failing.attempts if span.at <= one.at < span.until]
        noticed = span.at + span.settling
        in_trouble = len(called)
        per_reopen = most_together([one.at for one in called if one.at >= noticed and one.kind], REOPEN_GAP)
        came_back = time_to_return(served, failing.name, span) if returns else None
    return Outcome(
        requests=len(served),
        success=part(sum(one.by is not None for one in served), len(served)),
        reported=part(sum(one.is_reported for one in served), len(served)),
        amplification=part(calls, len(served)),
        throttled=sum(one.kind == "Throttled" for provider in providers for one in provider.attempts),
        calls_in_trouble=in_trouble,
        calls_per_reopen=per_reopen,
        time_to_return=came_back,
        p50=quantile(times, 0.5),
        p99=quantile(times, 0.99),
        spend=int(sum(provider.income for provider in providers)),
        paid_twice=sum(count > 1 for count in paid.values()),
        unknown=sum(one.error == "OutcomeUnknown" for one in served),
        begun=tuple((one.begun, one.by is not None) for one in served),
        span=span,
        errors=dict(Counter(one.error for one in served if one.error is not None)),
        more=more or {},
    )


def with_more(outcome: Outcome, **more: float) -> Outcome:
    """Add what is counted for one trouble alone."""
    return msgspec.structs.replace(outcome, more={**outcome.more, **more})


def part(count: float, whole: float) -> float:
    """Return a ratio; 1 of nothing."""
    return count / whole if whole else 1.0


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return the number that so large a part of them does not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0


def most_within(times: Sequence[float], span: float) -> int:
    """Return how many of these rising times fall into one span at most.

    >>> most_within([0.0, 1.0, 30.0], 24.0)
    2
    """
    first = most = 0
    for last, time in enumerate(times):
        while time - times[first] >= span:
            first += 1
        most = max(most, last - first + 1)
    return most


def most_together(times: Sequence[float], gap: float) -> int:
    """Return the length of the longest row of these rising times in which each follows within the gap.

    >>> most_together([0.0, 1.0, 2.0, 30.0], 1.5)
    3
    """
    row = most = 0
    last = -math.inf
    for time in times:
        row = row + 1 if time - last < gap else 1
        most, last = max(most, row), time
    return most


def time_to_return(served: Sequence[Served], name: str, span: Span) -> float:
    """Return the seconds from recovery to the first of `WINDOW` requests in a row of which `name` has its share."""
    ordered = sorted(served, key=lambda one: one.begun)
    before = [one for one in ordered if one.begun < span.at]
    share = FULL_USE * part(sum(one.by == name for one in before), len(before))
    after = [one for one in ordered if one.begun >= span.until]
    for first in range(len(after) - WINDOW + 1):
        window = after[first : first + WINDOW]
        if sum(one.by == name for one in window) >= share * WINDOW:
            return window[0].begun - span.until
    return math.inf
