"""A token bucket that callers wait at, without an actor: first come, first served, and never faster than its rate."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from actors.errors.families import RateLimited
from actors.limits.token_bucket import Grant, TokenBucket
from actors.policies.waiting_room import WaitingRoom, check_timeout, waits_until

if TYPE_CHECKING:
    from collections.abc import Iterator


class Limiter:
    """Grants one token at a time from a bucket of `rate` a second, at most `burst` at once.

    At most `max_waiting` callers wait. All must be on one event loop; for callers in several actors there is the
    `RateLimiter` actor.
    """

    def __init__(self, name: str, *, rate: float, burst: int = 1, max_waiting: int = 1_000) -> None:
        self.name = name
        self.bucket = TokenBucket(rate=rate, burst=burst)
        self._waiting = WaitingRoom[Grant](max_waiting, give_back=self.refund, left=self._serve_line)
        self._timer: asyncio.TimerHandle | None = None

    def try_take(self, now: float) -> Grant | None:
        """Take a token at loop time `now`, if one is there and nobody waits for it."""
        if self._waiting.line:
            return None
        # What is reserved for later is not kept, and so was never taken.
        bucket, grant = self.bucket.reserve(now)
        if grant.at > now:
            return None
        self.bucket = bucket
        return grant

    async def acquire(self, timeout: float | None = None) -> Grant:  # noqa: ASYNC109 - no timer runs for a token at hand.
        """Take a token, or wait for it for at most `timeout` seconds (0: not at all, None: as long as it takes).

        Raises `RateLimited` when it cannot come in time, and at once where nobody may wait any more.
        """
        check_timeout(timeout)
        now = asyncio.get_running_loop().time()
        return self.try_take(now) or await self.wait(waits_until(timeout, now))

    async def wait(self, deadline: float) -> Grant:
        """Wait for a token until `deadline` in loop time."""
        now = asyncio.get_running_loop().time()
        # One that would come too late is not waited for, and keeps nobody out of the line.
        ahead = self._wait_of_next(now) + len(self._waiting) / self.bucket.rate
        if now + ahead > deadline or not self._waiting.has_place(now):
            raise RateLimited(self.name, retry_after=ahead)
        if self._timer is None:
            self._arm(ahead)
        grant = await self._waiting.wait(deadline)
        if grant is None:
            raise RateLimited(self.name, retry_after=self._wait_of_next(asyncio.get_running_loop().time()))
        return grant

    def refund(self, grant: Grant) -> None:
        """Give back a token that was not used."""
        self.bucket = self.bucket.refund(grant)
        self._serve_line()

    def _wait_of_next(self, now: float) -> float:
        taken = self.bucket.take(now)
        return 0.0 if isinstance(taken, tuple) else taken

    def _serve_line(self) -> None:
        """Hand over the tokens that are there, and set the timer for the next."""
        self._arm(None)
        while self._waiting.forget_cancelled():
            taken = self.bucket.take(asyncio.get_running_loop().time())
            if not isinstance(taken, tuple):
                self._arm(taken)
                return
            self.bucket, grant = taken
            self._waiting.serve(grant)

    def _arm(self, delay: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if delay is None else asyncio.get_running_loop().call_later(delay, self._serve_line)

    def broken_invariants(self) -> Iterator[str]:
        """Name what does not hold although no call is under way."""
        if self._waiting:
            yield f"{len(self._waiting)} were left waiting for quota {self.name!r}"
        yield from self.bucket.broken_invariants(f"quota {self.name!r}")

    def __repr__(self) -> str:
        bucket = self.bucket
        return f"<Limiter {self.name!r} {bucket.rate:g}/s burst {bucket.burst}, {len(self._waiting)} waiting>"
