"""What attackers send over sockets: each connection is answered or closed, and nothing was called or is left."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from actors.ledger.messages import GetStatement
from actors.serve import DoorConfig, door_protocol
from actors.serve.app import DoorApp
from actors.serve.server import DoorServer
from tests.actors.serve.doors import HELLO, Stage, serving

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

pytestmark = pytest.mark.real_time
BODY = json.dumps({"model": "auto", "messages": HELLO}).encode()
SHORT = DoorConfig(body_timeout=0.05, patience=0.05)
LINE = b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\n"
JSON = b"content-type: application/json\r\n"


def request(*headers: bytes, body: bytes = BODY, line: bytes = LINE, length: bytes | None = None) -> bytes:
    sized = (b"content-length: %b" % (b"%d" % len(body) if length is None else length),) if length != b"" else ()
    return line + JSON + b"".join(one + b"\r\n" for one in (*sized, *headers)) + b"\r\n" + body


@asynccontextmanager
async def door(config: DoorConfig | None = None) -> AsyncGenerator[tuple[Stage, int]]:
    async with serving("swift", config=config) as stage, DoorServer(stage.door, DoorApp(stage.door), port=0) as server:
        yield stage, server.port
        assert stage.door.under_way == 0
        assert (stage.door.room.held, stage.door.places.bound.count) == (0, 0)
        money = await stage.ledger.ask(GetStatement(), timeout=5.0)
        assert (money.reserved, money.held) == (0, 0)


async def exchange(port: int, *parts: bytes, cuts: bool = False) -> bytes:
    """Send parts, cut the connection or wait until it is closed, and return all that came."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
        if cuts:
            writer.transport.abort()
            return b""
        return await asyncio.wait_for(reader.read(), 10.0)
    except ConnectionError:
        return b""
    finally:
        writer.close()


CLOSE = b"connection: close"
CHUNKED = b"transfer-encoding: chunked"
CHUNKS = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
NEXT = request(CLOSE)


@pytest.mark.parametrize(
    "hostile",
    [
        request(CHUNKED, body=CHUNKS),  # Two lengths: what a proxy takes for one request, another takes for two.
        request(b"content-length: 3"),
        request(length=b"-1"),
        request(length=b"+5"),
        request(length=b"5, 5"),
        request(length=b"0x10"),
        request(b"transfer-encoding: chunked, identity", length=b"", body=CHUNKS),
        request(b"transfer-encoding: xchunked", length=b"", body=CHUNKS),
        request(CHUNKED, length=b"", body=b"fffffffffffffffff\r\n" + BODY),
        request(CHUNKED, length=b"", body=b"-5\r\n" + BODY),
        request(b"x y: z"),
        request(b"x\x00y: z"),
        request(b" folded: z"),
        b"POST /v1/chat/completions HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 60,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
async def test_what_could_be_read_in_two_ways_is_refused_and_ends_its_connection(hostile: bytes):
    async with door(SHORT) as (stage, port):
        said = await exchange(port, hostile, NEXT)
        assert said.startswith((b"HTTP/1.1 400", b"HTTP/1.1 408"))
        assert said.count(b"HTTP/1.1 ") == 1
        assert stage.calls == 0


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (request(CLOSE, b"authorization: Bearer a", b"authorization: Bearer b"), 400),
        (request(CLOSE, b"host: evil.example"), 400),
        (request(CLOSE, b"x-understudy-timeout: 1", b"x-understudy-timeout: 2"), 400),
        (request(CLOSE, b"content-type: text/plain"), 400),
        (request(CLOSE, line=LINE.replace(b"127.0.0.1", b"evil.example")), 403),
        (request(CLOSE, line=b"POST /v1/chat/completions HTTP/1.1\r\n"), 403),
        (request(CLOSE, line=b"OPTIONS /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\n"), 404),
        (request(CLOSE, line=b"DELETE /v1/models HTTP/1.1\r\nhost: 127.0.0.1\r\n"), 404),
        (request(CLOSE, line=b"POST /v1/../v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\n"), 404),
        (request(CLOSE, line=b"POST //v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\n"), 404),
        (request(CLOSE, line=b"POST /v1/services/%2e%2e/x HTTP/1.1\r\nhost: 127.0.0.1\r\n"), 404),
        (request(CLOSE, line=b"POST /v1/services/%ff%00 HTTP/1.1\r\nhost: 127.0.0.1\r\n"), 404),
        (request(CLOSE, body=b'{"model": "\xff"}'), 400),
        (request(CLOSE, body=b"[" * 100_000), 400),
        (request(CLOSE, body=b'{"a":' * 101 + b"1" + b"}" * 101), 400),
        (request(CLOSE, CHUNKED, length=b"", body=b"2\r\n{}\r\n0\r\n\r\n"), 400),
        (request(CLOSE, length=b"99999999999999"), 413),
        (
            request(b"upgrade: websocket", b"connection: upgrade, close", line=LINE.replace(b"POST", b"GET"), body=b""),
            404,
        ),
    ],
)
async def test_what_is_not_spoken_or_not_let_in_is_told_so_and_calls_nothing(sent: bytes, status: int):
    async with door(SHORT) as (stage, port):
        said = await exchange(port, sent)
        assert said.startswith(b"HTTP/1.1 %d" % status)
        assert stage.calls == 0


async def test_a_head_without_its_body_says_so_and_a_head_of_get_has_none():
    async with door() as (_, port):
        line = b"%b /v1/models HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n"
        got, head = [await exchange(port, line % method) for method in (b"GET", b"HEAD")]
        assert got.startswith(b"HTTP/1.1 200")
        assert got.partition(b"\r\n\r\n")[2]
        assert head.partition(b"\r\n\r\n")[2] == b""


async def test_requests_in_one_packet_are_answered_one_after_another():
    async with door() as (stage, port):
        said = await exchange(port, request() * 5 + NEXT)
        assert said.count(b"HTTP/1.1 200 OK") == 6
        assert stage.calls == 6


@pytest.mark.parametrize("upgrade", [b"h2c", b"websocket", b"tls/1.0"])
async def test_an_upgrade_that_is_not_made_is_an_ordinary_request(upgrade: bytes):
    async with door() as (stage, port):
        asked = request(b"upgrade: " + upgrade, b"connection: upgrade, http2-settings", b"http2-settings: AAMAAABk")
        said = await exchange(port, asked, asked + NEXT)
        assert said.count(b"HTTP/1.1 200 OK") == stage.calls == 3


@pytest.mark.parametrize(
    "begun",
    [
        request(length=b"5000"),
        request(CHUNKED, length=b"", body=b"5\r\n{"),
        request(CHUNKED, length=b"", body=b"%x\r\n%b\r\n" % (len(BODY), BODY)),
        LINE,
        b"PO",
    ],
)
async def test_a_request_that_is_cut_off_leaves_nothing_behind(begun: bytes):
    async with door() as (stage, port):
        await exchange(port, begun, cuts=True)
        assert (await exchange(port, NEXT)).startswith(b"HTTP/1.1 200")
        assert stage.calls == 1


async def test_a_body_that_trickles_is_cut_at_its_time():
    async with door(SHORT) as (stage, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request(length=b"5000", body=b"{"))
        said = await asyncio.wait_for(reader.read(), 10.0)
        assert said.startswith(b"HTTP/1.1 408")
        writer.close()
        assert stage.calls == 0


@pytest.mark.parametrize("before", [b"", request()])
@pytest.mark.parametrize(
    ("head", "said"), [(b"POST /v1/chat", b"408"), (b"GET / HTTP/1.1\r\n" + b"x: %b\r\n" % (b"y" * 9_000) * 9, b"431")]
)
async def test_a_head_that_does_not_end_is_cut_off(
    monkeypatch: pytest.MonkeyPatch, before: bytes, head: bytes, said: bytes
):
    if said == b"408":
        monkeypatch.setattr(door_protocol, "HEAD_SECONDS", 0.05)
    async with door() as (stage, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(before)
        if before:
            assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200")
        for at in range(0, len(head), 1_000):
            writer.write(head[at : at + 1_000])
            await writer.drain()
        rest = await asyncio.wait_for(reader.read(), 10.0)
        assert b"HTTP/1.1 " + said in rest
        writer.close()
        assert stage.calls == (1 if before else 0)


async def test_a_silent_connection_is_closed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(door_protocol, "HEAD_SECONDS", 0.05)
    async with door() as (_, port):
        assert (await exchange(port)).startswith(b"HTTP/1.1 408")
