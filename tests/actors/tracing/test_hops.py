"""A span for each request between actors, if contexts travel with requests; none otherwise."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from runtime import Actor, ActorRef, ActorSystem, Message, Refusal, Request, handles
from tests.actors.supervisor.stage import Script, offer
from tests.actors.tracing.stage import Traced, seconds, traced


class Lookup(Request[str]):
    pass


class Slowly(Request[str]):
    pass


class Later(Request[str]):
    pass


class Aside(Request[str]):
    pass


class Refuse(Request[str]):
    pass


class Told(Message):
    pass


class NotHere(Refusal):
    pass


class Clerk(Actor):
    def __init__(self, behind: ActorRef[Any] | None = None) -> None:
        self.behind, self.is_ready = behind, False

    @handles(Lookup)
    async def look_up(self, message: Lookup) -> str:
        return "found" if self.behind is None else await self.behind.ask(Lookup(), timeout=9.0)

    @handles(Slowly)
    def at_once(self, message: Slowly) -> str:
        return "sync"

    @handles(Later)
    def later(self, message: Later) -> Any:
        return asyncio.ensure_future(asyncio.sleep(2.0, "later"))

    @handles(Aside)
    def aside(self, message: Aside) -> Any:
        return "ready" if self.is_ready else self.context.stash(message)

    @handles(Refuse)
    def refuse(self, message: Refuse) -> str:
        raise NotHere("not here")

    @handles(Told)
    def told(self, message: Told) -> None:
        self.is_ready = True
        self.context.unstash_all()


def system_of(stage: Traced, *, propagate: bool = True) -> ActorSystem:
    return ActorSystem("hops", log=False, propagate=propagate, interceptors=[stage.tracing.hops()])


async def test_each_request_is_a_span_within_that_of_its_asker():
    stage = Traced()
    async with system_of(stage) as system:
        last = system.spawn(Clerk, name="last")
        first = system.spawn(lambda: Clerk(last), name="first")
        with stage.tracer.start_as_current_span("program") as program:
            assert await first.ask(Lookup(), timeout=9.0) == "found"
            last.tell(Told())
        await first.ask(Lookup(), timeout=9.0)  # It is part of nothing, and tells nothing.
    outer, inner = stage.named("ask Lookup")
    assert outer.parent.span_id == program.get_span_context().span_id
    assert inner.parent.span_id == outer.context.span_id
    assert [one.attributes["understudy.actor"] for one in (outer, inner)] == ["hops/first", "hops/last"]


async def test_an_answer_that_comes_later_a_stashed_request_and_a_refusal():
    stage = Traced()
    async with system_of(stage) as system:
        clerk = system.spawn(Clerk)
        with stage.tracer.start_as_current_span("program"):
            assert await clerk.ask(Slowly(), timeout=9.0) == "sync"
            assert await clerk.ask(Later(), timeout=9.0) == "later"
            aside = asyncio.create_task(clerk.ask(Aside(), timeout=9.0))
            await asyncio.sleep(1.0)
            clerk.tell(Told())
            assert await aside == "ready"
            with pytest.raises(NotHere):
                await clerk.ask(Refuse(), timeout=9.0)
        assert await clerk.ask(Slowly(), timeout=9.0) == "sync"
    assert stage.names == ["program", "ask Slowly", "ask Later", "ask Aside", "ask Refuse"]
    program = stage.spans[0]
    assert {one.parent.span_id for one in stage.spans[1:]} == {program.context.span_id}
    assert stage.named("ask Refuse")[0].attributes["error.type"] == "NotHere"


async def test_without_propagation_there_is_no_hop():
    stage = Traced()
    async with system_of(stage, propagate=False) as system:
        clerk = system.spawn(Clerk)
        with stage.tracer.start_as_current_span("program"):
            assert await clerk.ask(Lookup(), timeout=9.0) == "found"
    assert stage.names == ["program"]


async def test_what_a_providers_function_traces_is_within_its_call_and_the_hops_of_a_request_are_within_it():
    stage = Traced()

    class Inside(Script):
        async def __call__(self, call: Any) -> Any:
            with stage.tracer.start_as_current_span("inside"):
                return await super().__call__(call)

    options = {"propagate": True, "interceptors": [stage.tracing.hops()]}
    async with traced(offer("a", Inside("done", lasts=1.0), price=10), stage=stage, system=options):
        with stage.tracer.start_as_current_span("program"):
            await stage.request()
    by_id = {one.context.span_id: one for one in stage.spans}

    def way(span: Any) -> list[str]:
        return [span.name, *(way(by_id[span.parent.span_id]) if span.parent is not None else ())]

    (inside,) = stage.named("inside")
    assert way(inside) == ["inside", "ask Call", "call a", "request s", "ask SmartRequest", "program"]
    (reserved,) = stage.named("ask Reserve")
    assert way(reserved)[1:] == ["request s", "ask SmartRequest", "program"]
    assert seconds(inside) >= 0
