"""Requests that a client sends by itself for one call are counted, and prove nothing of the tries before the last."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from actors.errors.families import CallFailed, OutcomeUnknown, Throttled
from actors.transports import FunctionTransport, ProviderReply, count_wire_calls
from tests.actors.transports.test_function import a_call


class RetryingSdk:
    """An SDK around a client, as those of openai and anthropic are: it tries three times, and says nothing of it."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self._client = httpx.AsyncClient(transport=httpx.MockTransport(self.answer), follow_redirects=True)

    def answer(self, request: httpx.Request) -> httpx.Response:
        status = self.statuses.pop(0)
        return httpx.Response(status, json={}, headers={"location": "/there"} if 300 <= status < 400 else {})

    async def create(self) -> str:
        response = None
        for _ in range(3):
            response = await self._client.post("http://alder/v1/chat")
            if response.status_code == 200:
                return "done"
        assert response is not None
        response.raise_for_status()
        return ""


def around(sdk: RetryingSdk, **declared: Any) -> FunctionTransport:
    async def ask(_call: object) -> str:
        return await sdk.create()

    return FunctionTransport(ask, **({"paid": True, "idempotent": "no"} | declared))


@pytest.mark.parametrize(("statuses", "count"), [((200,), 1), ((503, 200), 2), ((302, 200), 2), ((503, 302, 200), 3)])
async def test_each_request_of_a_client_counts_for_its_call(statuses, count):
    sdk = count_wire_calls(RetryingSdk(*statuses, *statuses))
    transport = around(sdk)
    for _ in range(2):
        assert await transport.call(a_call()) == ProviderReply(output="done", wire_calls=count)


async def test_calls_side_by_side_are_counted_apart_in_tasks_of_their_own_too():
    client = count_wire_calls(httpx.AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(200))))

    async def ask(call):
        for _ in range(int(call.timeout)):
            await asyncio.gather(client.get("http://alder/"), asyncio.sleep(0))

    transport = FunctionTransport(ask, paid=False, idempotent="repeatable")
    replies = await asyncio.gather(*(transport.call(a_call(timeout=float(count))) for count in (1, 2, 3)))
    assert [reply.wire_calls for reply in replies] == [1, 2, 3]
    await client.get("http://alder/")  # For no call.


async def test_the_last_error_of_a_client_that_was_seen_to_retry_proves_nothing_of_the_tries_before():
    sdk = RetryingSdk(500, 503, 429, 429)
    with pytest.raises(CallFailed) as told:
        await around(count_wire_calls(sdk), client_retries=False).call(a_call())
    assert (type(told.value), told.value.charged, told.value.wire_calls) == (OutcomeUnknown, "held", 3)
    sdk.statuses = [429, 429, 429]
    with pytest.raises(Throttled) as unpaid:
        await around(sdk, paid=False, idempotent="repeatable").call(a_call())
    assert unpaid.value.wire_calls == 3


@pytest.mark.real_time
async def test_a_client_in_a_thread_is_counted_too():
    client = count_wire_calls(httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200))))

    def ask(_call: object) -> str:
        client.get("http://alder/")
        client.get("http://alder/")
        return "done"

    assert (await FunctionTransport(ask, paid=True, idempotent="no").call(a_call())).wire_calls == 2


async def test_what_the_function_states_counts_if_it_is_more():
    client = count_wire_calls(httpx.AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(200))))

    async def ask(_call: object) -> ProviderReply:
        await client.get("http://alder/")
        return ProviderReply(output="done", wire_calls=4)

    assert (await FunctionTransport(ask, paid=True, idempotent="no").call(a_call())).wire_calls == 4


@pytest.mark.parametrize("client", [None, object(), "client"])
def test_a_client_that_cannot_be_counted_is_told_at_once(client):
    with pytest.raises(TypeError, match="cannot be counted; give a client of httpx, httpx2, openai or anthropic"):
        count_wire_calls(client)
