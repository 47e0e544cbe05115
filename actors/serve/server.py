"""Serves a door over HTTP with uvicorn, until it is stopped: then what is under way is finished, within limits."""

from __future__ import annotations

import asyncio
from importlib import import_module
from typing import TYPE_CHECKING, Any, Self, cast

import uvicorn

from actors.listening import listening_socket
from actors.quiet_server import QuietServer
from actors.serve.door_protocol import DoorProtocol
from actors.serve.visitors import is_local

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from actors.serve.door import Door

KEEP_ALIVE_SECONDS = 75
CLOSE_SECONDS = 5
"""Seconds that requests have to end once they are ended."""


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return what makes the loop of a door: uvloop's, which takes less CPU for each request, if it is installed."""
    try:
        uvloop: Any = import_module("uvloop")
    except ModuleNotFoundError:
        return None
    return cast("Callable[[], asyncio.AbstractEventLoop]", uvloop.new_event_loop)


class DoorServer:
    """One listening door; `host` other than this machine's needs keys, else ValueError. `port` 0 takes a free one."""

    def __init__(
        self, door: Door, app: Callable[[Any, Any, Any], Awaitable[None]], *, host: str = "127.0.0.1", port: int = 8080
    ) -> None:
        if not door.keys and not is_local(f"[{host}]" if ":" in host else host):
            raise ValueError(f"host {host!r} is open to others, who need keys: make one with `understudy key new`")
        self._door = door
        self._host, self._port = host, port
        config = uvicorn.Config(
            app,
            http=DoorProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=CLOSE_SECONDS,
        )
        self._server = QuietServer(config)
        self._serving: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The port that it listens at."""
        return self._port

    @property
    def url(self) -> str:
        """The address of the door, without a path."""
        return f"http://[{self._host}]:{self._port}" if ":" in self._host else f"http://{self._host}:{self._port}"

    async def __aenter__(self) -> Self:
        """Begin to listen. Raises OSError if the address cannot be had."""
        listening = listening_socket(self._host, self._port)
        self._port = listening.getsockname()[1]
        self._serving = asyncio.create_task(self._server.serve([listening]))
        await self._server.listens.wait()
        return self

    async def drain(self, seconds: float) -> None:
        """Answer no new requests, and wait for those under way, at most so long; then their clients are told."""
        self._door.is_draining = True
        await self._door.until_idle(within=seconds)
        self._door.end_all()

    async def __aexit__(self, *_: object) -> None:
        """Stop listening, and wait for the last answers to be sent."""
        self._door.is_draining = True
        self._door.end_all()
        self._server.should_exit = True
        if self._serving is not None:
            await self._serving
