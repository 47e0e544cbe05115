"""When an item is asked for again that meets a reset beyond its deadline, such as that of a day's quota. Pure.

It is put down until then, and holds no place, token or money. At its time it is a request like any other.
"""

from __future__ import annotations

import math

from actors.errors.families import (
    AllProvidersFailed,
    BudgetExceeded,
    CallFailed,
    LeftAlone,
    QuotaExhausted,
    RateLimited,
    Throttled,
)

MAX_PARK = 7 * 86_400.0
"""Seconds that an item is parked at most."""
LIMITS = frozenset({Throttled.__name__, QuotaExhausted.__name__})
"""The failures after which a provider says when it resets."""
SHORTEST = 1.0
"""Seconds that an item is parked at least, so that a reset that is just over is not asked for without end."""
MAX_JITTER = 60.0
JITTER = 0.05
"""The part of its wait, and the seconds at most, by which a batch comes later than the reset: other programs wait for
the same."""


def checked_park(park: object) -> float | None:
    """Return for how many seconds items may be parked; None if they are not.

    >>> checked_park(False), checked_park(True), checked_park(3_600)
    (None, 604800.0, 3600.0)
    """
    if isinstance(park, bool):
        return MAX_PARK if park else None
    if not isinstance(park, int | float):
        raise TypeError(f"park must be True, or the seconds that an item is parked at most, got {park!r:.100}")
    if not 0 < park <= MAX_PARK:
        raise ValueError(f"park must be > 0 seconds, and 7 days ({MAX_PARK:.0f}) at most, got {park!r:.100}")
    return float(park)


class Resets:
    """When each provider resets, in loop time, as its own answers have said."""

    def __init__(self) -> None:
        self._by_provider: dict[str, float] = {}

    def reset_after(self, error: Exception, *, now: float) -> float | None:
        """Return when one of the providers, or caps, that refused a request resets; None if that is not why it failed.

        A cap says when it renews if it will have enough then. What was charged, or may have been, is not asked for
        again. A provider that is left alone for another reason, such as a wrong key, has no reset.

        >>> resets = Resets()
        >>> resets.reset_after(RateLimited("alder", retry_after=60.0, provider="alder"), now=5.0)
        65.0
        >>> resets.reset_after(CallFailed("no"), now=5.0)
        """
        if not isinstance(error, CallFailed) or error.charged != "no":
            return None
        told, renewals = dict[str, float](), list[float]()
        refusals: tuple[Exception, ...] = (error,)
        if isinstance(error, AllProvidersFailed):
            refusals = error.refused
            for one in error.attempts:
                if one.kind in LIMITS and one.retry_after is not None:
                    at = one.started + one.latency + one.retry_after
                    told[one.provider] = self._by_provider[one.provider] = at
        for refusal in refusals:
            if isinstance(refusal, LeftAlone | RateLimited) and refusal.provider is not None:
                wait = refusal.resets_after if isinstance(refusal, LeftAlone) else refusal.retry_after
                # A wait that a provider states is believed for an hour at a time; its own word goes further.
                at = max(-math.inf if wait is None else now + wait, self._by_provider.get(refusal.provider, -math.inf))
                if at > now:
                    told[refusal.provider] = at
            elif isinstance(refusal, BudgetExceeded) and refusal.retry_after is not None:
                renewals.append(now + refusal.retry_after)
        return min((*told.values(), *renewals), default=None)


def parked_until(reset: float, *, now: float, since: float, longest: float) -> float | None:
    """Return until when an item is parked that is so `since` a time; None if that is longer than it may be.

    Times are of one clock. The time is a whole second, so that items of one reset keep their order.

    >>> parked_until(99.2, now=5.0, since=5.0, longest=100.0), parked_until(4.0, now=5.0, since=5.0, longest=100.0)
    (100.0, 6.0)
    >>> parked_until(99.2, now=5.0, since=-10.0, longest=100.0)
    """
    until = float(math.ceil(max(reset, now + SHORTEST)))
    return until if until - since <= longest else None


def due_at(until: float, *, now: float, random: float) -> float:
    """Return when a batch asks for what is parked until a time, by its own `random` from [0, 1).

    >>> due_at(10.0, now=0.0, random=0.5), due_at(86_400.0, now=0.0, random=0.5)
    (10.25, 86430.0)
    """
    return until + random * min(MAX_JITTER, JITTER * max(0.0, until - now))
