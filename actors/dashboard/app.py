"""The page as an ASGI application: one HTML file, a stream of updates, and the acts of operators.

`GET /` is the page, which holds no data and so needs no session. `POST /session` takes the operator's token and gives a
cookie; `GET /stream` sends updates as server-sent events; `POST /look` says what a viewer looks at; `POST /act` acts.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import math
import re
import secrets
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from actors.dashboard.gate import CUSTOM_HEADER, SESSION_SECONDS, TooManyGuesses, cookie_name
from actors.dashboard.messages import AskedAct, GetUpdate, Viewport, act_of
from actors.dashboard.view import Seen, shown
from actors.errors.families import CallFailed
from runtime import RuntimeFault

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from actors.dashboard.gate import Gate, Session
    from actors.dashboard.messages import Act
    from runtime import ActorRef

    Receive: TypeAlias = Callable[[], Awaitable[Any]]
    Send: TypeAlias = Callable[[Any], Awaitable[None]]

INTERVAL = 0.25
"""Seconds between two updates of one viewer, at least."""
HEARTBEAT = 15.0
"""Seconds after which a viewer is sent a comment if nothing has changed, so that a connection that is gone shows."""
PATIENCE = 30.0
"""Seconds that a viewer may take for one update."""
MAX_VIEWERS = 20
MAX_BODY = 65_536
ASK_TIMEOUT = 10.0
ACT_TIMEOUT = 30.0
SEEN = msgspec.json.Decoder(Seen)
HEADERS = {
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


class Login(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /session`."""

    token: str


class LookAt(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /look`: the number that the stream began with, and what its viewer looks at."""

    viewer: str
    look: Viewport


class SeenPart(msgspec.Struct):
    """What of an update concerns the stream itself."""

    seen: msgspec.Raw


class PageRefusal(Exception):
    """A request is answered with this status and these words; it may be made again after `wait` seconds, if stated."""

    def __init__(self, status: int, words: str, *, wait: float | None = None) -> None:
        super().__init__(words)
        self.status, self.wait = status, wait


class Viewer:
    """One open stream: what it looks at, and who may change that."""

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.look = Viewport()


@cache
def page() -> tuple[bytes, str]:
    """Return the page, and the policy that allows its own script and style, by their hashes, and nothing else."""
    text = files("actors.dashboard").joinpath("page.html").read_text(encoding="utf-8")
    hashes = {
        tag: base64.b64encode(hashlib.sha256(found.encode()).digest()).decode()
        for tag in ("script", "style")
        for found in re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
    }
    policy = (
        f"default-src 'none'; script-src 'sha256-{hashes['script']}'; style-src 'sha256-{hashes['style']}'; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    )
    return text.encode(), policy


class DashboardApp:
    """Serves the page of a `Watcher`, at most `MAX_VIEWERS` streams at once, to those that the gate lets in."""

    def __init__(self, watcher: ActorRef[GetUpdate | Act], gate: Gate) -> None:
        self._watcher, self._gate = watcher, gate
        self._viewers: dict[str, Viewer] = {}
        self._is_closing = asyncio.Event()

    def close(self) -> None:
        """End all streams."""
        self._is_closing.set()

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise RuntimeError(
                f"the page speaks HTTP alone, got {scope['type']!r}; turn the lifespan of its server off"
            )
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        root = scope.get("root_path", "")
        path = scope["path"].removeprefix(root)
        try:
            if not self._gate.is_our_host(headers):
                raise PageRefusal(421, "this page is not served under that name; state it with `hosts`")
            if not self._gate.is_our_origin(headers):
                raise PageRefusal(403, "a page elsewhere cannot read this one, nor act")
            await self._route(scope["method"], path, headers, PageExchange(scope, headers, receive, send))
        except TooManyGuesses as braked:
            await refuse(send, PageRefusal(429, str(braked), wait=braked.wait))
        except PageRefusal as refused:
            await refuse(send, refused)

    async def _route(self, method: str, path: str, headers: Mapping[str, str], exchange: PageExchange) -> None:
        match method, path:
            case "GET", "":
                await answer(exchange.send, 307, b"", {"location": f"{exchange.root}/"})
            case "GET", "/":
                html, policy = page()
                told = {"content-type": "text/html; charset=utf-8", "content-security-policy": policy}
                await answer(exchange.send, 200, html, told)
            case "POST", "/session":
                await self._log_in(headers, exchange)
            case "DELETE", "/session":
                check_custom(headers)
                self._gate.close(headers)
                await answer(exchange.send, 204, b"", {"set-cookie": exchange.cookie("", age=0)})
            case "GET", "/stream":
                await self._stream(self._session(headers, exchange), exchange)
            case "POST", "/look":
                session = self._session(headers, exchange)
                asked = await body_of(headers, exchange.receive, LookAt)
                viewer = self._viewers.get(asked.viewer)
                if viewer is None or viewer.owner != session.name:
                    raise PageRefusal(404, "that stream is not open")
                viewer.look = asked.look
                await answer(exchange.send, 204, b"", {})
            case "POST", "/act":
                await self._act(self._session(headers, exchange), headers, exchange)
            case _:
                raise PageRefusal(404, "there is no such path")

    def _session(self, headers: Mapping[str, str], exchange: PageExchange) -> Session:
        now = asyncio.get_running_loop().time()
        session = self._gate.session(headers, address=exchange.address, now=now)
        if session is None:
            raise PageRefusal(401, "open the address that was printed at the start, or give its token")
        return session

    async def _log_in(self, headers: Mapping[str, str], exchange: PageExchange) -> None:
        given = await body_of(headers, exchange.receive, Login)
        now = asyncio.get_running_loop().time()
        secret = self._gate.open(given.token, address=exchange.address, now=now)
        if secret is None:
            raise PageRefusal(401, "that is not the operator's token")
        await answer(exchange.send, 204, b"", {"set-cookie": exchange.cookie(secret)})

    async def _act(self, session: Session, headers: Mapping[str, str], exchange: PageExchange) -> None:
        asked = await body_of(headers, exchange.receive, AskedAct)
        try:
            act = act_of(asked, who=f"{session.name} at {exchange.address}")
        except ValueError as error:
            raise PageRefusal(400, shown(str(error))) from error
        try:
            outcome = await self._watcher.ask(act, timeout=ACT_TIMEOUT)
        except (CallFailed, RuntimeFault) as error:
            raise PageRefusal(409, shown(str(error))) from error
        told = {"content-type": "application/json"}
        await answer(exchange.send, 200, msgspec.json.encode({"outcome": outcome}), told)

    async def _stream(self, session: Session, exchange: PageExchange) -> None:
        """Send updates until the viewer leaves: each is the newest state, however slow it is."""
        if len(self._viewers) >= MAX_VIEWERS:
            raise PageRefusal(503, f"{MAX_VIEWERS} viewers look already; close one of their pages")
        name = secrets.token_urlsafe(9)
        viewer = self._viewers[name] = Viewer(session.name)
        gone = asyncio.create_task(until_gone(exchange.receive))
        closing = asyncio.create_task(self._is_closing.wait())
        try:
            await begin(exchange.send, 200, {"content-type": "text/event-stream", "x-accel-buffering": "no"})
            await send_event(exchange.send, b"viewer", msgspec.json.encode(name))
            await self._send_updates(viewer, exchange.send, {gone, closing}, session)
            await exchange.send({"type": "http.response.body", "body": b""})
        except (OSError, TimeoutError, RuntimeFault):
            pass  # The viewer has gone, or the system has; a page that lives comes again by itself.
        finally:
            del self._viewers[name]
            for task in (gone, closing):
                task.cancel()
            await asyncio.wait({gone, closing})

    async def _send_updates(self, viewer: Viewer, send: Send, ended: set[asyncio.Task[Any]], session: Session) -> None:
        """Send them until one of the tasks has ended, or the session is over."""
        seen, sent_at, loop = Seen(), 0.0, asyncio.get_running_loop()
        while self._gate.lasts(session, now=loop.time()):
            message = GetUpdate(seen=seen, look=viewer.look)
            update = await self._watcher.ask(message, timeout=ASK_TIMEOUT)
            if update is not None:
                await send_event(send, b"update", update)
                seen, sent_at = SEEN.decode(msgspec.json.decode(update, type=SeenPart).seen), loop.time()
            elif loop.time() > sent_at + HEARTBEAT:
                await send_some(send, b": still here\n\n")
                sent_at = loop.time()
            done, _ = await asyncio.wait(ended, timeout=INTERVAL, return_when=asyncio.FIRST_COMPLETED)
            if done:
                return


class PageExchange:
    """One request and where its answer goes."""

    def __init__(self, scope: Any, headers: Mapping[str, str], receive: Receive, send: Send) -> None:
        self.receive, self.send = receive, send
        self.root: str = scope.get("root_path", "")
        self.address = (scope.get("client") or ("an unknown address",))[0]
        self._name = cookie_name(headers)
        self._is_secure = scope.get("scheme") == "https" or headers.get("origin", "").lower().startswith("https:")

    def cookie(self, secret: str, *, age: float = SESSION_SECONDS) -> str:
        """Return the header that sets our cookie."""
        secure = "; Secure" if self._is_secure else ""
        path = self.root or "/"
        return f"{self._name}={secret}; HttpOnly; SameSite=Strict; Path={path}{secure}; Max-Age={age:.0f}"


T = Any
BODY_TIMEOUT = 10.0
"""Seconds in which the body of a request has to come."""


def check_custom(headers: Mapping[str, str]) -> None:
    """Refuse a request that a form of another page could have made."""
    if CUSTOM_HEADER not in headers:
        raise PageRefusal(403, f"the header {CUSTOM_HEADER} is missing")


async def body_of(headers: Mapping[str, str], receive: Receive, kind: type[T]) -> T:
    """Return the body of a request. Raises `PageRefusal` for one that is not what it must be."""
    check_custom(headers)
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise PageRefusal(415, "the body must be application/json")
    body = bytearray()
    until = asyncio.get_running_loop().time() + BODY_TIMEOUT
    while True:
        try:
            async with asyncio.timeout_at(until):
                message = await receive()
        except TimeoutError:
            raise PageRefusal(408, f"the body has not come within {BODY_TIMEOUT:g} s") from None
        if message["type"] == "http.disconnect":
            raise PageRefusal(400, "the client has gone")
        body += message.get("body", b"")
        if len(body) > MAX_BODY:
            raise PageRefusal(413, f"the body has more than {MAX_BODY} bytes")
        if not message.get("more_body", False):
            break
    try:
        return msgspec.json.decode(body, type=kind)
    except (ValueError, TypeError) as error:
        raise PageRefusal(400, shown(str(error))) from error


async def until_gone(receive: Receive) -> None:
    """Wait until the client has closed its connection."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def begin(send: Send, status: int, headers: Mapping[str, str]) -> None:
    """Send the status and the headers, with those that every answer has."""
    policy = {"content-security-policy": "default-src 'none'; frame-ancestors 'none'"}
    told = {**HEADERS, **policy, **headers}
    encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in told.items()]
    await send({"type": "http.response.start", "status": status, "headers": encoded})


async def answer(send: Send, status: int, body: bytes, headers: Mapping[str, str]) -> None:
    """Send a whole answer."""
    await begin(send, status, {"content-length": str(len(body)), **headers})
    await send({"type": "http.response.body", "body": body})


async def refuse(send: Send, refused: PageRefusal) -> None:
    """Answer with a refusal."""
    told = {"content-type": "application/json"}
    if refused.wait is not None:
        told["retry-after"] = str(math.ceil(refused.wait))
    await answer(send, refused.status, msgspec.json.encode({"error": str(refused)}), told)


async def send_event(send: Send, name: bytes, data: bytes) -> None:
    """Send one server-sent event; JSON has no line breaks."""
    await send_some(send, b"event: " + name + b"\ndata: " + data + b"\n\n")


async def send_some(send: Send, body: bytes) -> None:
    """Send a part of a stream; raises TimeoutError if it is not taken for long."""
    async with asyncio.timeout(PATIENCE):
        await send({"type": "http.response.body", "body": body, "more_body": True})
