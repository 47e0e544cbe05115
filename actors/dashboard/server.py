"""Serves the page of a system beside a program: `async with Dashboard(system) as page: print(page.url)`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

import uvicorn

from actors.dashboard.app import DashboardApp
from actors.dashboard.gate import Gate, new_token, with_token
from actors.dashboard.watcher import MAILBOX, Watcher
from actors.listening import listening_socket
from actors.quiet_server import QuietServer

if TYPE_CHECKING:
    from collections.abc import Collection

    from runtime import ActorSystem

CLOSE_SECONDS = 3


class Dashboard:
    """The page of a system, at `url` as long as its block lasts; leave the block before that of the system.

    It listens at `host` and `port` (0: a free one), and answers under these and the further `hosts`, such as
    "ops.example" behind a proxy. The operator's `token` is made up if none is given (at least 16 characters); a
    page that `may_act` lets operators isolate, release, resolve, pause, stop and restart.
    """

    def __init__(
        self,
        system: ActorSystem,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        token: str | None = None,
        hosts: Collection[str] = (),
        may_act: bool = False,
    ) -> None:
        self._system, self._host, self._port, self._may_act = system, host, port, may_act
        self._token = new_token() if token is None else token
        self._gate = Gate(self._token, hosts=hosts)
        self._serving: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        """The address of the page, without the token."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}/"

    @property
    def url(self) -> str:
        """The address of the page with the operator's token, which a browser keeps to itself: it is a secret."""
        return with_token(self.address, self._token)

    async def __aenter__(self) -> Self:
        """Begin to watch the system and to listen. Raises OSError if the address cannot be had."""
        listening = listening_socket(self._host, self._port)
        try:
            self._port = listening.getsockname()[1]
            self._gate.allow_local(self._host, self._port)
            system, may_act = self._system, self._may_act
            self.watcher = system.spawn(lambda: Watcher(system, may_act=may_act), mailbox=MAILBOX)
            self._app = DashboardApp(self.watcher, self._gate)
        except BaseException:
            listening.close()
            raise
        self._server = QuietServer(
            uvicorn.Config(
                self._app,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=CLOSE_SECONDS,
            )
        )
        self._serving = asyncio.create_task(self._server.serve([listening]))
        await self._server.listens.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        """End the streams, stop listening, and stop watching."""
        self._app.close()
        self._server.should_exit = True
        if self._serving is not None:
            await asyncio.wait({self._serving})
        self.watcher.stop()

    def __repr__(self) -> str:
        return f"<Dashboard at {self.address}>"
