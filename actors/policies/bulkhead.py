"""At most so many calls at once, and so many that wait for a place: what one slow provider can hold up is bounded."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, TypeVar

from actors.errors.families import BulkheadFull, Throttled
from actors.limits.concurrency import ConcurrencyLimit
from actors.policies.waiting_room import WaitingRoom, check_timeout, waits_until
from actors.validation import check_count

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from types import TracebackType
    from typing import Literal

T = TypeVar("T")
PLACE: Literal[True] = True


class Bulkhead:
    """Lets at most `max_concurrency` calls run at once, and at most `max_waiting` wait, first come, first served.

    With `adaptive`, `max_concurrency` is the most there can be, and the `ConcurrencyLimit` learned from latency says
    how many it is now. All callers must be on one event loop.
    """

    def __init__(self, name: str, max_concurrency: int, max_waiting: int = 1_000, *, adaptive: bool = False) -> None:
        check_count("max_concurrency", max_concurrency, unit="call")
        self.name = name
        self.max_concurrency = max_concurrency
        self.limit = ConcurrencyLimit(max_concurrency) if adaptive else None
        """What was learned; None for a bulkhead that is not adaptive."""
        self.under_way = 0
        self._allowed = max_concurrency if self.limit is None else self.limit.allowed
        self._share: Callable[[], float] | None = None
        self._waiting = WaitingRoom[bool](max_waiting, give_back=self._undo)

    @property
    def allowed(self) -> int:
        """The calls that may be under way now, at least 1."""
        return self._allowed if self._share is None else max(1, int(self._allowed * self._share()))

    @property
    def waiting(self) -> int:
        """The callers in line."""
        return len(self._waiting)

    def slot(self, timeout: float | None = None) -> Slot:
        """Return a place to run one call in: `async with bulkhead.slot(timeout=1.0): ...`.

        Entering it waits for at most `timeout` seconds (0: not at all, None: as long as it takes), and not beyond the
        deadline of the request being served. It raises `BulkheadFull` when the time is over, and at once when nobody
        may wait any more; those in line whose deadline has passed make room first.
        """
        check_timeout(timeout)
        return Slot(self, timeout)

    async def execute(self, call: Callable[[], Awaitable[T]], *, timeout: float | None = None) -> T:  # noqa: ASYNC109 - bounds the wait for a place, not the call.
        """Return what `call` returns, run in a slot; raises what it raises, or `BulkheadFull` without calling it."""
        async with self.slot(timeout):
            return await call()

    def ease_by(self, share: Callable[[], float]) -> None:
        """Keep only a part of the places open, which `share` tells each time: that of a breaker in its slow start."""
        self._share = share

    def try_enter(self) -> bool:
        """Take a place, if there is one and nobody waits for it; `leave` gives it back."""
        if not self._waiting.line and self.under_way < (self._allowed if self._share is None else self.allowed):
            self.under_way += 1
            return True
        return False

    async def enter(self, deadline: float) -> None:
        """Take a place, or wait for one until `deadline` in loop time; `leave` gives it back."""
        if self.try_enter():
            return
        now = asyncio.get_running_loop().time()
        if deadline <= now or not self._waiting.has_place(now) or not await self._waiting.wait(deadline):
            raise BulkheadFull(self.name, max_concurrency=self.allowed)

    def leave(self, latency: float | None = None, *, now: float = 0.0, dropped: bool = False) -> None:
        """Give a place back, after a call that took `latency` seconds; None where that says nothing.

        `dropped` is as in `ConcurrencyLimit.after`.
        """
        if self.limit is not None and latency is not None:
            self.limit = self.limit.after(latency, self.under_way, now, dropped=dropped)
            self._allowed = self.limit.allowed
        self.under_way -= 1
        if self._waiting.line:
            self._serve_line()

    def _undo(self, _place: bool) -> None:  # noqa: FBT001 - it is what is handed over, and no option.
        self.leave()

    def _serve_line(self) -> None:
        while self.under_way < self.allowed and self._waiting.forget_cancelled():
            self.under_way += 1
            self._waiting.serve(PLACE)

    def broken_invariants(self) -> Iterator[str]:
        """Name what does not hold although no call is under way."""
        if self.under_way:
            yield f"{self.under_way} calls never gave their place in bulkhead {self.name!r} back"
        if self._waiting:
            yield f"{len(self._waiting)} were left waiting for bulkhead {self.name!r}"

    def __repr__(self) -> str:
        return f"<Bulkhead {self.name!r} {self.under_way} of {self.allowed} under way, {len(self._waiting)} waiting>"


class Slot:
    """A place in a bulkhead, for one call; made by `Bulkhead.slot`."""

    __slots__ = ("_bulkhead", "_entered", "_timeout")

    def __init__(self, bulkhead: Bulkhead, timeout: float | None) -> None:
        self._bulkhead = bulkhead
        self._timeout = timeout
        self._entered = math.nan

    async def __aenter__(self) -> None:
        bulkhead = self._bulkhead
        is_adaptive = bulkhead.limit is not None
        if not bulkhead.try_enter():
            await bulkhead.enter(waits_until(self._timeout, asyncio.get_running_loop().time()))
        if is_adaptive:
            self._entered = asyncio.get_running_loop().time()

    async def __aexit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        bulkhead = self._bulkhead
        if bulkhead.limit is None:
            bulkhead.leave()
            return
        now = asyncio.get_running_loop().time()
        dropped = isinstance(error, TimeoutError | Throttled)
        # What failed otherwise, or was cancelled, says nothing of how much the provider can do.
        latency = now - self._entered if error is None or dropped else None
        bulkhead.leave(latency, now=now, dropped=dropped)
