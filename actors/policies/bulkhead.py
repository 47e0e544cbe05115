"""Bounds the calls that run at once and the callers that wait, so that one slow provider cannot hold up the program."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, TypeVar

from actors.errors.families import BulkheadFull, Throttled
from actors.limits.concurrency import ConcurrencyLimit
from actors.policies.waiting_room import WaitingRoom, check_timeout, wait_deadline
from actors.validation import check_count, check_text

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from types import TracebackType
    from typing import Literal

T = TypeVar("T")
SLOT: Literal[True] = True


class Bulkhead:
    """Lets at most `max_concurrency` calls run at once and `max_waiting` callers wait, first come, first served.

    If it is `adaptive`, `max_concurrency` is the upper bound, and the `ConcurrencyLimit` learned from latency is the
    number of calls now. All callers must be on one event loop.
    """

    def __init__(self, name: str, max_concurrency: int, max_waiting: int = 1_000, *, adaptive: bool = False) -> None:
        check_text("name of a bulkhead", name)
        check_count("max_concurrency", max_concurrency, unit="call")
        self.name = name
        self.max_concurrency = max_concurrency
        self.limit = ConcurrencyLimit(max_concurrency) if adaptive else None
        """The learned limit; None if the bulkhead is not adaptive."""
        self.under_way = 0
        self._allowed = max_concurrency if self.limit is None else self.limit.allowed
        self._share: Callable[[], float] | None = None
        self._waiting = WaitingRoom[bool](max_waiting, take_back=self._take_back)

    @property
    def allowed(self) -> int:
        """The calls that may be under way now, at least 1."""
        return self._allowed if self._share is None else max(1, int(self._allowed * self._share()))

    @property
    def waiting(self) -> int:
        """The number of callers in the wait queue."""
        return len(self._waiting)

    def slot(self, timeout: float | None = None) -> Slot:
        """Return a slot to run one call in: `async with bulkhead.slot(timeout=1.0): ...`.

        Entering it waits for at most `timeout` seconds (0: not at all, None: without limit), and not beyond the
        deadline of the request being served. It raises `BulkheadFull` when that time is over, and at once if the wait
        queue is full; callers in it whose deadline has passed make room first.
        """
        check_timeout(timeout)
        return Slot(self, timeout)

    async def execute(self, call: Callable[[], Awaitable[T]], *, timeout: float | None = None) -> T:  # noqa: ASYNC109 - bounds the wait for a slot, not the call.
        """Run `call` in a slot and return its result; raises its errors, or `BulkheadFull` without calling it."""
        async with self.slot(timeout):
            return await call()

    def follow_slow_start(self, share: Callable[[], float]) -> None:
        """Keep only a part of the slots open: `share()` returns that part, such as that of a breaker in slow start."""
        self._share = share

    def try_acquire(self) -> bool:
        """Take a slot if one is free and no caller waits for it; give it back with `release`."""
        if not self._waiting.queue and self.under_way < (self._allowed if self._share is None else self.allowed):
            self.under_way += 1
            return True
        return False

    async def acquire(self, deadline: float) -> None:
        """Take a slot, or wait for one until `deadline` in loop time; give it back with `release`."""
        if self.try_acquire():
            return
        now = asyncio.get_running_loop().time()
        if deadline <= now or not self._waiting.has_room(now) or not await self._waiting.wait(deadline):
            raise BulkheadFull(self.name, max_concurrency=self.allowed)

    def release(self, latency: float | None = None, *, now: float = 0.0, dropped: bool = False) -> None:
        """Give a slot back, after a call that took `latency` seconds; None if its latency tells nothing.

        `dropped` is as in `ConcurrencyLimit.after`.
        """
        if self.limit is not None and latency is not None:
            self.limit = self.limit.after(latency, self.under_way, now, dropped=dropped)
            self._allowed = self.limit.allowed
        self.under_way -= 1
        if self._waiting.queue:
            self._serve_queue()

    def _take_back(self, _slot: bool) -> None:  # noqa: FBT001 - it is the slot that is handed over, and no option.
        self.release()

    def _serve_queue(self) -> None:
        while self.under_way < self.allowed and self._waiting.drop_cancelled():
            self.under_way += 1
            self._waiting.hand_over(SLOT)

    def broken_invariants(self) -> Iterator[str]:
        """Name the invariants that are broken while no call is under way."""
        if self.under_way:
            yield f"{self.under_way} calls never gave their slot in bulkhead {self.name!r} back"
        if self._waiting:
            yield f"{len(self._waiting)} callers were left waiting for bulkhead {self.name!r}"

    def __repr__(self) -> str:
        return f"<Bulkhead {self.name!r} {self.under_way} of {self.allowed} under way, {len(self._waiting)} waiting>"


class Slot:
    """A slot in a bulkhead, for one call; made by `Bulkhead.slot`."""

    __slots__ = ("_bulkhead", "_entered", "_timeout")

    def __init__(self, bulkhead: Bulkhead, timeout: float | None) -> None:
        self._bulkhead = bulkhead
        self._timeout = timeout
        self._entered = math.nan

    async def __aenter__(self) -> None:
        bulkhead = self._bulkhead
        is_adaptive = bulkhead.limit is not None
        if not bulkhead.try_acquire():
            await bulkhead.acquire(wait_deadline(self._timeout, asyncio.get_running_loop().time()))
        if is_adaptive:
            self._entered = asyncio.get_running_loop().time()

    async def __aexit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        bulkhead = self._bulkhead
        if bulkhead.limit is None:
            bulkhead.release()
            return
        now = asyncio.get_running_loop().time()
        dropped = isinstance(error, TimeoutError | Throttled)
        # A call that failed otherwise, or was cancelled, does not tell how much load the provider bears.
        latency = now - self._entered if error is None or dropped else None
        bulkhead.release(latency, now=now, dropped=dropped)
