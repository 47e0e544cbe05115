"""A fake server as a client sees it: answers, streams, books, and a clean end."""

from __future__ import annotations

import asyncio
from fractions import Fraction

import aiohttp
import pytest

from actors.fake import FakeConfig, FakeModel, FakePrice, FakeServer, fake_server
from tests.actors.fake.calls import asks, call, until_busy

pytestmark = pytest.mark.real_time

PRICE = FakePrice(input="0.25", output="2")
CONFIG = FakeConfig(models=(FakeModel(name="m", price=PRICE),))
SLOW = FakeConfig(models=(FakeModel(name="m", price=PRICE, latency=3600.0),))
TRICKLE = FakeConfig(models=(FakeModel(name="m", price=PRICE, token_speed=20.0, output_tokens=10_000.0),))


async def test_an_answer_is_charged_to_the_fraction():
    async with fake_server(CONFIG) as server:
        got = await call(server, asks())
        await server.until_idle()
    usage = got.json["usage"]
    assert got.status == 200
    assert got.json["choices"][0]["finish_reason"] == "stop"
    (line,) = server.books.lines
    assert line.charged == Fraction(usage["prompt_tokens"], 4_000_000) + Fraction(usage["completion_tokens"], 500_000)
    assert line.answered
    assert line.request_id == got.headers["x-request-id"]
    assert line.id == got.json["id"]


async def test_a_stream_has_the_pieces_of_one_text_and_ends_with_usage_and_done():
    async with fake_server(CONFIG) as server:
        got = await call(server, asks(stream=True, stream_options={"include_usage": True}))
    *chunks, usage, done = got.events
    assert done == "[DONE]"
    assert got.headers["content-type"].startswith("text/event-stream")
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == sum(bool(one["choices"][0]["delta"].get("content")) for one in chunks)
    assert {one["usage"] for one in chunks} == {None}
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


async def test_no_usage_is_told_in_a_stream_that_does_not_ask_for_it():
    async with fake_server(CONFIG) as server:
        got = await call(server, asks(stream=True))
        await server.until_idle()
    assert all("usage" not in one for one in got.events[:-1])
    assert server.books.charged > 0


async def test_equal_seeds_answer_alike_whatever_the_order():
    async with fake_server(CONFIG) as first, fake_server(CONFIG) as second:
        one = [await call(first, asks(text)) for text in "abc"]
        other = [await call(second, asks(text)) for text in "cba"]
    for here, there in zip(one, reversed(other), strict=True):
        assert here.json["choices"] == there.json["choices"]
        assert here.json["id"] == there.json["id"]


async def test_the_books_are_told_by_http():
    async with fake_server(CONFIG) as server:
        await call(server, asks(user="alice"))
        await call(server, asks(user="bob"))
        books = (await call(server, None, path="/books", method="GET")).json
        later = (await call(server, None, path="/books?since=1", method="GET")).json
    assert [row["tenant"] for row in books["by_caller"]] == ["alice", "bob"]
    assert {row["key"] for row in books["by_caller"]}.isdisjoint({"", "sk-test"})
    assert Fraction(books["total"]["charged"]) == server.books.charged
    assert Fraction(books["total"]["charged_micros"]) == server.books.charged * 1_000_000
    assert [line["tenant"] for line in later["calls"]] == ["bob"]


async def test_a_key_that_is_not_listed_is_refused():
    async with fake_server(FakeConfig(models=CONFIG.models, keys={"alice": "sk-test"})) as server:
        right = await call(server, asks())
        wrong = await call(server, asks(), authorization="Bearer sk-other")
        await server.until_idle()
    assert (right.status, wrong.status) == (200, 401)
    assert wrong.json["error"]["code"] == "invalid_api_key"
    assert [line.key for line in server.books.lines] == ["alice", ""]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, None),
        (b"[]", 400, None),
        ({"model": "m"}, 400, None),
        (asks(model="other"), 404, "model_not_found"),
        (asks(best_of=3), 400, None),
        (asks(max_tokens=100_000), 400, "invalid_value"),
        (asks("word " * 200_000), 400, "context_length_exceeded"),
        (asks(stream_options={"include_usage": True}), 400, None),
    ],
)
async def test_a_bad_request_is_refused_and_not_charged(body: object, status: int, code: str | None):
    async with fake_server(CONFIG) as server:
        got = await call(server, body)
        await server.until_idle()
    assert (got.status, got.json["error"]["code"]) == (status, code)
    assert server.books.charged == 0


async def test_a_client_that_leaves_before_the_first_token_owes_the_input_alone():
    async with fake_server(SLOW) as server:
        asking = asyncio.ensure_future(call(server, asks()))
        await until_busy(server)
        asking.cancel()
        await server.until_idle()
    (line,) = server.books.lines
    assert (line.cancelled, line.answered, line.usage.output) == (True, False, 0)
    assert line.charged == Fraction(line.usage.input, 4_000_000)


@pytest.mark.parametrize("on_cut", ["stops", "runs_on"])
async def test_a_client_that_leaves_in_mid_stream_owes_what_came_or_all(on_cut: str):
    model = FakeModel(name="m", price=PRICE, token_speed=20.0, output_tokens=1000.0, on_cut=on_cut)  # type: ignore[arg-type]
    async with (
        fake_server(FakeConfig(models=(model,))) as server,
        aiohttp.ClientSession() as session,
        session.post(f"{server.url}/v1/chat/completions", json=asks(stream=True)) as response,
    ):
        await response.content.readuntil(b"\n\n")
        response.close()
        await server.until_idle()
    (line,) = server.books.lines
    assert line.cancelled
    assert line.usage.output == 1000 if on_cut == "runs_on" else line.usage.output < 1000


async def test_stopping_ends_the_calls_under_way():
    async with fake_server(SLOW) as server:
        asking = asyncio.ensure_future(call(server, asks()))
        await until_busy(server)
    with pytest.raises(aiohttp.ClientError):
        await asking
    assert server.books.under_way == 0


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "example.com", "::"])
def test_no_other_interface_than_loopback_is_listened_on(host: str):
    with pytest.raises(ValueError, match="loopback"):
        FakeServer(host=host)


async def test_many_servers_run_in_one_process_each_with_its_own_books():
    async with fake_server(CONFIG) as first, fake_server(CONFIG) as second:
        assert first.url != second.url
        await call(first, asks())
        await first.until_idle()
        assert (first.books.calls, second.books.calls) == (1, 0)


async def test_an_unknown_path_is_404_in_openai_s_words():
    async with fake_server(CONFIG) as server:
        got = await call(server, {}, path="/v1/nothing")
    assert (got.status, got.json["error"]["code"]) == (404, "unknown_url")
