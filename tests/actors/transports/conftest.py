"""The upstream and the transports to it, which end with the test."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from actors.transports.http import HttpTransport
from tests.actors.transports.http_upstream import Upstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    upstream = Upstream()
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0)
    upstream.port = server.sockets[0].getsockname()[1]
    yield upstream
    server.close()
    await upstream.stop()


@pytest.fixture
async def door(upstream: Upstream) -> AsyncIterator[Callable[..., HttpTransport]]:
    async with contextlib.AsyncExitStack() as stack:

        def make(url: str = "", *, name: str = "alder", **options: Any) -> HttpTransport:
            options = {"paid": True, "idempotent": "key"} | options
            transport = HttpTransport(name, url or upstream.url, **options)
            stack.push_async_callback(transport.aclose)
            return transport

        yield make
