"""The clients that are compared. Each posts the same call and decodes its answer, with at most so many at once."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import aiohttp
import msgspec

from actors import Listing, Market, Provider, ProviderCall, Supervisor, smart_request
from actors.money import Micros
from actors.transports.http import HttpTransport
from runtime import ActorSystem

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    Post: TypeAlias = Callable[[], Awaitable[Any]]
    Client: TypeAlias = Callable[[str, int], AbstractAsyncContextManager[Post]]

TIMEOUT = 60.0
BODY = msgspec.json.encode({"service": "benchmark", "input": "hello, world"})
HEADERS = {"Content-Type": "application/json", "Accept-Encoding": "identity"}


@asynccontextmanager
async def bare_aiohttp(url: str, at_once: int) -> AsyncGenerator[Post]:
    free = asyncio.Semaphore(at_once)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def post() -> Any:
            async with free, session.post(url, data=BODY, headers=HEADERS) as response:
                assert response.status == 200
                return msgspec.json.decode(await response.read())["output"]

        yield post


@asynccontextmanager
async def bare_httpx(url: str, at_once: int) -> AsyncGenerator[Post]:
    httpx: Any = importlib.import_module("httpx")
    limits = httpx.Limits(max_connections=at_once, max_keepalive_connections=at_once)
    async with httpx.AsyncClient(limits=limits, timeout=TIMEOUT) as client:

        async def post() -> Any:
            response = await client.post(url, content=BODY, headers=HEADERS)
            assert response.status_code == 200
            return msgspec.json.decode(response.content)["output"]

        yield post


@asynccontextmanager
async def transport_alone(url: str, at_once: int) -> AsyncGenerator[Post]:
    transport = HttpTransport("alder", url, paid=True, idempotent="key", max_connections=at_once)
    call = ProviderCall(
        service="benchmark",
        input="hello, world",
        request_id="request-1",
        idempotency_key="key-1",
        max_cost=Micros(1),
        timeout=TIMEOUT,
    )

    async def post() -> Any:
        return (await transport.call(call)).output

    yield post
    await transport.aclose()


@asynccontextmanager
async def smart_requests(url: str, at_once: int) -> AsyncGenerator[Post]:
    """Enter a system that makes whole requests: discovery, choice, budget, breaker, retry and transport."""
    listing = Listing(
        provider=Provider(name="alder", services={"benchmark"}, price="0.000001", reputation=90.0),
        transport=lambda: HttpTransport("alder", url, paid=True, idempotent="key", max_connections=at_once),
        max_concurrency=at_once,
        timeout=TIMEOUT,
    )
    async with ActorSystem("benchmark", log=False) as system:
        supervisor = system.spawn(lambda: Supervisor(Market(providers=[listing])), name="supervisor")

        async def post() -> Any:
            result = await smart_request(supervisor, service="benchmark", input="hello, world", timeout=TIMEOUT)
            return result.output

        yield post


def clients() -> dict[str, Client]:
    """Return the clients that are installed, ours first."""
    found: dict[str, Client] = {"ours": smart_requests, "transport": transport_alone, "aiohttp": bare_aiohttp}
    if importlib.util.find_spec("httpx") is not None:
        found["httpx"] = bare_httpx
    return found
