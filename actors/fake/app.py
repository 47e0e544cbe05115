"""The thin shell around a fake provider: an ASGI application that waits, sends and breaks off as the replies say."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from actors.fake.routes import route
from actors.fake.wire import FakeReply, FakeRequest

if TYPE_CHECKING:
    from actors.fake.made import Events
    from actors.fake.provider import FakeProvider

Receive: TypeAlias = Callable[[], Awaitable[Any]]
Send: TypeAlias = Callable[[Any], Awaitable[None]]
CONNECTION = "fake.connection"
"""The name in a scope under which the server puts the connection, so that it can be broken off."""
FLUSH_BYTES = 16_384
KEEP_ALIVE_EVERY = 1.0
MAX_BODY_BYTES = 64 * 1024 * 1024


class Connection(Protocol):
    """What the shell needs of a transport of asyncio."""

    def is_closing(self) -> bool: ...

    def close(self) -> None: ...


class ClientLeft(Exception):
    """The client closed its connection before the reply was whole."""


class FakeApp:
    """Answers every request as the provider decides."""

    def __init__(self, provider: FakeProvider) -> None:
        self._provider = provider
        self._loop = asyncio.get_running_loop()
        self._started = self._loop.time()

    def now(self) -> float:
        """Return the seconds since the start."""
        return self._loop.time() - self._started

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Handle one request."""
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            if not message.get("more_body", False):
                break
            if len(body) > MAX_BODY_BYTES:
                scope[CONNECTION].close()
                return
        request = FakeRequest(
            method=scope["method"],
            path=scope["path"],
            query=scope["query_string"].decode("latin-1"),
            headers=dict(scope["headers"]),
            body=body,
        )
        began = self.now()
        reply = route(self._provider, request, now=began)
        if reply.settles_at is not None:
            self._loop.call_later(max(0.0, reply.settles_at - began), self._settle)
        sending = Sending(reply, receive, send, scope.get(CONNECTION))
        try:
            await sending.run()
        finally:
            self._provider.end(
                reply, now=self.now(), sent=sending.is_sent, left=sending.has_left, tokens=sending.tokens
            )
        while not sending.is_over and (await receive())["type"] != "http.disconnect":
            pass  # The server learns of a connection that is closed only later, and would call the reply incomplete.

    def _settle(self) -> None:
        self._provider.settle_background(now=self.now() + 1e-3)  # A timer may be early by its clock's resolution.


class Sending:
    """Sends one reply, at its times."""

    def __init__(self, reply: FakeReply, receive: Receive, send: Send, connection: Connection | None) -> None:
        self._reply = reply
        self._receive = receive
        self._send = send
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._begin = self._loop.time()
        self._bytes = 0
        self._buffer: list[bytes] = []
        self.is_sent = False
        self.is_over = False
        """Whether the server knows that the reply has ended."""
        self.has_left = False
        self.tokens = 0
        """The tokens of output that have come."""

    async def run(self) -> None:
        """Send the reply, or as much of it as the client stays for and its faults let through."""
        reply = self._reply
        try:
            await self._wait_until(self._begin + reply.stall)
            self._begin += reply.stall
            if reply.events is None:
                await self._send_body()
            else:
                await self._send_events(reply.events)
        except ClientLeft:
            self.has_left = True
            passed = self._loop.time() - self._begin
            self.tokens = max(self.tokens, reply.tokens_by(passed)) if reply.made is not None else 0

    async def _send_body(self) -> None:
        reply = self._reply
        self.tokens = 0 if reply.made is None else reply.made.usage.output
        if reply.made is not None and reply.rates is not None:
            whole, self.tokens = self.tokens, 0
            await self._wait_until(self._begin + reply.due(whole))
            self.tokens = whole
        if reply.cut_at == -1:
            self._close()
            return
        await self._head(length=len(reply.body))
        body = reply.body[: reply.cut_at]
        is_cut = len(body) < len(reply.body)
        if reply.stalls_after is not None:
            half = len(reply.body) // 2
            await self._write(body[:half])
            await self._wait_until(self._loop.time() + reply.stalls_after[1])
            body = body[half:]
        if is_cut:
            await self._write(body)
            self._close()
            return
        await self._end(body)
        self.is_sent = True

    async def _send_events(self, events: Events) -> None:
        """Send the events, each when its tokens have come; those that are due together go together."""
        reply = self._reply
        if reply.cut_at == -1:
            await self._wait_until(self._begin + reply.latency)
            self._close()
            return
        begun = await self._keep_alive()
        for number, (tokens, data) in enumerate(events):
            if reply.stalls_after is not None and number == reply.stalls_after[0]:
                begun = begun or await self._head()
                await self._flush()
                await self._wait_until(self._loop.time() + reply.stalls_after[1])
                self._begin += reply.stalls_after[1]
            due = self._begin + reply.due(tokens)
            if due > self._loop.time():
                await self._flush()
                await self._wait_until(due)
            begun = begun or await self._head()
            if reply.cut_at is not None and self._bytes + len(data) >= reply.cut_at:
                self._buffer.append(data[: max(0, reply.cut_at - self._bytes)])
                await self._flush()
                self._close()
                return
            self.tokens = tokens
            self._buffer.append(data)
            self._bytes += len(data)
            if self._bytes % FLUSH_BYTES < len(data):
                await self._flush()
        await self._finish()

    async def _finish(self) -> None:
        last, self._buffer = b"".join(self._buffer), []
        if self._is_gone():
            raise ClientLeft
        await self._end(last)
        self.is_sent = not self._reply.ends_broken

    async def _end(self, last: bytes) -> None:
        await self._send({"type": "http.response.body", "body": last, "more_body": False})
        self.is_over = True

    async def _keep_alive(self) -> bool:
        """Send keep-alive lines until the first token is due, and tell whether the head is sent."""
        reply = self._reply
        due = self._begin + reply.latency
        if not reply.keep_alive or due <= self._loop.time():
            return False
        await self._head()
        while self._loop.time() < due:
            await self._write(reply.keep_alive)
            await self._wait_until(min(due, self._loop.time() + KEEP_ALIVE_EVERY))
        return True

    async def _head(self, *, length: int | None = None) -> bool:
        headers = self._reply.headers
        if length is not None:
            headers = [*headers, (b"content-length", b"%d" % length)]
        await self._send({"type": "http.response.start", "status": self._reply.status, "headers": headers})
        return True

    async def _flush(self) -> None:
        if self._buffer:
            data, self._buffer = b"".join(self._buffer), []
            await self._write(data)

    async def _write(self, data: bytes) -> None:
        if self._is_gone():
            raise ClientLeft
        if data:
            await self._send({"type": "http.response.body", "body": data, "more_body": True})

    def _is_gone(self) -> bool:
        return self._connection is not None and self._connection.is_closing()

    async def _wait_until(self, due: float) -> None:
        """Wait until a time. Raises `ClientLeft` if the client goes before."""
        left = due - self._loop.time()
        if left <= 0:
            return
        try:
            async with asyncio.timeout(left):
                await self._receive()  # The body has been read: only the end of the connection can come.
        except TimeoutError:
            return
        raise ClientLeft

    def _close(self) -> None:
        """Close the connection; what was written before still goes out."""
        if self._connection is not None:
            self._connection.close()
