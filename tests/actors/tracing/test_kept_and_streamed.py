"""Spans of requests that share a call, are answered by a receipt, or come as a stream."""

from __future__ import annotations

import asyncio

import pytest

from actors import NoProvider
from actors.errors import ConsumerLeft, StreamBroken
from actors.supervisor import smart_stream
from tests.actors.supervisor.stage import Script, offer
from tests.actors.tracing.stage import own, seconds, traced


async def test_a_request_that_joins_is_linked_to_the_one_whose_call_serves_it():
    async with traced(offer("a", Script(["done"], lasts=2.0), price=10)) as stage:
        first = asyncio.create_task(stage.request(idempotency_key="k", request_id="first"))
        await asyncio.sleep(0.5)
        await asyncio.gather(first, stage.request(idempotency_key="k", request_id="second"))
        await stage.request(idempotency_key="k", request_id="third")
    first, second, third = sorted(stage.named("request"), key=lambda one: own(one)["request_id"])
    (call,) = stage.named("call")
    assert call.parent.span_id == first.context.span_id
    assert [link.context.span_id for link in second.links] == [first.context.span_id]
    assert (own(second)["joined"], own(second)["cost"], own(second)["paid"]) == (True, 0, 10)
    assert seconds(second) == pytest.approx(1.5, abs=1e-6)
    # The third was answered by the receipt: it has no call, and links to nothing.
    assert (own(third)["replayed"], own(third)["paid"], own(third)["attempts"], third.links) == (True, 10, 0, ())
    assert len({own(one)["key"] for one in (first, second, third)}) == 1
    assert len({one.context.trace_id for one in (first, second, third)}) == 3


async def test_a_call_that_is_begun_by_a_request_not_recorded_is_told_by_one_that_joins():
    script = Script("done", lasts=2.0)
    headers = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    async with traced(offer("a", script, price=10, max_concurrency=1), tracing={"sample": 0.0}) as stage:
        before = asyncio.create_task(stage.request())
        await asyncio.sleep(0.1)
        first = asyncio.create_task(stage.request(idempotency_key="k"))
        await asyncio.sleep(0.1)
        await asyncio.gather(before, first, stage.request(idempotency_key="k", **stage.part_of(headers)))
    (request,) = stage.named("request")
    (call,) = stage.named("call")
    assert call.parent.span_id == request.context.span_id


class Drip:
    """A provider that streams a piece a second, and then does what it is told."""

    def __init__(self, pieces: int, *, fails: bool = False) -> None:
        self.pieces, self.fails = pieces, fails

    async def __call__(self, call):
        for number in range(self.pieces):
            await asyncio.sleep(1.0)
            await call.stream.put(number)
        if self.fails:
            raise ConnectionResetError("cut")
        return "whole"


async def whole(stage):
    async with smart_stream(stage.ref, service="s", input="x") as stream:
        return [piece async for piece in stream]


async def test_the_spans_of_a_stream_end_with_it_and_tell_the_first_piece():
    async with traced(offer("a", Drip(3))) as stage:
        assert await whole(stage) == [0, 1, 2]
    (request,), (call,) = stage.named("request"), stage.named("call")
    assert [seconds(one) for one in (request, call)] == pytest.approx([3.0, 3.0], abs=1e-6)
    assert own(call)["first_piece"] == pytest.approx(1.0)
    assert own(request)["outcome"] == "done"


async def test_a_stream_that_breaks_off_is_an_error_and_one_that_is_left_is_none():
    async with traced(offer("a", Drip(2, fails=True))) as stage:
        with pytest.raises(StreamBroken):
            await whole(stage)
    (request,), (call,) = stage.named("request"), stage.named("call")
    assert (own(request)["error.type"], request.status.is_ok) == ("StreamBroken", False)
    assert (call.status.is_ok, own(call)["first_piece"]) == (False, pytest.approx(1.0))
    async with traced(offer("a", Drip(9))) as stage:
        async with smart_stream(stage.ref, service="s", input="x") as stream:
            async for _ in stream:
                break
        await asyncio.sleep(1.0)
    (request,), (call,) = stage.named("request"), stage.named("call")
    assert seconds(request) == pytest.approx(1.0, abs=1e-3)
    left = {own(one).get("error.type", own(one)["outcome"]) for one in (request, call)}
    assert left <= {"cancelled", ConsumerLeft.__name__}


async def test_a_request_to_no_provider_has_no_call():
    async with traced(offer("a", Script("done"))) as stage:
        with pytest.raises(NoProvider):
            await stage.request(service="other")
    (request,) = stage.named("request")
    assert own(request)["outcome"] == "failed"
    assert stage.named("call") == []
