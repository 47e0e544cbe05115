"""A clock for tests that goes with the virtual time of the loop, and can be put ahead or back."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    import pytest

NOON = datetime(2026, 7, 1, 12, tzinfo=ZoneInfo("Europe/Berlin")).timestamp()
"""Twelve hours before midnight in Berlin, ten in UTC."""


class Clock:
    """What `time.time` tells; `noon` is when it begins."""

    def __init__(self, patch: pytest.MonkeyPatch, *, begins: float = NOON) -> None:
        self._loop = asyncio.get_event_loop()
        self.ahead = begins - self._loop.time()
        patch.setattr(time, "time", self.now)

    def now(self) -> float:
        """Return the seconds since 1970."""
        return self._loop.time() + self.ahead
