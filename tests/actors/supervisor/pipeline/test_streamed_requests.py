"""Streams of requests to transports of one's own: what they cost, and what their consumers see, however they end."""

from __future__ import annotations

import asyncio

import pytest

from actors import (
    FunctionTransport,
    GetStatus,
    Listing,
    Market,
    Provider,
    ProviderFilter,
    ProviderReply,
    RequestOptions,
    Retry,
    Supervisor,
    Transient,
)
from actors.errors import CallFailed, OutcomeUnknown, StreamBroken
from actors.ledger import GetStatement
from actors.money import Micros
from actors.supervisor import smart_stream
from actors.transports.reconciliation import Answered
from actors.transports.streaming import Restarted, StreamConfig, WholeAnswer
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


def free(name, handler, **options):
    transport = FunctionTransport(handler, paid=False, idempotent="repeatable")
    provider = Provider(name=name, services={"s"}, response_time=0.1)
    return Listing(provider=provider, transport=lambda: transport, **options)


def writing(first, interval, pieces=20):
    async def write(call):
        for number in range(pieces):
            await asyncio.sleep(interval if number else first)
            await call.stream.put(number)
        return "done"

    return write


@pytest.mark.parametrize(("own_time", "is_closed"), [(10.0, True), (1.0, False)])
async def test_a_request_that_waits_less_for_the_first_piece_blames_no_provider(own_time, is_closed):
    async with ActorSystem("streams", log=False) as system:
        listing = free("alder", writing(3.0, 0.0), timeout=own_time)
        # A retry would have less time than `first`, by the deadline of its request.
        supervisor = system.spawn(lambda: Supervisor(Market(providers=[listing], retry=Retry(max_retries=0))))
        for _ in range(10):
            with pytest.raises(CallFailed):
                await read(supervisor, timeout=1.5, first=1.0 if is_closed else None)
        (status,) = await supervisor.ask(GetStatus(), timeout=5.0)
        assert (status.breaker == "closed") is is_closed
        if is_closed:
            assert (await read(supervisor, timeout=9.0, first=5.0))[1].output == "done"


async def test_a_provider_that_does_not_begin_in_time_for_its_request_is_passed_by():
    async with ActorSystem("streams", log=False) as system:
        listings = [free("alder", writing(3.0, 0.0)), free("birch", writing(0.1, 0.0))]
        supervisor = system.spawn(lambda: Supervisor(Market(providers=listings)))
        _, result = await read(supervisor, first=1.0, timeout=9.0)
    assert (result.provider, result.latency < 2.0) == ("birch", True)


@pytest.mark.parametrize(("seconds", "is_whole"), [(None, False), (20.0, True), (1.0, False)])
async def test_the_time_of_a_whole_stream_is_the_markets_unless_its_request_says(seconds, is_whole):
    async with ActorSystem("streams", log=False) as system:
        market = Market(providers=[free("alder", writing(0.1, 0.5))], streams=StreamConfig(timeout=2.0))
        supervisor = system.spawn(lambda: Supervisor(market))
        began = asyncio.get_running_loop().time()
        try:
            await read(supervisor, timeout=seconds)
        except CallFailed:
            assert not is_whole
        else:
            assert is_whole
        assert (asyncio.get_running_loop().time() - began < 2.5) is not is_whole


@pytest.mark.parametrize("strategy", ["fastest", "balanced"])
async def test_the_fastest_for_a_stream_is_so_to_its_last_piece(strategy):
    async with ActorSystem("streams", log=False) as system:
        listings = [free("alder", writing(0.1, 0.5)), free("birch", writing(0.5, 0.05))]
        supervisor = system.spawn(lambda: Supervisor(Market(providers=listings)))
        for listing in listings:
            name = listing.provider.name
            only = RequestOptions(where=ProviderFilter(predicate=lambda one, name=name: one.name == name))
            await read(supervisor, timeout=60.0, options=only)
        options = RequestOptions(strategy=strategy)
        later = [(await read(supervisor, timeout=60.0, options=options))[1].provider for _ in range(5)]
    assert later == ["birch"] * 5


async def cut_after_a_second(call):
    call.stream.commit()  # Whatever its transport thinks of what came: the consumer says what it acts on.
    await call.stream.put("void")
    await asyncio.sleep(1.0)
    raise Transient("cut", outcome="not_started", charged="no")


async def whole(call):
    await call.stream.put("whole")
    return "whole"


@pytest.mark.parametrize("key", [None, "k"])
@pytest.mark.parametrize("commits_after", [0.5, 1.5])
async def test_a_stream_begins_anew_until_its_consumer_commits(commits_after, key):
    async with ActorSystem("streams", log=False) as system:
        listings = [listed("alder", cut_after_a_second), listed("birch", whole)]
        supervisor = system.spawn(lambda: Supervisor(Market(providers=listings)))
        options = {"after_cut": "restart_unseen", "idempotency_key": key, "options": RequestOptions(strategy="best")}
        async with smart_stream(supervisor, service="s", input="x", **options) as stream:
            assert await anext(stream) == "void"
            await asyncio.sleep(commits_after)
            assert stream.commit() is (commits_after < 1.0)
            if commits_after < 1.0:
                with pytest.raises(StreamBroken):
                    await anext(stream)
            else:
                rest = [piece async for piece in stream]
                assert [type(rest[0]), *rest[1:]] == [Restarted, "whole"]
                assert stream.result.provider == "birch"
