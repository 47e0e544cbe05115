"""Streams of requests to transports of one's own: what they cost, and what their consumers see, however they end."""

from __future__ import annotations

import asyncio

import pytest

from actors import FunctionTransport, GetStatus, Listing, Market, Provider, ProviderReply, Supervisor
from actors.errors import CallFailed, OutcomeUnknown, StreamBroken
from actors.ledger import GetStatement
from actors.money import Micros
from actors.supervisor import smart_stream
from actors.transports.reconciliation import Answered
from actors.transports.streaming import Restarted, WholeAnswer
from runtime import ActorSystem

PRICE = 10_000
OF_A_PIECE = 10


class Drip:
    """A provider that streams, and charges for the pieces that it made."""

    def __init__(self, pieces=100):
        self.pieces, self.charged = pieces, 0

    async def __call__(self, call):
        made = 0
        try:
            for number in range(self.pieces):
                made += 1
                await call.stream.put(number)
        except CallFailed as failure:
            failure.charged, failure.answer = "yes", self.reply(made)
            raise
        except asyncio.CancelledError:
            call.stream.partial = self.reply(made)
            raise
        return self.reply(made)

    def reply(self, made):
        self.charged += made * OF_A_PIECE
        return ProviderReply(output=made, cost=Micros(made * OF_A_PIECE))


def listed(name, handler, **options):
    return Listing(
        provider=Provider(name=name, services={"s"}, price=Micros(PRICE), response_time=0.1),
        transport=lambda: FunctionTransport(handler, paid=True, idempotent="no", **options),
    )


async def read(supervisor, *, pause=0.0, **options):
    pieces = []
    async with smart_stream(supervisor, service="s", input="x", **options) as stream:
        async for piece in stream:
            pieces.append(piece)
            await asyncio.sleep(pause)
    return pieces, stream.result


@pytest.mark.parametrize("ends_when_cancelled", [True, False])
@pytest.mark.parametrize("pieces", [64, 65, 100])
async def test_a_stream_that_ends_as_its_consumer_leaves_costs_what_it_told(pieces, ends_when_cancelled):
    drip = Drip(pieces)
    async with ActorSystem("streams", log=False) as system:
        listing = listed("alder", drip, ends_when_cancelled=ends_when_cancelled)
        supervisor = system.spawn(lambda: Supervisor(Market(providers=[listing])))
        async with smart_stream(supervisor, service="s", input="x") as stream:
            assert await anext(stream) == 0
            await asyncio.sleep(1.0)
        await asyncio.sleep(1.0)
        (status,) = await supervisor.ask(GetStatus(), timeout=5.0)
        statement = await supervisor.ask(GetStatement(), timeout=5.0)
    assert status.under_way == 0
    assert (statement.reserved, statement.held, statement.settled) == (0, 0, drip.charged)


@pytest.mark.parametrize(("pause", "is_closed"), [(0.1, True), (1e6, False)])
async def test_a_deadline_that_is_too_short_for_a_stream_is_no_failure_of_its_provider(pause, is_closed):
    async def slow(call):
        for number in range(100):
            await call.stream.put(number)
            await asyncio.sleep(0.1 if number < 2 else pause)
        return "done"

    async with ActorSystem("streams", log=False) as system:
        supervisor = system.spawn(lambda: Supervisor(Market(providers=[listed("alder", slow)])))
        for _ in range(10):
            with pytest.raises(CallFailed):
                await read(supervisor, timeout=1.0)
        (status,) = await supervisor.ask(GetStatus(), timeout=5.0)
    assert (status.breaker == "closed") is is_closed
    assert status.under_way == 0


async def test_a_consumer_that_is_slow_until_its_deadline_is_no_failure_of_its_provider():
    async with ActorSystem("streams", log=False) as system:
        supervisor = system.spawn(lambda: Supervisor(Market(providers=[listed("alder", Drip(1_000))])))
        for _ in range(10):
            with pytest.raises(CallFailed):
                await read(supervisor, timeout=3.0, pause=0.5)
        (status,) = await supervisor.ask(GetStatus(), timeout=5.0)
    assert (status.breaker, status.under_way) == ("closed", 0)


async def test_a_stream_is_entered_once():
    async with ActorSystem("streams", log=False) as system:
        supervisor = system.spawn(lambda: Supervisor(Market(providers=[listed("alder", Drip())])))
        stream = smart_stream(supervisor, service="s", input="x")
        async with stream:
            assert len([piece async for piece in stream]) == 100
        with pytest.raises(RuntimeError, match="entered once"):
            await stream.__aenter__()
        left = smart_stream(supervisor, service="s", input="x")
        await left.aclose()
        with pytest.raises(RuntimeError, match="entered once"):
            await left.__aenter__()


class Forgetful(FunctionTransport):
    """A provider whose stream breaks off after two pieces; its whole answer can be looked up."""

    def __init__(self):
        super().__init__(self._break_off, paid=True, idempotent="no")

    async def _break_off(self, call):
        await call.stream.put(0)
        await call.stream.put(1)
        raise OutcomeUnknown("it broke off", provider="alder")

    async def look_up(self, call, *, timeout):  # noqa: ASYNC109 - the interface of `LooksUp`.
        return Answered(ProviderReply(output="whole", cost=Micros(70)))


async def test_an_answer_that_is_found_after_its_stream_broke_off_is_given_whole():
    provider = Provider(name="alder", services={"s"}, price=Micros(PRICE), response_time=0.1)
    async with ActorSystem("streams", log=False) as system:
        market = Market(providers=[Listing(provider=provider, transport=Forgetful)])
        supervisor = system.spawn(lambda: Supervisor(market))
        pieces, result = await read(supervisor, after_cut="restart")
        with pytest.raises(StreamBroken) as told:
            await read(supervisor)
        statement = await supervisor.ask(GetStatement(), timeout=5.0)
    assert [type(piece) for piece in pieces] == [int, int, Restarted, WholeAnswer]
    assert (pieces[-1].output, result.output, result.cost) == ("whole", "whole", 70)
    assert (told.value.answer.output, told.value.charged) == ("whole", "yes")
    assert (statement.reserved, statement.held, statement.settled) == (0, 0, 140)
