"""Calls to a fake server by a plain HTTP client, for the tests of its wire."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple

import aiohttp
import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from actors.fake import FakeServer


FOR_EVER = aiohttp.ClientTimeout(total=None)


class Got(NamedTuple):
    """One answer as it came."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def events(self) -> list[Any]:
        """The data of each event of a stream; `[DONE]` as text."""
        return [
            line[6:].decode() if line == b"data: [DONE]" else msgspec.json.decode(line[6:])
            for line in self.body.split(b"\n")
            if line.startswith(b"data: ")
        ]


def asks(text: str = "hello", *, model: str = "m", **options: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}]} | options


async def call(
    server: FakeServer, body: Any, *, path: str = "/v1/chat/completions", method: str = "POST", **headers: str
) -> Got:
    sent = {"authorization": "Bearer sk-test"} | {name.replace("_", "-"): value for name, value in headers.items()}
    data = body if isinstance(body, bytes | None) else msgspec.json.encode(body)
    async with (
        aiohttp.ClientSession(timeout=FOR_EVER) as session,
        session.request(method, server.url + path, data=data, headers=sent) as response,
    ):
        return Got(response.status, response.headers, await response.read())


async def until_busy(server: FakeServer) -> None:
    """Wait until a call has come."""
    while not server.books.under_way:  # noqa: ASYNC110 - it is another program that would say so.
        await asyncio.sleep(0)
