"""Mail put aside comes back in its order, in front of the rest, and is lost no more than other mail."""

from __future__ import annotations

import asyncio

import pytest

from runtime import (
    IMMEDIATELY,
    Actor,
    ActorCrashed,
    ActorRef,
    ActorStopped,
    ActorSystem,
    AskTimeout,
    DeadLetter,
    DeadReason,
    Interceptor,
    Mailbox,
    Message,
    Request,
    Supervision,
    handles,
)
from runtime.cell.answers import hand_back


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


async def test_a_request_asked_again_with_the_same_object_is_another_request():
    """G6: the one that asked first, through the mailbox, and has its answer, is not taken for the one that asks now."""

    class Closing(Door):
        @handles(Open)
        def open(self, message: Open) -> None:
            self.is_open = not self.is_open
            self.context.unstash_all()

    async with ActorSystem() as system:
        ref = system.spawn(Closing)
        message = Get(1)
        ref.tell(Open())
        assert await ref.ask(message, timeout=1.0) == 1
        ref.tell(Open())
        await asyncio.sleep(1)
        asking = asyncio.create_task(ref.ask(message, timeout=9.0))
        await asyncio.sleep(1)
        assert not asking.done()
        ref.tell(Open())
        assert await asking == 1


class Giver(Door):
    """Writes down what comes back, and puts aside what was told with a deadline."""

    def __init__(self) -> None:
        super().__init__()
        self.back: list[object] = []

    def unclaimed(self, request: Request[object], answer: object) -> None:
        self.back.append((request, answer))

    @handles(Work)
    def work(self, message: Work) -> None:
        deadline = self.context.now() + 2.0
        self.context.timers.once(1.0, Get(message.number), deadline=deadline)


class AsyncGiver(Giver):
    @handles(Get)
    async def get(self, message: Get) -> int:
        return Door.get(self, message)


@pytest.mark.parametrize("giver", [Giver, AsyncGiver])
@pytest.mark.parametrize("in_time", [True, False])
async def test_a_told_request_that_was_stashed_keeps_its_deadline_and_its_answer_comes_back(
    giver: type[Giver],
    in_time: bool,  # noqa: FBT001
    recorded,
):
    """G5, G12."""
    actor = giver()
    async with ActorSystem(log=False) as system:
        dead = recorded(system, DeadLetter)
        ref = system.spawn(lambda: actor)
        ref.tell(Work(7))
        await asyncio.sleep(1.5 if in_time else 3.0)
        ref.tell(Open())
        await asyncio.sleep(1)
        assert actor.back == ([(Get(7), 7)] if in_time else [])
        assert [letter.reason for letter in dead] == ([] if in_time else [DeadReason.EXPIRED])


class Replacing(Interceptor):
    """Adds ten, and counts answers: what is put aside has none."""

    def received(self, ref: ActorRef, message: object) -> object:
        return Get(message.number + 10) if isinstance(message, Get) else message

    def handled(self, ref: ActorRef, message: object, answer: object) -> object:
        return answer + 100 if isinstance(answer, int) or isinstance(message, Get) else answer  # type: ignore[operator]


@pytest.mark.parametrize("mailbox", [True, False])
@DOORS
async def test_a_stashed_request_passes_the_interceptors_anew(door: type[Door], mailbox: bool):  # noqa: FBT001
    async with ActorSystem(interceptors=[Replacing()]) as system:
        ref = system.spawn(door)
        if mailbox:
            ref.tell(Work(1))
        asking = asyncio.create_task(ref.ask(Get(1), timeout=9.0))
        await asyncio.sleep(1)
        ref.tell(Open())
        assert await asking == 111


async def test_a_request_of_a_concurrent_handler_cannot_be_stashed_behind_an_interceptor():
    async with ActorSystem(interceptors=[Replacing()], log=False) as system:
        with pytest.raises(ActorCrashed, match="whose handler is concurrent"):
            await system.spawn(LaneDoor).ask(Get(1), timeout=1.0)


@pytest.mark.parametrize("crashes", [True, False])
async def test_a_request_that_is_stashed_but_ends_all_the_same_is_not_handled_again(crashes: bool, recorded):  # noqa: FBT001
    """G3, G12: its asker has heard."""
    handled: list[Get] = []

    class Careless(Door):
        @handles(Get)
        def get(self, message: Get) -> int:
            handled.append(message)
            self.context.stash(message)
            if crashes:
                raise ValueError
            return 1

    async with ActorSystem(supervision=Supervision(backoff=IMMEDIATELY), log=False) as system:
        dead = recorded(system, DeadLetter)
        ref = system.spawn(Careless)
        if crashes:
            with pytest.raises(ActorCrashed):
                await ref.ask(Get(1), timeout=1.0)
        else:
            assert await ref.ask(Get(1), timeout=1.0) == 1
        ref.tell(Open())
        await asyncio.sleep(1)
        assert handled == [Get(1)]
        assert [letter.message for letter in dead] == [Get(1)]


async def test_giving_up_a_request_that_is_being_stashed_leaves_no_cancellation_behind():
    """G5: the actor lives on, and its task is as if nothing had been cancelled."""
    left: list[int] = []

    class Stubborn(Door):
        @handles(Get)
        async def get(self, message: Get) -> int:
            try:
                await asyncio.sleep(5)
            except asyncio.CancelledError:
                return self.context.stash(message)
            return 0

        @handles(Work)
        def work(self, message: Work) -> None:
            task = asyncio.current_task()
            assert task is not None
            left.append(task.cancelling())

    async with ActorSystem(log=False) as system:
        ref = system.spawn(Stubborn)
        asking = asyncio.create_task(ref.ask(Get(1), timeout=1.0))
        await asyncio.sleep(0.5)
        ref.tell(Work(1))
        with pytest.raises(AskTimeout):
            await asking
        await asyncio.sleep(1)
        assert left == [0]


async def test_an_answer_that_comes_back_is_handled_before_what_was_stashed():
    """G2, G12."""
    log: list[object] = []

    class Lender(Door):
        @handles(Get)
        def get(self, message: Get) -> int:
            return message.number

        @handles(Work)
        def work(self, message: Work) -> None:
            if not self.is_open:
                return self.context.stash(message)
            log.append(message.number)
            return None

        def unclaimed(self, request: Request[object], answer: object) -> None:
            log.append(request)

        @handles(Open)
        def open(self, message: Open) -> None:
            self.is_open = True
            hand_back(self.context.ref.recipient, Get(9), 9)  # As for an asker that is cancelled in this very turn.
            self.context.unstash_all()

    async with ActorSystem() as system:
        ref = system.spawn(Lender)
        ref.tell(Work(1))
        ref.tell(Open())
        await asyncio.sleep(1)
        assert log == [Get(9), 1]


async def test_nothing_is_stashed_by_an_actor_that_has_ended():
    """G3: nothing would ever tell of it."""
    actor = Door()
    async with ActorSystem() as system:
        ref = system.spawn(lambda: actor)
        ref.stop()
        await ref.terminated()
        with pytest.raises(ActorStopped):
            actor.context.stash(Work(1))
