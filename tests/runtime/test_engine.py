"""Nobody starves: bounded turns, pumping askers, and a run queue that survives its actors: G2, G6."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest

from runtime import Actor, ActorRef, ActorSystem, Mailbox, Message, Request, handles
from runtime.engine import ANSWERS_PER_TURN, MESSAGES_PER_ACTIVATION, MESSAGES_PER_TURN, PUMPS_PER_TURN
from runtime.envelope import Ask

ROOMY = Mailbox(capacity=200_000)


class Tick(Message):
    pass


class Count(Request[int]):
    pass


class Counter(Actor):
    def __init__(self) -> None:
        self.ticks = 0

    @handles(Tick)
    def tick(self, message: Tick) -> None:
        self.ticks += 1

    @handles(Count)
    def count(self, message: Count) -> int:
        return self.ticks


class AsyncCounter(Counter):
    @handles(Tick)
    async def tick(self, message: Tick) -> None:
        self.ticks += 1


@pytest.mark.parametrize("kind", [Counter, AsyncCounter])
async def test_a_flood_of_one_actor_lets_another_answer_soon(kind: type[Counter]):
    async with ActorSystem() as system:
        flooded, counter = system.spawn(kind, mailbox=ROOMY), Counter()
        for _ in range(100_000):
            flooded.tell(Tick())
        flood = flooded.recipient.queue
        assert await system.spawn(lambda: counter).ask(Count(), timeout=1.0) == 0
        assert len(flood) >= 100_000 - 2 * MESSAGES_PER_TURN
        assert await flooded.ask(Count(), timeout=1.0) == 100_000


@pytest.mark.parametrize("kind", [Counter, AsyncCounter])
async def test_the_event_loop_has_its_turn_while_actors_are_flooded(kind: type[Counter]):
    async with ActorSystem() as system:
        counters = [kind() for _ in range(20)]
        for counter in counters:
            ref = system.spawn(lambda counter=counter: counter)
            for _ in range(5_000):
                ref.tell(Tick())
        handled, most = 0, 0
        while handled < 100_000:
            await asyncio.sleep(0)
            now = sum(one.ticks for one in counters)
            handled, most = now, max(most, now - handled)
        per_turn = MESSAGES_PER_TURN if kind is Counter else 20 * MESSAGES_PER_ACTIVATION
        assert most <= per_turn


async def test_an_actor_that_tells_itself_for_ever_lets_others_go_on():
    class Eternal(Counter):
        @handles(Tick)
        def tick(self, message: Tick) -> None:
            self.ticks += 1
            self.context.ref.tell(message)

    async with ActorSystem() as system:
        system.spawn(Eternal).tell(Tick())
        counter = system.spawn(Counter)
        for _ in range(100):
            assert await counter.ask(Count(), timeout=1.0) == 0
            await asyncio.sleep(0)


async def test_a_request_to_an_idle_sync_actor_is_answered_without_a_turn_of_the_loop():
    async with ActorSystem() as system:
        ref = system.spawn(Counter)
        turns: list[int] = []
        asyncio.get_running_loop().call_soon(turns.append, 1)
        assert await ref.ask(Count(), timeout=1.0) == 0
        assert turns == []


async def test_a_tight_loop_of_asks_lets_a_timer_run():
    """An ask that is answered at once does not yield; only so many of them are."""
    async with ActorSystem() as system:
        ref = system.spawn(Counter)
        fired: list[float] = []
        asyncio.get_running_loop().call_later(0.0, fired.append, 1.0)
        asks = 0
        while not fired:
            await ref.ask(Count(), timeout=1.0)
            asks += 1
            assert asks <= 3 * (ANSWERS_PER_TURN + PUMPS_PER_TURN)
        assert asks >= ANSWERS_PER_TURN + PUMPS_PER_TURN


async def test_an_ask_comes_after_what_its_sender_told_before():
    """G2: pumping does not overtake."""
    async with ActorSystem() as system:
        ref = system.spawn(Counter, mailbox=ROOMY)
        told = 0
        for burst in (1, 10, 63, 64, 65, 511, 512, 513, 1000):
            for _ in range(burst):
                ref.tell(Tick())
            told += burst
            assert await ref.ask(Count(), timeout=1.0) == told


async def test_a_request_behind_mail_that_was_told_takes_no_envelope(monkeypatch: pytest.MonkeyPatch):
    made: list[object] = []

    class CountedAsk(Ask):
        def __init__(self, message: object, deadline: float) -> None:
            made.append(message)
            super().__init__(message, deadline)

    monkeypatch.setattr("runtime.cell.cell.Ask", CountedAsk)
    async with ActorSystem() as system:
        ref = system.spawn(Counter, mailbox=ROOMY)
        for told in range(1, 20):
            ref.tell(Tick())
            assert await ref.ask(Count(), timeout=1.0) == told
    assert made == []


async def test_a_chain_of_sync_actors_is_walked_in_one_turn():
    """A message from actor to actor never touches the loop."""

    class Link(Actor):
        def __init__(self, following: Any) -> None:
            self.following = following

        @handles(Tick)
        def tick(self, message: Tick) -> None:
            self.following.tell(message)

    async with ActorSystem() as system:
        counter = Counter()
        ref: Any = system.spawn(lambda: counter)
        for _ in range(50):
            ref = system.spawn(lambda following=ref: Link(following))
        await asyncio.sleep(0)
        ref.tell(Tick())
        await asyncio.sleep(0)
        assert counter.ticks == 1


async def test_a_handler_runs_in_the_context_of_the_system_and_not_of_its_sender():
    import contextvars  # noqa: PLC0415

    who = contextvars.ContextVar("who", default="system")
    seen: list[str] = []

    class Curious(Actor):
        @handles(Tick)
        def tick(self, message: Tick) -> None:
            seen.append(who.get())

        @handles(Count)
        async def count(self, message: Count) -> int:
            seen.append(who.get())
            return 0

    class Sync(Actor):
        tick = Curious.tick

        @handles(Count)
        def count(self, message: Count) -> int:
            seen.append(who.get())
            return 0

    async with ActorSystem() as system:
        who.set("sender")
        for kind in (Curious, Sync):
            ref = system.spawn(kind)
            ref.tell(Tick())
            await ref.ask(Count(), timeout=1.0)
        assert seen == ["system"] * 4


class Asynchronous(Actor):
    def __init__(self) -> None:
        self.log: list[str] = []

    async def started(self) -> None:
        self.log.append("started")

    @handles(Count)
    async def count(self, message: Count) -> int:
        await asyncio.sleep(0)
        return 7

    async def stopped(self) -> None:
        self.log.append("stopped")


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
async def test_a_program_with_eager_tasks_may_embed_a_system():
    """G11."""
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]
    actor = Asynchronous()
    async with ActorSystem() as system:
        ref = system.spawn(lambda: actor)
        assert await asyncio.gather(*(ref.ask(Count(), timeout=1.0) for _ in range(3))) == [7, 7, 7]
    assert actor.log == ["started", "stopped"]


async def test_who_is_asked_from_within_a_sync_handler_answers_in_a_turn_of_its_own():
    """G11: a task factory of the program's may begin a task inside of the handler that makes it."""

    class Answering(Actor):
        @handles(Count)
        def count(self, message: Count) -> int:
            return 7

    class Between(Actor):
        def __init__(self, target: ActorRef[Any]) -> None:
            self.target = target

        @handles(Count)
        def count(self, message: Count) -> int:
            asking = self.target.ask(message, timeout=1.0)
            asking.send(None)  # The first step, which an eager task would make here; then it waits.
            asking.close()
            return 8

    async with ActorSystem() as system:
        target = system.spawn(Answering)
        assert await system.spawn(lambda: Between(target)).ask(Count(), timeout=1.0) == 8
        assert await target.ask(Count(), timeout=1.0) == 7
        assert "restarts" not in repr(target)
