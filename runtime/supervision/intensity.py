"""How many restarts within which time are too many. Pure: the times of all restarts are arguments."""

from __future__ import annotations

from collections import deque  # noqa: TC003 - the doctests below need it.

import msgspec


class RestartIntensity(msgspec.Struct, frozen=True, kw_only=True):
    """The restarts a supervisor tolerates, over all its children, before it gives up and fails itself.

    `max_restarts` within `within` seconds are tolerated; one more escalates. 0 escalates every crash.
    """

    max_restarts: int = 3
    within: float = 5.0

    def __post_init__(self) -> None:
        if type(self.max_restarts) is not int or self.max_restarts < 0:
            raise ValueError(f"max_restarts must be >= 0, got {self.max_restarts!r}")
        if not self.within > 0:
            raise ValueError(f"within must be > 0 seconds, got {self.within}")

    def tolerates(self, restarts: deque[float], *, now: float) -> bool:
        """Add a restart at `now` to the times in `restarts`, drop the old ones, and tell if it is tolerated.

        >>> restarts = deque([0.0, 4.0])
        >>> RestartIntensity(max_restarts=2, within=5.0).tolerates(restarts, now=6.0), restarts
        (True, deque([4.0, 6.0]))
        >>> RestartIntensity(max_restarts=2, within=5.0).tolerates(restarts, now=6.0)
        False
        """
        restarts.append(now)
        while now - restarts[0] >= self.within:
            restarts.popleft()
        return len(restarts) <= self.max_restarts
