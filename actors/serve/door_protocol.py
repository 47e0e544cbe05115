"""HTTP of uvicorn with bounds, whose small writes of one turn of the loop go out as one, such as head and body.

Each write to a socket is a system call, and often a packet of its own. uvloop joins them by itself.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_JOINED = 16_384
"""The bytes that wait for others at most; what is larger goes out at once, so that a full socket is noticed."""
CLOSE_SECONDS = 60.0
"""Seconds that a client has to take what was written before its connection was closed."""
HEAD_SECONDS = 30.0
MAX_HEAD = 65_536
OFFER = re.compile(rb"\r\nupgrade:", re.IGNORECASE)
LATE_HEAD, LARGE_HEAD = b"408 Request Timeout", b"431 Request Header Fields Too Large"


class JoiningTransport(asyncio.Transport):
    """Joins what is written to `inner` in one turn of the loop."""

    def __init__(self, inner: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._inner, self._loop = inner, loop
        self._call_soon: Callable[..., Any] = loop.call_soon
        self._waiting: list[bytes] = []
        self._size = 0
        self.get_extra_info = inner.get_extra_info
        self.is_closing = inner.is_closing
        self.is_reading = inner.is_reading
        self.pause_reading, self.resume_reading = inner.pause_reading, inner.resume_reading
        self.set_protocol, self.get_protocol = inner.set_protocol, inner.get_protocol
        self.get_write_buffer_limits = inner.get_write_buffer_limits
        self.set_write_buffer_limits = inner.set_write_buffer_limits
        self.can_write_eof = inner.can_write_eof

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write this with what else is written in this turn, or at once if that is much."""
        if not self._waiting:
            self._call_soon(self._flush)
        self._waiting.append(bytes(data))
        self._size += len(data)
        if self._size > MAX_JOINED:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            waiting, self._waiting, self._size = self._waiting, [], 0
            self._inner.write(waiting[0] if len(waiting) == 1 else b"".join(waiting))

    def get_write_buffer_size(self) -> int:
        """Return the bytes that the socket has not taken yet."""
        return self._size + self._inner.get_write_buffer_size()

    def write_eof(self) -> None:
        """Write what waits, and nothing after it."""
        self._flush()
        self._inner.write_eof()

    def close(self) -> None:
        """Write what waits, and close; a client that does not take it in time loses the rest."""
        self._flush()
        if not self._inner.is_closing() and self._inner.get_write_buffer_size():
            self._loop.call_later(CLOSE_SECONDS, self._inner.abort)
        self._inner.close()

    def abort(self) -> None:
        """Close without writing what waits."""
        self._waiting, self._size = [], 0
        self._inner.abort()

    def __repr__(self) -> str:
        return f"<JoiningTransport with {self._size} bytes over {self._inner!r}>"


class DoorProtocol(HttpToolsProtocol):
    """HTTP of uvicorn over such a transport, with bounds for what it has none for: the head of a request.

    A connection on which no head becomes whole within `HEAD_SECONDS`, or one of more than `MAX_HEAD` bytes comes, is
    closed. So no client holds connections, or memory, by sending its head for ever.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin a connection."""
        super().connection_made(JoiningTransport(transport, self.loop))
        self._head_size = 0
        self._head_timer: asyncio.TimerHandle | None = self.loop.call_later(HEAD_SECONDS, self._refuse_head, LATE_HEAD)

    def data_received(self, data: bytes) -> None:
        """Read on; what is left of a head that has begun is waited for within bounds.

        The parser takes the body of a request that offers another protocol, as Java's client does (h2c), for that of
        the protocol. No other is spoken here, so it is not shown the offer; a name of the same length hides it.
        """
        if b"pgrade" in data:
            data = OFFER.sub(b"\r\nx-offer:", data)
        super().data_received(data)
        if self.cycle is not None and self.cycle.scope is self.scope:
            if self._head_timer is not None:
                self._end_head()
        elif not self.transport.is_closing():
            self._head_size += len(data)
            if self._head_timer is None:
                self._head_timer = self.loop.call_later(HEAD_SECONDS, self._refuse_head, LATE_HEAD)
            if self._head_size > MAX_HEAD:
                self._refuse_head(LARGE_HEAD)

    def connection_lost(self, exc: Exception | None) -> None:
        """End a connection."""
        self._end_head()
        super().connection_lost(exc)

    def _end_head(self) -> None:
        self._head_size = 0
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse_head(self, status: bytes) -> None:
        """Tell why, unless answers to requests before it are still to be sent, and close."""
        self._end_head()
        if self.cycle is None or self.cycle.response_complete:
            self.transport.write(b"HTTP/1.1 %b\r\ncontent-length: 0\r\nconnection: close\r\n\r\n" % status)
        self.transport.close()
