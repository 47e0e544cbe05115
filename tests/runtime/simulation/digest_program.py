"""A program for one digest, run in several processes: it uses whatever keeps tasks, futures and scopes in sets."""

from __future__ import annotations

import asyncio
import random
import sys
import time
import uuid
from contextlib import suppress

import anyio
from aiostream import stream

from runtime import Actor, ActorSystem, Request, handles
from runtime.simulation import Simulation


class Double(Request[int]):
    number: int


class Doubler(Actor):
    @handles(Double, concurrent=3)
    async def double(self, message: Double) -> int:
        await asyncio.sleep(random.random())
        return 2 * message.number


async def scenario(simulation: Simulation) -> None:
    note = simulation.note

    async def work(number: int) -> int:
        try:
            await asyncio.sleep(number % 5)
            note(f"worked {number}")
        except asyncio.CancelledError:
            note(f"cancelled {number}")
            raise
        else:
            return number

    done, pending = await asyncio.wait([asyncio.ensure_future(work(n)) for n in range(60)], timeout=2)
    for task in pending:
        task.cancel()
    note(" ".join(str(task.result()) for task in done))
    await asyncio.wait(pending)

    gathered, _ = await asyncio.wait([asyncio.gather(work(100 * n), work(100 * n + 1)) for n in range(20)])
    note(" ".join(str(one.result()) for one in gathered))

    with suppress(ExceptionGroup):
        async with asyncio.timeout(3), asyncio.TaskGroup() as group:
            for number in range(30):
                group.create_task(work(number))
            group.create_task(fail_soon())

    async def scoped(number: int) -> None:
        with anyio.move_on_after(1 + number % 3):
            with anyio.move_on_after(2):
                await work(number)
            note(f"inner {number}")

    with suppress(ExceptionGroup):
        with anyio.move_on_after(10):
            async with anyio.create_task_group() as tasks:
                for number in range(30):
                    tasks.start_soon(scoped, number)
                await anyio.sleep(1.5)
                with anyio.move_on_after(1) as scope:
                    async with anyio.create_task_group() as inner:
                        for number in range(30):
                            inner.start_soon(scoped, number)
                note(str(scope.cancelled_caught))
                tasks.cancel_scope.cancel()

    async def counting(name: str) -> object:
        try:
            for number in range(5):
                await asyncio.sleep(0.1)
                yield number
        finally:
            note(f"closed {name}")

    async def later(number: int, *_: int) -> int:
        return await work(number)

    mapped = stream.map(stream.merge(counting("a"), counting("b")), later, ordered=False, task_limit=4)
    async with mapped.stream() as streamer:
        async for number in streamer:
            note(f"mapped {number}")
            if number == 3:
                break

    unfinished = [counting(f"left {number}") for number in range(20)]
    for generator in unfinished:
        await anext(generator)

    queue: asyncio.Queue[int] = asyncio.Queue(2)
    lock, condition, event = asyncio.Lock(), asyncio.Condition(), asyncio.Event()

    async def consume() -> None:
        await event.wait()
        while True:
            number = await queue.get()
            async with lock:
                note(f"consumed {number}")
            async with condition:
                condition.notify_all()

    consumers = [asyncio.create_task(consume()) for _ in range(5)]
    event.set()
    for number in range(20):
        await queue.put(number)
        if number % 4 == 0:
            async with condition:
                await asyncio.wait_for(condition.wait(), 1)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        note(task.get_name())
        task.cancel()
    await asyncio.wait(consumers)

    async with ActorSystem("digest") as system:
        doubler = system.spawn(Doubler)
        await asyncio.gather(*(doubler.ask(Double(number), timeout=9.0) for number in range(9)))
    note(f"{uuid.uuid4()} {random.random()} {random.Random().random()} {time.time()} {time.monotonic()}")
    random.seed()
    note(str(random.random()))
    simulation.unfinished = unfinished  # type: ignore[attr-defined] # They are still there when the run ends.


async def fail_soon() -> None:
    await asyncio.sleep(1.5)
    raise ValueError("enough")


if __name__ == "__main__":
    for seed in range(int(sys.argv[1])):
        run = Simulation(seed).run(scenario)
        print(run.digest, run.steps, run.seconds)
