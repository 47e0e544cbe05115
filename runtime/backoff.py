"""How long to wait before the next restart: longer each time. Pure: the random number is an argument."""

from __future__ import annotations

import msgspec


class Backoff(msgspec.Struct, frozen=True, kw_only=True):
    """Waits that double from `initial` to `cap` seconds, spread by `jitter`, and begin anew after a quiet time.

    `jitter` is the share of the wait that is random: with 0 the full wait, with 1 any part of it down to none.
    A child that ran for `reset_after` seconds since its last restart starts again from `initial`.
    """

    initial: float = 0.1
    cap: float = 30.0
    jitter: float = 0.2
    reset_after: float = 60.0

    def __post_init__(self) -> None:
        if not 0 <= self.initial <= self.cap:
            raise ValueError(f"need 0 <= initial <= cap, got initial={self.initial}, cap={self.cap} (seconds)")
        if not 0 <= self.jitter <= 1:
            raise ValueError(f"jitter must be between 0 and 1, got {self.jitter}")
        if not self.reset_after >= 0:
            raise ValueError(f"reset_after must be >= 0 seconds, got {self.reset_after}")

    def delay(self, attempt: int, *, random: float) -> float:
        """Return the seconds to wait before restart number `attempt` (from 1); `random` is in [0, 1).

        >>> [Backoff(initial=1, cap=5, jitter=0).delay(n, random=0.5) for n in (1, 2, 3, 4)]
        [1.0, 2.0, 4.0, 5.0]
        """
        # The exponent is bounded because 2.0 ** 1024 overflows a float.
        full = min(self.cap, self.initial * 2.0 ** min(attempt - 1, 60))
        return full * (1.0 - self.jitter * random)


IMMEDIATELY = Backoff(initial=0.0, cap=0.0, jitter=0.0)
"""No wait between restarts; the restart intensity alone bounds a crash loop."""
