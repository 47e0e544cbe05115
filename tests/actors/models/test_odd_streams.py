"""Streams of providers that keep to the protocol in their own way, or not at all: what is made of them, and charged."""

from __future__ import annotations

import asyncio
import json

import pytest

from actors import Market, Supervisor
from actors.errors import AllProvidersFailed, StreamBroken
from actors.ledger import GetStatement
from actors.model_calls import TextDelta
from actors.models import chat, chat_stream, compatible
from actors.tariffs import Tariff
from actors.transports.model_transport import ModelTransport
from actors.transports.streaming import CallStream, PieceChannel, StreamTerms
from actors.transports.transport import ProviderCall
from runtime import ActorSystem
from tests.actors.model_calls.streams import STREAMS
from tests.actors.transports.http_upstream import Upstream, answer

pytestmark = pytest.mark.real_time

WHOLE = {"model": "m", "choices": [{"index": 0, "message": {"content": "Hi"}, "finish_reason": "stop"}]}


@pytest.fixture
async def upstream():
    upstream = Upstream()
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0)
    upstream.port = server.sockets[0].getsockname()[1]
    yield upstream
    await upstream.stop()
    server.close()


@pytest.fixture
async def supervisor(upstream):
    async with ActorSystem("chats", log=False) as system:
        url = f"http://127.0.0.1:{upstream.port}/v1"
        listing = compatible("m", preset="vllm", base_url=url, name="alder", price="0.01", timeout=5.0, paid=True)
        yield system.spawn(lambda: Supervisor(Market(providers=[listing])))


def events(*given, done=True, **headers):
    given = [one if isinstance(one, bytes) else json.dumps(one).encode() for one in given]
    lines = [b"data: " + one + b"\n\n" for one in (*given, *([b"[DONE]"] if done else []))]
    return answer(200, b"".join(lines), content_type="text/event-stream", **headers)


def chunk(index=0, finish=None, **delta):
    return {"choices": [{"index": index, "delta": delta, "finish_reason": finish}]}


async def read(supervisor, **options):
    async with chat_stream(supervisor, messages="Hello", timeout=3.0, **options) as stream:
        return [piece async for piece in stream], stream.result


async def test_an_answer_that_is_no_stream_is_given_whole_and_paid_once(upstream, supervisor):
    upstream.script = [answer(200, WHOLE), answer(200, b"\xef\xbb\xbf\n " + json.dumps(WHOLE).encode())]
    for _ in range(2):
        pieces, result = await read(supervisor)
        assert (pieces, result.text, str(result.cost)) == ([TextDelta("Hi")], "Hi", "$0.01")
    assert len(upstream.requests) == 2


async def test_a_refusal_with_200_that_is_no_stream_is_a_refusal(upstream, supervisor):
    error = {"message": "You exceeded your current quota", "code": "insufficient_quota"}
    upstream.script = [answer(200, {"error": error})]
    with pytest.raises(AllProvidersFailed, match="no money or quota is left") as told:
        await read(supervisor)
    assert told.value.charged == "no"
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (events(), "it has no choices"),
        (events({"usage": {"prompt_tokens": 1}}), "it has no choices"),
        (answer(200, {"surprise": 1}), "it has no choices"),
        (answer(200, b"[1, 2]"), "no JSON object"),
        (answer(200, b"{"), "malformed"),
        (answer(200, b"{" + b" " * 5_000_000), "more than 4194304 bytes"),
        (events(*[{"choices": [], "pad": "x" * 100_000}] * 50), "more than 4194304 bytes"),
        (answer(200, b"<html></html>"), "the stream ended before the answer was whole"),
    ],
)
async def test_what_is_no_answer_is_malformed_and_no_bug(upstream, supervisor, reply, says):
    upstream.script = [reply, reply, reply, reply, reply, reply]
    with pytest.raises(AllProvidersFailed) as told:
        await read(supervisor)
    assert says in told.value.attempts[0].error
    assert "Bug" not in told.value.attempts[0].error
    statement = await supervisor.ask(GetStatement(), timeout=5.0)
    assert (statement.reserved, statement.held) == (0, 0)


async def test_an_answer_without_end_is_cut_off_at_the_bound_of_a_reply(upstream, supervisor):
    upstream.script = [events(*[chunk(content="x" * 100_000)] * 50)]
    with pytest.raises(StreamBroken, match="more than 4194304 bytes"):
        await read(supervisor)


async def test_what_comes_behind_the_end_of_a_stream_is_no_part_of_its_answer(upstream, supervisor):
    late = [chunk(content="late", finish="length")]
    upstream.script = [events(chunk(content="Hi", finish="stop"), b"[DONE]", *late)]
    pieces, result = await read(supervisor)
    assert (pieces, result.text, result.finish_reason) == ([TextDelta("Hi")], "Hi", "stop")


async def test_an_empty_error_is_none(upstream, supervisor):
    upstream.script = [events({**chunk(content="Hi", finish="stop"), "error": error}) for error in ("", {}, None)]
    for _ in range(3):
        _, result = await read(supervisor)
        assert result.text == "Hi"


async def test_an_answer_that_is_whole_stands_though_its_time_is_up_before_its_body_ends(upstream, supervisor):
    reply = events(chunk(content="Hi", finish="stop")).replace(b"Content-Length: ", b"Content-Length: 9")
    upstream.script = [reply + Upstream.HANG]
    async with chat_stream(supervisor, messages="Hello", timeout=0.2) as stream:
        assert [piece async for piece in stream] == [TextDelta("Hi")]
    assert stream.result.text == "Hi"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"messages": {"role": "user", "content": "x"}}, "messages must be"),
        ({"messages": ["x"]}, "messages must be"),
        ({"messages": b"x"}, "messages must be"),
        ({"messages": None}, "messages must be"),
        ({"messages": []}, "at least one message"),
        ({"messages": "x", "model": ""}, "model must be the name"),
        ({"messages": "x", "extra_body": "stream"}, "extra_body must be a dict"),
        ({"messages": "x", "stream": True}, "no option 'stream': use chat_stream"),
    ],
)
async def test_what_could_never_be_asked_is_refused_at_once(upstream, supervisor, given, says):
    for ask in (chat, chat_stream):
        with pytest.raises((TypeError, ValueError), match=says):
            await ask(supervisor, **given)
    assert not upstream.requests


class FullWire:
    """A wire that has no connection free."""

    async def send(self, request, progress):
        progress.waiting(1)
        await asyncio.Event().wait()

    async def aclose(self):
        pass


async def test_a_stream_that_is_cancelled_before_it_is_sent_costs_nothing():
    transport = ModelTransport("alder", "m", base_url="http://127.0.0.1:9/v1", paid=True, wire=FullWire())
    stream = CallStream(StreamTerms(sink=PieceChannel()), first=5.0)
    fields = {"service": "chat", "input": {"messages": [{"role": "user", "content": "Hi"}]}, "timeout": 5.0}
    call = ProviderCall(request_id="r", idempotency_key="k", max_cost="0.01", stream=stream, **fields)
    task = asyncio.create_task(transport.call(call))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert stream.partial.cost == 0


async def test_a_compressed_stream_is_named_as_such(upstream, supervisor):
    upstream.script = [events(chunk(content="Hi", finish="stop"), Content_Encoding="gzip")] * 6
    with pytest.raises(AllProvidersFailed, match=r"compressed \(gzip\), although only identity is accepted"):
        await read(supervisor)


@pytest.mark.parametrize("first", [[], [chunk(role="assistant", content="")]], ids=["at once", "after a role"])
async def test_an_error_inside_a_stream_before_its_first_piece_costs_nothing(upstream, supervisor, first):
    failed = events(*first, {"error": {"code": 502, "message": "upstream"}}, done=False)
    upstream.script = [failed, events(chunk(content="Hi", finish="stop"))]
    _, result = await read(supervisor)
    assert (result.text, str(result.cost), result.result.attempts) == ("Hi", "$0.01", 2)
    statement = await supervisor.ask(GetStatement(), timeout=5.0)
    assert (str(statement.settled), statement.reserved, statement.held) == ("$0.01", 0, 0)


BEHIND_THE_END = {
    "it broke off": Upstream.CLOSE,
    "silence": Upstream.HANG,
    "no JSON": b'data: {"choices": [], "usage": {"prompt_tokens": NaN}}\n\n' + Upstream.CLOSE,
    "too long": b"data: " + b"x" * 5_000_000 + Upstream.CLOSE,
}


@pytest.mark.parametrize("what", BEHIND_THE_END)
@pytest.mark.parametrize("preset", ["vllm", "anthropic"])
async def test_an_answer_that_is_whole_stands_whatever_becomes_of_its_last_events(upstream, what, preset):
    came = [chunk(content="Hi"), chunk(finish="stop")]
    if preset == "anthropic":
        came = STREAMS["messages"][:-1]
    body = b"".join(b"data: " + json.dumps(one).encode() + b"\n\n" for one in came) + BEHIND_THE_END[what]
    upstream.script = [b"HTTP/1.1 200 X\r\n\r\n" + body]
    url = f"http://127.0.0.1:{upstream.port}/v1"
    listing = compatible(
        "m", preset=preset, base_url=url, name="alder", tariff=Tariff(input="100"), api_key="k", paid=True
    )
    async with ActorSystem("chats", log=False) as system:
        supervisor = system.spawn(lambda: Supervisor(Market(providers=[listing])))
        pieces, result = await read(supervisor, max_tokens=20, gap=0.2)
        statement = await supervisor.ask(GetStatement(), timeout=5.0)
    assert result.text == "".join(piece.text for piece in pieces if isinstance(piece, TextDelta)) != ""
    assert result.finish_reason == ("tool_calls" if preset == "anthropic" else "stop")
    assert statement.estimated == (0 if preset == "anthropic" else result.cost)
    assert statement.settled == result.cost > 0
    assert (statement.reserved, statement.held) == (0, 0)


async def test_an_answer_of_several_is_not_whole_before_the_last_has_ended(upstream, supervisor):
    body = b"".join(
        b"data: " + json.dumps(one).encode() + b"\n\n" for one in [chunk(content="Hi"), chunk(finish="stop")]
    )
    upstream.script = [b"HTTP/1.1 200 X\r\n\r\n" + body + Upstream.CLOSE]
    with pytest.raises(StreamBroken, match="before the answer was whole"):
        await read(supervisor, n=2)
