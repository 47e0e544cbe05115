"""How often single calls hang at a provider that answers the others as usual: a few in a row prove nothing then. Pure.

Such calls are common at providers that take very long for some inputs. By the product rule the chance of a row of them
is their share to the power of its length.
"""

from __future__ import annotations

import math

import msgspec

REMEMBERED = 50
"""The calls over which the share is averaged."""
UNLIKELY = 1 / 5_000
"""The chance below which a row of timeouts is no accident."""


class HangingCalls(msgspec.Struct, frozen=True, gc=False):
    """The share of `calls` that hung alone, and the timeouts in a row since the last answer; an immutable value.

    >>> HangingCalls(share=0.34, calls=50).excused, HangingCalls(share=0.05, calls=50).excused
    (3, 0)
    """

    share: float = 0.0
    calls: int = 0
    row: int = 0

    @property
    def excused(self) -> int:
        """How many timeouts in a row prove nothing, before the few that open any breaker."""
        return max(0, int(math.log(UNLIKELY) / math.log(self.share)) - ROW_OF_ANY) if 0 < self.share < 1 else 0

    @property
    def is_common(self) -> bool:
        """Whether one more timeout is likely enough to prove nothing."""
        return self.row < self.excused

    def after(self, *, answered: bool, hung_alone: bool) -> HangingCalls:
        """Return it after a call that was answered, or that timed out; `hung_alone` tells whether others were answered.

        A timeout while no others are answered may be an outage, of which nothing is learned.
        """
        if not (answered or hung_alone):
            return HangingCalls(self.share, self.calls, self.row + 1)
        if answered and not self.share:
            return self if not self.row else HangingCalls(calls=self.calls)
        calls = min(self.calls + 1, REMEMBERED)
        return HangingCalls(self.share + (hung_alone - self.share) / max(calls, ROW_OF_ANY), calls, 0)


ROW_OF_ANY = 4
"""The timeouts in a row that any provider is left to prove that it hangs; one more opens a breaker by default."""
