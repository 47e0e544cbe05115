"""A fake server behind a wire in memory: model calls over real bytes, in virtual time and without sockets."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from actors.fake.app import CONNECTION, FakeApp
from actors.fake.provider import FakeProvider

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from actors.fake import FakeConfig
    from actors.transports.wire import WireProgress, WireRequest

MAX_UNREAD = 4
"""The chunks that wait for a client that does not read, as they do in the buffers of sockets."""


class FakeWire:
    """Sends requests to a fake provider of its own; `latency` is the seconds that a request is on its way."""

    ends_when_cancelled = True

    def __init__(self, config: FakeConfig, *, latency: float = 0.0) -> None:
        self.provider = FakeProvider(config)
        self.latency = latency
        self.tasks: set[asyncio.Task[None]] = set()
        self._app: FakeApp | None = None

    async def send(self, request: WireRequest, progress: WireProgress) -> FakeConnection:
        """Return the response once its head has come."""
        if self._app is None:
            self._app = FakeApp(self.provider)
        progress.connecting()
        if self.latency:
            await asyncio.sleep(self.latency)
        progress.sending()
        connection = FakeConnection(request)
        task = asyncio.create_task(connection.serve(self._app))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        try:
            await connection.until_head()
        except BaseException:
            connection.close()
            raise
        return connection

    async def aclose(self) -> None:
        """Leave every connection to its end."""


class FakeConnection:
    """One request and its response: the connection of the application, and the response of the client."""

    def __init__(self, request: WireRequest) -> None:
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self._request = request
        self._is_read = False
        self._unread: deque[bytes] = deque()
        self._is_whole = self._is_over = False
        self._changed = asyncio.Event()

    async def serve(self, app: FakeApp) -> None:
        url = urlsplit(self._request.url)
        scope = {
            "type": "http",
            "method": self._request.method,
            "path": url.path,
            "query_string": url.query.encode(),
            "headers": [(name.lower().encode(), value.encode()) for name, value in self._request.headers.items()],
            CONNECTION: self,
        }
        await app(scope, self._receive, self._send)

    async def _until(self, is_so: Callable[[], object]) -> None:
        while not is_so():
            self._changed.clear()
            await self._changed.wait()

    # What the application sees of it.

    async def _receive(self) -> dict[str, Any]:
        if not self._is_read:
            self._is_read = True
            return {"type": "http.request", "body": self._request.body, "more_body": False}
        await self._until(lambda: self._is_over or self._is_whole)
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            self.status = message["status"]
        else:
            self._is_whole = not message.get("more_body", False)
            if (data := message.get("body", b"")) and not self._is_over:
                self._unread.append(data)
        self._changed.set()
        await self._until(lambda: self._is_over or len(self._unread) <= MAX_UNREAD)

    def is_closing(self) -> bool:
        return self._is_over

    # What both do.

    def close(self) -> None:
        """Close the connection; what was sent can still be read."""
        self._is_over = True
        self._changed.set()

    # What the client sees of it.

    async def until_head(self) -> None:
        await self._until(lambda: self.status or self._is_over)
        if not self.status:
            raise ConnectionResetError("the server closed the connection")

    async def chunks(self, *, gap: float | None = None) -> AsyncIterator[bytes]:
        while True:
            try:
                async with asyncio.timeout(gap):
                    await self._until(lambda: self._unread or self._is_over or self._is_whole)
            except TimeoutError:
                raise TimeoutError(f"no chunk within {gap} s") from None
            if not self._unread:
                break
            data = self._unread.popleft()
            self._changed.set()
            yield data
        if not self._is_whole:
            raise ConnectionResetError("the server closed the connection")
