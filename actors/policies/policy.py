"""Retry, breaker, bulkhead, limiter, timeout and hedge around one call, in the one order that works.

From the outside in: retry; then for each attempt a slot of the bulkhead, a token of the limiter and a permit of the
breaker, and with all three the timeout, the hedge and the call. The breaker is asked last, so that no caller holds a
probe while it waits for a slot or a token. It is also asked before a caller begins to wait, so that none waits for a
provider that is down. An attempt that need not wait joins no queue, and starts no timer and no task.
"""

from __future__ import annotations

import asyncio
import math
import random
from typing import TYPE_CHECKING, TypeVar

import msgspec

from actors.errors.exceptions import is_retryable_error
from actors.errors.families import BulkheadFull, CallFailed, NotAdmitted, RateLimited, Throttled
from actors.policies.breaker.circuit_breaker import CircuitBreaker
from actors.policies.bulkhead import Bulkhead
from actors.policies.hedge import Hedge
from actors.policies.limiter import Limiter
from actors.policies.retry import Retry, RetryBudget
from actors.policies.timeout import CallTimedOut, DeadlineTimers
from actors.validation import check_config
from runtime import current_deadline, earlier

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from actors.limits.token_bucket import Grant
    from actors.policies.breaker.states import Permit

T = TypeVar("T")


class Policy:
    """Runs calls with the parts it is given; a part that is None is skipped. All callers must be on one event loop.

    `timeout` is for a whole `execute`, with its retries and all waiting; `attempt_timeout` is for each call; both are
    seconds. Breaker, bulkhead, limiter and hedge may be shared with other policies for the same provider; each policy
    has its own `budget`. During the slow start of a breaker, the bulkhead opens only the share of its slots that the
    breaker states. A call is repeated only if `is_retryable` returns True for its error: give a function that returns
    False if a repetition could do harm.
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
            if part is not None and issubclass(kind, msgspec.Struct):
                check_config(name, part, kind)
            elif part is not None and not isinstance(part, kind):
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
        self._timers = DeadlineTimers()
        if bulkhead is not None and breaker is not None:
            bulkhead.follow_slow_start(breaker.share)

    async def execute(self, call: Callable[[], Awaitable[T]]) -> T:
        """Return what `call` returns, after as many retries as are allowed; else raise its last error.

        Raises `CallTimedOut` if a call does not end in time. Raises `BreakerOpen`, `BulkheadFull` or `RateLimited` if
        the call was not made; these are not retried, and their cause is the error of the attempt before, if there was
        one.
        """
        loop = asyncio.get_running_loop()
        now = loop.time()
        ends = now + self.timeout
        self.calls += 1
        attempt = 0
        failure: Exception | None = None
        while True:
            try:
                admitted = self._try_admit(now, ends)
                if admitted is None:
                    admitted = await self._admit(ends)
                    now = loop.time()
            except NotAdmitted as refusal:
                raise refusal from failure
            try:
                return await self._attempt(call, loop, now, ends, admitted)
            except Exception as error:
                attempt += 1
                wait = self._delay_before_retry(attempt, error, loop.time(), ends)
                if wait is None:
                    raise
                # Without its traceback, whose frames would keep each other alive until the garbage collector runs.
                failure = error.with_traceback(None)
            await asyncio.sleep(wait)
            now = loop.time()

    def close(self) -> None:
        """Drop the timer that watches the timeouts, which otherwise fires once more after the last call."""
        self._timers.close()

    # Admission: an attempt takes everything that it needs, or nothing.

    def _try_admit(self, now: float, ends: float) -> tuple[Grant | None, Permit | None] | None:
        """Take slot, token and permit; return None, and take nothing, if the caller would have to wait."""
        bulkhead, limiter, breaker = self.bulkhead, self.limiter, self.breaker
        if bulkhead is not None and not bulkhead.try_acquire():
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
            return grant, breaker.admit(now=now, within=min(ends - now, self.attempt_timeout))
        except BaseException:
            self._give_back(grant)
            raise

    async def _admit(self, ends: float) -> tuple[Grant | None, Permit | None]:
        """Take slot, token and permit, and wait for them until `ends` at the latest."""
        ends = earlier(ends, current_deadline.get())
        if self.breaker is not None:
            self.breaker.raise_if_open()
        if self.bulkhead is not None:
            await self.bulkhead.acquire(ends)
        grant = None
        try:
            now = asyncio.get_running_loop().time()
            if self.limiter is not None:
                grant = self.limiter.try_take(now) or await self.limiter.wait(ends)
            if self.breaker is None:
                return grant, None
            now = asyncio.get_running_loop().time()
            return grant, self.breaker.admit(now=now, within=min(ends - now, self.attempt_timeout))
        except BaseException:
            self._give_back(grant)
            raise

    def _give_back(self, grant: Grant | None) -> None:
        if grant is not None and self.limiter is not None:
            self.limiter.refund(grant)
        if self.bulkhead is not None:
            self.bulkhead.release()

    # One attempt.

    async def _attempt(
        self,
        call: Callable[[], Awaitable[T]],
        loop: asyncio.AbstractEventLoop,
        began: float,
        ends: float,
        admitted: tuple[Grant | None, Permit | None],
    ) -> T:
        """Make one call within its time, and settle it however it ends."""
        grant, permit = admitted
        deadline = min(ends, began + self.attempt_timeout)
        timer = self._timers.at(deadline, loop)
        # None: the call proves nothing about the provider, for example because it is cancelled.
        failed: bool | None = None
        dropped = is_ended = False
        try:
            result = await (call() if self.hedge is None else self.hedge.execute(call, self._second_call(call)))
            failed = False
        except asyncio.CancelledError:
            is_ended = True
            if timer is None or not timer.end():
                raise
            # A call that had little time left, after retries or a wait, proves nothing by a timeout.
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
            if timer is not None and not is_ended:
                timer.end()
            now = loop.time()
            if permit is not None and self.breaker is not None:
                self.breaker.settle(permit, failed=failed, now=now)
            if self.bulkhead is not None:
                latency = now - began if failed is False or dropped else None
                self.bulkhead.release(latency, now=now, dropped=dropped)

    def _second_call(self, call: Callable[[], Awaitable[T]]) -> Callable[[], Awaitable[T]]:
        """Return the second call of a hedge; it needs a slot and a token too, and fails if it would have to wait."""

        async def second() -> T:
            now = asyncio.get_running_loop().time()
            if self.bulkhead is not None and not self.bulkhead.try_acquire():
                raise BulkheadFull(self.bulkhead.name, max_concurrency=self.bulkhead.allowed)
            try:
                if self.limiter is not None and self.limiter.try_take(now) is None:
                    raise RateLimited(self.limiter.name, retry_after=1 / self.limiter.bucket.rate)
                return await call()
            finally:
                if self.bulkhead is not None:
                    self.bulkhead.release()

        return second

    def _delay_before_retry(self, attempt: int, error: Exception, now: float, ends: float) -> float | None:
        """Return the seconds to wait before a retry, or None if there is no retry."""
        if self.retry is None or attempt > self.retry.max_retries or not self._is_retryable(error):
            return None
        floor = error.retry_after if isinstance(error, CallFailed) else None
        wait = self.retry.delay(attempt, random=self._rng.random(), retry_after=floor)
        if now + wait >= earlier(ends, current_deadline.get()):
            return None
        # The first attempts since the last retry deposit here, all at once.
        deposited = self.budget.ratio * (self.calls - self._deposited)
        tokens = min(self.budget.max_tokens, self.budget.tokens + deposited)
        budget = msgspec.structs.replace(self.budget, tokens=tokens)
        self._deposited = self.calls
        allowed = budget.withdraw(now)
        self.budget = allowed or budget
        self.retries += allowed is not None
        return None if allowed is None else wait

    def broken_invariants(self) -> Iterator[str]:
        """Name the invariants that are broken while no call is under way."""
        yield from self._timers.broken_invariants()
        for part in (self.bulkhead, self.limiter):
            if part is not None:
                yield from part.broken_invariants()

    def __repr__(self) -> str:
        parts = [part for part in (self.breaker, self.bulkhead, self.limiter, self.hedge) if part is not None]
        return f"<Policy {self.calls} calls, {self.retries} retries{''.join(f', {part!r}' for part in parts)}>"
