"""Sends a second call if the first takes unusually long; the first answer wins. Pure budget and delay, thin shell.

Source: J. Dean and L. A. Barroso, "The Tail at Scale", CACM 56(2), 2013: hedged requests, sent after the 95th
percentile of latency. When everything is slow, every call is late, and hedging would double the load of an outage. The
budget, which is filled by calls and not by time, prevents that.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from actors.policies.retry_budget import RetryBudget
from actors.validation import check_config, check_count

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

STEP = 0.1
"""The part of itself by which an estimate moves with each latency; while it is young, 1/n after n latencies."""


class HedgeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """When a second call is made: for at most `ratio` of all calls, when one has taken longer than `quantile` of them.

    That latency is estimated from at least `min_samples` calls, before which no second call is made, and is never below
    `min_delay` seconds. `max_tokens` bounds the burst of second calls after a time in which none was needed.
    """

    ratio: float = 0.05
    quantile: float = 0.95
    min_samples: int = 20
    min_delay: float = 0.01
    max_tokens: float = 10.0

    def __post_init__(self) -> None:
        if not 0 < self.ratio <= 1:
            raise ValueError(f"ratio must be above 0 and at most 1 second call per call, got {self.ratio}")
        if not 0 < self.quantile < 1:
            raise ValueError(f"quantile must be above 0 and below 1, got {self.quantile}")
        check_count("min_samples", self.min_samples, unit="call")
        if not 0 <= self.min_delay < math.inf:
            raise ValueError(f"min_delay must be >= 0 seconds and finite, got {self.min_delay}")
        if not 1 <= self.max_tokens < math.inf:
            raise ValueError(f"max_tokens must be finite and >= 1, the price of a second call, got {self.max_tokens}")


def budget_of(config: HedgeConfig) -> RetryBudget:
    """Return the budget of second calls: a retry budget that starts empty and is filled by calls alone.

    >>> budget_of(HedgeConfig()).withdraw(now=3_600.0) is None
    True
    """
    return RetryBudget(ratio=config.ratio, min_per_second=0.0, max_tokens=config.max_tokens, tokens=0.0)


class LatencyQuantile(msgspec.Struct, frozen=True):
    """An estimate of one quantile of latency, in constant memory; an immutable value, in seconds.

    Of each call it needs to know only whether it took longer than the estimate, so that calls that were given up in the
    meantime count in full. Source: H. Robbins and S. Monro, "A Stochastic Approximation Method", 1951, applied to the
    logarithm, so that it fits microseconds as well as minutes.
    """

    seconds: float = 0.0
    samples: int = 0

    def after(self, latency: float, *, quantile: float) -> LatencyQuantile:
        """Return the estimate after a call took `latency` seconds, or was late and given up after that time."""
        if not self.samples:
            return LatencyQuantile(max(latency, 1e-6), 1)
        step = max(STEP, 1 / self.samples)
        moved = step * quantile if latency > self.seconds else -step * (1 - quantile)
        return LatencyQuantile(self.seconds * math.exp(moved), self.samples + 1)


def hedge_delay(estimate: LatencyQuantile, config: HedgeConfig) -> float | None:
    """Return the seconds after which a second call is made; None until enough calls have been seen."""
    return max(config.min_delay, estimate.seconds) if estimate.samples >= config.min_samples else None


DEFAULT_HEDGE = HedgeConfig()


class Hedge:
    """Makes calls, and a second call for each one that takes unusually long; all callers must be on one event loop.

    Only for calls that are declared `idempotent` and not `paid`: both calls may take effect, and both may be charged.
    """

    def __init__(self, config: HedgeConfig = DEFAULT_HEDGE, *, idempotent: bool, paid: bool) -> None:
        check_config("config", config, HedgeConfig)
        if paid:
            raise ValueError("a paid call cannot be hedged: both calls may be charged; retry it under its key instead")
        if not idempotent:
            raise ValueError("a call that is not idempotent cannot be hedged: it may take effect twice")
        self.config = config
        self.budget = budget_of(config)
        self.estimate = LatencyQuantile()
        self.calls = self.hedged = self.won = 0
        """The calls made, the calls that got a second one, and the calls that the second one answered."""

    async def execute(self, call: Callable[[], Awaitable[T]], second: Callable[[], Awaitable[T]] | None = None) -> T:
        """Return the first answer of `call` and, if that is late, of `second` (by default the same call again).

        The other call is cancelled, and has ended when this returns. If one call fails, the other may still answer; if
        both fail, the later error is raised from the earlier. If `call` fails before it is late, its error is raised at
        once.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        self.calls += 1
        self.budget = self.budget.deposit(began)
        delay = hedge_delay(self.estimate, self.config)
        if delay is None or self.budget.withdraw(began) is None:
            result = await call()
            self._learn(loop.time() - began)
            return result
        tasks = [loop.create_task(_run(call))]
        try:
            await asyncio.wait(tasks, timeout=delay)
            # Other calls may have spent the budget in the meantime.
            left = None if tasks[0].done() else self.budget.withdraw(loop.time())
            if left is not None:
                self.budget = left
                self.hedged += 1
                tasks.append(loop.create_task(_run(second or call)))
            winner = await _first_to_succeed(tasks)
        finally:
            await cancel_and_wait(tasks)
        self.won += winner is not tasks[0]
        # If the first call is not the winner, it was late, and would have taken at least that long.
        self._learn(loop.time() - began)
        return winner.result()

    def _learn(self, latency: float) -> None:
        self.estimate = self.estimate.after(latency, quantile=self.config.quantile)

    def __repr__(self) -> str:
        delay = hedge_delay(self.estimate, self.config)
        late = "no estimate yet" if delay is None else f"late after {delay:.3f} s"
        return f"<Hedge {self.hedged} of {self.calls} calls hedged, {self.won} won, {late}>"


async def _run(call: Callable[[], Awaitable[T]]) -> T:
    return await call()


async def _first_to_succeed(tasks: list[asyncio.Task[T]]) -> asyncio.Task[T]:
    """Return the first task that has a result; raise the last error if all tasks fail."""
    pending = set(tasks)
    failure: BaseException | None = None
    while pending:
        await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        # In the order of the calls: the order of a set cannot be replayed.
        for task in [one for one in tasks if one in pending and one.done()]:
            pending.discard(task)
            # A call that cancels itself fails like any other.
            error = asyncio.CancelledError() if task.cancelled() else task.exception()
            if error is None:
                return task
            if failure is not None and failure is not error:
                error.__cause__ = failure
            failure = error
    assert failure is not None  # noqa: S101 - there is at least one task.
    raise failure


async def cancel_and_wait(tasks: list[asyncio.Task[Any]]) -> None:
    """Cancel the tasks that still run, and wait until they have ended, even if this is cancelled meanwhile."""
    cancelled: asyncio.CancelledError | None = None
    while running := [task for task in tasks if not task.done()]:
        for task in running:
            task.cancel()
        try:
            await asyncio.wait(running)
        except asyncio.CancelledError as error:
            cancelled = error
    for task in tasks:
        if not task.cancelled():
            task.exception()  # Retrieved, so that asyncio does not report the error of the call that lost.
    if cancelled is not None:
        raise cancelled
