"""Calls to models that are cancelled at random moments leave nothing behind, and the books of both sides agree."""

from __future__ import annotations

import asyncio
import contextlib
import random
from pathlib import Path

import pytest

from actors import GetStatus, Market, RequestOptions, Supervisor
from actors.errors import CallFailed
from actors.fake import FakeConfig, FakeModel, FakePrice, fake_server
from actors.ledger import GetStatement
from actors.models import chat, chat_stream, compatible
from actors.tariffs import Tariff
from runtime import ActorSystem
from tests.fake_wire import FakeWire
from tests.proofs import repeated
from tests.real_time import FAR, skip

PRICE = {"input": "1", "output": "4"}
AT_ONCE = 50
HALF_AN_ANSWER = 0.15
"""Seconds, about."""
STOPS = {"on_cut": "stops", "on_cut_plain": "stops"}
RUNS_ON = {"on_cut": "runs_on", "on_cut_plain": "runs_on"}


def served(on_cut, **model):
    model = {"latency": 0.05, "token_speed": 200.0, "output_tokens": 50.0} | model
    runs_on = "runs_on" if on_cut is RUNS_ON else "stops"
    model = FakeModel(name="m", price=FakePrice(**PRICE), on_cut=runs_on, **model)
    return FakeConfig(models=(model,), dialect="openrouter", cost_delay=1.0)


def listed(url, on_cut, **reached):
    return compatible(
        "m",
        preset="openrouter",
        base_url=f"{url}/api/v1",
        api_key="k",
        tariff=Tariff(**PRICE),
        max_concurrency=AT_ONCE,
        **on_cut,
        **reached,
    )


async def ask_and_leave(supervisor, rng):
    """Ask once, and leave at a random moment, in one of the ways in which consumers do."""
    manner, limit = rng.choice(["plain", "cancelled", "leaves", "drops"]), rng.uniform(0.0, 2 * HALF_AN_ANSWER)
    text = f"Hello {rng.random()}"
    with contextlib.suppress(CallFailed, TimeoutError, StopAsyncIteration):
        async with asyncio.timeout(limit if manner in {"plain", "cancelled"} else None):
            if manner == "plain":
                await chat(supervisor, messages=text, max_tokens=100, options=RequestOptions(timeout=10.0))
                return
            stream = chat_stream(supervisor, messages=text, max_tokens=100, timeout=10.0)
            if manner == "drops":
                await stream.__aenter__()
                for _ in range(rng.randint(0, 20)):
                    await anext(stream)
                return
            async with stream:
                taken = rng.randint(0, 40) if manner == "leaves" else 1_000
                for _ in range(taken):
                    await anext(stream)


async def leave_all(supervisor, count, rng):
    async def some():
        while left:
            left.pop()
            await ask_and_leave(supervisor, rng)

    left = [None] * count
    await asyncio.gather(*(some() for _ in range(AT_ONCE)))


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


async def until_over(supervisor, books):
    """Wait until both sides are done with every call, which they are soon."""
    await books.idle.wait()
    while any(status.under_way for status in await supervisor.ask(GetStatus(), timeout=FAR)):  # noqa: ASYNC110 - it is asked.
        await asyncio.sleep(0)
    statement = await supervisor.ask(GetStatement(), timeout=FAR)
    assert statement.reserved == 0
    return statement


def charged(books):
    """Return what the server has charged, in micro-dollars; each call is rounded up."""
    return sum(-(-call.charged * 1_000_000 // 1) for call in books.lines)


def assert_agreed(statement, theirs, *, asks, held=10):
    """What is charged is settled, or still held; if the provider can be asked, no more than that is settled."""
    assert theirs <= statement.settled + statement.held
    assert statement.settled <= theirs or not asks
    assert statement.held <= theirs // held


@pytest.mark.parametrize("on_cut", [{}, STOPS, RUNS_ON], ids=["ask", "stops", "runs_on"])
async def test_cancellations_at_random_moments_leave_nothing_behind(on_cut):
    before, rng = asyncio.all_tasks(), random.Random(1)
    wire = FakeWire(served(on_cut), latency=0.01)
    async with ActorSystem("leaving", log=False) as system:
        listing = listed("http://fake.test", on_cut, wire=wire)
        supervisor = system.spawn(lambda: Supervisor(Market(providers=[listing])))
        await leave_all(supervisor, repeated(3_400), rng)
        await until_over(supervisor, wire.provider.books)
        await asyncio.sleep(4_000.0)  # All that can be asked about was asked about.
        statement = await until_over(supervisor, wire.provider.books)
    theirs = charged(wire.provider.books)
    assert_agreed(statement, theirs, asks=not on_cut)
    assert wire.provider.books.under_way == 0
    assert not wire.tasks
    assert asyncio.all_tasks() == before


@pytest.mark.real_time
@pytest.mark.parametrize("seed", [1, 2])
async def test_cancellations_over_sockets_leave_nothing_behind(seed):
    rng = random.Random(seed)
    async with fake_server(served({})) as server:
        before, open_before = asyncio.all_tasks(), open_files()
        async with ActorSystem("leaving", log=False) as system:
            listing = listed(server.url, {})
            supervisor = system.spawn(lambda: Supervisor(Market(providers=[listing])))
            await leave_all(supervisor, repeated(5_000), rng)
            statement = await until_over(supervisor, server.books)
            theirs = charged(server.books)
            await skip(6.0)  # Then what is held is asked about.
            # What was cut off before its head told an identity cannot be: on a busy machine that is more.
            while statement.held > theirs // 2:
                statement = await until_over(supervisor, server.books)
        assert_agreed(statement, theirs, asks=True, held=2)
        while open_files() > open_before or not asyncio.all_tasks() <= before:  # noqa: ASYNC110 - it is the system that would say so.
            await asyncio.sleep(0)


async def ask_and_cancel(supervisor, manner, step):
    """Ask once, and cancel it after so many turns of the loop; return whether it was over before."""
    asking = asyncio.create_task(asked_by(supervisor, manner, step))
    for _ in range(step):
        await asyncio.sleep(0)
    was_over = asking.done()
    asking.cancel()
    with contextlib.suppress(CallFailed, asyncio.CancelledError):
        await asking
    return was_over


async def asked_by(supervisor, manner, step):
    text, key = f"Hello {step}", f"{manner} {step}" if "key" in manner else None
    if "stream" in manner:
        async with chat_stream(supervisor, messages=text, max_tokens=100, idempotency_key=key) as stream:
            async for _ in stream:
                pass
    else:
        await chat(supervisor, messages=text, max_tokens=100, idempotency_key=key)


@pytest.mark.parametrize("manner", ["plain", "plain with a key", "stream", "stream with a key"])
@pytest.mark.parametrize("on_cut", [{}, STOPS, RUNS_ON], ids=["ask", "stops", "runs_on"])
async def test_a_call_that_is_cancelled_at_any_step_leaves_nothing_behind(on_cut, manner):
    before, wire = asyncio.all_tasks(), FakeWire(served(on_cut, latency=0.0, token_speed=0.0, output_tokens=60.0))
    books = wire.provider.books
    async with ActorSystem("leaving", log=False) as system:
        listing = listed("http://fake.test", on_cut, wire=wire)
        supervisor = system.spawn(lambda: Supervisor(Market(providers=[listing])))
        step = 0
        while not await ask_and_cancel(supervisor, manner, step):
            await until_over(supervisor, books)
            assert books.under_way == 0
            step += 1
        assert step > 2
        await asyncio.sleep(4_000.0)  # All that can be asked about was asked about.
        statement = await until_over(supervisor, books)
    if on_cut is not STOPS:  # What those owe depends on their speed, and this server writes all at once.
        assert charged(books) <= statement.settled + statement.held
    assert not wire.tasks
    assert asyncio.all_tasks() == before
