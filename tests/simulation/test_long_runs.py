"""The first second of a program, changes in mid-run, and a batch over six hours whose providers fail in turn."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from loguru import logger

from actors import (
    Done,
    FunctionTransport,
    Listing,
    Market,
    Provider,
    Supervisor,
    Throttled,
    Transient,
    robust_batch,
    smart_request,
)
from actors.limits.token_bucket import TokenBucket
from runtime import ActorSystem
from tests.proofs import repeated

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

HOURS = 6.0
TURN = 600.0
"""Seconds after which the next of three providers fails."""
ITEMS = repeated(50_000)
MAX_SECONDS = 600.0
"""The real time that the whole batch may take on one core."""
MAX_REPEATED = 100


def now() -> float:
    return asyncio.get_running_loop().time()


class Bounded:
    """A provider with a token bucket that answers 429 beyond it, and says for how long."""

    def __init__(self, name: str, *, rate: float, burst: int, lasts: float = 0.2) -> None:
        self.name = name
        self.bucket = TokenBucket(rate=rate, burst=burst)
        self.lasts = lasts
        self.served = self.refused = 0
        self.paid: list[int] = []

    async def __call__(self, call: Any) -> str:
        taken = self.bucket.take(now())
        if not isinstance(taken, tuple):
            self.refused += 1
            raise Throttled("429", provider=self.name, retry_after=taken)
        self.bucket = taken[0]
        self.served += 1
        self.paid.append(int(call.max_cost))
        await asyncio.sleep(self.lasts)
        return self.name

    def listing(self, *, price: Any = "0.01", **options: Any) -> Listing:
        return Listing(
            provider=Provider(name=self.name, services={"s"}, price=price),
            transport=lambda: FunctionTransport(self, paid=True, idempotent="key", provider=self.name),
            **options,
        )


# Warm start.


@pytest.mark.parametrize(("rate", "burst"), [(100.0, 100), (50.0, 20), (200.0, 10)])
async def test_500_requests_in_the_first_second_find_a_limit_that_is_stated(rate: float, burst: int):
    alder = Bounded("alder", rate=rate, burst=burst)
    market = Market(providers=[alder.listing(max_concurrency=100, rate_limit=rate, burst=burst)])
    async with ActorSystem("warm", seed=1) as system:
        supervisor = system.spawn(lambda: Supervisor(market))
        results = await asyncio.gather(
            *(smart_request(supervisor, service="s", input=number, timeout=120.0) for number in range(500))
        )
        took = now()
    assert len(results) == alder.served == 500
    assert alder.refused == 0
    assert took <= 1.4 * 500 / rate + 5.0


async def test_500_requests_in_the_first_second_spread_over_limits_that_are_not_stated():
    providers = [Bounded(name, rate=40.0, burst=20) for name in ("alder", "birch", "cedar")]
    market = Market(providers=[one.listing(max_concurrency=50) for one in providers])
    async with ActorSystem("warm", seed=1) as system:
        supervisor = system.spawn(lambda: Supervisor(market))
        results = await asyncio.gather(
            *(smart_request(supervisor, service="s", input=number, timeout=120.0) for number in range(500))
        )
    assert len(results) == 500
    assert sum(one.refused for one in providers) <= 150


# Changes in mid-run.


async def test_a_price_a_limit_and_a_capacity_that_change_in_mid_run_cost_no_request():
    alder, birch = Bounded("alder", rate=50.0, burst=50), Bounded("birch", rate=50.0, burst=50)
    offered = [
        alder.listing(price="0.01", rate_limit=50.0, burst=50, max_concurrency=40),
        birch.listing(price="0.02", rate_limit=50.0, burst=50, max_concurrency=40),
    ]

    async def registry(_: str) -> list[Listing]:
        return offered

    other = Listing(provider=Provider(name="other", services={"other"}), transport=offered[0].transport)
    async with ActorSystem("changes", seed=1) as system:
        supervisor = system.spawn(lambda: Supervisor(Market(providers=[other]), registry=registry))

        async def request(number: int) -> str:
            result = await smart_request(supervisor, service="s", input=number, timeout=60.0, strategy="cheapest")
            return result.provider

        by: list[str] = []
        for minute in range(60):
            if minute == 20:  # The dear one becomes the cheap one, and the limits and places of both change.
                alder.bucket = TokenBucket(rate=5.0, burst=5)
                offered[:] = [
                    alder.listing(price="0.03", rate_limit=5.0, burst=5, max_concurrency=4),
                    birch.listing(price="0.02", rate_limit=50.0, burst=50, max_concurrency=20),
                ]
            by += await asyncio.gather(*(request(number) for number in range(20)))
            await asyncio.sleep(60.0)
    assert len(by) == 1_200
    # The cheap one serves all that it has places for.
    assert by[:400].count("alder") >= 300
    assert by[-400:].count("birch") >= 300
    assert alder.paid == sorted(alder.paid), "it was paid the old price after the new one"
    assert set(alder.paid) <= {10_000, 30_000}
    assert set(birch.paid) == {20_000}
    assert birch.refused == 0
    assert alder.refused <= 100  # Until the change is known, it is called at its old limit.


# Six hours.


class InTurn:
    """One of three providers, each of which is down for ten minutes in thirty."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.name = ("alder", "birch", "cedar")[number]

    async def __call__(self, call: Any) -> Any:
        await asyncio.sleep(0.3)
        if int(now() // TURN) % 3 == self.number:
            raise Transient("503 Service Unavailable", provider=self.name, outcome="not_started")
        return call.input

    def listing(self) -> Listing:
        return Listing(
            provider=Provider(name=self.name, services={"s"}, price="0.001"),
            transport=lambda: FunctionTransport(self, paid=True, idempotent="key", provider=self.name),
        )


async def over_six_hours() -> AsyncIterator[int]:
    for number in range(ITEMS):
        yield number
        await asyncio.sleep(HOURS * 3600 / ITEMS)


async def test_a_batch_of_50_000_over_six_hours_is_done_in_time_without_a_flood_of_lines():
    lines: Counter[str] = Counter()

    def keep(line: Any) -> None:
        record = line.record
        text = record["message"]
        # Lines that say the same of other requests and times are the same line, but each request has its own at DEBUG.
        lines[text if record["level"].no <= 10 else re.sub(r"\b[0-9a-f]{32}\b|[\d.]+", "#", text)] += 1

    began = time.process_time()
    sink = logger.add(keep, level="DEBUG")
    done = 0
    try:
        async with ActorSystem("six hours", seed=1) as system:
            supervisor = system.spawn(lambda: Supervisor(Market(providers=[InTurn(one).listing() for one in range(3)])))
            async with robust_batch(supervisor, over_six_hours(), service="s", timeout=60.0) as outcomes:
                async for outcome in outcomes:
                    done += isinstance(outcome, Done)
        assert now() >= HOURS * 3600 * 0.99
    finally:
        logger.remove(sink)
    assert done == ITEMS
    assert [(text, count) for text, count in lines.most_common(3) if count > MAX_REPEATED] == []
    assert time.process_time() - began <= MAX_SECONDS * ITEMS / 50_000 + 10.0
