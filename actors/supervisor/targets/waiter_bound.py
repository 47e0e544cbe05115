"""How many requests may wait, in all and of a tenant, which of them has to go, and how soon they will have gone. Pure.

If one too many comes, those past their deadline go first. Otherwise it is the newest request of the tenant that has the
most waiting in the lowest class, the one that comes included: a request that was called before is never sent away.
"""

from __future__ import annotations

import heapq
from collections import deque
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actors.limits.class_queue import Priority

PACED = 100
"""The number of the last requests to leave by which the pace is measured."""
LOWEST_FIRST: tuple[Priority, ...] = ("low", "normal", "high")
MIN_SWEPT = 64
"""So many deadlines of requests that have left are not worth a sweep."""
LEAST_PAUSE = 0.01
"""Seconds after which a refused request may come back at the earliest."""


class Waiter(Protocol):
    """What is counted: a request that waits, until loop time `deadline` at the latest."""

    deadline: float
    number: int
    """Its number among those that wait; 0 if it is not counted."""
    tenant: str
    priority: Priority
    has_waited: bool
    """Whether it has been called or waited before, so that it would lose something."""


W = TypeVar("W", bound=Waiter)


class LeavingPace:
    """How many wait, and at what pace they leave."""

    __slots__ = ("_left_at", "count")

    def __init__(self) -> None:
        self.count = 0
        self._left_at: deque[float] = deque(maxlen=PACED + 1)
        """When the last requests left; the first entry is from when the pace is measured."""

    def add(self, now: float) -> None:
        """Count one that begins to wait."""
        if not self.count:
            self._left_at.append(now)
        self.count += 1

    def discard(self, now: float) -> None:
        """Count one no more that has left."""
        self.count -= 1
        if self.count:
            self._left_at.append(now)
        else:
            self._left_at.clear()

    def time_to_clear(self, now: float) -> float:
        """Return the seconds in which all that wait will have left at the present pace; 0.0 while none has left."""
        left = len(self._left_at) - 1
        return self.count * (now - self._left_at[0]) / left if left > 0 else 0.0


class WaiterBound(Generic[W]):
    """Counts the requests that wait, at most `max_waiting`, and measures at what pace they leave."""

    def __init__(self, max_waiting: int) -> None:
        self.max_waiting = max_waiting
        self._all = LeavingPace()
        self._of_tenant: dict[str, LeavingPace] = {}
        self._last_number = 0
        self._by_deadline: list[tuple[float, int, W]] = []
        """A heap, which may still hold requests that have left."""
        self._new: dict[Priority, dict[str, dict[W, None]]] = {priority: {} for priority in LOWEST_FIRST}
        """The requests that may be sent away, by class and tenant in the order of arrival; the lowest class first."""

    @property
    def count(self) -> int:
        """How many wait."""
        return self._all.count

    @property
    def is_full(self) -> bool:
        """Whether one more would be too many."""
        return self.count >= self.max_waiting

    def add(self, waiter: W, now: float) -> None:
        """Count a request that begins to wait."""
        self._all.add(now)
        self._of_tenant.setdefault(waiter.tenant, LeavingPace()).add(now)
        if not waiter.has_waited:
            self._new[waiter.priority].setdefault(waiter.tenant, {})[waiter] = None
        self._last_number += 1
        waiter.number = self._last_number
        heapq.heappush(self._by_deadline, (waiter.deadline, waiter.number, waiter))

    def discard(self, waiter: W, now: float) -> None:
        """Count a request no more that has left, for whatever reason."""
        if not waiter.number:
            return
        waiter.number = 0
        self._all.discard(now)
        of_tenant = self._of_tenant[waiter.tenant]
        of_tenant.discard(now)
        if not of_tenant.count:
            del self._of_tenant[waiter.tenant]
        self.keep(waiter)
        if not self.count:
            self._by_deadline.clear()
            return
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

    def keep(self, waiter: W) -> None:
        """Send a request away no more, if it could be."""
        of_class = self._new[waiter.priority]
        of_tenant = of_class.get(waiter.tenant)
        if of_tenant is not None and of_tenant.pop(waiter, 0) is None and not of_tenant:
            del of_class[waiter.tenant]

    def is_full_for(self, waiter: W, max_of_tenant: int | None) -> bool:
        """Tell whether one more of the tenant of `waiter` would be too many of it."""
        of_tenant = self._of_tenant.get(waiter.tenant)
        return max_of_tenant is not None and (0 if of_tenant is None else of_tenant.count) >= max_of_tenant

    def to_send_away(self, newcomer: W, *, of_tenant: bool = False) -> W | None:
        """Return the request that has to go for one that comes; None if that is the one that comes.

        With `of_tenant` it is one of the tenant of `newcomer`.
        """
        for priority, of_class in self._new.items():
            mine = of_class.get(newcomer.tenant, {})
            most = mine if of_tenant else max(of_class.values(), key=len, default=mine)
            if priority == newcomer.priority:
                return next(reversed(most)) if len(most) > len(mine) + 1 else None
            if most:
                return next(reversed(most))
        return None

    def time_to_clear(self, now: float, tenant: str | None = None) -> float:
        """Return the seconds in which all that wait will have left at the present pace; 0.0 while none has left.

        Of a `tenant`, it is those of that tenant alone.
        """
        pace = self._all if tenant is None else self._of_tenant.get(tenant)
        return 0.0 if pace is None else pace.time_to_clear(now)

    def __repr__(self) -> str:
        return f"<WaiterBound {self.count} of {self.max_waiting} waiting>"
