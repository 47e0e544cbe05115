"""When calls may begin, one after the other, by a stated and a learned limit together. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from actors.limits.quota import NO_WEIGHTS, QuotaRefusal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from actors.limits.learned import LearnedLimit
    from actors.limits.quota import Quota

ROUNDS = 3
"""How often both limits are asked in turn: what the one lets through, the other may not yet."""


class Pacing:
    """The limits of a provider or a quota as they will be, if what they let through is all taken, and nothing else."""

    def __init__(self, learned: LearnedLimit, quota: Quota | None) -> None:
        self._learned, self._quota = learned, quota

    def next_after(self, at: float, weights: Mapping[str, int] = NO_WEIGHTS) -> float:
        """Take what the next call needs, and return when it may begin, from `at` on; infinity if it never may.

        >>> from actors.limits.learned import LearnedLimit
        >>> from actors.limits.quota import per_minute, quota_of
        >>> pace = Pacing(LearnedLimit(), quota_of(per_minute("requests", 60, burst=2)))
        >>> [pace.next_after(5.0) for _ in range(4)]
        [5.0, 5.0, 6.0, 7.0]
        """
        for _ in range(ROUNDS):
            wait = self._learned.wait(at, weights)
            taken = None if self._quota is None else self._quota.take(at, weights)
            if isinstance(taken, QuotaRefusal):
                wait = max(wait, taken.wait)
            if wait <= 0:
                if isinstance(taken, tuple):
                    self._quota = taken[0]
                break
            at += wait
            if at == math.inf:
                return at
        self._learned, _ = self._learned.take(at, weights)
        return at
