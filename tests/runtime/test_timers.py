"""Messages to oneself: once or periodic, without drift, and gone with the instance: G7, G9."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from runtime import Actor, ActorSystem, DeadReason, Mailbox, Message, handles

if TYPE_CHECKING:
    from runtime import Timer


class Tick(Message):
    name: str = ""


class Clock(Actor):
    def __init__(self) -> None:
        self.ticks: list[tuple[str, float]] = []

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
        asyncio.get_running_loop()._jumping.now += 3.0  # type: ignore[attr-defined]
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
