"""How often single calls hang at a provider that answers the others as usual: a few in a row prove nothing then. Pure.

Such calls are common at providers that take very long for some inputs. By the product rule the chance of a row of them
is their share to the power of its length. A provider of which little is known is presumed to be as others are.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

REMEMBERED = 50
"""The calls over which the share is averaged."""
UNLIKELY = 1 / 5_000
"""The chance below which a row of timeouts is no accident."""
ROW_OF_ANY = 4
"""The timeouts in a row that any provider is left to prove that it hangs; one more opens a breaker by default."""
ENOUGH_ANSWERS = 20
"""The answers from which on a provider is judged by itself alone."""


class HangingCalls(msgspec.Struct, frozen=True, gc=False):
    """The share of `calls` that hung alone, and the timeouts in a row since the last answer; an immutable value.

    >>> HangingCalls(share=0.34, calls=50).excused(), HangingCalls(share=0.05, calls=50).excused()
    (3, 0)
    >>> HangingCalls().excused(0.5)
    8
    """

    share: float = 0.0
    calls: int = 0
    row: int = 0

    def excused(self, presumed: float = 0.0) -> int:
        """Return how many timeouts in a row prove nothing, before the few that open any breaker.

        `presumed` is the share that is presumed besides, because the provider is hardly known.
        """
        share = max(self.share, presumed)
        return max(0, int(math.log(UNLIKELY) / math.log(share)) - ROW_OF_ANY) if 0 < share < 1 else 0

    def is_common(self, presumed: float = 0.0) -> bool:
        """Tell whether one more timeout is likely enough to prove nothing."""
        return self.row < self.excused(presumed)

    def after(self, *, answered: bool, hung_alone: bool) -> HangingCalls:
        """Return it after a call that was answered, or that timed out; `hung_alone` tells whether others were answered.

        A timeout while no others are answered may be the beginning of an outage. If an answer comes before it opens the
        breaker, it was none.
        """
        if not (answered or hung_alone):
            return HangingCalls(self.share, self.calls, self.row + 1)
        if answered and not (self.share or self.row):
            return self
        share, calls = self.share, self.calls
        for hung in (*(1.0,) * self.row, 0.0) if answered else (1.0,):
            calls = min(calls + 1, REMEMBERED)
            share += (hung - share) / max(calls, ROW_OF_ANY)
        return HangingCalls(share, calls, 0)

    def after_trip(self) -> HangingCalls:
        """Return it after the breaker has opened: of the timeouts by which it did, nothing is learned."""
        return HangingCalls(self.share, self.calls) if self.row else self


NONE_HANG = HangingCalls()


def presumed_share(answered: int, others: Iterable[HangingCalls]) -> float:
    """Return the share of calls that is presumed to hang at a provider that has `answered` so many, from `others`.

    Inputs that take very long do so everywhere, as far as is known. The more it has answered, the less is presumed.

    >>> presumed_share(5, [HangingCalls(share=0.4), HangingCalls(share=0.2)]), presumed_share(20, [HangingCalls()])
    (0.3, 0.0)
    """
    share = max((one.share for one in others), default=0.0)
    return share * max(0, ENOUGH_ANSWERS - answered) / ENOUGH_ANSWERS
