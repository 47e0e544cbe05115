"""The parts of an HTTP exchange that need no client: how far it has come, its time limit, and its header values."""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

import anyio

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

T = TypeVar("T")

# Everything that a header value may hold, except "%", which marks the escaped characters.
HEADER_SAFE = "!#$&'()*+,/:;<=>?@[]^`{|}"


class ExchangeProgress:
    """How far a request has come, by the events that httpx traces."""

    def __init__(self) -> None:
        self.connecting = False
        self.sent = False
        self._heads = self._retries = 0
        self._stream: Any = None

    async def __call__(self, event: str, info: Mapping[str, Any]) -> None:
        self.connecting = True
        if event.endswith(".send_request_headers.started"):
            # Once the first bytes of the head are sent, the call may have run.
            self.sent = True
            self._heads += 1
        elif event == "connection.retry.started":
            self._retries += 1
        elif event == "connection.connect_tcp.complete":
            self._stream = info["return_value"]
        elif event == "connection.start_tls.failed" and self._stream is not None:
            # httpcore leaves the socket open if a handshake is cancelled, as it is at every deadline.
            with anyio.CancelScope(shield=True):
                await self._stream.aclose()

    @property
    def wire_calls(self) -> int:
        """The number of requests sent, including connects that failed and were tried again."""
        return max(1, self._heads) + self._retries


async def bounded(work: Coroutine[Any, Any, T], *, within: float) -> T:
    """Await `work` for at most `within` seconds; raises TimeoutError. It has cleaned up even if it is ended early.

    httpcore shields its bookkeeping only against the cancellation of anyio. If a plain `Task.cancel()` comes while a
    connection is given back to the pool, the pool counts that connection as busy for ever. So the work has a task of
    its own, which only an anyio scope cancels, and which is awaited to its end.
    """
    scope = anyio.CancelScope(deadline=anyio.current_time() + within)

    async def run() -> T:
        with scope:
            return await work
        raise TimeoutError

    task = asyncio.create_task(run())
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        scope.cancel()
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # Retrieved, so that asyncio does not report it as never retrieved.
        raise


def header_value(text: str) -> str:
    """Return `text` as a header value: characters that are not printable ASCII are percent-escaped, as in a URL.

    >>> header_value("order-7"), header_value("Bäcker 1%")
    ('order-7', 'B%C3%A4cker%201%25')
    """
    return quote(text, safe=HEADER_SAFE, errors="surrogatepass")


def checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return `headers` as a dict; raises ValueError for a name or value that cannot be sent."""
    for name, value in headers.items():
        if not re.fullmatch(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", name):
            raise ValueError(f"{name!r} is not a header name; use letters, digits and !#$%&'*+-.^_`|~ only")
        if not (value.isascii() and value.isprintable() and value == value.strip()):
            # The value may be a secret, so the message does not show it.
            raise ValueError(f"the value of header {name!r} must be printable ASCII without spaces around it")
    return dict(headers)
