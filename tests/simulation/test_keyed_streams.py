"""Askers of streams under keys join, read slowly and leave at every moment: each key is paid once, to the cent."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from actors import (
    CallFailed,
    FunctionTransport,
    GetStatus,
    Listing,
    Market,
    Provider,
    RequestOptions,
    Supervisor,
)
from actors.errors import StreamCut
from actors.ledger import GetStatement
from actors.money import Micros
from actors.supervisor import smart_stream
from actors.transports.streaming import Restarted, WholeAnswer
from runtime import ActorSystem
from runtime.simulation import Simulation, explore
from tests.proofs import repeated
from tests.simulation.test_streams import PRICE, Drip, Piece

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from runtime import ActorRef

KEYS = ("k1", "k2")


def check_pieces(pieces: list[Any]) -> None:
    """Make sure that the pieces are the first of one call, each once and in order, or its answer whole."""
    if pieces and isinstance(pieces[0], WholeAnswer):
        assert len(pieces) == 1
        return
    assert pieces == [Piece(pieces[0].call, number) for number in range(len(pieces))]


async def read(supervisor: ActorRef[Any], rng: random.Random, key: str) -> None:
    """Read one stream under a key, in one of the ways in which consumers do."""
    manner, last = rng.choice(["whole", "whole", "restart", "leaves", "slow", "sleeps", "drops"]), list[Any]()
    stream = smart_stream(
        supervisor,
        service="s",
        input=key,
        idempotency_key=key,
        options=RequestOptions(strategy="cheapest", tenant="t"),
        timeout=rng.choice([3.0, 60.0]),
        gap=2.0,
        patience=5.0,
        on_leave=rng.choice(["cancel", "cancel", "finish"]),
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
                last.clear()
                continue
            last.append(piece)
            check_pieces(last)
            if manner == "leaves" and len(last) >= leaves_after:
                return
            if manner == "slow":
                await asyncio.sleep(rng.expovariate(10.0))
            if manner == "sleeps" and len(last) == leaves_after:
                await asyncio.sleep(1_000.0)
        check_result(last, stream.result.output)


def check_result(pieces: list[Any], output: Any) -> None:
    number, count = output
    assert pieces in ([Piece(number, each) for each in range(count)], [WholeAnswer(output)])


async def look_at(supervisor: ActorRef[Any], key: str) -> None:
    """Ask once more, when all have gone: what is given is whole, or what came of one call, and costs nothing again."""
    options = RequestOptions(strategy="cheapest", tenant="t")
    pieces: list[Any] = []
    before = await supervisor.ask(GetStatement(), timeout=5.0)
    stream = smart_stream(supervisor, service="s", input=key, idempotency_key=key, options=options)
    failure: CallFailed | None = None
    try:
        async with stream:
            pieces = [piece async for piece in stream]
    except CallFailed as error:
        failure = error
    after = await supervisor.ask(GetStatement(), timeout=5.0)
    if failure is None:
        check_result(pieces, stream.result.output)
        assert after.settled == before.settled or not stream.result.replayed
    elif isinstance(failure, StreamCut):
        check_pieces(list(failure.pieces))
        assert (after.settled, failure.may_cost) == (before.settled, 0)


async def check_all_came_back(
    supervisor: ActorRef[Any], drips: list[Drip], results: Sequence[BaseException | None]
) -> None:
    """Check that nothing but timeouts has failed, nothing is under way, and what was charged is what was paid."""
    for result in results:
        if result is not None and not isinstance(result, TimeoutError):
            raise result
    await asyncio.sleep(1_000.0)
    assert [drip.under_way for drip in drips] == [0] * len(drips)
    for key in KEYS:
        await look_at(supervisor, key)
    await asyncio.sleep(1_000.0)
    for status in await supervisor.ask(GetStatus(), timeout=5.0):
        assert status.under_way == 0
    statement = await supervisor.ask(GetStatement(), timeout=5.0)
    assert (statement.reserved, statement.held) == (0, 0)
    assert statement.settled == sum(drip.charged for drip in drips)


async def askers(simulation: Simulation) -> None:
    rng = simulation.random
    drips = [Drip(rng) for _ in range(rng.randint(1, 2))]
    listings = [
        Listing(
            provider=Provider(name=f"p{number}", services={"s"}, price=Micros(PRICE), response_time=0.1),
            transport=lambda drip=drip: FunctionTransport(drip, paid=True, idempotent="no", ends_when_cancelled=True),
            max_concurrency=8,
            timeout=2.0,
        )
        for number, drip in enumerate(drips)
    ]
    async with ActorSystem("streams", log=False) as system:
        supervisor = system.spawn(lambda: Supervisor(Market(providers=listings)))

        async def one() -> None:
            key = rng.choice(KEYS)
            await asyncio.sleep(rng.choice([0.0, 0.0, 1.0, 3.0, 20.0]))
            for _ in range(rng.randint(0, 12)):
                await asyncio.sleep(0)
            with contextlib.suppress(CallFailed):
                async with asyncio.timeout(rng.choice([0.0, 0.5, 3.0, 1e4])):
                    await read(supervisor, rng, key)

        results = await asyncio.gather(*(one() for _ in range(14)), return_exceptions=True)
        await check_all_came_back(supervisor, drips, results)
    assert len(asyncio.all_tasks()) == 1


def test_each_key_is_paid_once_and_all_comes_back_whoever_leaves_when() -> None:
    seeds = range(repeated(1_000, at_least=20, part=40))
    assert explore(askers, seeds=seeds).runs == len(seeds)
