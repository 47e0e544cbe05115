"""A message whose handler crashed goes to another actor, a stated number of times, and is then poison."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from runtime import (
    IMMEDIATELY,
    Actor,
    ActorCrashed,
    ActorFailed,
    ActorRef,
    ActorSystem,
    DeadLetter,
    DeadReason,
    Mailbox,
    Message,
    Request,
    Reroute,
    RestartIntensity,
    Supervision,
    handles,
)


class Work(Message):
    number: int


class Get(Request[str]):
    number: int


class Good(Actor):
    """Does the work."""

    def __init__(self) -> None:
        self.done: list[Any] = []

    @handles(Work)
    def work(self, message: Work) -> None:
        self.done.append(message)

    @handles(Get)
    def get(self, message: Get) -> str:
        self.done.append(message)
        return f"{type(self).__name__} {message.number}"


class Bad(Good):
    """Crashes at everything."""

    @handles(Work)
    def work(self, message: Work) -> None:
        self.done.append(message)
        raise ValueError

    @handles(Get)
    def get(self, message: Get) -> str:
        self.done.append(message)
        raise ValueError


class BadAsync(Bad):
    @handles(Work)
    async def work(self, message: Work) -> None:
        await asyncio.sleep(1)
        raise ValueError

    @handles(Get)
    async def get(self, message: Get) -> str:
        await asyncio.sleep(1)
        raise ValueError


class BadInLane(Bad):
    @handles(Work, concurrent=2)
    async def work(self, message: Work) -> None:
        await asyncio.sleep(1)
        raise ValueError

    @handles(Get, concurrent=2)
    async def get(self, message: Get) -> str:
        await asyncio.sleep(1)
        raise ValueError


TOLERANT = RestartIntensity(max_restarts=1000)


def rerouting(to: str | ActorRef[Any], **kwargs: Any) -> Supervision:
    return Supervision(intensity=TOLERANT, backoff=IMMEDIATELY, reroute=Reroute(to=to, **kwargs))


@pytest.mark.parametrize("bad", [Bad, BadAsync, BadInLane])
async def test_a_message_whose_handler_crashed_goes_to_the_named_sibling(bad: type[Bad]):
    """G3, G6: the asker gets an answer, and the actor is restarted all the same."""
    good = Good()
    async with ActorSystem(supervision=rerouting("good"), log=False) as system:
        system.spawn(lambda: good, name="good")
        ref = system.spawn(bad, name="bad")
        assert await ref.ask(Get(1), timeout=9.0) == "Good 1"
        ref.tell(Work(2))
        await asyncio.sleep(5)
        assert good.done == [Get(1), Work(2)]
        assert "2 restarts" in repr(ref)


async def test_it_is_handed_on_only_so_often_and_is_then_poison(recorded):
    """G3."""
    first, second = Bad(), Bad()
    actors = {"first": first, "second": second}

    class Chain(Actor):
        supervision = rerouting("second", max_times=1)

        def started(self) -> None:
            for name in actors:
                self.context.spawn(lambda name=name: Again(name), name=name)

    class Again(Bad):
        """A fresh instance each time, with one list for all of them."""

        def __init__(self, name: str) -> None:
            self.done = actors[name].done

    async with ActorSystem(log=False) as system:
        dead = recorded(system, DeadLetter)
        chain = system.spawn(Chain)
        await asyncio.sleep(1)
        head = chain.recipient.children["first"]  # type: ignore[attr-defined]
        head.tell(Work(1))
        with pytest.raises(ActorCrashed, match="second"):
            await head.ask(Get(2), timeout=9.0)
        await asyncio.sleep(1)
    assert (first.done, second.done) == ([Work(1), Get(2)], [Work(1), Get(2)])
    assert [(letter.message, letter.reason) for letter in dead] == [
        (Work(1), DeadReason.POISON),
        (Get(2), DeadReason.POISON),
    ]


async def test_without_anybody_to_take_it_the_asker_hears_of_the_crash(recorded):
    """G3, G6."""
    async with ActorSystem(supervision=rerouting("nobody"), log=False) as system:
        dead = recorded(system, DeadLetter)
        with pytest.raises(ActorCrashed, match="ValueError"):
            await system.spawn(Bad).ask(Get(1), timeout=9.0)
        assert [letter.reason for letter in dead] == [DeadReason.POISON]


async def test_when_says_after_which_errors():
    supervision = rerouting("good", when=lambda error: isinstance(error, KeyError))
    async with ActorSystem(supervision=supervision, log=False) as system:
        system.spawn(Good, name="good")
        with pytest.raises(ActorCrashed):
            await system.spawn(Bad).ask(Get(1), timeout=9.0)


async def test_the_deadline_goes_with_it():
    """G5: what is rerouted has only what is left of its time."""

    class Slow(Good):
        @handles(Get)
        async def get(self, message: Get) -> str:
            await asyncio.sleep(10)
            return "late"

    async with ActorSystem(supervision=rerouting("slow"), log=False) as system:
        system.spawn(Slow, name="slow")
        begun = asyncio.get_running_loop().time()
        with pytest.raises(TimeoutError):
            await system.spawn(Bad).ask(Get(1), timeout=2.0)
        assert asyncio.get_running_loop().time() - begun == pytest.approx(2.0, abs=0.01)


def test_a_number_below_one_is_refused():
    with pytest.raises(ValueError, match="max_times must be >= 1"):
        Reroute(to="x", max_times=0)


async def test_a_rerouted_request_waits_for_room():
    """G4: as its asker would have waited there."""

    class Busy(Good):
        @handles(Get)
        async def get(self, message: Get) -> str:
            await asyncio.sleep(1)
            return f"Busy {message.number}"

    async with ActorSystem(supervision=rerouting("busy"), log=False) as system:
        system.spawn(Busy, name="busy", mailbox=Mailbox(capacity=1))
        bad = system.spawn(Bad)
        answers = await asyncio.gather(*(bad.ask(Get(number), timeout=9.0) for number in range(4)))
        assert answers == [f"Busy {number}" for number in range(4)]


async def test_a_told_request_goes_to_the_sibling_too():
    """G3: whether the one that crashed had been asked or told."""
    good = Good()
    async with ActorSystem(supervision=rerouting("good"), log=False) as system:
        system.spawn(lambda: good, name="good")
        system.spawn(Bad).tell(Get(1))
        await asyncio.sleep(1)
        assert good.done == [Get(1)]


async def test_what_the_runtime_tells_an_actor_goes_to_no_other(recorded):
    """G12: an answer that came back was this actor's."""

    class Clumsy(Good):
        def unclaimed(self, request: Any, answer: Any) -> None:
            raise ValueError

    async with ActorSystem(supervision=rerouting("good"), log=False) as system:
        dead = recorded(system, DeadLetter)
        system.spawn(Good, name="good")
        system.spawn(Clumsy).tell(Get(1))
        await asyncio.sleep(1)
        assert dead == []


@pytest.mark.parametrize("waits", [True, False])
async def test_a_when_that_raises_loses_no_asker(waits: bool, recorded):  # noqa: FBT001
    """G6: the asker hears of the crash, and of `when` tells an event."""

    def when(error: Exception) -> bool:
        raise KeyError(error)

    async with ActorSystem(supervision=rerouting("good", when=when), log=False) as system:
        failures = recorded(system, ActorFailed)
        ref = system.spawn(Bad)
        if waits:
            ref.tell(Work(1))
        with pytest.raises(ActorCrashed, match="ValueError"):
            await ref.ask(Get(1), timeout=1.0)
        assert {type(failure.error) for failure in failures} == {KeyError, ValueError}


async def test_an_answer_whose_asker_goes_in_the_same_turn_goes_back_to_the_actor_that_gave_it():
    """G12: not to the actor that was asked, whose handler crashed."""
    back: list[str] = []

    class Returning(Good):
        def unclaimed(self, request: Any, answer: Any) -> None:
            back.append("good")

        @handles(Get)
        def get(self, message: Get) -> int:
            asking.cancel()
            return message.number

    class AlsoReturning(Bad):
        def unclaimed(self, request: Any, answer: Any) -> None:
            back.append("bad")

    async with ActorSystem(supervision=rerouting("good"), log=False) as system:
        system.spawn(Returning, name="good")
        asking = asyncio.create_task(system.spawn(AlsoReturning).ask(Get(1), timeout=9.0))
        await asyncio.sleep(1)
        assert asking.cancelled()
        assert back == ["good"]
