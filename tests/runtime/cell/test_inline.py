"""A handler may work in the task of its asker, and both keep what is theirs: G1, G2, G5, G6, G8, G12."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

import anyio
import pytest

from runtime import (
    IMMEDIATELY,
    Actor,
    ActorCrashed,
    ActorFailed,
    ActorRef,
    ActorSystem,
    AskTimeout,
    CancellationIgnored,
    Message,
    Refusal,
    Request,
    Reroute,
    Supervision,
    handles,
)
from runtime.cell.inline import MAX_INLINE_DEPTH

colour: ContextVar[str] = ContextVar("colour", default="none")


class Note(Message):
    text: str = ""


class Get(Request[str]):
    text: str = ""
    seconds: float = 0.0


class No(Refusal):
    pass


class Host(Actor):
    """Does what a test says, in whichever task."""

    def __init__(self, deed: Any) -> None:
        self.deed = deed
        self.tasks: list[asyncio.Task[Any] | None] = []
        self.log: list[str] = []
        self.back: list[str] = []

    @handles(Get, concurrent=3, inline=True)
    async def get(self, message: Get) -> str:
        self.tasks.append(asyncio.current_task())
        answer: str = await self.deed(self, message)
        return answer

    @handles(Note, concurrent=3)
    async def note(self, message: Note) -> None:
        self.log.append(message.text)

    def unclaimed(self, request: Any, answer: Any) -> None:
        self.back.append(answer)


class Single(Host):
    """Handles one message after the other."""

    @handles(Get, inline=True)
    async def get(self, message: Get) -> str:
        self.tasks.append(asyncio.current_task())
        answer: str = await self.deed(self, message)
        return answer

    @handles(Note)
    async def note(self, message: Note) -> None:
        self.log.append(message.text)


class Kind:
    """The kind of host that a test spawns: each is run for both."""

    host: type[Host] = Host


@pytest.fixture(autouse=True, params=[Host, Single], ids=["concurrent", "one by one"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> type[Host]:
    monkeypatch.setattr(Kind, "host", request.param)
    host: type[Host] = request.param
    return host


def spawn(system: ActorSystem, deed: Any, **options: Any) -> tuple[Host, ActorRef[Any]]:
    made: list[Host] = []

    def make() -> Host:
        made.append(Kind.host(deed))
        return made[-1]

    ref = system.spawn(make, **options)
    return made[0], ref


async def wait(host: Host, message: Get) -> str:
    try:
        await asyncio.sleep(message.seconds)
    except asyncio.CancelledError:
        host.log.append(f"cancelled {message.text}")
        raise
    return message.text


async def settled() -> None:
    """See that the running task has no cancellation left that is not its own."""
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    for _ in range(3):
        await asyncio.sleep(0)


# Where it runs.


@pytest.mark.parametrize("seconds", [0.0, 1.0])
async def test_an_inline_handler_runs_in_the_task_of_its_asker(seconds: float):
    """G1."""
    async with ActorSystem() as system:
        host, ref = spawn(system, wait)
        assert await ref.ask(Get("a", seconds), timeout=9.0) == "a"
        assert host.tasks == [asyncio.current_task()]
        await settled()


async def test_an_answer_that_waits_for_nothing_takes_no_turn_of_the_loop():
    async def answer(_host: Host, message: Get) -> str:
        return message.text

    async with ActorSystem() as system:
        _, ref = spawn(system, answer)
        turns: list[int] = []
        asyncio.get_running_loop().call_soon(turns.append, 1)
        assert await ref.ask(Get("a"), timeout=9.0) == "a"
        assert turns == []


async def test_it_has_the_context_of_the_system_and_the_deadline_of_its_request():
    """G5, G11: also after it has waited."""
    seen: list[Any] = []

    async def look(host: Host, message: Get) -> str:
        for _ in range(2):
            seen.append((colour.get(), host.context.deadline))
            await asyncio.sleep(1.0)
        colour.set("green")
        return message.text

    colour.set("red")
    async with ActorSystem() as system:
        colour.set("blue")
        _, ref = spawn(system, look)
        deadline = asyncio.get_running_loop().time() + 9.0
        await ref.ask(Get(), timeout=9.0)
        assert seen == [("red", deadline)] * 2
        assert colour.get() == "blue"


async def test_what_came_before_begins_before():
    """G2: a message that waits for the first turn of its task is not overtaken."""
    async with ActorSystem() as system:
        host, ref = spawn(system, wait)
        ref.tell(Note("a"))
        await ref.ask(Get("b"), timeout=9.0)
        assert host.log == ["a"]
        assert host.tasks != [asyncio.current_task()]


async def test_no_more_run_at_a_time_than_are_declared(kind: type[Host]):
    """G1: those that have to wait get a task that is not their asker's when their turn comes."""
    places, ends_at = (3, 2.0) if kind is Host else (1, 5.0)
    async with ActorSystem() as system:
        host, ref = spawn(system, wait)
        askers = [asyncio.create_task(ref.ask(Get(text, 1.0), timeout=9.0)) for text in "abcde"]
        await asyncio.sleep(0.5)
        assert host.tasks == askers[:places]
        assert await asyncio.gather(*askers) == list("abcde")
        assert asyncio.get_running_loop().time() == ends_at
        assert not {*host.tasks[places:]} & {*askers}


async def test_a_long_chain_of_askers_does_not_stand_on_one_stack():
    depth = 20 * MAX_INLINE_DEPTH
    async with ActorSystem() as system:
        refs: list[ActorRef[Any]] = []
        tasks: set[Any] = set()

        async def pass_on(_host: Host, message: Get) -> str:
            tasks.add(asyncio.current_task())
            number = int(message.text)
            return "end" if number == depth else await refs[number].ask(Get(str(number + 1)), timeout=9.0)

        refs.extend(spawn(system, pass_on)[1] for _ in range(depth))
        assert await refs[0].ask(Get("1"), timeout=9.0) == "end"
        assert len(tasks) > 1


# Whose cancellation it is.


async def test_an_asker_that_is_cancelled_cancels_the_handler_and_nothing_else():
    """G5, G12."""
    async with ActorSystem() as system:
        host, ref = spawn(system, wait)
        asking = asyncio.create_task(ref.ask(Get("a", 5.0), timeout=9.0))
        await asyncio.sleep(1.0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert asking.cancelled()
        assert host.log == ["cancelled a"]
        assert await ref.ask(Get("b"), timeout=1.0) == "b"


async def test_a_deadline_cancels_the_handler_and_leaves_the_asker_as_it_was():
    """G5."""
    async with ActorSystem() as system:
        host, ref = spawn(system, wait)
        with pytest.raises(AskTimeout):
            await ref.ask(Get("a", 5.0), timeout=1.0)
        assert host.log == ["cancelled a"]
        await settled()
        assert await ref.ask(Get("b"), timeout=1.0) == "b"


@pytest.mark.parametrize("scope", ["asyncio", "anyio"])
async def test_a_time_limit_of_the_asker_is_its_own(scope: str):
    """G5."""

    async def ask_for_a_second(ref: ActorRef[Any]) -> None:
        if scope == "asyncio":
            async with asyncio.timeout(1.0):
                await ref.ask(Get("a", 5.0), timeout=9.0)
        else:
            with anyio.fail_after(1.0):
                await ref.ask(Get("a", 5.0), timeout=9.0)

    async with ActorSystem() as system:
        host, ref = spawn(system, wait)
        with pytest.raises(TimeoutError):
            await ask_for_a_second(ref)
        assert host.log == ["cancelled a"]
        await settled()


@pytest.mark.parametrize("scope", ["asyncio", "anyio"])
async def test_a_time_limit_of_the_handler_is_its_own(scope: str):
    async def limited(_host: Host, _message: Get) -> str:
        with suppress(TimeoutError):
            if scope == "asyncio":
                async with asyncio.timeout(1.0):
                    await asyncio.sleep(5.0)
            else:
                with anyio.fail_after(1.0):
                    await anyio.sleep(5.0)
        return "late"

    async with ActorSystem() as system:
        _, ref = spawn(system, limited)
        assert await ref.ask(Get(), timeout=9.0) == "late"
        await settled()


async def test_a_handler_that_swallows_its_cancellation_does_not_swallow_that_of_its_asker():
    """G12: what it answers all the same comes back to it."""
    seen: list[CancellationIgnored] = []

    async def stubborn(_host: Host, _message: Get) -> str:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(5.0)
        await asyncio.sleep(1.0)
        return "too late"

    async with ActorSystem() as system:
        system.events.subscribe(CancellationIgnored, seen.append)
        host, ref = spawn(system, stubborn)
        asking = asyncio.create_task(ref.ask(Get(), timeout=9.0))
        await asyncio.sleep(1.0)
        asking.cancel()
        await asyncio.wait([asking])
        assert asking.cancelled()
        with pytest.raises(AskTimeout):
            await ref.ask(Get(), timeout=1.0)
        await settled()
        assert host.back == ["too late", "too late"]
        assert len(seen) == 2


@pytest.mark.parametrize("outcome", [No("no"), OSError("broken"), asyncio.CancelledError()])
async def test_whatever_a_cancelled_handler_makes_of_it_its_asker_is_cancelled(outcome: BaseException):
    async def turn(_host: Host, _message: Get) -> str:
        try:
            await asyncio.sleep(5.0)
        finally:
            raise outcome

    async with ActorSystem(supervision=Supervision(backoff=IMMEDIATELY)) as system:
        _, ref = spawn(system, turn)
        asking = asyncio.create_task(ref.ask(Get(), timeout=9.0))
        await asyncio.sleep(1.0)
        asking.cancel()
        await asyncio.wait([asking])
        assert asking.cancelled()


async def test_an_asker_that_is_being_cancelled_as_it_asks_is_cancelled_and_nothing_else_harmed():
    """G5: by itself before it asks, or by the handler's first step."""

    async def cancel_and_ask(ref: ActorRef[Any]) -> None:
        asker.cancel()
        await ref.ask(Get("a", 1.0), timeout=9.0)

    async def cancel_asker(host: Host, message: Get) -> str:
        asker.cancel()
        return await wait(host, message)

    crashes: list[ActorFailed] = []
    async with ActorSystem() as system:
        system.events.subscribe(ActorFailed, crashes.append)
        _, ref = spawn(system, wait)
        asker = asyncio.create_task(cancel_and_ask(ref))
        await asyncio.wait([asker])
        assert asker.cancelled()
        host, other = spawn(system, cancel_asker)
        asker = asyncio.create_task(other.ask(Get("b", 1.0), timeout=9.0))
        await asyncio.wait([asker])
        assert asker.cancelled()
        assert host.log == ["cancelled b"]
        assert crashes == []


async def test_a_handler_that_ends_its_asker_is_cancelled_and_its_own_actor_lives_on():
    """G5: also if the asker is a handler inline in the same task."""

    async def end_asker(host: Host, message: Get) -> str:
        asker.kill()
        return await wait(host, message)

    async def pass_on(_host: Host, _message: Get) -> str:
        await asyncio.sleep(1.0)
        return await ref.ask(Get("a", 5.0), timeout=9.0)

    crashes: list[ActorFailed] = []
    async with ActorSystem() as system:
        system.events.subscribe(ActorFailed, crashes.append)
        host, ref = spawn(system, end_asker)
        _, asker = spawn(system, pass_on)
        with pytest.raises(ActorCrashed, match="its handler was cancelled"):
            await asker.ask(Get(), timeout=9.0)
        assert host.log == ["cancelled a"]
        assert crashes == []
        await settled()


async def test_a_cancellation_in_the_last_step_of_a_handler_meets_its_asker_once():
    """G5: the asker cleans up in peace."""
    log: list[str] = []

    async def cancel_asker(_host: Host, _message: Get) -> str:
        await asyncio.sleep(1.0)
        asking.cancel()
        return "done"

    async def ask_and_clean_up(ref: ActorRef[Any]) -> None:
        try:
            await ref.ask(Get(), timeout=9.0)
        finally:
            await asyncio.sleep(1.0)
            log.append("cleaned up")

    async with ActorSystem() as system:
        host, ref = spawn(system, cancel_asker)
        asking = asyncio.create_task(ask_and_clean_up(ref))
        await asyncio.wait([asking])
        assert asking.cancelled()
        assert log == ["cleaned up"]
        await asyncio.sleep(0)
        assert host.back == ["done"]


async def test_an_actor_that_is_killed_as_its_handler_ends_does_not_hide_whose_cancellation_it_was():
    """An anyio scope knows its own by what it says."""

    async def end(host: Host, message: Get) -> str:
        try:
            return await wait(host, message)
        finally:
            asyncio.get_running_loop().call_soon(host.context.ref.kill)

    async with ActorSystem() as system:
        _, ref = spawn(system, end)
        with anyio.move_on_after(1.0) as scope:
            await ref.ask(Get("a", 5.0), timeout=9.0)
        assert scope.cancelled_caught
        await settled()


# How it ends.


async def test_a_handler_that_went_on_after_its_deadline_is_cancelled_once_more_by_a_kill():
    """G8."""

    async def go_on(host: Host, message: Get) -> str:
        with suppress(asyncio.CancelledError):
            await wait(host, message)
        return await wait(host, message)

    async with ActorSystem() as system:
        host, ref = spawn(system, go_on)
        asyncio.get_running_loop().call_later(2.0, ref.kill)
        with pytest.raises(AskTimeout):
            await ref.ask(Get("a", 5.0), timeout=1.0)
        assert asyncio.get_running_loop().time() == 2.0
        assert host.log == ["cancelled a"] * 2
        await settled()


async def test_a_killed_actor_takes_its_handlers_along_and_leaves_their_askers():
    """G8."""
    async with ActorSystem() as system:
        host, ref = spawn(system, wait)
        asyncio.get_running_loop().call_later(1.0, ref.kill)
        with pytest.raises(ActorCrashed, match="its handler was cancelled"):
            await ref.ask(Get("a", 5.0), timeout=9.0)
        assert host.log == ["cancelled a"]
        await settled()
        assert (await ref.terminated()).reason.value == "killed"


async def test_a_stopped_actor_waits_for_its_handlers_within_its_limit():
    """G8."""
    async with ActorSystem() as system:
        _, ref = spawn(system, wait, stop_timeout=2.0)
        asyncio.get_running_loop().call_later(1.0, ref.stop)
        assert await ref.ask(Get("a", 2.0), timeout=9.0) == "a"
        await ref.terminated()
        _, ref = spawn(system, wait, stop_timeout=2.0)
        asyncio.get_running_loop().call_later(1.0, ref.stop)
        with pytest.raises(ActorCrashed):
            await ref.ask(Get("b", 8.0), timeout=9.0)
        await settled()


@pytest.mark.parametrize("waits", [False, True])
async def test_a_handler_that_kills_its_own_actor_harms_no_asker_afterwards(waits: bool):  # noqa: FBT001
    """G8: a cancellation that comes in the last step of a handler must not meet its asker."""

    async def end(host: Host, _message: Get) -> str:
        if waits:
            await asyncio.sleep(1.0)
        host.context.ref.kill()
        return "done"

    async with ActorSystem() as system:
        _, ref = spawn(system, end)
        assert await ref.ask(Get(), timeout=9.0) == "done"
        await settled()
        assert (await ref.terminated()).reason.value == "killed"


@pytest.mark.parametrize("waits", [False, True])
async def test_a_crash_reaches_asker_and_supervisor_and_cancels_the_others(waits: bool, kind: type[Host]):  # noqa: FBT001
    """G6."""

    async def crash(host: Host, message: Get) -> str:
        if message.text == "a":
            return await wait(host, message)
        if waits:
            await asyncio.sleep(1.0)
        raise OSError("broken")

    async with ActorSystem(supervision=Supervision(backoff=IMMEDIATELY)) as system:
        host, ref = spawn(system, crash)
        other = asyncio.create_task(ref.ask(Get("a", 5.0), timeout=9.0))
        await asyncio.sleep(0.5 if kind is Host else 6.0)
        with pytest.raises(ActorCrashed, match="broken"):
            await ref.ask(Get("b"), timeout=9.0)
        if kind is Host:
            with pytest.raises(ActorCrashed, match="its handler was cancelled"):
                await other
            assert host.log == ["cancelled a"]
        assert await ref.ask(Get("a"), timeout=9.0) == "a"


@pytest.mark.parametrize("waits", [False, True])
async def test_a_refusal_is_an_answer(waits: bool):  # noqa: FBT001
    """G6."""

    async def refuse(_host: Host, _message: Get) -> str:
        if waits:
            await asyncio.sleep(1.0)
        raise No("not today")

    async with ActorSystem() as system:
        host, ref = spawn(system, refuse)
        for _ in range(2):
            with pytest.raises(No, match="not today"):
                await ref.ask(Get(), timeout=9.0)
        assert len(host.tasks) == 2


async def test_a_cancellation_that_escapes_is_a_crash():
    """G6: of something the handler awaited, although neither asker nor actor ended it."""

    async def escape(_host: Host, _message: Get) -> str:
        gone = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(1.0, gone.cancel)
        await gone
        return ""

    async with ActorSystem(supervision=Supervision(backoff=IMMEDIATELY)) as system:
        _, ref = spawn(system, escape)
        with pytest.raises(ActorCrashed):
            await ref.ask(Get(), timeout=9.0)
        await settled()
        await asyncio.sleep(0.1)
        assert "1 restarts" in repr(ref)


async def test_a_handler_that_answers_later_lets_its_asker_wait():
    async def later(_host: Host, _message: Get) -> Any:
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(1.0, future.set_result, "later")
        return future

    async with ActorSystem() as system:
        _, ref = spawn(system, later)
        assert await ref.ask(Get(), timeout=9.0) == "later"
        with pytest.raises(AskTimeout):
            await ref.ask(Get(), timeout=0.5)


@pytest.mark.parametrize("waits", [False, True])
async def test_a_request_whose_handler_crashed_may_go_elsewhere(waits: bool):  # noqa: FBT001
    async def crash(_host: Host, _message: Get) -> str:
        if waits:
            await asyncio.sleep(1.0)
        raise OSError("broken")

    supervision = Supervision(backoff=IMMEDIATELY, reroute=Reroute(to="second"))
    async with ActorSystem(supervision=supervision) as system:
        _, first = spawn(system, crash, name="first")
        spawn(system, wait, name="second")
        assert await first.ask(Get("a", 1.0), timeout=9.0) == "a"


@pytest.mark.parametrize("kind", [Single], indirect=True)
async def test_mail_waits_for_the_one_handler_in_its_order():
    """G1, G2: what comes while it waits in its asker's task has its turn when it has ended."""
    async with ActorSystem() as system:
        host, ref = spawn(system, wait)
        first = asyncio.create_task(ref.ask(Get("a", 1.0), timeout=9.0))
        await asyncio.sleep(0.5)
        ref.tell(Note("b"))
        second = asyncio.create_task(ref.ask(Get("c"), timeout=9.0))
        await asyncio.sleep(0.25)
        assert host.log == []
        assert not first.done()
        assert await asyncio.gather(first, second) == ["a", "c"]
        assert host.log == ["b"]


@pytest.mark.parametrize("kind", [Single], indirect=True)
@pytest.mark.parametrize("waits", [False, True])
async def test_a_handler_that_asks_its_own_actor_is_refused_at_once(waits: bool):  # noqa: FBT001
    """A circle of asks has no turn to come, in the first step of a handler and later."""

    async def ask_itself(host: Host, _message: Get) -> str:
        if waits:
            await asyncio.sleep(1.0)
        answer: str = await host.context.ref.ask(Get("again"), timeout=9.0)
        return answer

    async with ActorSystem() as system:
        _, ref = spawn(system, ask_itself)
        with pytest.raises(ActorCrashed, match="asks itself"):
            await ref.ask(Get("a"), timeout=9.0)
        assert asyncio.get_running_loop().time() < 2.0


@pytest.mark.parametrize("kind", [Single], indirect=True)
async def test_mail_that_waits_behind_a_handler_survives_its_crash():
    """G4."""

    async def crash(host: Host, message: Get) -> str:
        if message.text == "a":
            await asyncio.sleep(1.0)
            raise OSError("broken")
        return await wait(host, message)

    async with ActorSystem(supervision=Supervision(backoff=IMMEDIATELY)) as system:
        _, ref = spawn(system, crash)
        first = asyncio.create_task(ref.ask(Get("a"), timeout=9.0))
        await asyncio.sleep(0.5)
        second = asyncio.create_task(ref.ask(Get("b"), timeout=9.0))
        with pytest.raises(ActorCrashed, match="broken"):
            await first
        assert await second == "b"


@pytest.mark.parametrize("kind", [Single], indirect=True)
async def test_a_handler_that_will_not_end_leaves_the_actor_to_the_next_instance():
    """G8: a kill gives it up after its limit, and what it does later touches nothing."""
    release = asyncio.Event()

    async def stubborn(host: Host, message: Get) -> str:
        while not release.is_set():
            with suppress(asyncio.CancelledError):
                await release.wait()
        return await wait(host, message)

    async with ActorSystem() as system:
        _, ref = spawn(system, stubborn, stop_timeout=1.0)
        asker = asyncio.create_task(ref.ask(Get("a"), timeout=60.0))
        await asyncio.sleep(0.5)
        ref.kill()
        assert (await ref.terminated()).reason.value == "killed"
        release.set()
        with pytest.raises(ActorCrashed, match="does not end"):
            await asker


def test_only_an_async_handler_of_a_request_can_be_inline():
    with pytest.raises(TypeError, match="only the handler of a Request can be inline"):
        handles(Note, inline=True)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="only an `async def` handler can be inline"):

        @handles(Get, inline=True)
        def get(_self: Any, message: Get) -> str:
            return message.text
