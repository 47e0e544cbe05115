"""The recipe that people copy and paste, ported literally with its mistakes, as a peer to measure against.

It shows what should not be copied: `with_retry` returns where it should raise, so that its breaker never opens and a
failed item counts as a success; half-open lets every caller through; callers of the token bucket wait side by side and
not in line; the fallback ends with the strategies although providers remain; and the provider that was chosen is never
called, because the request names the service alone.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

RETRYABLE = ("timeout", "connection refused", "503", "429", "temporary")


def is_retryable_error(error: Exception) -> bool:
    return any(word in str(error).lower() for word in RETRYABLE)


@dataclass
class RetryResult:
    """What `with_retry` returns, whether the call succeeded or not."""

    success: bool
    attempts: int
    data: Any = None
    error: Exception | None = None


async def with_retry(
    call: Callable[[], Awaitable[Any]],
    *,
    max_retries: int = 3,
    base_delay: float = 1.0,
    max_delay: float = 30.0,
    jitter_factor: float = 0.3,
) -> RetryResult:
    for attempt in range(max_retries + 1):
        try:
            return RetryResult(success=True, data=await call(), attempts=attempt + 1)
        except Exception as error:  # noqa: BLE001 - the recipe does.
            if attempt == max_retries or not is_retryable_error(error):
                return RetryResult(success=False, error=error, attempts=attempt + 1)
        delay = min(base_delay * 2**attempt, max_delay)
        await asyncio.sleep(delay * (1 + jitter_factor * (2 * random.random() - 1)))
    raise AssertionError("the last attempt returns")


class CircuitOpen(Exception):
    """The breaker is open."""


class CircuitBreaker:
    """Counts failures in a row; from its reset time on, every caller may try."""

    def __init__(self, name: str, *, failure_threshold: int = 5, reset_time: float = 30.0) -> None:
        self.name = name
        self.failure_threshold = failure_threshold
        self.reset_time = reset_time
        self.state = "closed"
        self.failures = 0
        self.last_failure = 0.0

    async def execute(self, call: Callable[[], Awaitable[Any]]) -> Any:
        now = asyncio.get_running_loop().time()
        if self.state == "open":
            if now - self.last_failure < self.reset_time:
                raise CircuitOpen(f"Circuit breaker {self.name} is open")
            self.state = "half-open"
        try:
            result = await call()
        except Exception:
            self.failures += 1
            self.last_failure = asyncio.get_running_loop().time()
            if self.failures >= self.failure_threshold:
                self.state = "open"
            raise
        self.failures = 0
        self.state = "closed"
        return result


class RateLimiter:
    """The token bucket of the page: who finds it empty sleeps until a token is there, and then goes, with all."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.tokens = rate
        self.refilled: float | None = None

    async def acquire(self) -> None:
        self._refill()
        if self.tokens >= 1:
            self.tokens -= 1
            return
        await asyncio.sleep((1 - self.tokens) / self.rate)
        self._refill()
        self.tokens = max(0.0, self.tokens - 1)

    def _refill(self) -> None:
        now = asyncio.get_running_loop().time()
        passed = 0.0 if self.refilled is None else now - self.refilled
        self.tokens = min(self.rate, self.tokens + passed * self.rate)
        self.refilled = now


@dataclass
class ItemResult:
    """What `concurrent` reports of one item."""

    success: bool
    data: Any = None
    error: Exception | None = None


async def concurrent(
    items: Iterable[Any],
    work: Callable[[Any], Awaitable[Any]],
    *,
    max_concurrency: int = 5,
    rate_limit: float | None = None,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> list[ItemResult]:
    todo = list(items)
    results: list[ItemResult | None] = [None] * len(todo)
    limiter = None if rate_limit is None else RateLimiter(rate_limit)
    following = iter(range(len(todo)))
    done = 0

    async def worker() -> None:
        nonlocal done
        for index in following:
            if limiter is not None:
                await limiter.acquire()
            try:
                results[index] = ItemResult(success=True, data=await work(todo[index]))
            except Exception as error:  # noqa: BLE001 - the recipe does.
                results[index] = ItemResult(success=False, error=error)
            done += 1
            on_progress(done, len(todo))

    await asyncio.gather(*(worker() for _ in range(min(max_concurrency, len(todo)))))
    return [result for result in results if result is not None]


async def batch_process(
    items: Sequence[Any], work: Callable[[Sequence[Any]], Awaitable[Sequence[Any]]], batch_size: int = 100
) -> list[Any]:
    results: list[Any] = []
    for start in range(0, len(items), batch_size):
        results.extend(await work(items[start : start + batch_size]))
    return results


@dataclass
class SeedProvider:
    """A provider of the registry; `call` is what a request to it would do, and `healthy` its answer to a ping."""

    name: str
    price: float
    reputation: float
    response_time: float
    call: Callable[[Any], Awaitable[Any]]
    healthy: Callable[[], Awaitable[bool]]
    services: frozenset[str] = frozenset({"process"})
    capabilities: frozenset[str] = frozenset()


@dataclass
class ProviderDiscovery:
    """Finds providers of a registry, and selects one."""

    registry: list[SeedProvider] = field(default_factory=list[SeedProvider])

    def discover(
        self,
        service: str,
        *,
        max_price: float = float("inf"),
        min_reputation: float = 0.0,
        required_capabilities: frozenset[str] = frozenset(),
    ) -> list[SeedProvider]:
        return [
            provider
            for provider in self.registry
            if service in provider.services
            and provider.price <= max_price
            and provider.reputation >= min_reputation
            and required_capabilities <= provider.capabilities
        ]

    def select_best(self, providers: Sequence[SeedProvider], strategy: str = "best") -> SeedProvider:
        match strategy:
            case "best":
                return max(providers, key=lambda provider: provider.reputation)
            case "cheapest":
                return min(providers, key=lambda provider: provider.price)
            case "fastest":
                return min(providers, key=lambda provider: provider.response_time)
            case _:
                return max(providers, key=lambda provider: provider.reputation / 100 - provider.price)

    async def request(self, service: str, payload: Any) -> Any:
        """Make a request as `request(service, {input, budget})` does: the provider that is registered first gets it."""
        return await self.discover(service)[0].call(payload)


async def smart_request(
    discovery: ProviderDiscovery,
    *,
    service: str,
    payload: Any,
    budget: float = 1.0,
    strategy: str = "best",
    fallback_strategies: Sequence[str] = (),
    health_check: bool = False,
) -> Any:
    providers = discovery.discover(service, max_price=budget)
    tried: set[str] = set()
    for one in (strategy, *fallback_strategies):
        available = [provider for provider in providers if provider.name not in tried]
        if not available:
            break
        provider = discovery.select_best(available, one)
        tried.add(provider.name)
        if health_check and not await provider.healthy():
            continue
        try:
            return await discovery.request(service, payload)
        except Exception:  # noqa: BLE001, S112 - the recipe does.
            continue
    raise RuntimeError(f"All providers failed for service: {service}")


async def robust_batch_process(
    discovery: ProviderDiscovery, items: Iterable[Any], *, max_concurrency: int = 10, rate_limit: float | None = 5.0
) -> list[ItemResult]:
    """Run the page's "High-Reliability Production Setup"."""
    breaker = CircuitBreaker("batch-process", failure_threshold=5, reset_time=60.0)

    async def work(item: Any) -> Any:
        async def request() -> Any:
            return await smart_request(
                discovery, service="process", payload=item, strategy="balanced", health_check=True
            )

        return await breaker.execute(lambda: with_retry(request, max_retries=3))

    return await concurrent(items, work, max_concurrency=max_concurrency, rate_limit=rate_limit)
