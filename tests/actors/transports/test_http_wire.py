"""The wire on aiohttp: how far a request has come, what a cancellation leaves behind, and what is never done."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import ipaddress
import random
import socket
import ssl
import struct
import time
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from actors.errors.families import ConnectionFailed, OutcomeUnknown, Transient
from actors.transports.aiohttp_wire import AiohttpWire
from actors.transports.http import HttpTransport
from actors.transports.wire import WireProgress, WireRequest
from tests.actors.transports.http_upstream import Upstream, a_call, answer, failure

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.real_time

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{"
LARGE = "x" * 30_000_000
"""More than the buffers of a connection take while the server does not read."""


@pytest.fixture
async def wire() -> AsyncIterator[AiohttpWire]:
    wire = AiohttpWire(max_connections=2)
    yield wire
    await wire.aclose()


@pytest.fixture
def full_socket() -> Iterator[str]:
    """The URL of a socket whose queue is full, so that a further connection is never made."""
    with socket.socket() as listening, contextlib.ExitStack() as stack:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)  # noqa: FBT003 - its only parameter.
            filler.connect_ex(listening.getsockname())
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"


class SilentServer:
    """Accepts connections and never reads from them; tells when they are closed."""

    def __init__(self) -> None:
        self.accepted: list[socket.socket] = []
        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 0))
        self.socket.listen(100)
        self.socket.setblocking(False)  # noqa: FBT003 - its only parameter.
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}/"

    async def accept(self) -> None:
        loop = asyncio.get_running_loop()
        self.accepted.append((await asyncio.wait_for(loop.sock_accept(self.socket), 5))[0])

    async def has_lost_its_client(self) -> None:
        """Read what came, until the client's end of the connection."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(5):
            with contextlib.suppress(ConnectionError):
                while await loop.sock_recv(self.accepted[-1], 1_000_000):
                    pass

    def close(self) -> None:
        for one in (self.socket, *self.accepted):
            one.close()


@pytest.fixture
def silent() -> Iterator[SilentServer]:
    server = SilentServer()
    yield server
    server.close()


def post(url: str, body: bytes = b"{}") -> WireRequest:
    return WireRequest("POST", url, {"Content-Type": "application/json"}, body)


async def body_of(wire: AiohttpWire, request: WireRequest) -> bytes:
    response = await wire.send(request, WireProgress())
    try:
        return b"".join([chunk async for chunk in response.chunks()])
    finally:
        response.close()


def at_rest(wire: AiohttpWire) -> bool:
    """Tell whether nothing is counted as busy, neither by the wire nor by the pool of aiohttp."""
    pool = wire._session.connector if wire._session else None
    return not (
        wire._under_way
        or wire._free._value != wire._max_connections
        or wire._free._waiters
        or (pool and (pool._acquired or pool._acquired_per_host or pool._waiters))
    )


async def no_tasks_are_left() -> None:
    def of_aiohttp() -> list[asyncio.Task[Any]]:
        return [task for task in asyncio.all_tasks() if "aiohttp" in str(task) or "write_bytes" in str(task)]

    for _ in range(10):  # A task that was cancelled needs a turn of the loop to end.
        if of_aiohttp():
            await asyncio.sleep(0)
    assert of_aiohttp() == []


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def given_up(wire: AiohttpWire, request: WireRequest, stage: str, reached: Callable[[], Any] = turns) -> None:
    """Send, wait until the request has come so far, and cancel it."""
    progress = WireProgress()
    task = asyncio.create_task(wire.send(request, progress))
    await reached()
    for _ in range(1_000):
        if progress.stage != stage:
            await asyncio.sleep(0)
    assert progress.stage == stage
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_cancelled_while_it_waits_for_a_place(upstream, wire):
    upstream.script = [Upstream.HANG, Upstream.HANG, answer(200, b"next")]
    busy = [asyncio.create_task(wire.send(post(upstream.url), WireProgress())) for _ in range(2)]
    await upstream.has_had(2)
    await given_up(wire, post(upstream.url), "waiting")
    for task in busy:
        task.cancel()
    await asyncio.gather(*busy, return_exceptions=True)
    assert len(upstream.requests) == 2
    assert await body_of(wire, post(upstream.url)) == b"next"
    assert at_rest(wire)
    await no_tasks_are_left()


async def test_cancelled_while_it_connects(wire, full_socket):
    await given_up(wire, post(full_socket), "connecting")
    assert at_rest(wire)
    await no_tasks_are_left()


async def test_cancelled_in_a_tls_handshake_the_server_sees_it(wire, silent):
    await given_up(wire, post(silent.url.replace("http:", "https:")), "connecting", silent.accept)
    await silent.has_lost_its_client()
    assert at_rest(wire)


async def test_cancelled_while_a_large_body_is_sent_the_server_sees_it(wire, silent):
    await given_up(wire, post(silent.url, LARGE.encode()), "sent", silent.accept)
    await silent.has_lost_its_client()
    assert at_rest(wire)
    await no_tasks_are_left()


async def test_cancelled_while_it_waits_for_the_head_the_server_sees_it(upstream, wire):
    upstream.script = [Upstream.HANG]
    await given_up(wire, post(upstream.url), "sent", lambda: upstream.has_had(1))
    await asyncio.wait_for(upstream.closed_by_client.wait(), 5)
    assert at_rest(wire)
    await no_tasks_are_left()


async def test_a_response_closed_before_its_end_closes_its_connection_and_the_server_sees_it(upstream, wire):
    upstream.script = [HEAD + Upstream.HANG]
    response = await wire.send(post(upstream.url), WireProgress())
    chunks = response.chunks()
    assert [await anext(chunks)] == [b"{"]
    assert not at_rest(wire)
    response.close()
    response.close()
    await asyncio.wait_for(upstream.closed_by_client.wait(), 5)
    assert at_rest(wire)
    with pytest.raises(ConnectionError):
        await anext(chunks)


async def test_chunks_come_as_they_are_sent_and_a_gap_is_noticed(upstream, wire):
    upstream.script = [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n" + Upstream.HANG]
    response = await wire.send(post(upstream.url), WireProgress())
    chunks = response.chunks(gap=0.1)
    assert await anext(chunks) == b"one"
    with pytest.raises(TimeoutError, match=r"no chunk within 0.1 s"):
        await anext(chunks)
    response.close()
    assert at_rest(wire)


async def test_a_body_that_breaks_off_is_an_error_and_its_connection_is_gone(upstream, wire):
    upstream.script = [HEAD + Upstream.CLOSE, answer(200, b"next")]
    with pytest.raises(ConnectionError, match="not completed"):
        await body_of(wire, post(upstream.url))
    assert at_rest(wire)
    assert await body_of(wire, post(upstream.url)) == b"next"


async def test_a_connection_that_its_server_has_closed_is_not_used_again(upstream, wire):
    upstream.script = [answer(200, b"one"), answer(200, b"two")]
    assert await body_of(wire, post(upstream.url)) == b"one"
    # The server closes; the loop has not looked at the socket since, and still trusts it.
    upstream.writers[0].get_extra_info("socket").shutdown(socket.SHUT_RDWR)
    progress = WireProgress()
    response = await wire.send(post(upstream.url), progress)
    assert [chunk async for chunk in response.chunks()] == [b"two"]
    assert (progress.wire_calls, upstream.connections, len(upstream.requests)) == (1, 2, 2)
    response.close()
    assert at_rest(wire)


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_request_that_was_lost_is_never_sent_again(upstream, wire, method):
    upstream.script = [answer(200, b"one"), Upstream.CLOSE, answer(200, b"wrong")]
    request = WireRequest(method, upstream.url)
    assert await body_of(wire, request) == b"one"
    with pytest.raises(ConnectionError):
        await wire.send(request, WireProgress())
    assert (len(upstream.requests), upstream.connections) == (2, 1)
    assert at_rest(wire)


async def test_nothing_is_done_by_itself(upstream, wire, monkeypatch, tmp_path):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9/")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9/")
    upstream.script = [answer(302, b"", Location="/elsewhere", Set_Cookie="a=b")] * 2
    for _ in range(2):
        response = await wire.send(post(upstream.url), WireProgress())
        assert response.status == 302
        response.close()
    assert [first for first, _, _ in upstream.requests] == ["POST /v1/work HTTP/1.1"] * 2
    for _, headers, _ in upstream.requests:
        assert not {"cookie", "authorization", "proxy-authorization"} & set(headers)


async def test_a_compressed_body_stays_as_it_was_sent_and_repeated_headers_are_joined(upstream, wire):
    zipped = b"\x1f\x8bnot even gzip"
    limits = b"RateLimit: a;r=1\r\nRATELIMIT: b;r=2\r\n"
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n" + limits + b"Content-Length: 15\r\n\r\n"
    upstream.script = [head + zipped]
    response = await wire.send(post(upstream.url), WireProgress())
    assert response.headers["ratelimit"] == "a;r=1, b;r=2"
    assert [chunk async for chunk in response.chunks()] == [zipped]
    assert "a;r=1" not in repr(response)
    response.close()


async def test_a_long_head_is_read_and_an_endless_one_is_not(upstream, wire):
    upstream.script = [answer(200, b"one", X="a" * 30_000), answer(200, b"two", X="a" * 300_000)]
    assert await body_of(wire, post(upstream.url)) == b"one"
    with pytest.raises(ConnectionError):
        await body_of(wire, post(upstream.url))
    assert at_rest(wire)


async def test_idle_connections_are_closed_in_time_and_there_are_no_more_than_were_used_at_once(upstream):
    wire = AiohttpWire(max_connections=3, idle_timeout=0.2)
    upstream.script = [answer(200, b"x")] * 20
    await asyncio.gather(*[body_of(wire, post(upstream.url)) for _ in range(20)])
    assert 1 <= upstream.connections <= 3
    began = time.monotonic()
    _, still_open = await asyncio.wait(list(upstream._tasks), timeout=2)
    assert not still_open
    assert time.monotonic() - began > 0.1
    assert at_rest(wire)
    await wire.aclose()


async def test_closing_ends_what_is_under_way_and_what_waits(upstream, silent):
    wire = AiohttpWire(max_connections=2)
    upstream.script = [HEAD + Upstream.HANG]
    reading = asyncio.create_task(body_of(wire, post(upstream.url)))
    await upstream.has_had(1)
    sending = asyncio.create_task(body_of(wire, post(silent.url, LARGE.encode())))
    await silent.accept()
    waiting = asyncio.create_task(body_of(wire, post(upstream.url)))
    await turns()
    async with asyncio.timeout(5):
        await wire.aclose()
        await wire.aclose()
        ended = await asyncio.gather(reading, sending, waiting, return_exceptions=True)
    assert all(isinstance(one, ConnectionError) for one in ended), ended
    assert at_rest(wire)


@pytest.mark.parametrize("kind", ["upstream", "full", "tls", "large"])
async def test_a_storm_of_callers_that_give_up_leaves_the_pool_empty(upstream, silent, full_socket, kind):
    wire = AiohttpWire(max_connections=10)
    url = {"full": full_socket, "tls": silent.url.replace("http:", "https:")}.get(kind, upstream.url)
    upstream.script = [
        random.Random(n).choice([answer(200, b"x"), Upstream.HANG, HEAD + Upstream.HANG]) for n in range(2000)
    ]
    rng = random.Random(kind)

    async def give_up() -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(rng.uniform(0, 0.03)):
                await body_of(wire, post(url, b'"%b"' % LARGE[:400_000].encode() if kind == "large" else b"{}"))

    async with asyncio.timeout(60):
        for _ in range(6):
            await asyncio.gather(*[give_up() for _ in range(60)])
    assert at_rest(wire)
    # The server may still be at work on requests of callers that have left.
    upstream.script = [answer(200, b"next")] * 1_000
    async with asyncio.timeout(1):
        assert await body_of(wire, post(upstream.url)) == b"next"
    assert at_rest(wire)
    await no_tasks_are_left()
    await wire.aclose()


async def test_a_server_that_resets_the_connection_loses_one_request_only(silent, upstream, wire):
    task = asyncio.create_task(wire.send(post(silent.url), WireProgress()))
    await silent.accept()
    silent.accepted[0].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    silent.accepted[0].close()
    with pytest.raises(ConnectionError):
        await task
    upstream.script = [answer(200, b"next")]
    assert await body_of(wire, post(upstream.url)) == b"next"
    assert at_rest(wire)


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for 127.0.0.1 that no system trusts, with its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "understudy test")])
    now = dt.datetime.now(dt.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(address, critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = tmp_path / "certificate.pem"
    path.write_bytes(secret + made.public_bytes(pem))
    return path


async def test_servers_are_verified(upstream, door, certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0, ssl=context)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    refused = await failure(door(url, idempotent="no"))
    assert type(refused) is ConnectionFailed
    assert "CERTIFICATE_VERIFY_FAILED" in str(refused)
    assert upstream.requests == []
    trusting = ssl.create_default_context(cafile=str(certificate))
    transport = door(url, wire=AiohttpWire(tls=trusting))
    upstream.script = [answer(200, {"output": n}) for n in range(3)]
    assert [(await transport.call(a_call())).output for _ in range(3)] == [0, 1, 2]
    assert len({headers["host"] for _, headers, _ in upstream.requests}) == 1
    server.close()


async def test_a_tls_context_is_not_made_while_a_call_runs(upstream, door, monkeypatch):
    def make(*_args: Any, **_options: Any) -> None:
        pytest.fail("a TLS context was made on the clock of a call")

    monkeypatch.setattr(ssl, "create_default_context", make)
    monkeypatch.setattr(ssl.SSLContext, "__new__", make)
    error = await failure(door(upstream.url.replace("http:", "https:")), timeout=0.1)
    assert type(error) is ConnectionFailed


async def test_a_large_body_that_is_not_taken_in_time_may_have_been_sent(silent, door):
    transport = door(silent.url, idempotent="no")
    error = await failure(transport, input=LARGE, timeout=1.0)
    assert type(error) is OutcomeUnknown
    await silent.accept()
    await silent.has_lost_its_client()
    assert at_rest(transport._client.wire)


async def test_connections_that_are_never_made_are_calls_that_never_ran(full_socket, door):
    transport = door(full_socket, idempotent="no", max_connections=1)
    error = await failure(transport, timeout=0.1)
    assert type(error) is ConnectionFailed
    assert "no connection within 0.1 s" in str(error)
    assert at_rest(transport._client.wire)


async def test_a_cancellation_that_comes_with_the_timeout_stays_a_cancellation(upstream, door):
    upstream.script = [Upstream.HANG]
    transport = door()
    task = asyncio.create_task(transport.call(a_call(timeout=0.1)))
    await upstream.has_had(1)
    asyncio.get_running_loop().call_later(0.1, task.cancel)
    outcome = (await asyncio.gather(task, return_exceptions=True))[0]
    assert isinstance(outcome, asyncio.CancelledError | Transient)
    assert at_rest(transport._client.wire)


async def test_the_password_of_a_url_is_sent_as_a_header_and_shown_nowhere(upstream, door):
    url = upstream.url.replace("http://", "http://me:pass%20word@") + "?key=hidden&page=2"
    upstream.script = [answer(200, {"output": 1}), answer(404, b"no"), b"nonsense\r\n\r\n"]
    transport = door(url, headers={"X-Api-Key": "alsosecret"})
    await transport.call(a_call())
    first, headers, _ = upstream.requests[0]
    assert first == "POST /v1/work?key=hidden&page=2 HTTP/1.1"
    assert headers["authorization"] == "Basic bWU6cGFzcyB3b3Jk"
    shown = [repr(transport), str(await failure(transport)), str(await failure(transport))]
    shown.append(repr(post(url)))
    for text in shown:
        assert not any(secret in text for secret in ("word@", "pass%20word", "hidden", "alsosecret", "bWU6")), text
    assert "?key=...&page=..." in repr(transport)


def test_a_url_that_is_refused_is_not_shown_with_its_password():
    for url in ("http://me:secret@[::1/", "http://me:se/cret@host/", "ftp://me:secret@host/?key=secret"):
        with pytest.raises(ValueError, match="url") as caught:
            HttpTransport("alder", url, paid=False, idempotent="no")
        assert "secret" not in str(caught.value)
