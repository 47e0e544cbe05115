"""A door without a socket: a transport for httpx or httpx2 that hands requests to it in the same process.

The transports that come with these libraries keep a whole answer until it is complete; this one hands on what comes.
"""

from __future__ import annotations

import asyncio
import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from types import ModuleType

LIBRARIES = ("httpx2", "httpx")
HOST = "127.0.0.1"


class Handover:
    """One request and its answer, chunk by chunk; the application waits while a chunk is not taken."""

    def __init__(self, body: bytes) -> None:
        self._body: bytes | None = body
        self._chunk: bytes | None = None
        self._is_whole = False
        self._came, self._taken = asyncio.Event(), asyncio.Event()
        self._begun = asyncio.Event()
        self._left = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []

    async def start(self, app: Callable[[Any, Any, Any], Awaitable[None]], scope: dict[str, Any]) -> None:
        """Have the application begin, and return once the head of its answer is there. Raises what it raises before."""
        self._task = asyncio.create_task(self._run(app, scope))
        begun = asyncio.create_task(self._begun.wait())
        try:
            await asyncio.wait({self._task, begun}, return_when=asyncio.FIRST_COMPLETED)
            if not self._begun.is_set():
                self._task.result()
                raise ConnectionError("the application ended without an answer")
        except BaseException:
            await self.aclose()
            raise
        finally:
            begun.cancel()

    async def _run(self, app: Callable[[Any, Any, Any], Awaitable[None]], scope: dict[str, Any]) -> None:
        try:
            await app(scope, self._receive, self._send)
        finally:
            self._came.set()

    async def _receive(self) -> dict[str, Any]:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        if self._left.is_set():
            raise OSError("the client has left")
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], list(message["headers"])
            self._begun.set()
            return
        if message.get("body"):
            self._taken.clear()
            self._chunk = message["body"]
            self._came.set()
            await self._taken.wait()
        if not message.get("more_body", False):
            self._is_whole = True
            self._came.set()

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it comes. Raises ConnectionError if the application fails before its end."""
        while True:
            await self._came.wait()
            self._came.clear()
            chunk, self._chunk = self._chunk, None
            if chunk is not None:
                self._taken.set()
                yield chunk
            elif self._is_whole:
                return
            else:
                raise ConnectionError("the application ended before its answer was whole")

    async def aclose(self) -> None:
        """Leave: what has not been taken is dropped, and the application learns that its client has left."""
        self._left.set()
        self._taken.set()
        if self._task is not None:
            await asyncio.wait({self._task})
            if not self._task.cancelled():
                self._task.exception()  # It is of no interest to a client that has left.


def in_process_transport(app: Callable[[Any, Any, Any], Awaitable[None]], *, library: ModuleType | None = None) -> Any:
    """Return an async transport of httpx2 (or of `library`: `httpx2` or `httpx`) that asks an application.

    Use it as `AsyncOpenAI(base_url="http://127.0.0.1/v1", http_client=AsyncClient(transport=...))`. Streams come chunk
    by chunk, and a client that leaves one ends its call. Raises ModuleNotFoundError if neither library is installed.
    """
    chosen: Any = _installed() if library is None else library

    class Body(chosen.AsyncByteStream):
        """The body of an answer, as it comes."""

        def __init__(self, handover: Handover) -> None:
            self._handover = handover

        async def __aiter__(self) -> AsyncIterator[bytes]:
            async for chunk in self._handover.chunks():
                yield chunk

        async def aclose(self) -> None:
            await self._handover.aclose()

    class InProcessTransport(chosen.AsyncBaseTransport):
        """Hands each request to the application."""

        async def handle_async_request(self, request: Any) -> Any:
            handover = Handover(await request.aread())
            await handover.start(app, scope_of(request))
            return chosen.Response(handover.status, headers=handover.headers, stream=Body(handover))

    return InProcessTransport()


def _installed() -> ModuleType:
    for name in LIBRARIES:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError:
            continue
    raise ModuleNotFoundError(f"an in-process client needs {' or '.join(LIBRARIES)}; install one of them")


def scope_of(request: Any) -> dict[str, Any]:
    """Return a request of httpx as a scope of ASGI. It is of this machine, whatever host it names."""
    headers = [(name.lower(), value) for name, value in request.headers.raw if name.lower() != b"host"]
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": request.url.scheme,
        "path": request.url.path,
        "raw_path": request.url.raw_path.split(b"?")[0],
        "query_string": request.url.query,
        "root_path": "",
        "headers": [(b"host", HOST.encode()), *headers],
        "client": (HOST, 0),
        "server": (HOST, 80),
    }
