"""The requests that real SDKs send by themselves for one call, counted, and told where an operator looks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from actors import FunctionTransport, GetStatus, Listing, Market, Provider, Supervisor, smart_request
from actors.fake import FakeConfig, FakeModel, FaultPlan, fake_server
from actors.fake.faults import FakeOutage
from actors.transports import count_wire_calls
from runtime import ActorSystem
from tests.actors.fake.calls import asks
from tests.real_time import FAR

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

openai = pytest.importorskip("openai")
anthropic = pytest.importorskip("anthropic")
httpx = pytest.importorskip("httpx")
httpx2 = pytest.importorskip("httpx2")

pytestmark = [pytest.mark.sdk, pytest.mark.real_time, pytest.mark.filterwarnings("ignore")]

MESSAGES: list[Any] = asks()["messages"]
REFUSED_ONCE = FaultPlan(faults=(FakeOutage(status=503, retry_after=0.001, tries=1),))


def of_openai(url: str) -> tuple[Any, Callable[[Any], Awaitable[Any]]]:
    client = count_wire_calls(openai.AsyncOpenAI(api_key="x", base_url=f"{url}/v1"))
    return client, lambda _: client.with_options(timeout=FAR).chat.completions.create(model="m", messages=MESSAGES)


def of_anthropic(url: str) -> tuple[Any, Callable[[Any], Awaitable[Any]]]:
    client = count_wire_calls(anthropic.AsyncAnthropic(api_key="x", base_url=url))
    return client, lambda _: client.messages.create(model="m", max_tokens=9, messages=MESSAGES)


def of_httpx(module: Any) -> Callable[[str], tuple[Any, Callable[[Any], Awaitable[Any]]]]:
    def make(url: str) -> tuple[Any, Callable[[Any], Awaitable[Any]]]:
        client = count_wire_calls(module.AsyncClient(base_url=url))

        async def ask(_call: object) -> object:
            response = await client.post("/v1/chat/completions", json=asks())
            if response.status_code == 503:
                response = await client.post("/v1/chat/completions", json=asks())
            return response.raise_for_status().json()

        return client, ask

    return make


CLIENTS = {"openai": of_openai, "anthropic": of_anthropic, "httpx": of_httpx(httpx), "httpx2": of_httpx(httpx2)}


@pytest.mark.parametrize("name", CLIENTS)
async def test_a_retry_of_an_sdk_is_counted_and_told(name: str):
    async with (
        fake_server(FakeConfig(models=(FakeModel(name="m"),), plan=REFUSED_ONCE)) as server,
        ActorSystem("retries", log=False) as system,
    ):
        client, ask = CLIENTS[name](server.url)
        listing = Listing(
            provider=Provider(name="alder", services={"chat"}, price="0.01"),
            transport=lambda: FunctionTransport(ask, paid=True, idempotent="no"),
            timeout=FAR,
        )
        supervisor = system.spawn(lambda: Supervisor(Market(providers=[listing])))
        for _ in range(2):
            await smart_request(supervisor, service="chat", input="x", timeout=FAR)
        (status,) = await supervisor.ask(GetStatus(), timeout=FAR)
        assert (status.calls, status.hidden_calls, server.books.calls) == (2, 1, 3)
        await (client.aclose() if hasattr(client, "aclose") else client.close())
