"""Deadlines: absolute loop times that travel with a request, and one timer that watches all of them."""

from __future__ import annotations

import heapq
from contextvars import ContextVar
from math import ceil
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import asyncio

# A deadline is never noticed early, and at most one tick late. A power of two keeps the arithmetic exact.
TICKS_PER_SECOND = 1024

# A loop that stood still for longer than this catches up in steps of it, so that what waits for an answer does not give
# up in the very turn that ends the call behind it, before anybody could say what became of that call.
CATCH_UP_TICKS = TICKS_PER_SECOND // 4
CATCH_UP_TURNS = 10
CATCH_UP_PAUSE = 0.001
"""Seconds between two of those turns: a thread may have to write down what became of the call."""

current_deadline: ContextVar[float | None] = ContextVar("understudy_deadline", default=None)
"""The deadline of the request whose handler is running, in loop time; None if there is none."""


def earlier(deadline: float, inherited: float | None) -> float:
    """Return the deadline that applies: a nested request never outlives the one it serves.

    >>> earlier(5.0, None), earlier(5.0, 3.0), earlier(2.0, 3.0)
    (5.0, 3.0, 2.0)
    """
    return deadline if inherited is None or deadline < inherited else inherited


class Expiring(Protocol):
    """Something to be called when its deadline has passed."""

    deadline: float
    tick: int
    """The tick that the watch has grouped it under."""

    def expire(self) -> None:
        """React to the deadline, which has passed."""


class DeadlineWatch:
    """Calls `expire` of each entry when its deadline has passed, with one event-loop timer for all of them.

    Entries are grouped by tick, so that adding and removing one is a dictionary operation; a heap of ticks has the
    next one on top. Most requests are answered long before their deadline and never touch the timer. If the loop stood
    still (a suspended machine, a handler that blocks it), deadlines pass in their order, a quarter of a second of them
    at a time, with some turns of the loop in between.
    """

    __slots__ = ("_is_catching_up", "_size", "_ticks", "_timer", "_waiting", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._waiting: dict[int, dict[Expiring, bool]] = {}
        self._ticks: list[int] = []
        self._timer: asyncio.TimerHandle | None = None
        self._is_catching_up = False
        self._size = 0

    def add(self, entry: Expiring) -> None:
        """Watch `entry` until it is discarded or has expired."""
        tick = entry.tick = ceil(entry.deadline * TICKS_PER_SECOND)
        group = self._waiting.get(tick)
        if group is None:
            if len(self._ticks) > 2 * self._size + TICKS_PER_SECOND:
                self._forget_empty()
            group = self._waiting[tick] = {}
            heapq.heappush(self._ticks, tick)
            if self._ticks[0] == tick:
                self._arm(tick)
        elif self._timer is None:
            self._arm(self._ticks[0])
        group[entry] = True
        self._size += 1

    def discard(self, entry: Expiring) -> None:
        """Stop watching `entry`; do nothing if it is not watched."""
        group = self._waiting.get(entry.tick)
        if group is not None and group.pop(entry, False):
            self._size -= 1

    def close(self) -> None:
        """Forget every entry and the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._waiting.clear()
        self._ticks.clear()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def _forget_empty(self) -> None:
        """Drop the ticks without entries; with deadlines an hour away there would be millions of them."""
        self._waiting = {tick: group for tick, group in self._waiting.items() if group}
        self._ticks = sorted(self._waiting)

    def _arm(self, tick: int) -> None:
        if self._is_catching_up:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_at(tick / TICKS_PER_SECOND, self._fire)

    def _fire(self, step: int = CATCH_UP_TICKS) -> None:
        self._timer = None
        self._is_catching_up = False
        # A loop fires a timer up to its clock's resolution early; that tick is due too.
        due = int(self.loop.time() * TICKS_PER_SECOND + 0.5)
        self._drop_empty()
        until = min(due, self._ticks[0] + step) if self._ticks else due
        expired: list[Expiring] = []
        while self._ticks and self._ticks[0] <= until:
            expired.extend(self._waiting.pop(heapq.heappop(self._ticks)))
            self._drop_empty()
        self._size -= len(expired)
        if self._ticks:
            if self._ticks[0] > due:
                self._arm(self._ticks[0])
            else:
                self._is_catching_up = True
                self._pause(due, CATCH_UP_TURNS)
        for entry in expired:
            entry.expire()

    def _drop_empty(self) -> None:
        while self._ticks and not self._waiting[self._ticks[0]]:
            del self._waiting[heapq.heappop(self._ticks)]

    def _pause(self, since: int, turns: int) -> None:
        """Let the loop turn, then fire again: for twice the time that this took, or a busy loop would fall behind."""
        if turns:
            self._timer = self.loop.call_later(CATCH_UP_PAUSE, self._pause, since, turns - 1)
        else:
            took = int(self.loop.time() * TICKS_PER_SECOND) - since
            self._fire(max(CATCH_UP_TICKS, 2 * took))
