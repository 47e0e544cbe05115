"""How a viewer in a terminal is connected: by the socket of a program, or by the address of its page with its token."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

import msgspec

from actors.dashboard.app import LookAt
from actors.dashboard.gate import CUSTOM_HEADER
from actors.dashboard.local import LocalAsk, Shown
from actors.dashboard.messages import Viewport
from actors.dashboard.socket_folder import CONNECT_SECONDS, is_of_our_user
from actors.dashboard.view import Seen, Update, shown
from actors.transports.aiohttp_wire import AiohttpWire
from actors.transports.wire import WireProgress, WireRequest

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from actors.dashboard.messages import AskedAct
    from actors.transports.wire import Wire, WireResponse

INTERVAL = 0.25
"""Seconds between two questions."""
PATIENCE = 45.0
"""Seconds without a word after which a connection counts as lost; a page says every 15 that it is there."""
MAX_ANSWER = 262_144
"""Bytes of one answer; an update has at most 64 KB."""
T = TypeVar("T")


class NotAllowed(Exception):
    """The token is not that of the operator: to ask again is of no use."""


class LinkRefusal(Exception):
    """What was asked for is refused, for the reason in its words."""


class Link(Protocol):
    """An open connection to a program; `name` says in words which."""

    @property
    def name(self) -> str: ...

    def updates(self) -> AsyncIterator[Update]:
        """Iterate over what has changed, for ever. Raises OSError if the connection is lost, or refused."""
        ...

    async def look_at(self, look: Viewport) -> None:
        """Say what is looked at from now on."""
        ...

    async def act(self, act: AskedAct) -> str:
        """Have something done; return in words what was. Raises `LinkRefusal`, and OSError for a lost connection."""
        ...


class LinkPlace(Protocol):
    """Where a program can be reached."""

    def open(self) -> AbstractAsyncContextManager[Link]:
        """Connect for the length of a block. Raises OSError, and `NotAllowed` for a wrong token."""
        ...


class LinkReply(msgspec.Struct):
    """What a program answers: the update, what was done, or why it was not."""

    update: Update | None = None
    outcome: str | None = None
    error: str | None = None


def decoded(data: bytes, kind: type[T]) -> T:
    """Return an answer. Raises OSError for what no program of ours sends."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (ValueError, TypeError) as error:
        raise ConnectionError("what answers is no `understudy` of this version") from error


class SocketPlace:
    """The socket of a program of our user."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[SocketLink]:
        """Connect for the length of a block. Raises OSError."""
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                reader, writer = await asyncio.open_unix_connection(self._path, limit=MAX_ANSWER)
        except TimeoutError:
            raise TimeoutError(f"no answer within {CONNECT_SECONDS:g} s") from None
        try:
            if not is_of_our_user(writer.get_extra_info("socket")):
                raise PermissionError("the program at the socket is of another user")
            program = decoded(await line_of(reader, CONNECT_SECONDS), Shown)
            yield SocketLink(program, reader, writer)
        finally:
            writer.transport.abort()


class SocketLink:
    """Asks line by line; an act waits until the question under way is answered."""

    def __init__(self, program: Shown, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.program, self._reader, self._writer = program, reader, writer
        self._asking = asyncio.Lock()
        self._hurry = asyncio.Event()
        self._look = Viewport()

    @property
    def name(self) -> str:
        return f"{shown(self.program.system)}, pid {self.program.pid}"

    async def updates(self) -> AsyncIterator[Update]:
        seen = Seen()
        while True:
            self._hurry.clear()
            reply = await self._ask(LocalAsk(seen=seen, look=self._look))
            if reply.error is not None:
                raise ConnectionError(shown(reply.error))
            if reply.update is not None:
                seen = reply.update.seen
                yield reply.update
            try:
                async with asyncio.timeout(INTERVAL):
                    await self._hurry.wait()
            except TimeoutError:
                pass

    async def look_at(self, look: Viewport) -> None:
        self._look = look
        self._hurry.set()

    async def act(self, act: AskedAct) -> str:
        reply = await self._ask(LocalAsk(act=act))
        self._hurry.set()
        if reply.outcome is None:
            raise LinkRefusal(shown(reply.error or "it was not done"))
        return shown(reply.outcome)

    async def _ask(self, message: LocalAsk) -> LinkReply:
        async with self._asking:
            self._writer.write(msgspec.json.encode(message) + b"\n")
            await self._writer.drain()
            return decoded(await line_of(self._reader, PATIENCE), LinkReply)


async def line_of(reader: asyncio.StreamReader, seconds: float) -> bytes:
    """Return the next line. Raises OSError if there is none in time."""
    try:
        async with asyncio.timeout(seconds):
            line = await reader.readline()
    except TimeoutError:
        raise TimeoutError(f"no answer within {seconds:g} s") from None
    except ValueError as error:
        raise ConnectionError("an answer is too long") from error
    if not line:
        raise ConnectionError("the program has closed the connection")
    return line


class PagePlace:
    """The page of a program at a URL, with the operator's token."""

    def __init__(self, url: str, token: str) -> None:
        self._url, self._token = url.rstrip("/"), token

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[PageLink]:
        """Connect for the length of a block. Raises OSError, and `NotAllowed` for a wrong token."""
        wire = AiohttpWire()
        try:
            link = PageLink(self._url, self._token, wire)
            await link.begin()
            yield link
        finally:
            await wire.aclose()


class PageLink:
    """One open stream of a page; what is looked at and acts are requests of their own."""

    def __init__(self, url: str, token: str, wire: Wire) -> None:
        self._url, self._wire = url, wire
        self._headers = {"authorization": f"Bearer {token}", CUSTOM_HEADER: "1"}
        self._stream: WireResponse | None = None
        self._viewer: str | None = None
        self._look = Viewport()

    @property
    def name(self) -> str:
        return shown(self._url)

    async def begin(self) -> None:
        """Open the stream. Raises OSError, and `NotAllowed` for a wrong token."""
        stream = await self._send("GET", "/stream")
        if stream.status != 200:
            raise ConnectionError(await refusal_of(stream))
        self._stream = stream

    async def updates(self) -> AsyncIterator[Update]:
        assert self._stream is not None  # noqa: S101 - it has begun.
        async for kind, data in events_of(self._stream):
            match kind:
                case b"viewer":
                    self._viewer = decoded(data, str)
                    await self.look_at(self._look)
                case b"update":
                    yield decoded(data, Update)
                case _:
                    pass

    async def look_at(self, look: Viewport) -> None:
        self._look = look
        if self._viewer is not None:
            (await self._send("POST", "/look", LookAt(self._viewer, look))).close()

    async def act(self, act: AskedAct) -> str:
        response = await self._send("POST", "/act", act)
        try:
            if response.status != 200:
                raise LinkRefusal(await refusal_of(response))
            return shown(decoded(await body_of(response), LinkReply).outcome or "done")
        finally:
            response.close()

    async def _send(
        self, method: Literal["GET", "POST"], path: str, body: msgspec.Struct | None = None
    ) -> WireResponse:
        """Return the answer, whatever its status. Raises OSError, and `NotAllowed` for a wrong token."""
        headers = self._headers if body is None else {**self._headers, "content-type": "application/json"}
        content = b"" if body is None else msgspec.json.encode(body)
        request = WireRequest(method, f"{self._url}{path}", headers, content)
        try:
            async with asyncio.timeout(PATIENCE):
                response = await self._wire.send(request, WireProgress())
        except TimeoutError:
            raise TimeoutError(f"no answer within {PATIENCE:g} s") from None
        if response.status == 401:
            response.close()
            raise NotAllowed("the page refuses the token")
        return response


async def events_of(response: WireResponse) -> AsyncIterator[tuple[bytes, bytes]]:
    """Iterate over the kind and the data of server-sent events that have one line of each. Raises OSError."""
    waiting = bytearray()
    async for chunk in response.chunks(gap=PATIENCE):
        waiting += chunk
        *events, rest = waiting.split(b"\n\n")
        waiting = bytearray(rest)
        if len(waiting) > MAX_ANSWER:
            raise ConnectionError("an answer is too long")
        for event in events:
            fields = dict(line.split(b": ", 1) for line in bytes(event).split(b"\n") if b": " in line)
            yield fields.get(b"event", b""), fields.get(b"data", b"")
    raise ConnectionError("the page has ended the stream")


async def body_of(response: WireResponse) -> bytes:
    """Return a short body. Raises OSError."""
    body = bytearray()
    async for chunk in response.chunks(gap=PATIENCE):
        body += chunk
        if len(body) > MAX_ANSWER:
            raise ConnectionError("an answer is too long")
    return bytes(body)


async def refusal_of(response: WireResponse) -> str:
    """Return in words why a page has refused."""
    try:
        said = decoded(await body_of(response), LinkReply).error
    except OSError:
        said = None
    return shown(said) if said else f"the page answers with status {response.status}"
