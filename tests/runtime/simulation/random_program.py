"""A random program of plain actors, in which no invariant may ever break, whatever the faults."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from runtime import (
    Actor,
    ActorSystem,
    Interceptor,
    Mailbox,
    Message,
    Overflow,
    Refusal,
    Request,
    Reroute,
    RestartIntensity,
    RuntimeFault,
    Strategy,
    Supervision,
    feed,
    handles,
    pool,
    through,
)
from runtime.simulation import DropMail, ReorderMail, Simulation, random_faults

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncIterator

    from runtime import ActorRef


class Note(Message):
    number: int


class Query(Request[int]):
    number: int


class Declined(Refusal):
    pass


NOTE = Note(-1)
"""One that is sent again and again."""


class Plain(Actor):
    supervision = Supervision(strategy=Strategy.ONE_FOR_ALL, intensity=RestartIntensity(max_restarts=5, within=1.0))

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.handled = 0

    def act(self, number: int) -> int:
        self.handled += 1
        chance = self.dice.random()
        if chance < 0.03:
            raise OSError(number)
        if chance < 0.08:
            raise Declined(number)
        if chance < 0.1:
            self.context.timers.once(0.5, NOTE)
        return number

    @handles(Note)
    def note(self, message: Note) -> None:
        with suppress(Refusal):
            self.act(message.number)

    @handles(Query)
    def query(self, message: Query) -> Any:
        if self.dice.random() < 0.1:
            future = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_later(0.2, lambda: future.done() or future.set_result(message.number))
            return future
        return self.act(message.number)

    def broken_invariants(self) -> list[str]:
        return [] if self.handled >= 0 else ["it handled less than nothing"]


class Slow(Plain):
    async def started(self) -> None:
        await asyncio.sleep(0.05)

    async def stopped(self) -> None:
        await asyncio.sleep(0.05)

    @handles(Note)
    async def note(self, message: Note) -> None:
        await asyncio.sleep(self.dice.random())
        with suppress(Refusal):
            self.act(message.number)

    @handles(Query)
    async def query(self, message: Query) -> int:
        await asyncio.sleep(self.dice.random())
        return self.act(message.number)


class Wide(Plain):
    @handles(Note, concurrent=2)
    async def note(self, message: Note) -> None:
        await asyncio.sleep(self.dice.random())

    @handles(Query, concurrent=3)
    async def query(self, message: Query) -> int:
        await asyncio.sleep(self.dice.random())
        return self.act(message.number)


class Stasher(Plain):
    @handles(Query)
    def query(self, message: Query) -> Any:
        if self.dice.random() < 0.3:
            self.context.timers.once(0.1, NOTE)
            return self.context.stash(message)
        return self.act(message.number)

    @handles(Note)
    def note(self, message: Note) -> None:
        self.context.unstash_all()


class Parent(Plain):
    supervision = Supervision(
        strategy=Strategy.REST_FOR_ONE,
        intensity=RestartIntensity(max_restarts=2, within=5.0),
        reroute=Reroute(to="spare"),
    )

    def started(self) -> None:
        for name, kind in (("first", Plain), ("second", Slow), ("spare", Wide)):
            self.context.spawn(lambda kind=kind: kind(self.dice), name=name)

    @handles(Query)
    async def query(self, message: Query) -> int:
        child = self.dice.choice(list(self.context.children.values()))
        return await child.ask(message, timeout=2.0)


class Counting(Interceptor):
    seen = 0

    def received(self, ref: ActorRef[Any], message: Any) -> Any:
        self.seen += 1
        return message


async def client(dice: random.Random, refs: list[ActorRef[Any]]) -> None:
    for number in range(15):
        ref = dice.choice(refs)
        with suppress(RuntimeFault, Refusal, RuntimeError):
            match dice.choice(("tell", "same", "send", "ask", "give up", "feed", "through", "pause")):
                case "tell":
                    ref.tell(Note(number))
                case "same":
                    ref.tell(NOTE)
                case "send":
                    await ref.send(NOTE, timeout=dice.random() + 0.01)
                case "ask":
                    await ref.ask(Query(number), timeout=dice.choice((0.1, 1.0, 10.0)))
                case "give up":
                    with suppress(TimeoutError):
                        async with asyncio.timeout(dice.random()):
                            await ref.ask(Query(number), timeout=9.0)
                case "feed":
                    await feed(ref, source(3), timeout=1.0)
                case "through":
                    async with through(ref, source(4), one_query, timeout=2.0, max_concurrency=2).stream() as answers:
                        async for _ in answers:
                            pass
                case _:
                    await asyncio.sleep(dice.random())


def one_query(note: Note) -> Query:
    return Query(note.number)


async def source(size: int) -> AsyncIterator[Note]:
    for number in range(size):
        await asyncio.sleep(0.01)
        yield Note(number)


async def scenario(simulation: Simulation) -> None:
    dice = simulation.random
    plan = random_faults(dice, actors=("work/*", "work/parent-1/*"), systems=("work",), within=8.0)
    simulation.inject(*(fault for fault in plan if not isinstance(fault, DropMail | ReorderMail)))
    interceptors = [Counting()] if dice.random() < 0.5 else []
    top = Supervision(intensity=RestartIntensity(max_restarts=100, within=1.0))
    async with ActorSystem("work", log=False, interceptors=interceptors, supervision=top) as system:
        refs: list[ActorRef[Any]] = []
        for kind in (Plain, Slow, Wide, Stasher, Parent):
            mailbox = Mailbox(capacity=dice.choice((1, 3, 100)), overflow=dice.choice(list(Overflow)))
            refs.append(system.spawn(lambda kind=kind: kind(dice), name=f"{kind.__name__.lower()}-1", mailbox=mailbox))
        refs.append(pool(system, lambda: Slow(dice), size=2, name="pool"))
        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(client(dice, refs))
        if dice.random() < 0.5:
            refs[0].kill()
