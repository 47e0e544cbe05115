"""Mail put aside comes back in its order, in front of the rest, and is lost no more than other mail."""

from __future__ import annotations

import asyncio

import pytest

from runtime import (
    IMMEDIATELY,
    Actor,
    ActorCrashed,
    ActorStopped,
    ActorSystem,
    AskTimeout,
    DeadLetter,
    Mailbox,
    Message,
    Request,
    Supervision,
    handles,
)


class Open(Message):
    pass


class Crash(Message):
    pass


class Work(Message):
    number: int


class Get(Request[int]):
    number: int


class Door(Actor):
    """Puts everything aside until it is opened."""

    def __init__(self) -> None:
        self.is_open = False
        self.done: list[int] = []

    @handles(Open)
    def open(self, message: Open) -> None:
        self.is_open = True
        self.context.unstash_all()

    @handles(Crash)
    def crash(self, message: Crash) -> None:
        raise ValueError

    @handles(Work)
    def work(self, message: Work) -> None:
        if not self.is_open:
            return self.context.stash(message)
        self.done.append(message.number)
        return None

    @handles(Get)
    def get(self, message: Get) -> int:
        if not self.is_open:
            return self.context.stash(message)
        self.done.append(message.number)
        return message.number


class AsyncDoor(Door):
    @handles(Get)
    async def get(self, message: Get) -> int:
        await asyncio.sleep(0)
        return Door.get(self, message)


class LaneDoor(Door):
    @handles(Get, concurrent=2)
    async def get(self, message: Get) -> int:
        return self.context.stash(message)


DOORS = pytest.mark.parametrize("door", [Door, AsyncDoor])


@DOORS
async def test_what_was_stashed_comes_back_in_order_before_the_rest(door: type[Door]):
    """G2, G3."""
    actor = door()
    async with ActorSystem() as system:
        ref = system.spawn(lambda: actor)
        first = asyncio.create_task(ref.ask(Get(1), timeout=9.0))
        await asyncio.sleep(1)
        ref.tell(Work(2))
        second = asyncio.create_task(ref.ask(Get(3), timeout=9.0))
        await asyncio.sleep(1)
        ref.tell(Open())
        ref.tell(Work(4))
        assert [await first, await second] == [1, 3]
        await asyncio.sleep(1)
        assert actor.done == [1, 2, 3, 4]


@DOORS
async def test_a_stashed_request_expires_and_can_be_given_up(door: type[Door]):
    """G5."""
    actor = door()
    async with ActorSystem(log=False) as system:
        ref = system.spawn(lambda: actor)
        cancelled = asyncio.create_task(ref.ask(Get(1), timeout=9.0))
        with pytest.raises(AskTimeout):
            await ref.ask(Get(2), timeout=1.0)
        cancelled.cancel()
        await asyncio.sleep(0)
        ref.tell(Open())
        assert await ref.ask(Get(3), timeout=1.0) == 3
        assert actor.done == [3]


@DOORS
async def test_what_is_stashed_survives_a_restart(door: type[Door]):
    """G7."""
    async with ActorSystem(supervision=Supervision(backoff=IMMEDIATELY), log=False) as system:
        ref = system.spawn(door)
        asking = asyncio.create_task(ref.ask(Get(1), timeout=9.0))
        await asyncio.sleep(1)
        ref.tell(Crash())
        ref.tell(Open())
        assert await asking == 1


@DOORS
async def test_what_is_stashed_at_the_end_is_a_dead_letter(door: type[Door], recorded):
    """G3."""
    async with ActorSystem(log=False) as system:
        dead = recorded(system, DeadLetter)
        ref = system.spawn(door)
        asking = asyncio.create_task(ref.ask(Get(1), timeout=9.0))
        ref.tell(Work(2))
        await asyncio.sleep(1)
        ref.stop()
        with pytest.raises(ActorStopped):
            await asking
        assert {letter.message for letter in dead} == {Get(1), Work(2)}


async def test_a_stash_holds_no_more_than_the_mailbox():
    """G4."""
    async with ActorSystem(log=False) as system:
        ref = system.spawn(Door, mailbox=Mailbox(capacity=2))
        for number in range(2):
            await ref.send(Work(number))
            await asyncio.sleep(0)
        with pytest.raises(ActorCrashed, match="MailboxFull"):
            await ref.ask(Get(3), timeout=1.0)


async def test_a_request_of_a_concurrent_handler_cannot_be_stashed():
    async with ActorSystem(log=False) as system:
        with pytest.raises(ActorCrashed, match="whose handler is concurrent"):
            await system.spawn(LaneDoor).ask(Get(1), timeout=1.0)
