"""A fake server on the loopback interface, for tests and rehearsals: `async with fake_server(config) as server`."""

from __future__ import annotations

import ipaddress
import time
from typing import TYPE_CHECKING, Self

from actors.fake.app import FakeApp
from actors.fake.config import FakeConfig
from actors.fake.provider import FakeProvider
from actors.listening import listening_socket

if TYPE_CHECKING:
    from actors.fake.books import FakeBooks
    from actors.fake.faults import FaultPlan
    from actors.fake.http_server import HttpServer

STOP_SECONDS = 5.0
"""How long a server that stops waits for its calls to notice that their connections are closed."""


class FakeServer:
    """One fake server. It listens while its `async with` block runs; many may run in one process.

    `host` must be a loopback address, else ValueError; `port` 0 takes a free one. Entering needs the extra `serve`,
    and raises ModuleNotFoundError without it.
    """

    def __init__(self, config: FakeConfig | None = None, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self.config = FakeConfig() if config is None else config
        self._host = loopback(host)
        self._port = port
        self._provider = FakeProvider(self.config)
        self._app: FakeApp | None = None
        self._http: HttpServer | None = None

    async def __aenter__(self) -> Self:
        """Begin to listen."""
        http_server = _http_server()
        listening = listening_socket(self._host, self._port)
        try:
            self._port = listening.getsockname()[1]
            self._provider = FakeProvider(self.config, epoch=time.time())
            self._app = FakeApp(self._provider)
            self._http = await http_server.start(self._app, listening)
        except BaseException:
            listening.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close every connection, end every call, and stop listening."""
        if self._http is not None:
            await self._http.stop(STOP_SECONDS)
            self._http = None

    @property
    def url(self) -> str:
        """The URL without a path: an OpenAI client takes `url + "/v1"` as base URL, an Anthropic client `url`."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

    @property
    def books(self) -> FakeBooks:
        """What the server has charged."""
        return self._provider.books

    def set_plan(self, plan: FaultPlan) -> None:
        """Put another plan of faults in force; its times count from now."""
        now = 0.0 if self._app is None else self._app.now()
        self._provider.set_plan(plan, now=now)

    async def until_idle(self) -> None:
        """Wait until no call is under way, so that the books are whole."""
        await self.books.idle.wait()


def fake_server(config: FakeConfig | None = None, *, host: str = "127.0.0.1", port: int = 0) -> FakeServer:
    """Return a server for an `async with` block; see `FakeServer`."""
    return FakeServer(config, host=host, port=port)


def loopback(host: str) -> str:
    """Return the address of a host. Raises ValueError unless it is a loopback address.

    >>> loopback("localhost"), loopback("::1")
    ('127.0.0.1', '::1')
    """
    if host == "localhost":
        return "127.0.0.1"
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise ValueError(f"host: expected a loopback address such as 127.0.0.1, got {host!r}") from None
    if not address.is_loopback:
        raise ValueError(f"host: a fake server listens on a loopback address only, such as 127.0.0.1, not on {host}")
    return str(address)


def _http_server() -> type[HttpServer]:
    try:
        from actors.fake.http_server import HttpServer  # noqa: PLC0415 - it needs the extra `serve`.
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'a fake server needs {error.name}; write: pip install "understudy[serve]"', name=error.name
        ) from error
    return HttpServer
