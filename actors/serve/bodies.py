"""Reads the body of a request: bounded in size, time and depth, and decoded without stopping the loop."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Self, cast

import msgspec

from actors.serve.problems import Problem
from actors.serve.within import within
from actors.transports.http_json import decode_json

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from actors.serve.config import DoorConfig

MAX_DEPTH = 100
"""How deep a body may be nested."""


class ClientGone(Exception):
    """The client closed its connection before it had its whole answer."""


class BodyRoom:
    """The bytes of all bodies that are held at the same time."""

    def __init__(self, config: DoorConfig) -> None:
        self.config = config
        self.held = 0

    def reading(self) -> RequestBody:
        """Return a reader, whose body counts until the block is left that it opens."""
        return RequestBody(self, self.config)


class RequestBody:
    """Reads one body."""

    def __init__(self, room: BodyRoom, config: DoorConfig) -> None:
        self._room, self._config = room, config
        self.size = 0
        self.text = b""
        """The body as it came."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._room.held -= self.size

    async def read(self, receive: Callable[[], Awaitable[Any]], *, length: str | None) -> dict[str, Any]:
        """Return the JSON object that a body is. Raises `Problem`, or `ClientGone`.

        `length` is what the client says of it, so that a body that is too large is refused before it is sent.
        """
        if length is not None and length.isdigit():
            self._check(int(length[:20]))
        try:
            self.text = await within(self._config.body_timeout, self._text(receive))
        except TimeoutError as error:
            raise Problem(408, f"the body took more than {self._config.body_timeout:g} s", code="timeout") from error
        return await decoded(self.text)

    async def _text(self, receive: Callable[[], Awaitable[Any]]) -> bytes:
        parts: list[bytes] = []
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            part = message.get("body", b"")
            self._check(self.size + len(part))
            self.size += len(part)
            self._room.held += len(part)
            parts.append(part)
            if not message.get("more_body", False):
                return parts[0] if len(parts) == 1 else b"".join(parts)

    def _check(self, size: int) -> None:
        if size > self._config.max_body:
            raise Problem(413, f"the body has more than {self._config.max_body} bytes", code="request_too_large")
        if self._room.held - self.size + size > self._config.max_bodies:
            message = f"the bodies under way have {self._config.max_bodies} bytes already; nothing was called"
            raise Problem(503, message, code="no_room", retry_after=1.0, should_retry=True)


async def decoded(text: bytes) -> dict[str, Any]:
    """Return the JSON object that a text is; raises `Problem` if it is none, or is nested too deep."""
    try:
        value = await decode_json(text, deadline=math.inf)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise Problem(400, f"the body is no JSON: {error}", code="invalid_json") from error
    if not isinstance(value, dict):
        raise Problem(400, "the body must be a JSON object", code="invalid_json")
    body = cast("dict[str, Any]", value)
    if is_too_deep(text, body):
        raise Problem(400, f"the body is nested more than {MAX_DEPTH} deep", code="invalid_json")
    return body


def is_too_deep(text: bytes, value: object) -> bool:
    """Return whether a decoded text is nested deeper than `MAX_DEPTH`.

    >>> is_too_deep(b'{"a": [[1]]}', {"a": [[1]]})
    False
    """
    if text.count(b"[") + text.count(b"{") <= MAX_DEPTH:
        return False
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for outer in level for inner in _inner(outer)]
        if not level:
            return False
    return True


def _inner(value: object) -> list[object]:
    if isinstance(value, dict):
        held = cast("dict[str, object]", value).values()
    elif isinstance(value, list):
        held = cast("list[object]", value)
    else:
        return []
    return [one for one in held if isinstance(one, dict | list)]
