"""Retry with backoff and jitter, and a circuit breaker: what the page promises, measured.

The waits are virtual: the program runs in a simulation, so a minute passes in a moment, and always the same happens.
"""

import asyncio
import random
from collections import Counter

from actors import BreakerConfig, BreakerOpen, CircuitBreaker, Permanent, Retry, Throttled, Transient, with_retry
from actors.policies.retry import RetryStats
from runtime.simulation import Simulation

RETRY = Retry(max_retries=3, base=1.0, cap=30.0, jitter="proportional", proportion=0.3)
BREAKER = BreakerConfig(failure_threshold=5, open_for=30.0, jitter=0.0)


class Service:
    """Raises what its script holds, in turn, and then answers."""

    def __init__(self, *script: Exception) -> None:
        self.script = list(script)
        self.calls = 0

    async def request(self) -> str:
        self.calls += 1
        await asyncio.sleep(0.1)
        if self.script:
            raise self.script.pop(0)
        return "answer"


def say(attempt: int, error: Exception, wait: float) -> None:
    print(f"  attempt {attempt}: {error}; again in {wait:.2f} s")


async def retry(title: str, *script: Exception) -> None:
    print(title)
    stats = RetryStats()
    try:
        answer = await with_retry(
            Service(*script).request, policy=RETRY, on_retry=say, stats=stats, rng=random.Random(1)
        )
        print(f"  {answer} after {stats.attempts} attempts and {stats.waited:.2f} s of waiting")
    except (Transient, Permanent) as error:
        # It is raised, never returned: whatever is around it, such as a breaker, sees that it failed.
        print(f"  {type(error).__name__} raised after {stats.attempts} attempts: {stats.gave_up}")


async def open_and_probe() -> None:
    print("a breaker in front of a service that is down")
    breaker = CircuitBreaker("service", BREAKER)
    service = Service(*[Transient("down")] * 5)
    outcomes: Counter[str] = Counter()

    async def call() -> None:
        try:
            await breaker.execute(service.request)
            outcomes["answered"] += 1
        except (Transient, BreakerOpen) as error:
            outcomes[type(error).__name__] += 1

    for _ in range(100):
        await call()
    print(f"  of 100 calls {service.calls} were made, {outcomes['BreakerOpen']} failed fast: {breaker!r}")
    await asyncio.sleep(BREAKER.open_for)
    before = service.calls
    await asyncio.gather(*(call() for _ in range(1000)))
    print(f"  30 s later, 1000 callers at once: {service.calls - before} probe, {outcomes['answered']} answer")
    print(f"  {breaker!r}")


async def main() -> None:
    await retry("a service that fails twice", Transient("down"), Throttled("slow down", retry_after=5.0))
    await retry("a service that stays down", *[Transient("down")] * 9)
    await retry("a mistake of the caller", Permanent("400 Bad Request"))
    await open_and_probe()


Simulation(seed=1, logs=False).run(main)
