"""Servers that send without end: each call of them ends in time and in its type, and in little memory."""

from __future__ import annotations

import asyncio
import contextlib
import json
import tracemalloc

import pytest

from actors import Market, Supervisor
from actors.errors import CallFailed
from actors.ledger import GetStatement
from actors.models import chat, chat_stream, compatible
from actors.tariffs import Tariff
from runtime import ActorSystem
from tests.real_time import FAR

pytestmark = pytest.mark.real_time

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
MOST_MEGABYTES = 40
"""A body has 4 MB at most, which is kept, joined and decoded."""


def chunked(data):
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(**delta):
    return b"data: " + json.dumps({"choices": [{"index": 0, "delta": delta}]}).encode() + b"\n\n"


def calls_of_tools(number):
    return event(tool_calls=[{"index": number, "id": "t", "function": {"name": "f", "arguments": "{}"}}])


ENDLESS = {
    "headers": (b"HTTP/1.1 200 OK\r\n", b"X-Name: %b\r\n" % (b"x" * 1_000)),
    "informational answers": (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 100),
    "comments": (HEAD, chunked(b": ping\n\n" * 1_000)),
    "blank lines": (HEAD, chunked(b"\n" * 10_000)),
    "a line": (HEAD + chunked(b"data: "), chunked(b"x" * 60_000)),
    "a comment": (HEAD + chunked(b": "), chunked(b"x" * 60_000)),
    "pieces that say nothing": (HEAD, chunked(event(role="assistant") * 200)),
    "text": (HEAD, chunked(event(content="x" * 10_000) * 10)),
    "an extension of a chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;", b"x" * 60_000),
    "a refusal": (HEAD.replace(b"200 OK", b"429 X"), chunked(b"x" * 10_000)),
    "blanks": (HEAD, chunked(b" " * 10_000)),
    "calls of tools": (HEAD, chunked(b"".join(map(calls_of_tools, range(200))))),
}
"""How each answer begins, and what it goes on with."""


@contextlib.asynccontextmanager
async def server_of(begin, more):
    """Serve an answer that goes on until its client leaves; yields the URL, and how many connections are open."""
    serving = set()

    async def serve(reader, writer):
        serving.add(asyncio.current_task())
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(begin)
            while True:
                writer.write(more)
                await writer.drain()
        serving.discard(asyncio.current_task())
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", serving
    server.close()


async def whole(supervisor):
    await chat(supervisor, messages="Hello", max_tokens=20, timeout=0.5)


async def as_stream(supervisor):
    async with chat_stream(supervisor, messages="Hello", max_tokens=20, timeout=0.5) as stream:
        async for _ in stream:
            pass


@pytest.mark.parametrize("ask", [whole, as_stream])
@pytest.mark.parametrize("what", ENDLESS)
async def test_an_answer_without_end_is_given_up(what, ask):
    tracemalloc.start()
    async with server_of(*ENDLESS[what]) as (url, serving), ActorSystem("hostile", log=False) as system:
        listing = compatible("m", base_url=url, tariff=Tariff(input="1", output="1"), timeout=0.2)
        supervisor = system.spawn(lambda: Supervisor(Market(providers=[listing])))
        with pytest.raises(CallFailed):
            await asyncio.wait_for(ask(supervisor), FAR)
        statement = await supervisor.ask(GetStatement(), timeout=FAR)
        while serving:  # noqa: ASYNC110 - it is the system that would say so.
            await asyncio.sleep(0)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert statement.reserved == 0
    assert most < MOST_MEGABYTES * 1_000_000
