"""Context variables of the asker in the handler of its request, if the system is told to pass them on: G11."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Any

import pytest

from actors import FunctionTransport, Listing, Market, Provider, Supervisor, smart_request
from runtime import IMMEDIATELY, Actor, ActorRef, ActorSystem, Message, Request, Reroute, Supervision, handles

trace: ContextVar[str] = ContextVar("trace", default="none")
other: ContextVar[str] = ContextVar("other", default="none")


class Sync(Request[str]):
    pass


class Slow(Request[str]):
    seconds: float = 0.0


class Aside(Request[str]):
    pass


class Inline(Request[str]):
    pass


class Later(Request[str]):
    pass


class Onward(Request[str]):
    pass


class Fragile(Request[str]):
    pass


class Told(Message):
    pass


class Traced(Actor):
    """Answers with the variables that its handler sees."""

    def __init__(self, following: ActorRef[Any] | None = None) -> None:
        self.following = following
        self.told: list[str] = []
        self.is_ready = False

    @handles(Sync)
    def sync(self, message: Sync) -> str:
        return f"{trace.get()} {other.get()}"

    @handles(Slow)
    async def slow(self, message: Slow) -> str:
        await asyncio.sleep(message.seconds)
        return f"{trace.get()} {other.get()}"

    @handles(Aside, concurrent=2)
    async def aside(self, message: Aside) -> str:
        await asyncio.sleep(0)
        return f"{trace.get()} {other.get()}"

    @handles(Inline, concurrent=2, inline=True)
    async def inline(self, message: Inline) -> str:
        await asyncio.sleep(0)
        return f"{trace.get()} {other.get()}"

    @handles(Later)
    def later(self, message: Later) -> asyncio.Future[str]:
        return asyncio.ensure_future(self.work())

    async def work(self) -> str:
        await asyncio.sleep(1.0)
        return f"{trace.get()} {other.get()}"

    @handles(Onward)
    async def onward(self, message: Onward) -> str:
        assert self.following is not None
        answer: str = await self.following.ask(Sync(), timeout=1.0)
        return answer

    @handles(Fragile)
    async def fragile(self, message: Fragile) -> str:
        raise OSError("fragile")

    @handles(Told)
    def tell(self, message: Told) -> None:
        self.told.append(trace.get())


class SyncOnly(Actor):
    """Has no task: its requests are answered without the event loop if they can be."""

    sync = Traced.sync

    def __init__(self) -> None:
        self.is_ready = False

    @handles(Later)
    def later(self, message: Later) -> str:
        if not self.is_ready:
            self.is_ready = True
            return self.context.stash(message)  # type: ignore[no-any-return]
        return f"{trace.get()} {other.get()}"

    @handles(Told)
    def tell(self, message: Told) -> None:
        self.context.unstash_all()


ASKED = (Sync, Slow, Aside, Inline, Later)


@pytest.mark.parametrize("asked", ASKED)
async def test_what_the_asker_has_set_reaches_its_handler_and_no_other(asked: type[Request[str]]):
    async with ActorSystem(propagate=[trace]) as system:
        ref = system.spawn(Traced)
        trace.set("t1")
        other.set("o1")
        assert await ref.ask(asked(), timeout=9.0) == "t1 none"

        async def of_another_task() -> str:
            trace.set("t2")
            return await ref.ask(asked(), timeout=9.0)

        assert await asyncio.gather(of_another_task(), ref.ask(asked(), timeout=9.0)) == ["t2 none", "t1 none"]
        assert trace.get() == "t1"


@pytest.mark.parametrize("asked", ASKED)
async def test_all_that_the_asker_has_set_reaches_its_handler_if_asked_for(asked: type[Request[str]]):
    async with ActorSystem(propagate=True) as system:
        ref = system.spawn(Traced)
        trace.set("t1")
        other.set("o1")
        assert await ref.ask(asked(), timeout=9.0) == "t1 o1"


@pytest.mark.parametrize("asked", ASKED)
async def test_by_default_a_handler_runs_in_the_variables_of_the_system(asked: type[Request[str]]):
    trace.set("outer")
    async with ActorSystem() as system:
        ref = system.spawn(Traced)
        trace.set("t1")
        assert await ref.ask(asked(), timeout=9.0) == "outer none"


async def test_what_is_not_set_at_the_asker_is_what_the_system_has():
    async with ActorSystem(propagate=[trace]) as system:
        assert await system.spawn(SyncOnly).ask(Sync(), timeout=1.0) == "none none"


async def test_a_request_of_a_handler_passes_it_on_and_a_told_message_does_not():
    actor = Traced()
    async with ActorSystem(propagate=[trace]) as system:
        last = system.spawn(SyncOnly)
        first = system.spawn(lambda: Traced(last))
        ref = system.spawn(lambda: actor)
        trace.set("t1")
        assert await first.ask(Onward(), timeout=1.0) == "t1 none"
        ref.tell(Told())
        await asyncio.sleep(0.1)
        assert actor.told == ["none"]


async def test_a_request_keeps_it_while_it_is_stashed_and_when_it_is_rerouted():
    class Reserve(Actor):
        @handles(Fragile)
        def fragile(self, message: Fragile) -> str:
            return trace.get()

    supervision = Supervision(reroute=Reroute(to="reserve"), backoff=IMMEDIATELY)
    async with ActorSystem(propagate=[trace], supervision=supervision, log=False) as system:
        stashing = system.spawn(SyncOnly)
        system.spawn(Reserve, name="reserve")
        trace.set("t1")
        asking = asyncio.create_task(stashing.ask(Later(), timeout=9.0))
        await asyncio.sleep(0.1)
        trace.set("t2")
        stashing.tell(Told())
        assert await asking == "t1 none"
        assert await system.spawn(Traced).ask(Fragile(), timeout=1.0) == "t2"


async def test_a_handler_that_is_cancelled_leaves_nothing_behind():
    async with ActorSystem(propagate=[trace]) as system:
        ref = system.spawn(Traced)
        trace.set("t1")
        with pytest.raises(TimeoutError):
            await ref.ask(Slow(60.0), timeout=1.0)
        ref.tell(Told())
        trace.set("t2")
        assert await ref.ask(Slow(), timeout=1.0) == "t2 none"


@pytest.mark.parametrize("wrong", ["trace", trace, ["trace"], 1])
def test_what_is_no_variable_is_refused(wrong: Any):
    with pytest.raises(TypeError, match="propagate must be True, or the context variables"):
        ActorSystem(propagate=wrong)


async def test_a_trace_reaches_the_function_of_a_provider():
    seen: list[str] = []

    async def answer(_call: Any) -> str:
        await asyncio.sleep(0.01)
        seen.append(trace.get())
        return "yes"

    listing = Listing(
        provider=Provider(name="alder", services={"s"}, price="0.001"),
        transport=lambda: FunctionTransport(answer, paid=True, idempotent="no"),
    )
    async with ActorSystem(propagate=[trace]) as system:
        supervisor = system.spawn(lambda: Supervisor(Market(providers=[listing])))
        for name in ("t1", "t2"):
            trace.set(name)
            await smart_request(supervisor, service="s", input=1, budget="1")
    assert seen == ["t1", "t2"]
