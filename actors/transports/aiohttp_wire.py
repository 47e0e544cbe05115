"""The wire on aiohttp, with a bounded pool of connections. The only module that imports aiohttp.

What must not happen by itself is switched off: redirects, proxies and passwords of the environment, cookies, retries
and decompression.
"""

from __future__ import annotations

import asyncio
import io
import select
from contextvars import ContextVar
from typing import TYPE_CHECKING
from weakref import WeakSet

from actors.validation import check_count

try:
    import aiohttp
    from aiohttp.http import HttpProcessingError
except ImportError as error:
    raise ImportError('HttpTransport needs aiohttp; write: pip install "understudy[http]"') from error

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Callable, Mapping

    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

    from actors.transports.wire import WireProgress, WireRequest, WireResponse

IDLE_TIMEOUT = 15.0
"""Seconds for which an idle connection is kept for the next request."""

MAX_HEAD_LINE_BYTES = 65_536
MAX_WHOLE_BODY_BYTES = 65_536
"""A larger body is given to aiohttp as a file, which it sends piece by piece."""

NO_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=None)


class AiohttpWire:
    """Sends requests over at most `max_connections` connections; a further request waits for its turn.

    An idle connection is not used any more after `idle_timeout` seconds, and is closed within twice that time (rounded
    up to whole seconds). There are at most `max_connections` of them to each host.

    Servers are verified by `tls`, by default with the certificates that the system trusts. That context is made when
    this module is imported, so that no request waits for it. Names are looked up by the system, in a thread of the
    loop: a lookup that is given up ends there by itself, and holds nothing else.
    """

    ends_when_cancelled = True

    def __init__(
        self, *, max_connections: int = 10, idle_timeout: float = IDLE_TIMEOUT, tls: ssl.SSLContext | None = None
    ) -> None:
        check_count("max_connections", max_connections)
        self._max_connections = max_connections
        self._idle_timeout = idle_timeout
        self._tls = tls
        self._free = asyncio.Semaphore(max_connections)
        self._session: aiohttp.ClientSession | None = None
        self._under_way: set[_Exchange] = set()
        self._closed = False

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{len(self._under_way)} under way"
        return f"AiohttpWire({state}, max_connections={self._max_connections})"

    async def send(self, request: WireRequest, progress: WireProgress) -> WireResponse:
        """Send once: an answer that does not come is never asked for again. See `Wire`."""
        progress.waiting(self._max_connections)
        await self._free.acquire()
        exchange = _Exchange(progress, self._end)
        self._under_way.add(exchange)
        token = _EXCHANGE.set(exchange)
        try:
            exchange.response = await self._request(request)
            return _Response(exchange.response, exchange)
        except (aiohttp.ClientError, HttpProcessingError) as error:
            exchange.end()
            raise ConnectionError(_said(error)) from error
        except BaseException:
            exchange.end()
            raise
        finally:
            _EXCHANGE.reset(token)

    async def aclose(self) -> None:
        """Close every connection; requests under way fail with `ConnectionError`."""
        self._closed = True
        for exchange in list(self._under_way):
            # A connection that still has bytes to send would otherwise wait until its server takes them.
            exchange.abort()
        if self._session is not None:
            await self._session.close()

    def _request(self, request: WireRequest) -> aiohttp.client._RequestContextManager:  # pyright: ignore[reportPrivateUsage]
        if self._closed:
            raise ConnectionError("the wire was closed before the request was sent")
        if self._session is None:
            self._session = self._open_session()
        body = request.body
        return self._session.request(
            request.method,
            request.url,
            headers=request.headers,
            data=io.BytesIO(body) if len(body) > MAX_WHOLE_BODY_BYTES else body or None,
            allow_redirects=False,
        )

    def _open_session(self) -> aiohttp.ClientSession:
        connector = _Connector(
            limit=0,  # `send` has its own bound, which it can report and which is free again in any case.
            keepalive_timeout=self._idle_timeout,
            ssl=self._tls or True,
            # A shared lookup would have a task of its own, which outlives the request that began it.
            use_dns_cache=False,
            resolver=aiohttp.ThreadedResolver(),
        )
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=NO_TIMEOUT,
            auto_decompress=False,
            trust_env=False,
            max_line_size=MAX_HEAD_LINE_BYTES,
            max_field_size=MAX_HEAD_LINE_BYTES,
        )

    def _end(self, exchange: _Exchange) -> None:
        self._under_way.discard(exchange)
        self._free.release()


class _Exchange:
    """One request under way: its place in the pool, and the connection that it uses."""

    def __init__(self, progress: WireProgress, on_end: Callable[[_Exchange], None]) -> None:
        self.progress = progress
        self.is_sent = False
        self.response: aiohttp.ClientResponse | None = None
        self._on_end: Callable[[_Exchange], None] | None = on_end
        self._transport: asyncio.Transport | None = None

    def use(self, connection: Connection) -> None:
        """Take the connection on which the request is sent next, without a pause in between."""
        self._transport = connection.transport
        self.is_sent = True
        self.progress.sending()

    def abort(self) -> None:
        """Close the connection at once, whatever is still to be sent on it; reading from it fails."""
        if self._transport is not None:
            self._transport.abort()
        if self.response is not None:
            self.response.close()

    def end(self, *, is_complete: bool = False) -> None:
        """Give the place free; a connection whose exchange is not complete is aborted."""
        on_end, self._on_end = self._on_end, None
        if on_end is None:
            return
        if not is_complete:
            self.abort()
        self._transport = None
        on_end(self)


_EXCHANGE: ContextVar[_Exchange] = ContextVar("_EXCHANGE")
"""The exchange for which a connection is made, for `_Connector.connect`, which is called deep inside aiohttp."""


class _Connector(aiohttp.TCPConnector):
    """Reports how far a request has come, and hands out no connection that its server has closed."""

    def __init__(self, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        self._known: WeakSet[object] = WeakSet()

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - the signature of aiohttp.
    ) -> Connection:
        exchange = _EXCHANGE.get()
        if exchange.is_sent:
            # After a lost connection, aiohttp sends a GET again by itself; each request is sent once.
            raise ConnectionError("the connection was closed before an answer came")
        exchange.progress.connecting()
        connection = await super().connect(req, traces, timeout)
        while connection.protocol in self._known and _has_input(connection):
            # An idle connection has nothing to say but that its server has closed it. Nothing was sent on it.
            connection.close()
            connection = await super().connect(req, traces, timeout)
        self._known.add(connection.protocol)
        exchange.use(connection)
        return connection


def _has_input(connection: Connection) -> bool:
    """Tell whether the socket of a connection has something to read, such as its end."""
    assert connection.transport is not None  # noqa: S101 - it is connected.
    number = connection.transport.get_extra_info("socket").fileno()
    if not hasattr(select, "poll"):
        return bool(select.select([number], [], [], 0)[0])
    poll = select.poll()
    poll.register(number, select.POLLIN)
    return bool(poll.poll(0))


class _Response:
    """A response of aiohttp."""

    def __init__(self, response: aiohttp.ClientResponse, exchange: _Exchange) -> None:
        self.status = response.status
        self.headers: Mapping[str, str] = _joined(response)
        self._response = response
        self._exchange = exchange

    def __repr__(self) -> str:
        return f"WireResponse({self.status}, {', '.join(self.headers)})"

    def chunks(self, *, gap: float | None = None) -> AsyncIterator[bytes]:
        return _Chunks(self._response.content, gap)

    def close(self) -> None:
        # aiohttp lets go of the connection as soon as the body has arrived whole.
        self._exchange.end(is_complete=self._response.connection is None)
        self._response.close()


class _Chunks:
    """The chunks of a body. An iterator that is left early needs no task to end it, as a generator would."""

    def __init__(self, content: aiohttp.StreamReader, gap: float | None) -> None:
        self._content = content
        self._gap = gap

    def __aiter__(self) -> _Chunks:
        return self

    async def __anext__(self) -> bytes:
        try:
            if self._gap is None:
                chunk = await self._content.readany()
            else:
                async with asyncio.timeout(self._gap):
                    chunk = await self._content.readany()
        except TimeoutError:
            raise TimeoutError(f"no chunk within {self._gap:g} s") from None
        except (aiohttp.ClientError, HttpProcessingError) as error:
            raise ConnectionError(_said(error)) from error
        if not chunk:
            raise StopAsyncIteration
        return chunk


def _said(error: Exception) -> str:
    """Return what an error of aiohttp says, on one line and without the URL, in which there may be a secret."""
    if isinstance(error, aiohttp.InvalidURL):
        return "aiohttp cannot use this URL"
    text = error.message if isinstance(error, aiohttp.ClientResponseError) else str(error)
    return " ".join(text.split()) or type(error).__name__


def _joined(response: aiohttp.ClientResponse) -> dict[str, str]:
    joined: dict[str, str] = {}
    for name, value in response.headers.items():
        key = name.lower()
        joined[key] = f"{joined[key]}, {value}" if key in joined else value
    return joined
