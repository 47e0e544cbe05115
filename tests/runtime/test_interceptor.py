"""Every message passes the interceptors on its way in, and its outcome on the way out."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from runtime import (
    IMMEDIATELY,
    Actor,
    ActorCrashed,
    ActorRef,
    ActorSystem,
    Interceptor,
    Message,
    Refusal,
    Request,
    Supervision,
    handles,
)


class Note(Message):
    text: str


class Double(Request[int]):
    number: int


class No(Refusal):
    pass


class Sync(Actor):
    def __init__(self) -> None:
        self.notes: list[str] = []

    @handles(Note)
    def note(self, message: Note) -> None:
        self.notes.append(message.text)

    @handles(Double)
    def double(self, message: Double) -> int:
        if message.number == 0:
            raise No
        if message.number < 0:
            raise ValueError
        return 2 * message.number


class Async(Sync):
    @handles(Double)
    async def double(self, message: Double) -> int:
        await asyncio.sleep(1)
        return Sync.double(self, message)


class InLane(Sync):
    @handles(Double, concurrent=2)
    async def double(self, message: Double) -> int:
        await asyncio.sleep(1)
        return Sync.double(self, message)


class Later(Sync):
    @handles(Double)
    def double(self, message: Double) -> asyncio.Future[int]:
        return asyncio.ensure_future(asyncio.sleep(1, 2 * message.number))


class Recorder(Interceptor):
    def __init__(self, name: str, log: list[Any]) -> None:
        self.name = name
        self.log = log

    def received(self, ref: ActorRef[Any], message: Any) -> Any:
        self.log.append((self.name, "received", message))
        return message

    def handled(self, ref: ActorRef[Any], message: Any, answer: Any) -> Any:
        self.log.append((self.name, "handled", answer))
        return answer

    def failed(self, ref: ActorRef[Any], message: Any, error: BaseException) -> None:
        self.log.append((self.name, "failed", type(error)))


@pytest.mark.parametrize("actor", [Sync, Async, InLane, Later])
async def test_the_first_is_the_outermost(actor: type[Sync]):
    log: list[Any] = []
    async with ActorSystem(interceptors=[Recorder("a", log), Recorder("b", log)]) as system:
        assert await system.spawn(actor).ask(Double(4), timeout=5.0) == 8
    assert log == [
        ("a", "received", Double(4)),
        ("b", "received", Double(4)),
        ("b", "handled", 8),
        ("a", "handled", 8),
    ]


@pytest.mark.parametrize("actor", [Sync, Async, InLane])
async def test_they_hear_of_refusals_and_crashes(actor: type[Sync]):
    log: list[Any] = []
    supervision = Supervision(backoff=IMMEDIATELY)
    async with ActorSystem(interceptors=[Recorder("a", log)], supervision=supervision, log=False) as system:
        ref = system.spawn(actor)
        with pytest.raises(No):
            await ref.ask(Double(0), timeout=5.0)
        with pytest.raises(ActorCrashed):
            await ref.ask(Double(-1), timeout=5.0)
        assert await ref.ask(Double(1), timeout=5.0) == 2  # The instance after the crash is intercepted too.
    assert [(what, fact) for _, what, fact in log if what != "received"] == [
        ("failed", No),
        ("failed", ValueError),
        ("handled", 2),
    ]


async def test_a_message_and_an_answer_can_be_replaced():
    class Loud(Interceptor):
        def received(self, ref: ActorRef[Any], message: Any) -> Any:
            return Note(message.text.upper()) if isinstance(message, Note) else message

        def handled(self, ref: ActorRef[Any], message: Any, answer: Any) -> Any:
            return answer + 1 if isinstance(message, Double) else answer

    actor = Sync()
    async with ActorSystem(interceptors=[Loud()]) as system:
        ref = system.spawn(lambda: actor)
        ref.tell(Note("hello"))
        assert await ref.ask(Double(4), timeout=1.0) == 9
    assert actor.notes == ["HELLO"]


async def test_what_an_interceptor_raises_is_an_answer_or_a_crash_of_the_actor():
    class Guard(Interceptor):
        def received(self, ref: ActorRef[Any], message: Any) -> Any:
            raise No if message.number else KeyError

    async with ActorSystem(interceptors=[Guard()], log=False) as system:
        ref = system.spawn(Sync)
        with pytest.raises(No):
            await ref.ask(Double(1), timeout=1.0)
        with pytest.raises(ActorCrashed, match="KeyError"):
            await ref.ask(Double(0), timeout=1.0)


async def test_systems_without_interceptors_are_left_alone():
    log: list[Any] = []
    async with ActorSystem(interceptors=[Recorder("a", log)]) as watched, ActorSystem() as unwatched:
        assert await unwatched.spawn(Sync).ask(Double(1), timeout=1.0) == 2
        assert log == []
        assert await watched.spawn(Sync).ask(Double(1), timeout=1.0) == 2
        assert len(log) == 2


@pytest.mark.parametrize("actor", [Sync, Async])
async def test_the_answer_to_a_request_that_was_told_comes_back_also_behind_interceptors(actor: type[Sync]):
    """G12."""
    back: list[Any] = []

    class Lender(actor):  # type: ignore[misc, valid-type]
        def unclaimed(self, request: Any, answer: Any) -> None:
            back.append((request, answer))

    async with ActorSystem(interceptors=[Interceptor()]) as system:
        ref = system.spawn(Lender)
        ref.tell(Double(4))
        await asyncio.sleep(2)
        assert "restarts" not in repr(ref)
    assert back == [(Double(4), 8)]


async def test_subclasses_of_a_message_share_one_lane_also_behind_interceptors():
    """G1."""

    class Special(Double):
        pass

    async def duration(system: ActorSystem) -> float:
        loop = asyncio.get_running_loop()
        began = loop.time()
        ref = system.spawn(InLane)
        await asyncio.gather(*(ref.ask(kind(1), timeout=9.0) for kind in (Double, Special) for _ in range(2)))
        return loop.time() - began

    async with ActorSystem() as plain, ActorSystem(interceptors=[Interceptor()]) as watched:
        assert await duration(plain) == await duration(watched) == pytest.approx(2.0)
