"""How many restarts are too many. Pure: the times of past restarts come in, and go out."""

from __future__ import annotations

import msgspec


class RestartIntensity(msgspec.Struct, frozen=True, kw_only=True):
    """The restarts a supervisor tolerates, over all its children, before it gives up and fails itself.

    `max_restarts` within `within` seconds are tolerated; one more escalates. 0 escalates every crash.
    """

    max_restarts: int = 3
    within: float = 5.0

    def __post_init__(self) -> None:
        if self.max_restarts < 0:
            raise ValueError(f"max_restarts must be >= 0, got {self.max_restarts}")
        if not self.within > 0:
            raise ValueError(f"within must be > 0 seconds, got {self.within}")

    def after_restart(self, restarts: tuple[float, ...], *, now: float) -> tuple[float, ...] | None:
        """Return the restarts to remember after one more at `now`, or None where it is one too many.

        >>> RestartIntensity(max_restarts=2, within=5.0).after_restart((0.0, 4.0), now=6.0)
        (4.0, 6.0)
        >>> RestartIntensity(max_restarts=2, within=5.0).after_restart((4.0, 5.0), now=6.0)
        """
        recent = (*(at for at in restarts if now - at < self.within), now)
        return recent if len(recent) <= self.max_restarts else None
