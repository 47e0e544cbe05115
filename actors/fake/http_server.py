"""HTTP for a fake server: uvicorn's protocol on httptools, on a given socket, with neither logs nor signals."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self, cast

import httptools  # noqa: F401  # pyright: ignore[reportMissingTypeStubs, reportUnusedImport] - to say early if it is missing.
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from actors.fake.app import CONNECTION

if TYPE_CHECKING:
    import socket

    from actors.fake.app import FakeApp

BACKLOG = 2048
KEEP_ALIVE_SECONDS = 75


class FakeHttpProtocol(HttpToolsProtocol):
    """One connection; the application gets it with each request, so that it can break it off."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.access_log = False

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        cast("dict[str, Any]", self.scope)[CONNECTION] = self.transport


class HttpServer:
    """A listening socket, its connections and the requests under way."""

    def __init__(self, server: asyncio.Server, state: ServerState) -> None:
        self._server = server
        self._state = state

    @classmethod
    async def start(cls, app: FakeApp, listening: socket.socket) -> Self:
        """Begin to accept connections."""
        config = uvicorn.Config(
            app,
            http=FakeHttpProtocol,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
        )
        config.load()
        state = ServerState()
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: FakeHttpProtocol(config=config, server_state=state, app_state={}, _loop=loop),
            sock=listening,
            backlog=BACKLOG,
        )
        return cls(server, state)

    async def stop(self, seconds: float) -> None:
        """Close every connection, and wait for the requests under way to end, at most so long."""
        self._server.close()
        for connection in list(self._state.connections):
            if connection.transport is not None:
                connection.transport.abort()
        if self._state.tasks:
            await asyncio.wait(self._state.tasks, timeout=seconds)
        await asyncio.sleep(0)
