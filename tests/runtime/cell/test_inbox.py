"""Mail gets in, in order, within its bound, or becomes a dead letter: G2, G3, G4, G5."""

from __future__ import annotations

import asyncio

import pytest

from runtime import (
    Actor,
    ActorStopped,
    ActorSystem,
    AskTimeout,
    DeadLetter,
    DeadReason,
    Mailbox,
    MailboxFull,
    Message,
    Overflow,
    Request,
    handles,
)


class Note(Message):
    number: int


class Count(Request[int]):
    number: int = 0


class Wait(Message):
    """Occupies the actor until its gate opens."""


class Clerk(Actor[Note | Count | Wait]):
    """Writes down the numbers it gets, in order."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.gate = asyncio.Event()

    @handles(Note)
    def note(self, message: Note) -> None:
        self.numbers.append(message.number)

    @handles(Count)
    def count(self, message: Count) -> int:
        self.numbers.append(message.number)
        return len(self.numbers)

    @handles(Wait)
    async def wait(self, message: Wait) -> None:
        await self.gate.wait()


def occupied(system: ActorSystem, capacity: int, overflow: Overflow = Overflow.REJECT):
    """Spawn a clerk that is to be kept busy; its mailbox holds `capacity` messages besides."""
    clerk = Clerk()
    ref = system.spawn(lambda: clerk, mailbox=Mailbox(capacity=capacity, overflow=overflow))
    ref.tell(Wait())
    return clerk, ref


async def turns(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


# Order: G2.


async def test_messages_of_one_sender_stay_in_order_whichever_way_they_are_sent():
    """G2: also while the mailbox is full, and the sender has to wait."""
    async with ActorSystem() as system:
        clerk, ref = occupied(system, capacity=2)

        async def sender() -> None:
            for number in range(1, 60):
                match number % 3:
                    case 0:
                        await ref.ask(Count(number), timeout=100.0)
                    case 1:
                        await ref.send(Note(number))
                    case _:
                        while True:
                            try:
                                ref.tell(Note(number))
                                break
                            except MailboxFull:
                                await asyncio.sleep(1.0)

        sending = asyncio.create_task(sender())
        await turns()
        clerk.gate.set()
        await sending
        await ref.ask(Count(60), timeout=1.0)
        assert clerk.numbers == list(range(1, 61))


async def test_senders_that_wait_are_let_in_in_the_order_of_their_arrival():
    """G2."""
    async with ActorSystem() as system:
        clerk, ref = occupied(system, capacity=1)
        await turns()
        ref.tell(Note(0))
        waiting = [
            asyncio.create_task(ref.send(Note(n)) if n % 2 else ref.ask(Count(n), timeout=9.0)) for n in range(1, 10)
        ]
        await turns()
        clerk.gate.set()
        await asyncio.gather(*waiting)
        assert clerk.numbers == list(range(10))


async def test_the_place_that_the_current_message_leaves_goes_to_the_first_who_waits():
    """G4: at once, however long the handler takes, and not to a sender that comes later."""
    async with ActorSystem() as system:
        clerk, ref = occupied(system, capacity=1)
        waiting = asyncio.create_task(ref.send(Note(1), timeout=1.0))
        await waiting  # The handler of Wait has begun, so its place is free.
        with pytest.raises(MailboxFull):
            ref.tell(Note(2))
        clerk.gate.set()
        await ref.send(Note(3))
        await ref.ask(Count(4), timeout=1.0)
        assert clerk.numbers == [1, 3, 4]


# Room: G4.


async def test_a_full_mailbox_rejects_a_tell():
    """G4."""
    async with ActorSystem("office") as system:
        clerk, ref = occupied(system, capacity=2)
        await turns()
        ref.tell(Note(1))
        ref.tell(Note(2))
        with pytest.raises(MailboxFull, match=r"mailbox of office/clerk-1 is full \(2 messages\)") as full:
            ref.tell(Note(3))
        assert (full.value.actor, full.value.capacity) == ("office/clerk-1", 2)
        clerk.gate.set()
        assert await ref.ask(Count(9), timeout=1.0) == 3


@pytest.mark.parametrize(
    ("overflow", "kept", "dropped"),
    [(Overflow.DROP_NEWEST, [1, 2, 9], 3), (Overflow.DROP_OLDEST, [2, 3, 9], 1)],
)
async def test_a_dropped_message_is_a_dead_letter(overflow: Overflow, kept: list[int], dropped: int, recorded):
    """G3, G4."""
    async with ActorSystem() as system:
        letters = recorded(system)
        clerk, ref = occupied(system, 2, overflow)
        await turns()
        for number in (1, 2, 3):
            ref.tell(Note(number))
        assert [(one.recipient, one.message, one.reason) for one in letters] == [(ref, Note(dropped), DeadReason.FULL)]
        clerk.gate.set()
        await ref.ask(Count(9), timeout=1.0)
        assert clerk.numbers == kept


@pytest.mark.parametrize("overflow", Overflow)
async def test_send_and_ask_wait_for_room_whatever_the_overflow_rule(overflow: Overflow, recorded):
    """G4."""
    async with ActorSystem() as system:
        letters = recorded(system)
        clerk, ref = occupied(system, 1, overflow)
        await turns()
        ref.tell(Note(1))
        sending = asyncio.create_task(ref.send(Note(2)))
        asking = asyncio.create_task(ref.ask(Count(3), timeout=9.0))
        await turns()
        assert not sending.done()
        clerk.gate.set()
        await sending
        assert await asking == 3
        assert letters == []


async def test_an_ask_that_is_dropped_as_the_oldest_fails_at_its_asker(recorded):
    """G3, G4."""
    async with ActorSystem() as system:
        letters = recorded(system)
        _, ref = occupied(system, 1, Overflow.DROP_OLDEST)
        await turns()
        asking = asyncio.create_task(ref.ask(Count(1), timeout=9.0))
        await turns()
        ref.tell(Note(2))
        with pytest.raises(MailboxFull):
            await asking
        assert [(one.message, one.reason) for one in letters] == [(Count(1), DeadReason.FULL)]
        ref.kill()


async def test_a_send_gives_up_at_its_timeout_and_the_message_is_not_sent():
    """G4."""
    async with ActorSystem("office") as system:
        clerk, ref = occupied(system, capacity=1)
        await turns()
        ref.tell(Note(1))
        with pytest.raises(AskTimeout, match=r"office/clerk-1 did not answer Note within 5 s"):
            await ref.send(Note(2), timeout=5.0)
        assert asyncio.get_running_loop().time() == pytest.approx(5.0, abs=0.001)
        clerk.gate.set()
        await ref.ask(Count(9), timeout=1.0)
        assert clerk.numbers == [1, 9]


async def test_a_send_that_is_cancelled_leaves_the_line():
    """G4, G12."""
    async with ActorSystem() as system:
        clerk, ref = occupied(system, capacity=1)
        await turns()
        ref.tell(Note(1))
        first, second = asyncio.create_task(ref.send(Note(2))), asyncio.create_task(ref.send(Note(3)))
        await turns()
        first.cancel()
        clerk.gate.set()
        await second
        await ref.ask(Count(9), timeout=1.0)
        assert clerk.numbers == [1, 3, 9]


async def test_an_ask_waits_for_room_only_until_its_deadline(recorded):
    """G4, G5: it never got in, so it is no dead letter; its asker knows."""
    async with ActorSystem() as system:
        letters = recorded(system)
        clerk, ref = occupied(system, capacity=1)
        await turns()
        ref.tell(Note(1))
        with pytest.raises(AskTimeout):
            await ref.ask(Count(2), timeout=5.0)
        clerk.gate.set()
        await ref.ask(Count(9), timeout=1.0)
        assert clerk.numbers == [1, 9]
        assert letters == []


async def test_an_asker_who_is_cancelled_while_waiting_for_room_leaves_the_line():
    """G4, G5."""
    async with ActorSystem() as system:
        clerk, ref = occupied(system, capacity=1)
        await turns()
        ref.tell(Note(1))
        asking = asyncio.create_task(ref.ask(Count(2), timeout=9.0))
        await turns()
        asking.cancel()
        clerk.gate.set()
        await ref.ask(Count(9), timeout=1.0)
        assert clerk.numbers == [1, 9]
        assert asking.cancelled()


@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_those_who_wait_for_room_hear_that_the_actor_ended(end: str):
    """G3, G4."""
    async with ActorSystem() as system:
        _, ref = occupied(system, capacity=1)
        await turns()
        ref.tell(Note(1))
        waiting = [asyncio.create_task(one) for one in (ref.send(Note(2)), ref.ask(Count(3), timeout=99.0))]
        await turns()
        getattr(ref, end)()
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(one) for one in outcomes] == [ActorStopped, ActorStopped]


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan")])
async def test_a_timeout_must_be_positive_whether_or_not_there_is_room(seconds: float):
    async with ActorSystem() as system:
        ref = system.spawn(Clerk)
        with pytest.raises(ValueError, match=r"timeout must be > 0 seconds"):
            await ref.send(Note(1), timeout=seconds)
        with pytest.raises(ValueError, match=r"timeout must be a finite number of seconds > 0"):
            await ref.ask(Count(1), timeout=seconds)


async def test_an_ask_needs_an_end():
    """G5."""
    async with ActorSystem() as system:
        for endless in (float("inf"), 1.7e308):
            with pytest.raises(ValueError, match="finite"):
                await system.spawn(Clerk).ask(Count(1), timeout=endless)


def test_a_mailbox_holds_at_least_one_message():
    """G4."""
    for capacity in (0, 1.5, True, "3"):
        with pytest.raises(ValueError, match=f"capacity must be a whole number of messages >= 1, got {capacity!r}"):
            Mailbox(capacity=capacity)
    with pytest.raises(TypeError, match=r"overflow must be an Overflow, such as Overflow.REJECT, got 'drop'"):
        Mailbox(overflow="drop")


# What becomes of mail that is not handled: G3.


async def test_mail_to_a_stopped_actor_is_a_dead_letter_and_an_ask_fails(recorded):
    """G3."""
    async with ActorSystem("office") as system:
        letters = recorded(system)
        ref = system.spawn(Clerk)
        ref.stop()
        await ref.terminated()
        ref.tell(Note(1))
        assert [(one.message, one.reason) for one in letters] == [(Note(1), DeadReason.STOPPED)]
        with pytest.raises(ActorStopped, match=r"office/clerk-1 is stopped; Note was never handled"):
            await ref.send(Note(2))
        with pytest.raises(ActorStopped):
            await ref.ask(Count(3), timeout=1.0)


async def test_mail_that_a_stopping_actor_leaves_is_dead_letters_in_order(recorded):
    """G3, G8."""
    async with ActorSystem() as system:
        letters = recorded(system)
        clerk, ref = occupied(system, capacity=9)
        await turns()
        ref.tell(Note(1))
        asking = asyncio.create_task(ref.ask(Count(2), timeout=99.0))
        await turns()
        ref.stop()
        ref.tell(Note(3))
        clerk.gate.set()
        with pytest.raises(ActorStopped):
            await asking
        assert clerk.numbers == []
        assert [one.message for one in letters] == [Note(3), Note(1), Count(2)]
        assert {one.reason for one in letters} == {DeadReason.STOPPED}


class Unknown(Message):
    pass


async def test_a_message_without_a_handler_is_a_dead_letter(recorded):
    """G3."""
    async with ActorSystem() as system:
        letters = recorded(system)
        ref = system.spawn(Clerk)
        ref.tell(Unknown())  # type: ignore[arg-type]
        await ref.ask(Count(1), timeout=1.0)
        assert [(one.message, one.reason) for one in letters] == [(Unknown(), DeadReason.UNHANDLED)]


async def test_expired_mail_is_dropped_at_dequeue(recorded):
    """G3, G5."""
    async with ActorSystem() as system:
        letters = recorded(system)
        clerk, ref = occupied(system, capacity=9)
        with pytest.raises(AskTimeout):
            await ref.ask(Count(1), timeout=2.0)
        clerk.gate.set()
        await ref.ask(Count(9), timeout=1.0)
        assert clerk.numbers == [9]
        assert [(one.message, one.reason) for one in letters] == [(Count(1), DeadReason.EXPIRED)]


async def test_the_mail_of_an_asker_who_was_cancelled_is_dropped_at_dequeue(recorded):
    """G3, G5."""
    async with ActorSystem() as system:
        letters = recorded(system)
        clerk, ref = occupied(system, capacity=9)
        asking = asyncio.create_task(ref.ask(Count(1), timeout=9.0))
        await turns()
        asking.cancel()
        clerk.gate.set()
        await ref.ask(Count(9), timeout=1.0)
        assert clerk.numbers == [9]
        assert [(one.message, one.reason) for one in letters] == [(Count(1), DeadReason.CANCELLED)]


async def test_a_dead_letter_that_finds_its_subscriber_stopped_does_not_breed(recorded):
    """G3: a monitor of dead letters that has ended must not turn each of them into endlessly many."""
    async with ActorSystem() as system:
        monitor = system.spawn(Clerk)
        system.events.subscribe(DeadLetter, monitor)  # type: ignore[arg-type]
        letters = recorded(system)
        monitor.stop()
        await monitor.terminated()
        monitor.tell(Note(1))
        assert [one.message for one in letters] == [Note(1)]
