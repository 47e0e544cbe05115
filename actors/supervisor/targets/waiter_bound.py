"""How many requests may wait, and how soon those that wait will have gone. Pure: `now` is an argument."""

from __future__ import annotations

import heapq
from collections import deque
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

PACED = 100
"""The number of the last requests to leave by which the pace is measured."""
MIN_SWEPT = 64
"""So many deadlines of requests that have left are not worth a sweep."""
LEAST_PAUSE = 0.01
"""Seconds after which a refused request may come back at the earliest."""


class Waiter(Protocol):
    """What is counted: a request that waits, until loop time `deadline` at the latest."""

    deadline: float
    number: int
    """Its number among those that wait; 0 if it is not counted."""


W = TypeVar("W", bound=Waiter)


class WaiterBound(Generic[W]):
    """Counts the requests that wait, at most `max_waiting`, and measures at what pace they leave."""

    def __init__(self, max_waiting: int) -> None:
        self.max_waiting = max_waiting
        self.count = 0
        self._last_number = 0
        self._by_deadline: list[tuple[float, int, W]] = []
        """A heap, which may still hold requests that have left."""
        self._left_at: deque[float] = deque(maxlen=PACED + 1)
        """When the last requests left; the first entry is from when the pace is measured."""

    @property
    def is_full(self) -> bool:
        """Whether one more would be too many."""
        return self.count >= self.max_waiting

    def add(self, waiter: W, now: float) -> None:
        """Count a request that begins to wait."""
        if not self.count:
            self._left_at.append(now)
        self.count += 1
        self._last_number += 1
        waiter.number = self._last_number
        heapq.heappush(self._by_deadline, (waiter.deadline, waiter.number, waiter))

    def discard(self, waiter: W, now: float) -> None:
        """Count a request no more that has left, for whatever reason."""
        if not waiter.number:
            return
        waiter.number = 0
        self.count -= 1
        if not self.count:
            self._by_deadline.clear()
            self._left_at.clear()
            return
        self._left_at.append(now)
        if len(self._by_deadline) > 2 * self.count + MIN_SWEPT:
            # A sorted list is a heap.
            self._by_deadline = sorted(one for one in self._by_deadline if one[1] == one[2].number)

    def take_late(self, now: float) -> Iterator[W]:
        """Yield the requests whose deadline has passed, the oldest deadline first; the caller takes each out."""
        heap = self._by_deadline
        while heap and (heap[0][0] <= now or heap[0][1] != heap[0][2].number):
            _, number, waiter = heapq.heappop(heap)
            if number == waiter.number:
                yield waiter
                heap = self._by_deadline  # A sweep makes a new one.

    def time_to_clear(self, now: float) -> float:
        """Return the seconds in which all that wait will have left at the present pace; 0.0 while none has left."""
        left = len(self._left_at) - 1
        return self.count * (now - self._left_at[0]) / left if left > 0 else 0.0

    def __repr__(self) -> str:
        return f"<WaiterBound {self.count} of {self.max_waiting} waiting>"
