"""What a careful engineer composes today from tenacity, purgatory, aiolimiter and asyncio, over several providers.

Each provider has a breaker and a limiter of its own. A failure goes to the next provider at once, in the given order of
preference; when all have failed or are open, the whole round is repeated after a backoff with full jitter. A caller's
cancellation never counts as a failure of the provider.
"""

from __future__ import annotations

import asyncio
import itertools
from contextlib import AsyncExitStack
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping

PACKAGES = ("tenacity", "purgatory", "aiolimiter")
"""What has to be installed."""


@dataclass(frozen=True)
class Tuning:
    """What is tuned by hand; durations are seconds."""

    max_concurrency: int = 10
    rounds: int = 5
    timeout: float = 1.0
    failure_threshold: int = 5
    open_for: float = 0.1
    backoff: float = 0.005
    max_backoff: float = 0.05
    rate_limit: float | None = None
    """Calls per second to each provider; None: unlimited."""


@dataclass(frozen=True)
class HandResult:
    """What became of one item: its answer, or the error of the last provider that was tried; `taken` is seconds."""

    index: int
    item: Any
    provider: str | None
    output: Any
    error: Exception | None
    taken: float


class HandStack:
    """Calls the first provider that answers; `providers` are functions of an input and an idempotency key.

    Make it inside a running event loop. The key is the same over all attempts at one request.
    """

    def __init__(
        self, providers: Mapping[str, Callable[[Any, str], Awaitable[Any]]], tuning: Tuning | None = None
    ) -> None:
        from aiolimiter import AsyncLimiter  # noqa: PLC0415 - an extra.
        from purgatory import AsyncCircuitBreakerFactory  # noqa: PLC0415 - an extra.
        from tenacity import (  # noqa: PLC0415 - an extra.
            AsyncRetrying,
            retry_if_exception_type,
            stop_after_attempt,
            wait_random_exponential,
        )

        self.tuning = tuning = tuning or Tuning()
        self._providers = dict(providers)
        self._breakers = AsyncCircuitBreakerFactory(
            default_threshold=tuning.failure_threshold,
            default_ttl=tuning.open_for,
            exclude=[asyncio.CancelledError],
        )
        rate = tuning.rate_limit
        self._limiters = {} if rate is None else {name: AsyncLimiter(1, 1 / rate) for name in providers}
        self._retrying = AsyncRetrying(
            stop=stop_after_attempt(tuning.rounds),
            wait=wait_random_exponential(multiplier=tuning.backoff, max=tuning.max_backoff),
            retry=retry_if_exception_type(Exception),
            reraise=True,
        )
        self._places = asyncio.Semaphore(tuning.max_concurrency)
        self._numbers = itertools.count()

    async def request(self, item: Any, *, key: str | None = None) -> tuple[str, Any]:
        """Return who answered and what; raise the error of the last provider of the last round."""
        key = key or f"request-{next(self._numbers)}"
        async with self._places:
            return await self._retrying.copy()(self._one_round, item, key)

    async def batch(self, items: Iterable[Any]) -> AsyncIterator[HandResult]:
        """Yield the result of each item as it comes."""
        following = enumerate(items)
        results: asyncio.Queue[HandResult | None] = asyncio.Queue()

        async def worker() -> None:
            for index, item in following:
                results.put_nowait(await self._result(index, item))

        async def serve_all() -> None:
            try:
                # Workers, or every item would be a task from the start.
                async with asyncio.TaskGroup() as group:
                    for _ in range(self.tuning.max_concurrency):
                        group.create_task(worker())
            finally:
                results.put_nowait(None)

        running = asyncio.create_task(serve_all())
        try:
            while (result := await results.get()) is not None:
                yield result
            await running
        finally:
            running.cancel()
            await asyncio.wait([running])

    async def _result(self, index: int, item: Any) -> HandResult:
        begin = perf_counter()
        try:
            provider, output = await self.request(item)
        except Exception as error:  # noqa: BLE001 - it is reported.
            return HandResult(index, item, None, None, error, perf_counter() - begin)
        return HandResult(index, item, provider, output, None, perf_counter() - begin)

    async def _one_round(self, item: Any, key: str) -> tuple[str, Any]:
        failure: Exception | None = None
        for name, call in self._providers.items():
            try:
                return name, await self._guarded(name, call, item, key)
            except Exception as error:  # noqa: BLE001 - the next provider may do better; the last error is raised.
                failure = error
        raise failure or LookupError("there is no provider")

    async def _guarded(self, name: str, call: Callable[[Any, str], Awaitable[Any]], item: Any, key: str) -> Any:
        async with AsyncExitStack() as guards:
            # The breaker is last, so that no call is let through by it that then waits for the limiter.
            if (limiter := self._limiters.get(name)) is not None:
                await guards.enter_async_context(limiter)
            await guards.enter_async_context(await self._breakers.get_breaker(name))
            await guards.enter_async_context(asyncio.timeout(self.tuning.timeout))
            return await call(item, key)
