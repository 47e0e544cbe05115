"""A token bucket at which callers wait, without an actor: first come, first served, and never above its rate."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from actors.errors.families import RateLimited
from actors.limits.token_bucket import Grant, TokenBucket
from actors.policies.waiting_room import WaitingRoom, check_timeout, wait_deadline
from actors.validation import check_text

if TYPE_CHECKING:
    from collections.abc import Iterator


class Limiter:
    """Grants one token at a time from a bucket of `rate` a second, at most `burst` at once.

    At most `max_waiting` callers wait. All must be on one event loop; callers in several actors share a `RateLimiter`
    actor instead.
    """

    def __init__(self, name: str, *, rate: float, burst: int = 1, max_waiting: int = 1_000) -> None:
        check_text("name of a limiter", name)
        self.name = name
        self.bucket = TokenBucket(rate=rate, burst=burst)
        self._waiting = WaitingRoom[Grant](max_waiting, take_back=self.refund, on_head_gone=self._serve_queue)
        self._timer: asyncio.TimerHandle | None = None

    def try_take(self, now: float) -> Grant | None:
        """Take a token at loop time `now`; None if the bucket holds none, or if a caller waits for it."""
        if self._waiting.queue:
            return None
        # A token reserved for later is not taken: the bucket after it is dropped.
        bucket, grant = self.bucket.reserve(now)
        if grant.at > now:
            return None
        self.bucket = bucket
        return grant

    async def acquire(self, timeout: float | None = None) -> Grant:  # noqa: ASYNC109 - no timer runs for a token at hand.
        """Take a token, or wait for one for at most `timeout` seconds (0: not at all, None: without limit).

        Raises `RateLimited` at once if the token cannot come in time or the wait queue is full, and at the end of a
        wait that was in vain.
        """
        check_timeout(timeout)
        now = asyncio.get_running_loop().time()
        return self.try_take(now) or await self.wait(wait_deadline(timeout, now))

    async def wait(self, deadline: float) -> Grant:
        """Wait for a token until `deadline` in loop time; raises `RateLimited` as `acquire` does."""
        now = asyncio.get_running_loop().time()
        # A caller whose token would come too late does not wait, and keeps no other caller out of the queue.
        ahead = self._time_to_next_token(now) + len(self._waiting) / self.bucket.rate
        if now + ahead > deadline or not self._waiting.has_room(now):
            raise RateLimited(self.name, retry_after=ahead)
        if self._timer is None:
            self._arm(ahead)
        grant = await self._waiting.wait(deadline)
        if grant is None:
            raise RateLimited(self.name, retry_after=self._time_to_next_token(asyncio.get_running_loop().time()))
        return grant

    def refund(self, grant: Grant) -> None:
        """Give back a token that was not used."""
        self.bucket = self.bucket.refund(grant)
        self._serve_queue()

    def _time_to_next_token(self, now: float) -> float:
        taken = self.bucket.take(now)
        return 0.0 if isinstance(taken, tuple) else taken

    def _serve_queue(self) -> None:
        """Hand over the tokens that the bucket holds, and set the timer for the next one."""
        self._arm(None)
        while self._waiting.drop_cancelled():
            taken = self.bucket.take(asyncio.get_running_loop().time())
            if not isinstance(taken, tuple):
                self._arm(taken)
                return
            self.bucket, grant = taken
            self._waiting.hand_over(grant)

    def _arm(self, delay: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if delay is None else asyncio.get_running_loop().call_later(delay, self._serve_queue)

    def broken_invariants(self) -> Iterator[str]:
        """Name the invariants that are broken while no call is under way."""
        if self._waiting:
            yield f"{len(self._waiting)} callers were left waiting for quota {self.name!r}"
        yield from self.bucket.broken_invariants(f"quota {self.name!r}")

    def __repr__(self) -> str:
        bucket = self.bucket
        return f"<Limiter {self.name!r} {bucket.rate:g}/s burst {bucket.burst}, {len(self._waiting)} waiting>"
