"""What breakers do where it matters: half-open under a crowd, under cancellation, with stale results, at 50 %.

Every breaker is set up alike: it opens on 5 failures, waits a moment, and closes on one success.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from actors import BreakerConfig, CircuitBreaker
from benchmarks.resilience.peers import is_installed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from benchmarks.resilience.calls import Guard

FAILURES = 5
OPEN_FOR = 0.05
CROWD = 1_000


class Failure(Exception):
    """What a failing call raises."""


def ours() -> Guard:
    config = BreakerConfig(failure_threshold=FAILURES, open_for=OPEN_FOR, jitter=0.0)
    return CircuitBreaker("benchmark", config, counts_as_failure=lambda _: True).execute


def purgatory() -> Guard:
    from purgatory import AsyncCircuitBreakerFactory  # noqa: PLC0415 - an extra.

    @AsyncCircuitBreakerFactory(default_threshold=FAILURES, default_ttl=OPEN_FOR)("benchmark")
    async def guard(call: Callable[[], Awaitable[Any]]) -> Any:
        return await call()

    return guard


def hyx() -> Guard:
    from hyx.circuitbreaker import consecutive_breaker  # noqa: PLC0415 - an extra.

    @consecutive_breaker(failure_threshold=FAILURES, recovery_time_secs=OPEN_FOR, recovery_threshold=1)
    async def guard(call: Callable[[], Awaitable[Any]]) -> Any:
        return await call()

    return guard


def pyresilience() -> Guard:
    from pyresilience import CircuitBreakerConfig, resilient  # noqa: PLC0415 - an extra.

    # Its sliding window is the better of its two ways.
    config = CircuitBreakerConfig(
        recovery_timeout=OPEN_FOR, success_threshold=1, sliding_window_size=20, minimum_calls=FAILURES
    )

    @resilient(circuit_breaker=config)
    async def guard(call: Callable[[], Awaitable[Any]]) -> Any:
        return await call()

    return guard


def aiobreaker() -> Guard:
    import datetime as dt  # noqa: PLC0415 - only here.

    from aiobreaker import CircuitBreaker as AioBreaker  # noqa: PLC0415 - an extra.

    breaker = AioBreaker(fail_max=FAILURES, timeout_duration=dt.timedelta(seconds=OPEN_FOR))
    guard: Guard = breaker.call_async
    return guard


PEERS: dict[str, Callable[[], Guard]] = {
    "purgatory": purgatory,
    "hyx": hyx,
    "pyresilience": pyresilience,
    "aiobreaker": aiobreaker,
}


def installed() -> dict[str, Callable[[], Guard]]:
    """Return the breakers of those peers that can be imported here."""
    return {name: make for name, make in PEERS.items() if is_installed(name)}


async def succeed() -> None:
    """Succeed."""


async def fail() -> None:
    raise Failure


class Trial:
    """One breaker under trial. A call counts as let through where it began to run."""

    def __init__(self, make: Callable[[], Guard]) -> None:
        self.guard = make()
        self.begun = 0

    async def lets_through(self, call: Callable[[], Awaitable[None]]) -> bool:
        """Make one call, and tell whether it began to run."""
        before = self.begun

        async def counted() -> None:
            self.begun += 1
            await call()

        await asyncio.gather(self.guard(counted), return_exceptions=True)
        return self.begun > before

    async def open(self) -> None:
        """Make it open, and wait until it may be half-open."""
        for _ in range(FAILURES):
            assert await self.lets_through(fail)
        assert not await self.lets_through(succeed), "it did not open"
        await asyncio.sleep(OPEN_FOR * 1.2)

    async def is_half_open(self) -> bool:
        """Tell by its behaviour: it lets a call through, and that one's failure opens it."""
        return await self.lets_through(fail) and not await self.lets_through(succeed)


async def probes(make: Callable[[], Guard], *, crowd: int = CROWD) -> float:
    """Return how many of 1,000 callers are let through at the same time where the breaker is half-open."""
    trial, gate = Trial(make), asyncio.Event()
    await trial.open()
    before = trial.begun

    async def wait() -> None:
        await gate.wait()

    callers = [asyncio.create_task(trial.lets_through(wait)) for _ in range(crowd)]
    await asyncio.sleep(OPEN_FOR / 10)
    found = trial.begun - before
    gate.set()
    await asyncio.gather(*callers)
    return found


async def after_cancelled_probe(make: Callable[[], Guard]) -> str:
    """Return what a breaker is after its probe was cancelled: as it was, or opened, or closed."""
    trial = Trial(make)
    await trial.open()

    async def wait() -> None:
        await asyncio.Event().wait()

    probe = asyncio.create_task(trial.lets_through(wait))
    await asyncio.sleep(OPEN_FOR / 10)
    probe.cancel()
    await asyncio.wait([probe])
    if not await trial.lets_through(fail):
        return "opened"
    return "closed" if await trial.lets_through(succeed) else "as it was"


async def moved_by_stale_results(make: Callable[[], Guard]) -> list[str]:
    """Return which stale results overruled a half-open breaker's probe: a success closed it, a failure opened it."""
    moved: list[str] = []
    for outcome in (succeed, fail):
        trial, stale_ends, probe_ends = Trial(make), asyncio.Event(), asyncio.Event()

        async def stale(ends: asyncio.Event = stale_ends, then: Callable[[], Awaitable[None]] = outcome) -> None:
            await ends.wait()
            await then()

        async def probing(ends: asyncio.Event = probe_ends, then: Callable[[], Awaitable[None]] = outcome) -> None:
            await ends.wait()
            # The probe says the contrary, and it alone decides.
            await (fail if then is succeed else succeed)()

        late = asyncio.create_task(trial.lets_through(stale))
        await asyncio.sleep(0)
        await trial.open()
        probe = asyncio.create_task(trial.lets_through(probing))
        await asyncio.sleep(0.001)
        stale_ends.set()
        await late
        probe_ends.set()
        await probe
        is_closed = await trial.lets_through(succeed)
        if is_closed is (outcome is succeed):
            moved.append("success" if outcome is succeed else "failure")
    return moved


async def opens_at_half(make: Callable[[], Guard], *, calls: int = 100) -> bool:
    """Tell whether a breaker opens where every other call fails."""
    trial = Trial(make)
    for number in range(calls):
        if not await trial.lets_through(fail if number % 2 else succeed):
            return True
    return False
