"""For how long a provider is left alone: longer each time, until one call, made to find out, is answered. Pure.

Two things have this in common: a provider that refuses a key, an account, a region or a name, and one that charges more
than it lists.
"""

from __future__ import annotations

import math

import msgspec

REFUSAL_WAITS = (10.0, 100.0, 600.0)
"""Seconds to leave a provider alone that refuses, the last for good: that makes 8 calls in the first hour."""
DEAR_WAITS = (60.0, 600.0, 3600.0)
"""Seconds to leave a provider alone that charges more than it lists, the last for good."""
MAX_STATED = 3600.0
"""Seconds for which a provider is left alone at most because it says so itself; then one call asks again."""
JITTER = 0.05


class Leave(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A provider is left alone since loop time `left_at`, for the time being until `until`; then one call tries it.

    `waits` counts the waits so far. `shift` is by how many seconds jitter made the last one end too late, or too early.
    `resets_at` is when its refusal ends by its own word, in loop time; None if it does not say.
    """

    left_at: float
    until: float
    waits: int = 1
    shift: float = 0.0
    resets_at: float | None = None
    is_tried: bool = False
    """Whether the call that finds out is under way."""

    def wait(self, now: float) -> float:
        """Return the seconds until a call may find out: 0.0 if it may now; infinity while another one does."""
        return math.inf if self.is_tried else max(0.0, self.until - now)

    def tried(self) -> Leave:
        """Return what it is while the call that finds out is under way."""
        return msgspec.structs.replace(self, is_tried=True)

    def untold(self, started: float) -> Leave:
        """Return what it is after a call that began at `started` told nothing: then the next call may find out."""
        return msgspec.structs.replace(self, is_tried=False) if self.is_tried and self.is_before(started) else self

    def is_before(self, started: float) -> bool:
        """Tell whether a call began only after the provider was left: such a call was made to find out."""
        return started > self.left_at


def leave(
    before: Leave | None, waits: tuple[float, ...], *, now: float, random: float, stated: float | None = None
) -> Leave:
    """Return the next wait: the first of `waits` seconds, or the one after that of `before`; or what was `stated`.

    What was stated counts for the first wait. If the provider refuses after that too, only a longer one counts.

    Each is 10 % longer or shorter at most, by `random` from [0, 1), so that many processes do not come back together.
    The times themselves are shifted, by 5 % of the wait before them, and not one after the other: so jitter does not
    add up, and as many calls are made in an hour as without it.

    >>> first = leave(None, REFUSAL_WAITS, now=0.0, random=0.5)
    >>> second = leave(first, REFUSAL_WAITS, now=first.until, random=0.0)
    >>> first.until, second.until, second.waits
    (10.0, 105.0, 2)
    """
    count = 1 if before is None else before.waits + 1
    length = waits[min(count, len(waits)) - 1]
    if stated and (before is None or stated >= length):
        return Leave(left_at=now, until=now + min(stated, MAX_STATED), waits=count, resets_at=now + stated)
    shift = JITTER * length * (2.0 * random - 1.0)
    owed = 0.0 if before is None else before.shift
    return Leave(left_at=now, until=now + length + shift - owed, waits=count, shift=shift)
