"""The wait queue in front of one resource: first come, first served, bounded, and each caller with a deadline."""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, TypeVar

from actors.validation import check_count
from runtime import current_deadline, earlier

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class QueuedCaller(Generic[T]):
    """A caller in the queue; `future` becomes what it waits for, or None when its deadline has passed."""

    __slots__ = ("deadline", "future", "timer")

    def __init__(self, future: asyncio.Future[T | None], deadline: float) -> None:
        self.future = future
        self.deadline = deadline
        self.timer: asyncio.TimerHandle | None = None


class WaitingRoom(Generic[T]):
    """The callers that wait for one resource.

    An item that was handed to a caller which is cancelled before it runs again is passed to `take_back`. `on_head_gone`
    is called when the caller at the head of the queue has gone without an item.
    """

    def __init__(
        self, max_waiting: int, *, take_back: Callable[[T], None], on_head_gone: Callable[[], None] | None = None
    ) -> None:
        check_count("max_waiting", max_waiting, least=0, unit="callers")
        self.max_waiting = max_waiting
        self._take_back = take_back
        self._on_head_gone = on_head_gone
        # An ordered dictionary keeps the order of arrival and lets a caller leave from the middle. A plain dict would
        # take time to find its first key after many removals at the front.
        self.queue: OrderedDict[QueuedCaller[T], None] = OrderedDict()
        """The callers that wait, in order; read only."""
        self._earliest_deadline = math.inf
        """No deadline is earlier, so that a caller that meets a full room rarely has to check them all."""

    def has_room(self, now: float) -> bool:
        """Tell whether one more caller may wait; a full room first drops the callers whose deadline has passed."""
        if len(self.queue) >= self.max_waiting and self._earliest_deadline <= now:
            for waiter in [one for one in self.queue if one.deadline <= now]:
                self._expire(waiter)
            self._earliest_deadline = min((one.deadline for one in self.queue), default=math.inf)
        return len(self.queue) < self.max_waiting

    async def wait(self, deadline: float) -> T | None:
        """Wait until an item is handed over; return None at `deadline` in loop time (infinity: wait without limit)."""
        loop = asyncio.get_running_loop()
        waiter = QueuedCaller[T](loop.create_future(), deadline)
        if deadline != math.inf:
            waiter.timer = loop.call_at(deadline, self._expire, waiter)
            self._earliest_deadline = min(self._earliest_deadline, deadline)
        self.queue[waiter] = None
        try:
            return await waiter.future
        except asyncio.CancelledError:
            served = waiter.future.result() if waiter.future.done() and not waiter.future.cancelled() else None
            if served is not None:
                self._take_back(served)
            raise
        finally:
            if waiter.timer is not None:
                waiter.timer.cancel()
            self._remove(waiter)

    def hand_over(self, item: T) -> None:
        """Hand `item` to the caller at the head of the queue, which must not be empty."""
        waiter = next(iter(self.queue))
        del self.queue[waiter]
        waiter.future.set_result(item)

    def drop_cancelled(self) -> bool:
        """Drop callers at the head that have been cancelled but have not run since; tell whether a caller is left."""
        while self.queue:
            waiter = next(iter(self.queue))
            if not waiter.future.done():
                return True
            del self.queue[waiter]
        return False

    def _expire(self, waiter: QueuedCaller[T]) -> None:
        if not waiter.future.done():
            waiter.future.set_result(None)
        self._remove(waiter)

    def _remove(self, waiter: QueuedCaller[T]) -> None:
        if waiter in self.queue:
            was_first = next(iter(self.queue)) is waiter
            del self.queue[waiter]
            if was_first and self._on_head_gone is not None:
                self._on_head_gone()

    def __len__(self) -> int:
        return len(self.queue)

    def __repr__(self) -> str:
        return f"<WaitingRoom {len(self)} of {self.max_waiting} waiting>"


def check_timeout(timeout: float | None) -> None:
    """Raise ValueError if `timeout` is negative or NaN."""
    if timeout is not None and not timeout >= 0:
        raise ValueError(f"timeout must be >= 0 seconds (0 never waits, None waits for ever), got {timeout}")


def wait_deadline(timeout: float | None, now: float) -> float:
    """Return the end of a wait of at most `timeout` seconds, capped by the deadline of the request being served."""
    return earlier(math.inf if timeout is None else now + timeout, current_deadline.get())
