"""One trace for each request, with a span for each call and each wait, and what it is part of."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from actors import FunctionTransport, OutcomeUnknown
from actors.ledger.messages import OpenAccount
from actors.money import Micros
from actors.tracing import Tracing
from actors.transports.reconciliation import NeverRan
from tests.actors.supervisor.stage import Script, flaky, healthy_for, offer
from tests.actors.tracing.stage import own, sdk, seconds, traced

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


async def test_a_request_is_one_trace_with_a_span_for_each_call():
    failing, done = Script(flaky("a"), lasts=1.0), Script("done", lasts=2.0)
    async with traced(offer("a", failing, price=100), offer("b", done, price=200)) as stage:
        result = await stage.request(request_id="r-1")
    request, found, first, second = stage.spans
    assert [one.name for one in stage.spans] == ["request s", "wait discovery", "call a", "call b"]
    assert {one.context.trace_id for one in stage.spans} == {request.context.trace_id}
    assert [one.parent.span_id for one in (found, first, second)] == [request.context.span_id] * 3
    assert request.parent is None
    assert [seconds(one) for one in (request, first, second)] == pytest.approx([3.0, 1.0, 2.0], abs=1e-6)
    assert own(request) == {
        "request_id": "r-1",
        "service": "s",
        "provider": "b",
        "attempts": 2,
        "outcome": "done",
        "cost": result.cost,
        "held": 0,
    }
    assert own(first) == {
        "provider": "a",
        "attempt": 1,
        "reserved": 100,
        "cost": 0,
        "held": 0,
        "error.type": "Transient",
    }
    assert own(second) == {"provider": "b", "attempt": 2, "reserved": 200, "cost": 200, "held": 0}
    assert (request.status.is_ok, first.status.is_ok, second.status.is_ok) == (True, False, True)
    assert first.status.description is None  # What a provider says may quote the prompt.


async def test_a_request_that_fails_has_the_kind_of_its_error_and_what_is_held():
    unknown = Script(ConnectionResetError("gone"))
    async with traced(offer("a", unknown, price=100)) as stage:
        with pytest.raises(OutcomeUnknown):
            await stage.request()
    request, call = stage.spans[0], stage.named("call")[0]
    told = own(request)
    assert (told["outcome"], told["held"], told["cost"]) == ("unknown", 100, 0)
    assert (own(call)["held"], own(call)["error.type"], own(request)["error.type"]) == (
        100,
        "OutcomeUnknown",
        "OutcomeUnknown",
    )
    assert not request.status.is_ok


async def test_waits_have_spans_with_their_reasons():
    slow = Script("done", lasts=2.0)
    async with traced(offer("a", slow, max_concurrency=1)) as stage:
        await asyncio.gather(stage.request(), stage.request())
    (wait,) = stage.named("wait place")
    assert seconds(wait) == pytest.approx(2.0, abs=1e-6)
    assert own(wait) == {"reason": "place", "provider": "a", "before": 0}


class Knows(FunctionTransport):
    """A transport that can find out what became of a call, within a second."""

    async def look_up(self, call: Any, *, timeout: float) -> Any:  # noqa: ASYNC109 - see `LooksUp`.
        await asyncio.sleep(1.0)
        return NeverRan()


async def test_the_finding_out_of_an_outcome_and_a_health_check_have_spans():
    script = Script(ConnectionResetError("gone"), "done")
    checks: list[str] = []
    check = healthy_for("a", checks, lasts=0.5)
    listing = offer("a", script, price=100)
    listing = msgspec.structs.replace(
        listing, transport=lambda: Knows(script, paid=True, idempotent="no", provider="a", check=check)
    )
    async with traced(listing) as stage:
        await stage.request(health_check=True)
    found, checked = stage.named("wait outcome"), stage.named("wait health check")
    assert [(seconds(one), own(one)["provider"]) for one in found] == [(pytest.approx(1.0, abs=1e-6), "a")]
    assert seconds(checked[0]) == pytest.approx(0.5, abs=1e-6)


async def test_a_wait_for_money_has_a_span_too():
    slow = Script("done", lasts=2.0)
    async with traced(offer("a", slow, price=100)) as stage:
        await stage.ref.ask(OpenAccount(name="team", cap=Micros(200)), timeout=1.0)
        first = asyncio.create_task(stage.request(account="team"))
        await asyncio.sleep(0.5)
        await asyncio.gather(
            first, stage.request(account="team"), stage.request(account="team"), return_exceptions=True
        )
    assert [own(one)["account"] for one in stage.named("request")] == ["team"] * 3
    assert stage.named("wait money")


async def test_the_span_that_is_current_for_the_asker_is_the_parent():
    async with traced(offer("a", Script("done", lasts=1.0), max_concurrency=1)) as stage:

        async def one(name: str) -> Any:
            with stage.tracer.start_as_current_span(name) as span:
                await stage.request()
                return span.get_span_context()

        contexts = await asyncio.gather(one("first"), one("second"))
        await stage.request()
    parents = [one.parent for one in stage.named("request")]
    assert [one and one.span_id for one in parents] == [contexts[0].span_id, contexts[1].span_id, None]
    (second,) = (one for one in stage.named("call") if one.context.trace_id == contexts[1].trace_id)
    assert second.name == "call a"


@pytest.mark.parametrize(("flag", "is_recorded"), [("01", True), ("00", False)])
async def test_a_request_follows_the_headers_that_it_came_with(flag, is_recorded):
    provider = Script("done")
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-{flag}", "tracestate": "vendor=1"}
    async with traced(offer("a", provider), tracing={"sample": 0.0}) as stage:
        await stage.request(**stage.part_of(headers))
    (call,) = provider.calls
    assert call.trace["tracestate"] == "vendor=1"
    _, trace, span, told = call.trace["traceparent"].split("-")
    assert (trace, told) == (TRACE, flag)
    if is_recorded:
        (of_call,) = stage.named("call")
        assert f"{of_call.context.span_id:016x}" == span
        assert stage.named("request")[0].parent.is_remote
    else:
        assert (stage.names, span) == ([], PARENT)


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"traceparent": "nonsense", "tracestate": "a=b"},
        {"traceparent": f"00-{'0' * 32}-{PARENT}-01"},
        {"traceparent": "x" * 10_000, "tracestate": "\r\nEvil: 1"},
    ],
)
async def test_headers_that_name_no_trace_begin_a_new_one(wrong):
    async with traced(offer("a", Script("done"))) as stage:
        await stage.request(**stage.part_of(wrong))
    assert stage.spans[0].parent is None


@pytest.mark.parametrize("wrong", ["00-1-2-01", {"traceparent": 1}, {1: "x"}, [("traceparent", "x")]])
async def test_what_are_no_headers_is_the_callers_mistake(wrong):
    async with traced(offer("a", Script("done"))) as stage:
        with pytest.raises(TypeError, match="trace must be a dict of headers"):
            await stage.request(**stage.part_of(wrong))


async def test_a_share_of_the_requests_is_recorded_and_the_others_tell_providers_nothing():
    provider = Script("done")
    async with traced(offer("a", provider), tracing={"sample": 0.25}) as stage:
        for _ in range(400):
            await stage.request()
    assert 60 <= len(stage.named("request")) <= 140
    assert sum(one.trace is not None for one in provider.calls) == len(stage.named("request"))


async def test_the_sampler_of_the_program_has_the_last_word():
    provider = Script("done")
    off = sdk.sampling.ALWAYS_OFF
    async with traced(offer("a", provider), tracing={"sampler": off}) as stage:
        await stage.request()
    assert stage.names == []
    flags = provider.calls[0].trace["traceparent"].rpartition("-")[2]
    assert not int(flags, 16) & 1


async def test_without_tracing_providers_are_told_nothing():
    provider = Script("done")
    async with traced(offer("a", provider), tracing={"sample": 0}) as stage:
        await stage.request()
    assert provider.calls[0].trace is None


async def test_a_cancelled_request_ends_its_spans_without_an_error():
    slow = Script("done", lasts=5.0)
    async with traced(offer("a", slow)) as stage:
        task = asyncio.create_task(stage.request())
        await asyncio.sleep(1.0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    request, call = stage.spans[0], stage.named("call")[0]
    assert (own(request)["outcome"], own(call)["outcome"]) == ("cancelled", "cancelled")
    assert request.status.is_ok
    assert call.status.is_ok
    assert "error.type" not in request.attributes


@pytest.mark.parametrize("sample", [-0.1, 1.5, "all"])
def test_a_share_that_is_none_is_refused(sample):

    with pytest.raises(ValueError, match="sample must be a share of the requests from 0 to 1"):
        Tracing(sample=sample)
