"""Who waits for one thing: first come, first served, at most so many, each until its deadline at the latest."""

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


class RoomWaiter(Generic[T]):
    """One who waits: for `future`, which becomes what it waited for, or None when its deadline has passed."""

    __slots__ = ("deadline", "future", "timer")

    def __init__(self, future: asyncio.Future[T | None], deadline: float) -> None:
        self.future = future
        self.deadline = deadline
        self.timer: asyncio.TimerHandle | None = None


class WaitingRoom(Generic[T]):
    """The line for one thing. Whatever is handed to somebody who is cancelled meanwhile goes to `give_back`.

    `left` is called when the first in line has gone without being served.
    """

    def __init__(
        self, max_waiting: int, *, give_back: Callable[[T], None], left: Callable[[], None] | None = None
    ) -> None:
        check_count("max_waiting", max_waiting, least=0, unit="callers")
        self.max_waiting = max_waiting
        self._give_back = give_back
        self._left = left
        # A dictionary, because it keeps the order of arrival and lets anybody leave from the middle; and this one finds
        # its first at once also after many have left.
        self.line: OrderedDict[RoomWaiter[T], None] = OrderedDict()
        """Who waits; to be looked at only."""
        self._first_expiry = math.inf
        """Nobody's deadline is earlier, so that whoever comes to a full room rarely has to look at each."""

    def has_place(self, now: float) -> bool:
        """Tell whether one more may wait; from a full room those whose deadline has passed go first, in their order."""
        if len(self.line) >= self.max_waiting and self._first_expiry <= now:
            for waiter in [one for one in self.line if one.deadline <= now]:
                self._expire(waiter)
            self._first_expiry = min((one.deadline for one in self.line), default=math.inf)
        return len(self.line) < self.max_waiting

    async def wait(self, deadline: float) -> T | None:
        """Wait in line until served, or until `deadline` in loop time (infinity: for ever), and then return None."""
        loop = asyncio.get_running_loop()
        waiter = RoomWaiter[T](loop.create_future(), deadline)
        if deadline != math.inf:
            waiter.timer = loop.call_at(deadline, self._expire, waiter)
            self._first_expiry = min(self._first_expiry, deadline)
        self.line[waiter] = None
        try:
            return await waiter.future
        except asyncio.CancelledError:
            served = waiter.future.result() if waiter.future.done() and not waiter.future.cancelled() else None
            if served is not None:
                self._give_back(served)
            raise
        finally:
            if waiter.timer is not None:
                waiter.timer.cancel()
            self._remove(waiter)

    def serve(self, thing: T) -> None:
        """Hand `thing` to the first in line; there must be one."""
        waiter = next(iter(self.line))
        del self.line[waiter]
        waiter.future.set_result(thing)

    def forget_cancelled(self) -> bool:
        """Let those go who were cancelled a moment ago and have had no turn since; tell whether anybody is left."""
        while self.line:
            waiter = next(iter(self.line))
            if not waiter.future.done():
                return True
            del self.line[waiter]
        return False

    def _expire(self, waiter: RoomWaiter[T]) -> None:
        if not waiter.future.done():
            waiter.future.set_result(None)
        self._remove(waiter)

    def _remove(self, waiter: RoomWaiter[T]) -> None:
        if waiter in self.line:
            was_first = next(iter(self.line)) is waiter
            del self.line[waiter]
            if was_first and self._left is not None:
                self._left()

    def __len__(self) -> int:
        return len(self.line)

    def __repr__(self) -> str:
        return f"<WaitingRoom {len(self)} of {self.max_waiting} waiting>"


def check_timeout(timeout: float | None) -> None:
    """Raise ValueError for what is no time to wait."""
    if timeout is not None and not timeout >= 0:
        raise ValueError(f"timeout must be >= 0 seconds (0 never waits, None waits for ever), got {timeout}")


def waits_until(timeout: float | None, now: float) -> float:
    """Return the end of a wait that may take `timeout` seconds, within the deadline of the request that is served."""
    return earlier(math.inf if timeout is None else now + timeout, current_deadline.get())
