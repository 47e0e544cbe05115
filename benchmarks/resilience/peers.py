"""Other libraries of policies, where they are installed (extra `bench`): the same work, as their own manuals write it.

A peer is asked for a new guard inside a running event loop. Each has the same policies on: two or three retries, a
breaker that opens on 5 failures in a row, a limiter that never makes a call wait, and a timeout.
"""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import os
import sys
from functools import cache
from typing import TYPE_CHECKING, Any

from benchmarks.resilience.calls import RETRIES, TIMEOUT, UNLIMITED, Guard
from benchmarks.scenarios.hand_stack import PACKAGES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

COMPOSED = "+".join(PACKAGES)


def hyx() -> Guard:
    from hyx.circuitbreaker import consecutive_breaker  # noqa: PLC0415 - an extra.
    from hyx.ratelimit import tokenbucket  # noqa: PLC0415 - an extra.
    from hyx.retry import retry  # noqa: PLC0415 - an extra.
    from hyx.timeout import timeout  # noqa: PLC0415 - an extra.

    breaker = consecutive_breaker(failure_threshold=5, recovery_time_secs=30)
    limiter = tokenbucket(UNLIMITED, 1)

    # Its timeout is cheapest as a context manager; as a decorator it makes a task per call.
    @retry(on=Exception, attempts=RETRIES, backoff=1.0)
    @breaker
    @limiter
    async def guard(call: Callable[[], Awaitable[Any]]) -> Any:
        async with timeout(TIMEOUT):
            return await call()

    guarded: Guard = guard
    return guarded


def pyresilience() -> Guard:
    from pyresilience import (  # noqa: PLC0415 - an extra.
        CircuitBreakerConfig,
        RateLimiterConfig,
        RetryConfig,
        TimeoutConfig,
        resilient,
    )

    @resilient(
        retry=RetryConfig(max_attempts=RETRIES + 1),
        timeout=TimeoutConfig(seconds=TIMEOUT),
        circuit_breaker=CircuitBreakerConfig(failure_threshold=5, recovery_timeout=30),
        rate_limiter=RateLimiterConfig(max_calls=UNLIMITED, period=1.0, max_wait=TIMEOUT),
    )
    async def guard(call: Callable[[], Awaitable[Any]]) -> Any:
        return await call()

    guarded: Guard = guard
    return guarded


def composed() -> Guard:
    from aiolimiter import AsyncLimiter  # noqa: PLC0415 - an extra.
    from purgatory import AsyncCircuitBreakerFactory  # noqa: PLC0415 - an extra.
    from tenacity import retry, stop_after_attempt, wait_random_exponential  # noqa: PLC0415 - an extra.

    breakers = AsyncCircuitBreakerFactory(default_threshold=5, default_ttl=30)
    limiter = AsyncLimiter(UNLIMITED, 1)

    @retry(stop=stop_after_attempt(RETRIES + 1), wait=wait_random_exponential(multiplier=1, max=30), reraise=True)
    async def guard(call: Callable[[], Awaitable[Any]]) -> Any:
        async with await breakers.get_breaker("benchmark"), limiter, asyncio.timeout(TIMEOUT):
            return await call()

    guarded: Guard = guard
    return guarded


def litellm() -> Guard:
    router = the_router()
    messages = [{"role": "user", "content": "Hello"}]

    async def guard(call: Callable[[], Awaitable[Any]]) -> Any:
        answer = await router.acompletion(model="benchmark", messages=messages)
        await call()
        return answer

    return guard


@cache
def the_router() -> Any:
    """Return the one router of this process: every other one would add its callbacks to the calls of all."""
    # It would fetch a table of prices otherwise.
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    from litellm import Router  # noqa: PLC0415 - an extra.

    # Or each collection would walk through all that it has imported, at the cost of the peer that is measured then.
    gc.freeze()
    # It takes the dicts apart, so that each deployment needs one of its own.
    deployments = [
        {
            "model_name": "benchmark",
            "litellm_params": {"model": "openai/benchmark", "api_key": "none", "mock_response": "done"},
        }
        for _ in range(3)
    ]
    return Router(model_list=deployments, num_retries=RETRIES, allowed_fails=5, timeout=TIMEOUT)


GUARDS: dict[str, tuple[tuple[str, ...], Callable[[], Guard]]] = {
    "hyx": (("hyx",), hyx),
    "pyresilience": (("pyresilience",), pyresilience),
    COMPOSED: (PACKAGES, composed),
    "litellm": (("litellm",), litellm),
}


def is_installed(*packages: str) -> bool:
    """Tell whether all these can be imported here."""
    return all(importlib.util.find_spec(package) for package in packages)


def guards(*, only: Iterable[str]) -> dict[str, Callable[[], Guard]]:
    """Return those of the named peers that are installed."""
    return {name: GUARDS[name][1] for name in only if is_installed(*GUARDS[name][0])}


def note_missing() -> None:
    """Say on stderr which peers are left out."""
    packages = {"hyx", "pyresilience", "litellm", "aiobreaker", "aiometer", *PACKAGES}
    if missing := sorted(package for package in packages if not is_installed(package)):
        print(f"not installed, so left out: {', '.join(missing)} (extra bench)", file=sys.stderr)
