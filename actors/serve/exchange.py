"""One request and its answer on the wire: what is sent, and whether the client is still there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from actors.serve.bodies import ClientGone
from actors.serve.within import within

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable, Mapping

    from actors.serve.problems import Problem

Scope: TypeAlias = Any
Receive: TypeAlias = Callable[[], Awaitable[Any]]
Send: TypeAlias = Callable[[Any], Awaitable[None]]
T = TypeVar("T")
JSON = "application/json"


def contradictory(headers: Iterable[tuple[bytes, bytes]]) -> tuple[str, ...]:
    """Return the names of the headers that have several values which differ.

    >>> contradictory([(b"host", b"a"), (b"x-api-key", b"a"), (b"x-api-key", b"b"), (b"host", b"a")])
    ('x-api-key',)
    """
    values: dict[bytes, set[bytes]] = {}
    for name, value in headers:
        values.setdefault(name, set()).add(value)
    return tuple(name.decode("latin-1") for name, several in values.items() if len(several) > 1)


class DoorExchange:
    """The answer to one request. A client that takes no byte for `patience` seconds has left."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, *, patience: float) -> None:
        self.headers: dict[str, str] = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        is_plain = len(self.headers) == len(scope["headers"])
        self.contradictory = () if is_plain else contradictory(scope["headers"])
        """The headers that came with several values."""
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.address: str = (scope.get("client") or ("",))[0]
        self.receive = receive
        self._send, self._patience = send, patience
        self.key_id: str | None = None
        """The key that the request was let in with."""
        self.has_begun = False
        """Whether the status has been sent."""
        self.events = 0
        """The events of a stream that were sent, without comments."""
        self.has_left = False
        """Whether the client closed its connection before its answer was whole."""
        self._is_whole = False
        self._working: asyncio.Task[Any] | None = None
        self._is_stopped = False
        self._ended_by: Problem | None = None
        self.sent_at = 0.0
        """When something was sent last, in loop time."""

    async def send(self, message: Mapping[str, Any]) -> None:
        """Send one message of ASGI; raises `ClientGone` if the client does not take it."""
        try:
            await within(self._patience, self._send(message))
        except (TimeoutError, OSError) as error:
            raise ClientGone from error
        self.sent_at = asyncio.get_running_loop().time()

    async def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """Send the status and the headers."""
        self.has_begun = True
        encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await self.send({"type": "http.response.start", "status": status, "headers": encoded})

    async def write(self, data: bytes, *, more: bool = True) -> None:
        """Send a part of the body."""
        self._is_whole = not more
        await self.send({"type": "http.response.body", "body": data, "more_body": more})

    async def answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Send a whole answer."""
        await self.begin(status, {"content-type": JSON, **headers, "content-length": str(len(body))})
        await self.write(body, more=False)

    async def unless_left(self, work: Coroutine[Any, Any, T], *, linger: float = 0.0) -> T:
        """Return what the work gives; it is cancelled if the client leaves before. Raises `ClientGone`.

        It may go on for `linger` seconds then. If it is ended by `end`, that problem is raised. The work is done in the
        running task, which is what is cancelled.
        """
        if self._ended_by is not None:  # While its body came.
            work.close()
            raise self._ended_by
        self._working = task = asyncio.current_task()
        leaving = asyncio.ensure_future(self._until_left(linger))
        try:
            result = await work
        except asyncio.CancelledError:
            if not self._is_stopped or task is None or task.uncancel():
                raise
            raise self._ended_by or ClientGone from None
        except Exception as error:
            if self.has_left:
                raise ClientGone from error
            raise
        finally:
            self._working = None
            leaving.cancel()
        if self._is_stopped and task is not None:
            task.uncancel()  # The work has ended all the same.
        if self.has_left:
            raise ClientGone
        return result

    def end(self, problem: Problem) -> None:
        """End the work that is under way, or is to begin; its client is told of `problem`."""
        if not self._is_stopped:
            self._ended_by = problem
            self._stop()

    async def _until_left(self, linger: float) -> None:
        """Wait until the client has left, and end the work `linger` seconds later."""
        while (await self.receive())["type"] != "http.disconnect":
            pass
        self.has_left = not self._is_whole
        if linger:
            await asyncio.sleep(linger)
        if not self._is_whole:
            self._stop()

    def _stop(self) -> None:
        """Cancel the work, once."""
        if self._working is not None and not self._is_stopped:
            self._is_stopped = True
            self._working.cancel()
