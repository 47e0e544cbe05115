"""Streams under faults and consumers of every kind: places and money come back, and answers never mix."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import msgspec
import pytest

from actors import (
    BreakerConfig,
    CallFailed,
    FunctionTransport,
    GetStatus,
    Listing,
    Market,
    Monitor,
    Provider,
    ProviderReply,
    RequestOptions,
    Supervisor,
    Transient,
)
from actors.ledger import GetStatement
from actors.money import Micros
from actors.monitor import GetMetrics
from actors.supervisor import smart_stream
from actors.transports.streaming import Restarted, StreamConfig
from runtime import ActorSystem
from runtime.simulation import Simulation, explore
from tests.proofs import repeated

if TYPE_CHECKING:
    import random

PRICE = 10_000
OF_A_PIECE = 10


class Piece(msgspec.Struct, frozen=True):
    call: int
    number: int


class Drip:
    """A provider that streams: it stops when it is cut off, and charges for the pieces that it made."""

    def __init__(self, rng: random.Random) -> None:
        self.rng, self.charged, self.calls, self.under_way = rng, 0, 0, 0

    async def __call__(self, call):
        rng, stream = self.rng, call.stream
        self.calls += 1
        number, pieces, mood = self.calls, rng.randint(1, 100), rng.random()
        breaks_at = rng.randint(0, pieces) if mood < 0.3 else -1
        hangs_at = rng.randint(0, pieces) if 0.3 <= mood < 0.4 else -1
        made = 0
        self.under_way += 1
        try:
            for each in range(pieces):
                limit = stream.first if stream.first_at is None else stream.gap
                async with asyncio.timeout(limit):
                    await asyncio.sleep(1e6 if each == hangs_at else rng.expovariate(20.0))
                if each == breaks_at:
                    raise Transient("it broke off", provider=call.provider)
                made += 1
                await stream.put(Piece(number, each))
                if each == pieces - 1:
                    stream.commit()
        except TimeoutError:
            raise self._cut(Transient("silence", provider=call.provider), made) from None
        except CallFailed as failure:
            raise self._cut(failure, made) from failure
        except asyncio.CancelledError:
            stream.partial = ProviderReply(output=made, cost=Micros(self._charge(made)))
            raise
        finally:
            self.under_way -= 1
        return ProviderReply(output=(number, pieces), cost=Micros(self._charge(made)))

    def _charge(self, made: int) -> int:
        self.charged += made * OF_A_PIECE
        return made * OF_A_PIECE

    def _cut(self, failure: CallFailed, made: int) -> CallFailed:
        failure.charged, failure.answer = "yes", ProviderReply(output=made, cost=Micros(self._charge(made)))
        return failure


async def consume(supervisor, rng):
    """Read one stream, in one of the ways in which consumers do, and return how it ended."""
    manner, last = rng.choice(["whole", "whole", "restart", "restart", "leaves", "slow", "sleeps", "drops"]), []
    options = RequestOptions(strategy="cheapest")
    stream = smart_stream(
        supervisor,
        service="s",
        input="x",
        options=options,
        timeout=60.0,
        gap=2.0,
        patience=5.0,
        after_cut="restart" if manner == "restart" else "fail",
    )
    leaves_after = rng.randint(0, 40)
    if manner == "drops":
        await stream.__aenter__()
        for _ in range(leaves_after):
            try:
                await anext(stream)
            except (StopAsyncIteration, CallFailed):
                break
        return
    async with stream:
        async for piece in stream:
            if isinstance(piece, Restarted):
                assert manner == "restart"
                last = []
                continue
            last.append(piece)
            if manner == "leaves" and len(last) >= leaves_after:
                return
            if manner == "slow":
                await asyncio.sleep(rng.expovariate(10.0))
            if manner == "sleeps" and len(last) == leaves_after:
                await asyncio.sleep(1_000.0)
        number, pieces = stream.result.output
        assert last == [Piece(number, each) for each in range(pieces)]


async def streams(simulation: Simulation) -> None:
    rng = simulation.random
    drips = [Drip(rng) for _ in range(rng.randint(1, 3))]
    listings = [
        Listing(
            provider=Provider(name=f"p{number}", services={"s"}, price=Micros(PRICE), response_time=0.1),
            transport=lambda drip=drip: FunctionTransport(drip, paid=True, idempotent="no", ends_when_cancelled=True),
            max_concurrency=8,
            timeout=2.0,
        )
        for number, drip in enumerate(drips)
    ]
    async with ActorSystem("streams") as system:
        supervisor = system.spawn(lambda: Supervisor(Market(providers=listings)))

        async def one() -> None:
            with contextlib.suppress(CallFailed):
                async with asyncio.timeout(rng.choice([0.0, 0.5, 3.0, 1e4])):
                    await consume(supervisor, rng)

        results = await asyncio.gather(*(one() for _ in range(30)), return_exceptions=True)
        for result in results:
            if result is not None and not isinstance(result, TimeoutError):
                raise result
        await asyncio.sleep(1_000.0)
        assert [drip.under_way for drip in drips] == [0] * len(drips)
        for status in await supervisor.ask(GetStatus(), timeout=5.0):
            assert status.under_way == 0
        statement = await supervisor.ask(GetStatement(), timeout=5.0)
        assert statement.reserved == 0
        assert statement.settled == sum(drip.charged for drip in drips)


def test_places_and_money_come_back_whoever_leaves_when():
    seeds = range(repeated(1_000, part=16))
    assert explore(streams, seeds=seeds).runs == len(seeds)


async def test_a_gap_that_a_request_chose_blames_no_provider():
    """A provider whose pieces come every second is well, whatever the gaps of some of its consumers."""

    async def tick(call):
        for number in range(4):
            try:
                async with asyncio.timeout(call.stream.first if number == 0 else call.stream.gap):
                    await asyncio.sleep(1.0)
            except TimeoutError:
                raise Transient("silence", provider=call.provider) from None
            await call.stream.put(number)
        return 4

    async def hang(call):
        await call.stream.put(0)
        await asyncio.sleep(call.stream.gap)
        raise Transient("silence", provider=call.provider)

    for function, gap, breaker in ((tick, 0.2, "closed"), (hang, None, "open"), (hang, 7.0, "open")):
        listing = Listing(
            provider=Provider(name="alder", services={"s"}),
            transport=lambda function=function: FunctionTransport(function, paid=False, idempotent="no"),
            max_concurrency=100,
        )
        market = Market(providers=[listing], streams=StreamConfig(gap=5.0))
        async with ActorSystem("gaps", log=False) as system:
            supervisor = system.spawn(lambda market=market: Supervisor(market))
            for _ in range(30):
                stream = smart_stream(supervisor, service="s", input="x", timeout=60.0, gap=gap)
                with contextlib.suppress(CallFailed):
                    async with stream:
                        assert [piece async for piece in stream]
            (status,) = await supervisor.ask(GetStatus(), timeout=5.0)
            assert status.breaker == breaker


async def test_the_time_between_pieces_is_told_and_opens_the_breaker_if_it_is_long():
    """How slowly a consumer reads is no slowness of its provider."""

    async def tick(call):
        for number in range(6):
            await asyncio.sleep(2.0 if number == 0 else 0.5)
            await call.stream.put(number)
        return 6

    transport = FunctionTransport(tick, paid=False, idempotent="no")
    listing = Listing(provider=Provider(name="alder", services={"s"}), transport=lambda: transport, timeout=30.0)
    for slow_interval, pause, breaker in ((0.4, 0.0, "open"), (0.6, 0.0, "closed"), (0.6, 2.0, "closed")):
        market = Market(providers=[listing], breaker=BreakerConfig(slow_interval=slow_interval, min_calls=5))
        async with ActorSystem("intervals", log=False) as system:
            supervisor = system.spawn(lambda market=market: Supervisor(market))
            monitor = system.spawn(Monitor)
            for _ in range(5):
                async with smart_stream(supervisor, service="s", input="x", timeout=60.0) as stream:
                    async for _ in stream:
                        await asyncio.sleep(pause)
            (status,) = await supervisor.ask(GetStatus(), timeout=5.0)
            figures = (await monitor.ask(GetMetrics(), timeout=5.0)).providers["alder"]
        assert status.breaker == breaker
        assert (status.first_piece, status.piece_interval) == (pytest.approx(2.0), pytest.approx(0.5))
        assert figures.first_piece.p50 == pytest.approx(2.0, rel=0.02)
        assert figures.piece_interval.p50 == pytest.approx(0.5, rel=0.02)
