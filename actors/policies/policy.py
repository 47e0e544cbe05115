"""Retry, breaker, bulkhead, limiter, timeout and hedge around one call, in the one order that works.

From the outside in: retry; then for each attempt a place in the bulkhead, a token of the limiter, leave of the breaker,
and with all three in hand the timeout, the hedge and the call. The breaker is asked last, so that no probe is held by
somebody who waits in a line; and before anybody joins a line, so that none waits for a provider that is down. An
attempt whose way is free joins no line, starts no timer and no task.
"""

from __future__ import annotations

import asyncio
import math
import random
from typing import TYPE_CHECKING, TypeVar

import msgspec

from actors.errors.classification import is_retryable_error
from actors.errors.families import BulkheadFull, CallFailed, NotAdmitted, RateLimited, Throttled
from actors.policies.breaker.circuit_breaker import CircuitBreaker
from actors.policies.bulkhead import Bulkhead
from actors.policies.hedge import Hedge
from actors.policies.limiter import Limiter
from actors.policies.retry import Retry, RetryBudget
from actors.policies.timeout import CallTimedOut, DeadlineTimers
from runtime import current_deadline, earlier

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from actors.limits.token_bucket import Grant
    from actors.policies.breaker.states import Permit

T = TypeVar("T")


class Policy:
    """Runs calls with the parts it is given; what is left out is not done. All callers must be on one event loop.

    `timeout` is for a whole `execute`, with its retries and all waiting; `attempt_timeout` for each call; both are
    seconds. Breaker, bulkhead, limiter and hedge may be shared with other policies for the same provider; `budget` is
    this one's own. While the breaker eases a provider in, the bulkhead opens only the share of its places that the
    breaker names. A call may be repeated if `is_retryable` says so of its error: give one that says no where a
    repetition could do harm.
    """

    def __init__(
        self,
        *,
        retry: Retry | None = None,
        breaker: CircuitBreaker | None = None,
        limiter: Limiter | None = None,
        bulkhead: Bulkhead | None = None,
        timeout: float | None = None,
        attempt_timeout: float | None = None,
        hedge: Hedge | None = None,
        budget: RetryBudget | None = None,
        is_retryable: Callable[[Exception], bool] = is_retryable_error,
        rng: random.Random | None = None,
    ) -> None:
        parts: tuple[tuple[str, object, type], ...] = (
            ("retry", retry, Retry),
            ("breaker", breaker, CircuitBreaker),
            ("limiter", limiter, Limiter),
            ("bulkhead", bulkhead, Bulkhead),
            ("hedge", hedge, Hedge),
            ("budget", budget, RetryBudget),
        )
        for name, part, kind in parts:
            if part is not None and not isinstance(part, kind):
                raise TypeError(f"{name} must be a {kind.__name__}, got {part!r:.100}")
        for name, seconds in (("timeout", timeout), ("attempt_timeout", attempt_timeout)):
            if seconds is not None and not 0 < seconds < math.inf:
                raise ValueError(f"{name} must be > 0 seconds and finite (None: no limit), got {seconds}")
        self.retry, self.breaker, self.limiter, self.bulkhead, self.hedge = retry, breaker, limiter, bulkhead, hedge
        self.timeout = math.inf if timeout is None else timeout
        self.attempt_timeout = math.inf if attempt_timeout is None else attempt_timeout
        self.budget = budget or RetryBudget()
        self.calls = self.retries = 0
        self._deposited = 0
        self._is_retryable = is_retryable
        self._rng = rng or random.Random()
        self._cuts = DeadlineTimers()
        if bulkhead is not None and breaker is not None:
            bulkhead.ease_by(breaker.share)

    async def execute(self, call: Callable[[], Awaitable[T]]) -> T:
        """Return what `call` returns, after as many retries as are allowed; else raise its last error.

        Raises `CallTimedOut` for a call that is cut off, and without calling `BreakerOpen`, `BulkheadFull` or
        `RateLimited`; these are not retried, and their cause is the error of the attempt before, if there was one.
        """
        loop = asyncio.get_running_loop()
        now = loop.time()
        ends = now + self.timeout
        self.calls += 1
        attempt = 0
        failure: Exception | None = None
        while True:
            try:
                admitted = self._admit_at_once(now)
                if admitted is None:
                    admitted = await self._admit(ends)
                    now = loop.time()
            except NotAdmitted as refusal:
                raise refusal from failure
            try:
                return await self._attempt(call, loop, now, ends, admitted)
            except Exception as error:
                attempt += 1
                wait = self._wait_before(attempt, error, loop.time(), ends)
                if wait is None:
                    raise
                # Without its frames, which would keep each other alive until they are collected.
                failure = error.with_traceback(None)
            await asyncio.sleep(wait)
            now = loop.time()

    def close(self) -> None:
        """Drop the timer that watches the timeouts, which otherwise goes off once more after the last call."""
        self._cuts.close()

    # All that an attempt needs, or nothing.

    def _admit_at_once(self, now: float) -> tuple[Grant | None, Permit | None] | None:
        """Take what is there, or nothing where something would have to be waited for."""
        bulkhead, limiter, breaker = self.bulkhead, self.limiter, self.breaker
        if bulkhead is not None and not bulkhead.try_enter():
            return None
        grant = None
        if limiter is not None:
            grant = limiter.try_take(now)
            if grant is None:
                self._give_back(None)
                return None
        if breaker is None:
            return grant, None
        try:
            return grant, breaker.admit(now=now)
        except BaseException:
            self._give_back(grant)
            raise

    async def _admit(self, ends: float) -> tuple[Grant | None, Permit | None]:
        """Wait in line for what is short, until `ends` at the latest."""
        ends = earlier(ends, current_deadline.get())
        if self.breaker is not None:
            self.breaker.raise_if_open()
        if self.bulkhead is not None:
            await self.bulkhead.enter(ends)
        grant = None
        try:
            now = asyncio.get_running_loop().time()
            if self.limiter is not None:
                grant = self.limiter.try_take(now) or await self.limiter.wait(ends)
            return grant, None if self.breaker is None else self.breaker.admit()
        except BaseException:
            self._give_back(grant)
            raise

    def _give_back(self, grant: Grant | None) -> None:
        if grant is not None and self.limiter is not None:
            self.limiter.refund(grant)
        if self.bulkhead is not None:
            self.bulkhead.leave()

    # One attempt.

    async def _attempt(
        self,
        call: Callable[[], Awaitable[T]],
        loop: asyncio.AbstractEventLoop,
        began: float,
        ends: float,
        admitted: tuple[Grant | None, Permit | None],
    ) -> T:
        """Make one call within its time, and settle it whatever becomes of it."""
        grant, permit = admitted
        deadline = min(ends, began + self.attempt_timeout)
        cut = self._cuts.at(deadline, loop)
        # Until it is known, a call has proved nothing: also if it is cancelled.
        failed: bool | None = None
        dropped = is_ended = False
        try:
            result = await (call() if self.hedge is None else self.hedge.execute(call, self._second(call)))
            failed = False
        except asyncio.CancelledError:
            is_ended = True
            if cut is None or not cut.end():
                raise
            # A call that had little time left, after retries or a line, proves nothing by not ending in it.
            dropped = 2 * (deadline - began) >= min(self.timeout, self.attempt_timeout)
            failed = dropped or None
            raise CallTimedOut(deadline - began) from None
        except Exception as error:
            dropped = isinstance(error, TimeoutError | Throttled)
            if grant is not None and self.limiter is not None and isinstance(error, NotAdmitted):
                self.limiter.refund(grant)
            failed = (self.breaker is not None and self.breaker.counts_as_failure(error)) or None
            raise
        else:
            return result
        finally:
            if cut is not None and not is_ended:
                cut.end()
            now = loop.time()
            if permit is not None and self.breaker is not None:
                self.breaker.settle(permit, failed=failed, now=now)
            if self.bulkhead is not None:
                latency = now - began if failed is False or dropped else None
                self.bulkhead.leave(latency, now=now, dropped=dropped)

    def _second(self, call: Callable[[], Awaitable[T]]) -> Callable[[], Awaitable[T]]:
        """Return the call that a hedge may make besides; it needs a place and a token too, and waits for neither."""

        async def second() -> T:
            now = asyncio.get_running_loop().time()
            if self.bulkhead is not None and not self.bulkhead.try_enter():
                raise BulkheadFull(self.bulkhead.name, max_concurrency=self.bulkhead.allowed)
            try:
                if self.limiter is not None and self.limiter.try_take(now) is None:
                    raise RateLimited(self.limiter.name, retry_after=1 / self.limiter.bucket.rate)
                return await call()
            finally:
                if self.bulkhead is not None:
                    self.bulkhead.leave()

        return second

    def _wait_before(self, attempt: int, error: Exception, now: float, ends: float) -> float | None:
        """Return the seconds to wait before a retry, or None where there is to be none."""
        if self.retry is None or attempt > self.retry.max_retries or not self._is_retryable(error):
            return None
        floor = error.retry_after if isinstance(error, CallFailed) else None
        wait = self.retry.delay(attempt, random=self._rng.random(), retry_after=floor)
        if now + wait >= earlier(ends, current_deadline.get()):
            return None
        # What the first attempts since the last retry have paid in, all at once.
        paid_in = self.budget.ratio * (self.calls - self._deposited)
        tokens = min(self.budget.max_tokens, self.budget.tokens + paid_in)
        budget = msgspec.structs.replace(self.budget, tokens=tokens)
        self._deposited = self.calls
        allowed = budget.withdraw(now)
        self.budget = allowed or budget
        self.retries += allowed is not None
        return None if allowed is None else wait

    def broken_invariants(self) -> Iterator[str]:
        """Name what does not hold although no call is under way."""
        yield from self._cuts.broken_invariants()
        for part in (self.bulkhead, self.limiter):
            if part is not None:
                yield from part.broken_invariants()

    def __repr__(self) -> str:
        parts = [part for part in (self.breaker, self.bulkhead, self.limiter, self.hedge) if part is not None]
        return f"<Policy {self.calls} calls, {self.retries} retries{''.join(f', {part!r}' for part in parts)}>"
