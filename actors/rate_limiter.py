"""One quota, shared by all who draw on it: first come, first served, and never faster than its rate."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING

from actors.errors import Permanent, RateLimited
from actors.token_bucket import Grant, TokenBucket
from runtime import Actor, Message, Request, handles

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runtime import Timer


class Acquire(Request[Grant], frozen=True):
    """Ask for `weight` tokens; answered when they are there, in the order of asking."""

    weight: int = 1

    def __post_init__(self) -> None:
        if self.weight < 1:
            raise ValueError(f"weight must be >= 1 token, got {self.weight}")


class Due(Message, frozen=True):
    """Sent by the limiter to itself when the tokens for the first in line are there."""


class RateLimiter(Actor[Acquire | Due]):
    """Answers each `Acquire` when its tokens are there: FIFO, at most `burst` at once and `rate` a second.

    An asker that gives up leaves the line without a trace, and one whose grant comes too late gives it back. At most
    `max_waiting` wait; one more is refused with `RateLimited`.
    """

    def __init__(self, name: str, *, rate: float, burst: int = 1, max_waiting: int = 100_000) -> None:
        if max_waiting < 0:
            raise ValueError(f"max_waiting must be >= 0, got {max_waiting}")
        self.name = name
        self.bucket = TokenBucket(rate=rate, burst=burst)
        self.max_waiting = max_waiting
        self._waiting: OrderedDict[asyncio.Future[Grant], int] = OrderedDict()
        self._timer: Timer | None = None

    @handles(Acquire)
    def acquire(self, message: Acquire) -> Grant | asyncio.Future[Grant]:
        """Grant at once where nobody waits and the tokens are there; otherwise join the line."""
        now = self.context.now()
        if message.weight > self.bucket.burst:
            raise Permanent(
                f"{message.weight} tokens are more than quota {self.name!r} ever has at once, {self.bucket.burst}; "
                "ask for less, or raise its burst"
            )
        if not self._waiting:
            taken = self.bucket.take(now, message.weight)
            if isinstance(taken, tuple):
                self.bucket, grant = taken
                return grant
        if len(self._waiting) >= self.max_waiting:
            # About when the whole line has been served, if nobody in it gives up.
            raise RateLimited(self.name, retry_after=(len(self._waiting) + message.weight) / self.bucket.rate)
        waiter: asyncio.Future[Grant] = asyncio.get_running_loop().create_future()
        self._waiting[waiter] = message.weight
        waiter.add_done_callback(self._left)
        if self._timer is None:
            self._serve_line()
        return waiter

    @handles(Due)
    def due(self, message: Due) -> None:
        """Grant whoever is first in line, and those behind whose tokens are there too."""
        self._serve_line()

    def unclaimed(self, request: Request[Grant], answer: Grant) -> None:  # type: ignore[override]
        self.bucket = self.bucket.refund(answer)
        # What came back may be what the first in line waits for.
        self._serve_line()

    def _left(self, waiter: asyncio.Future[Grant]) -> None:
        is_first = bool(self._waiting) and next(iter(self._waiting)) is waiter
        if self._waiting.pop(waiter, None) is not None and is_first:
            # The next may want less, and be due sooner.
            self._serve_line()

    def _serve_line(self) -> None:
        """Grant from the front whatever is there, and set the timer for the next."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = self.context.now()
        while self._waiting:
            waiter, weight = next(iter(self._waiting.items()))
            if waiter.cancelled():
                # It gave up a moment ago, and has not been told of yet.
                del self._waiting[waiter]
                continue
            taken = self.bucket.take(now, weight)
            if not isinstance(taken, tuple):
                self._timer = self.context.timers.once(taken, Due())
                return
            self.bucket, grant = taken
            del self._waiting[waiter]
            waiter.set_result(grant)

    def broken_invariants(self) -> Iterator[str]:
        if self._waiting:
            yield f"{len(self._waiting)} were left waiting for quota {self.name!r}"
        if self.bucket.spent < 0:
            yield f"more tokens came back to quota {self.name!r} than were taken: {self.bucket}"

    def __repr__(self) -> str:
        bucket = self.bucket
        return f"<RateLimiter {self.name!r} {bucket.rate:g}/s burst {bucket.burst}, {len(self._waiting)} waiting>"
