"""Messages to oneself: once or periodic, without drift, and gone with the instance: G7, G9."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from runtime import Actor, ActorRef, ActorSystem, AskTimeout, DeadLetter, DeadReason, Mailbox, Message, Request, handles

if TYPE_CHECKING:
    from runtime import Timer


class Tick(Message):
    name: str = ""


class Again(Message):
    """Sent on by its handler until none is `left`."""

    left: int


class Clock(Actor):
    def __init__(self) -> None:
        self.ticks: list[tuple[str, float]] = []
        self.left = 1

    @handles(Again)
    def again(self, message: Again) -> None:
        self.left = message.left
        if message.left:
            self.context.ref.tell(Again(left=message.left - 1))

    @handles(Tick)
    def tick(self, message: Tick) -> None:
        self.ticks.append((message.name, self.context.now()))


async def clock(system: ActorSystem) -> Clock:
    actor = Clock()
    system.spawn(lambda: actor)
    await asyncio.sleep(0)
    return actor


async def test_once_fires_once():
    async with ActorSystem() as system:
        actor = await clock(system)
        actor.context.timers.once(2.5, Tick("a"))
        actor.context.timers.once(0.0, Tick("b"))
        await asyncio.sleep(60)
        assert actor.ticks == [("b", 0.0), ("a", 2.5)]
        assert repr(actor.context.timers) == "<Timers 0 active>"


async def test_what_a_timer_sends_is_handled_in_the_turn_in_which_it_fires():
    order: list[object] = []
    loop = asyncio.get_running_loop()
    async with ActorSystem() as system:
        actor = await clock(system)
        loop.call_at(loop.time() + 1.0, loop.call_soon, lambda: order.append(("next turn", len(actor.ticks))))
        actor.context.timers.once(1.0, Tick())
        await asyncio.sleep(2.0)
    assert order == [("next turn", 1)]


async def test_many_timers_at_once_leave_the_loop_its_share():
    turns = 0
    async with ActorSystem() as system:
        actor = await clock(system)
        for _ in range(1_000):
            actor.context.timers.once(1.0, Tick())
        actor.context.timers.once(1.0, Again(left=10_000))
        await asyncio.sleep(1.0)
        while actor.left:
            turns += 1
            await asyncio.sleep(0)
    assert turns > 10


async def test_every_fires_again_and_again_until_cancelled():
    async with ActorSystem() as system:
        actor = await clock(system)
        timer = actor.context.timers.every(0.1, Tick())
        await asyncio.sleep(100.05)
        assert repr(timer) == "<Timer Tick(name='') due 100.100, every 0.1 s>"
        timer.cancel()
        timer.cancel()
        await asyncio.sleep(60)
        assert len(actor.ticks) == 1000
        assert actor.ticks[-1][1] == pytest.approx(100.0, abs=1e-9)


async def test_ticks_missed_while_the_loop_was_busy_are_not_made_up_for():
    async with ActorSystem() as system:
        actor = await clock(system)
        actor.context.timers.every(1.0, Tick())
        await asyncio.sleep(0.5)
        asyncio.get_running_loop().now += 3.0  # type: ignore[attr-defined]
        await asyncio.sleep(2.0)
        assert [at for _, at in actor.ticks] == [3.5, 4.0, 5.0]


async def test_a_timer_may_be_cancelled_by_the_message_it_sends():
    class Once(Clock):
        timer: Timer

        def started(self) -> None:
            self.timer = self.context.timers.every(1.0, Tick())

        @handles(Tick)
        def tick(self, message: Tick) -> None:
            super().tick(message)
            self.timer.cancel()

    async with ActorSystem() as system:
        actor = Once()
        system.spawn(lambda: actor)
        await asyncio.sleep(9)
        assert len(actor.ticks) == 1


async def test_timers_end_with_their_actor(leftovers, recorded):
    """G9: and none of them tells the dead."""
    async with ActorSystem() as system:
        letters = recorded(system)
        actor = await clock(system)
        for delay in (1.0, 2.0, 3.0):
            actor.context.timers.once(delay, Tick())
            actor.context.timers.every(delay, Tick())
        actor.context.stop()
        assert leftovers() == []
        await asyncio.sleep(9)
        assert (actor.ticks, letters) == ([], [])


async def test_a_timer_whose_message_finds_no_room_makes_a_dead_letter(recorded):
    """G3, G4: whatever the overflow rule, for nobody would hear of a rejection."""

    class Busy(Clock):
        def started(self) -> None:
            self.context.timers.once(1.0, Tick("late"))

        @handles(Tick)
        async def tick(self, message: Tick) -> None:
            await asyncio.sleep(9)

    async with ActorSystem() as system:
        letters = recorded(system)
        ref = system.spawn(Busy, mailbox=Mailbox(capacity=1))
        ref.tell(Tick("first"))
        await asyncio.sleep(0.5)
        ref.tell(Tick("second"))
        await asyncio.sleep(1)
        assert [(one.message, one.reason) for one in letters] == [(Tick("late"), DeadReason.FULL)]
        ref.kill()


async def test_times_that_make_no_sense_are_refused():
    async with ActorSystem() as system:
        timers = (await clock(system)).context.timers
        for delay in (-1.0, float("nan")):
            with pytest.raises(ValueError, match="delay must be >= 0 seconds"):
                timers.once(delay, Tick())
        for interval in (0.0, -1.0, float("nan")):
            with pytest.raises(ValueError, match="interval must be > 0 seconds"):
                timers.every(interval, Tick())


class Fetch(Request[str]):
    pass


class FetchLater(Message):
    pass


class Source(Actor):
    """Never answers in time."""

    @handles(Fetch)
    async def fetch(self, message: Fetch) -> str:
        await asyncio.sleep(100)
        return "late"


class Fetcher(Actor):
    """Asks the source for its asker, later."""

    def __init__(self, source: ActorRef[Fetch], delay: float) -> None:
        self.source = source
        self.delay = delay
        self.gave_up_at = 0.0

    @handles(Fetch)
    def fetch(self, message: Fetch) -> asyncio.Future[str]:
        self.answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.context.timers.once(self.delay, FetchLater(), deadline=self.context.deadline)
        return self.answer

    @handles(FetchLater)
    async def fetch_later(self, message: FetchLater) -> None:
        try:
            await self.source.ask(Fetch(), timeout=60.0)
        except AskTimeout:
            self.gave_up_at = self.context.now()


async def test_a_deadline_travels_through_a_timer():
    """G5: what a handler puts off ends when its asker stops waiting."""
    async with ActorSystem(log=False) as system:
        actor = Fetcher(system.spawn(Source), delay=1.0)
        with pytest.raises(AskTimeout):
            await system.spawn(lambda: actor).ask(Fetch(), timeout=3.0)
        await asyncio.sleep(1)
        assert actor.gave_up_at == pytest.approx(3.0, abs=0.01)


async def test_a_timer_that_fires_after_its_deadline_is_a_dead_letter(recorded):
    """G3, G5."""
    async with ActorSystem(log=False) as system:
        dead = recorded(system, DeadLetter)
        actor = Fetcher(system.spawn(Source), delay=5.0)
        with pytest.raises(AskTimeout):
            await system.spawn(lambda: actor).ask(Fetch(), timeout=3.0)
        await asyncio.sleep(10)
        assert [(letter.message, letter.reason) for letter in dead] == [(FetchLater(), DeadReason.EXPIRED)]


class SlowClock(Actor):
    """Takes ten seconds for each tick; told one tick aside, up to `concurrent` at a time."""

    def __init__(self) -> None:
        self.ticks: list[float] = []

    @handles(Tick)
    async def tick(self, message: Tick) -> None:
        self.ticks.append(self.context.now())
        await asyncio.sleep(10.0)


class SlowLane(SlowClock):
    @handles(Tick, concurrent=2)
    async def tick(self, message: Tick) -> None:
        self.ticks.append(self.context.now())
        await asyncio.sleep(10.0)


@pytest.mark.parametrize(("kind", "at_once"), [(SlowClock, 1), (SlowLane, 2)])
async def test_ticks_do_not_pile_up_behind_a_slow_handler(kind: type[SlowClock], at_once: int):
    async with ActorSystem() as system:
        actor = kind()
        ref = system.spawn(lambda: actor)
        await asyncio.sleep(0)
        timer = actor.context.timers.every(1.0, Tick())
        await asyncio.sleep(100.5)
        timer.cancel()
        assert ref.recipient.load <= at_once + 1
        begun = len(actor.ticks)
        await asyncio.sleep(60.0)
        assert len(actor.ticks) <= begun + 1
        assert begun == 10 * at_once


async def test_an_actor_that_counts_its_ticks_gets_every_one():
    async with ActorSystem() as system:
        actor = SlowClock()
        system.spawn(lambda: actor)
        await asyncio.sleep(0)
        timer = actor.context.timers.every(1.0, Tick(), coalesce=False)
        await asyncio.sleep(10.5)
        timer.cancel()
        await asyncio.sleep(1000.0)
        assert len(actor.ticks) == 10


async def test_a_tick_that_became_a_dead_letter_stops_no_later_one():
    """G3: the mailbox was full, or its oldest message was dropped."""
    async with ActorSystem(log=False) as system:
        actor = SlowClock()
        ref = system.spawn(lambda: actor, mailbox=Mailbox(capacity=1))
        await asyncio.sleep(0)
        ref.tell(Tick())
        await asyncio.sleep(0.1)
        ref.tell(Tick())
        actor.context.timers.every(1.0, Tick())
        await asyncio.sleep(95.0)
        assert len(actor.ticks) == 10
