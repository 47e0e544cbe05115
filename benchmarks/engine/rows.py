"""The engine beside the floor of asyncio, and beside peers where they are installed (extra `bench`).

`python -m benchmarks.engine --json`
"""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
from contextlib import asynccontextmanager
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

import anyio

from benchmarks.engine.floors import Asker, BoundedCounter, Counter, Forwarder
from benchmarks.engine.peers import installed
from benchmarks.harness import Measure, Row, loop_factory_of, medians, peer_row, ratio_row, value_row
from runtime import (
    IMMEDIATELY,
    Actor,
    ActorRef,
    ActorSystem,
    Mailbox,
    Message,
    Request,
    Restart,
    RestartIntensity,
    Supervision,
    handles,
)

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncIterator

TELLS = 300_000
ASKS = 20_000
HOPS = 200_000
ROOMY = Mailbox(capacity=1_000_000)
QUIET = "understudy"


class Tick(Message, gc=False):
    """Counted."""


class Total(Request[int], gc=False):
    """Answered with the count."""


class Hop(Message, gc=False):
    """Sent on, less one."""

    left: int


class Many(Request[None]):
    """Asks many times."""

    times: int


class Crash(Message, gc=False):
    """Makes its receiver crash."""


class SyncCounter(Actor):
    """Counts in a sync handler."""

    def __init__(self) -> None:
        self.count = 0

    @handles(Tick)
    def tick(self, message: Tick) -> None:
        self.count += 1

    @handles(Total)
    def total(self, message: Total) -> int:
        return self.count


class AsyncCounter(Actor):
    """Counts in an async handler."""

    def __init__(self) -> None:
        self.count = 0

    @handles(Tick)
    async def tick(self, message: Tick) -> None:
        self.count += 1

    @handles(Total)
    async def total(self, message: Total) -> int:
        return self.count


class InlineCounter(AsyncCounter):
    """Counts in an async handler that may run in the task of its asker."""

    @handles(Total, inline=True)
    async def total(self, message: Total) -> int:
        return self.count


class Passer(Actor):
    """Passes a hop on to the next."""

    def __init__(self) -> None:
        self.next: ActorRef[Hop] | None = None
        self.done: asyncio.Event | None = None

    @handles(Hop)
    def hop(self, message: Hop) -> None:
        if message.left and self.next is not None:
            self.next.tell(Hop(message.left - 1))
        elif self.done is not None:
            self.done.set()


class Inquirer(Actor):
    """Asks another actor from within."""

    def __init__(self, target: ActorRef[Any]) -> None:
        self.target = target

    @handles(Many)
    async def ask_many(self, message: Many) -> None:
        request = Total()
        for _ in range(message.times):
            await self.target.ask(request, timeout=60.0)


class Hooked(Actor):
    """Has a start hook."""

    def started(self) -> None:
        self.ready = True

    @handles(Total)
    def total(self, message: Total) -> int:
        return 1


class Fragile(Actor):
    """Crashes when it is told to."""

    @handles(Crash)
    def crash(self, message: Crash) -> None:
        raise ValueError

    @handles(Total)
    def total(self, message: Total) -> int:
        return 1


@asynccontextmanager
async def quiet_system() -> AsyncIterator[ActorSystem]:
    """Enter a system whose crashes are expected: no log lines."""
    tolerant = Supervision(intensity=RestartIntensity(max_restarts=10_000_000), backoff=IMMEDIATELY)
    async with ActorSystem(QUIET, supervision=tolerant, log=False) as system:
        yield system


# tell


async def tell_ours(counter: type[Actor], capacity: Mailbox = ROOMY) -> float:
    async with quiet_system() as system:
        ref = system.spawn(counter, mailbox=capacity)
        message = Tick()
        await ref.ask(Total(), timeout=60.0)
        begin = perf_counter()
        for _ in range(TELLS):
            ref.tell(message)
        assert await ref.ask(Total(), timeout=60.0) == TELLS
        return TELLS / (perf_counter() - begin)


async def tell_floor(counter: type[Counter]) -> float:
    actor = counter()
    await asyncio.sleep(0)
    message = Tick()
    begin = perf_counter()
    for _ in range(TELLS):
        actor.tell(message)
    assert await actor.ask(None) == TELLS
    rate = TELLS / (perf_counter() - begin)
    await actor.stop()
    return rate


async def tell_queue() -> float:
    queue: asyncio.Queue[Any] = asyncio.Queue()
    message = Tick()

    async def consume() -> None:
        for _ in range(TELLS):
            await queue.get()

    begin = perf_counter()
    for _ in range(TELLS):
        queue.put_nowait(message)
    await asyncio.create_task(consume())
    return TELLS / (perf_counter() - begin)


async def tell_stream() -> float:
    send, receive = anyio.create_memory_object_stream[Any](TELLS)
    message = Tick()
    async with send, receive:
        begin = perf_counter()
        for _ in range(TELLS):
            send.send_nowait(message)
        for _ in range(TELLS):
            await receive.receive()
        return TELLS / (perf_counter() - begin)


async def fan_in_ours() -> float:
    async with quiet_system() as system:
        ref = system.spawn(SyncCounter, mailbox=ROOMY)
        message = Tick()

        async def sender() -> None:
            for _ in range(30):
                for _ in range(100):
                    ref.tell(message)
                await asyncio.sleep(0)

        begin = perf_counter()
        await asyncio.gather(*(sender() for _ in range(100)))
        assert await ref.ask(Total(), timeout=60.0) == 300_000
        return 300_000 / (perf_counter() - begin)


async def fan_in_floor() -> float:
    actor = BoundedCounter()
    message = Tick()

    async def sender() -> None:
        for _ in range(30):
            for _ in range(100):
                actor.tell(message)
            await asyncio.sleep(0)

    begin = perf_counter()
    await asyncio.gather(*(sender() for _ in range(100)))
    assert await actor.ask(None) == 300_000
    rate = 300_000 / (perf_counter() - begin)
    await actor.stop()
    return rate


async def send_ours() -> float:
    async with quiet_system() as system:
        ref = system.spawn(SyncCounter, mailbox=Mailbox(capacity=100))
        message = Tick()
        begin = perf_counter()
        for _ in range(100_000):
            await ref.send(message)
        assert await ref.ask(Total(), timeout=60.0) == 100_000
        return 100_000 / (perf_counter() - begin)


async def send_queue() -> float:
    queue: asyncio.Queue[Any] = asyncio.Queue(maxsize=100)
    message = Tick()

    async def consume() -> None:
        for _ in range(100_000):
            await queue.get()

    begin = perf_counter()
    consumer = asyncio.create_task(consume())
    for _ in range(100_000):
        await queue.put(message)
    await consumer
    return 100_000 / (perf_counter() - begin)


# ask


async def ask_ours(counter: type[Actor]) -> float:
    async with quiet_system() as system:
        ref = system.spawn(counter)
        request = Total()
        begin = perf_counter()
        for _ in range(ASKS):
            await ref.ask(request, timeout=60.0)
        return ASKS / (perf_counter() - begin)


async def ask_floor() -> float:
    actor = Counter()
    begin = perf_counter()
    for _ in range(ASKS):
        await actor.ask(None)
    rate = ASKS / (perf_counter() - begin)
    await actor.stop()
    return rate


async def askers_ours() -> float:
    async with quiet_system() as system:
        ref = system.spawn(SyncCounter)
        request = Total()

        async def asker() -> None:
            for _ in range(100):
                await ref.ask(request, timeout=60.0)

        begin = perf_counter()
        await asyncio.gather(*(asker() for _ in range(1_000)))
        return 100_000 / (perf_counter() - begin)


async def askers_floor() -> float:
    actor = Counter()

    async def asker() -> None:
        for _ in range(100):
            await actor.ask(None)

    begin = perf_counter()
    await asyncio.gather(*(asker() for _ in range(1_000)))
    rate = 100_000 / (perf_counter() - begin)
    await actor.stop()
    return rate


async def inner_ask_ours() -> float:
    async with quiet_system() as system:
        target = system.spawn(SyncCounter)
        inquirer = system.spawn(lambda: Inquirer(target))
        begin = perf_counter()
        await inquirer.ask(Many(ASKS), timeout=60.0)
        return ASKS / (perf_counter() - begin)


async def inner_ask_floor() -> float:
    target, asker = Counter(), Asker()
    asker.target, asker.done = target, asyncio.Event()
    begin = perf_counter()
    asker.tell(ASKS)
    await asker.done.wait()
    rate = ASKS / (perf_counter() - begin)
    await target.stop()
    await asker.stop()
    return rate


async def ring_ours(size: int) -> float:
    async with quiet_system() as system:
        passers = [Passer() for _ in range(size)]
        refs = [system.spawn(lambda passer=passer: passer) for passer in passers]
        done = asyncio.Event()
        for number, passer in enumerate(passers):
            passer.next, passer.done = refs[(number + 1) % size], done
        await asyncio.sleep(0)
        begin = perf_counter()
        refs[0].tell(Hop(HOPS))
        await done.wait()
        return HOPS / (perf_counter() - begin)


async def ring_floor(size: int) -> float:
    actors = [Forwarder() for _ in range(size)]
    done = asyncio.Event()
    for number, actor in enumerate(actors):
        actor.next, actor.done = actors[(number + 1) % size], done
    await asyncio.sleep(0)
    begin = perf_counter()
    actors[0].tell(HOPS)
    await done.wait()
    rate = HOPS / (perf_counter() - begin)
    for actor in actors:
        await actor.stop()
    return rate


# actors come and go


async def spawn_ours() -> float:
    async with quiet_system() as system:
        begin = perf_counter()
        refs = [system.spawn(Hooked) for _ in range(50_000)]
        # Actors start in the order of their spawning.
        await refs[-1].ask(Total(), timeout=60.0)
        return 50_000 / (perf_counter() - begin)


async def spawn_floor() -> float:
    begin = perf_counter()
    actors = [Counter() for _ in range(50_000)]
    await asyncio.sleep(0)
    rate = 50_000 / (perf_counter() - begin)
    for actor in actors:
        actor.task.cancel()
    await asyncio.gather(*(actor.task for actor in actors), return_exceptions=True)
    return rate


async def idle_bytes_ours() -> float:
    async with quiet_system() as system:
        return await bytes_each(lambda: system.spawn(Hooked), 100_000)


async def idle_bytes_floor() -> float:
    kept: list[Counter] = []

    def make() -> Counter:
        actor = Counter()
        kept.append(actor)
        return actor

    found = await bytes_each(make, 20_000)
    for actor in kept:
        actor.task.cancel()
    await asyncio.gather(*(actor.task for actor in kept), return_exceptions=True)
    return found


async def bytes_each(make: Any, count: int) -> float:
    gc.collect()
    before = resident_bytes()
    kept = [make() for _ in range(count)]
    for _ in range(count // 100):
        await asyncio.sleep(0)
    gc.collect()
    return (resident_bytes() - before) / len(kept)


def resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * 4096


class Node(Actor):
    """A node of skynet: ten children below it, down to the leaves, whose numbers are summed up."""

    def __init__(self, parent: ActorRef[Any] | None, number: int, size: int, done: asyncio.Future[int] | None) -> None:
        self.above = parent
        self.number = number
        self.size = size
        self.done = done
        self.sum = self.left = 0

    def started(self) -> None:
        if self.size == 1:
            if self.above is not None:
                self.above.tell(Hop(self.number))
            return
        self.left = 10
        below = self.size // 10
        context = self.context
        for index in range(10):
            number = self.number + index * below
            # What its children have told it would be lost with it, so that a node is not restarted.
            context.spawn(partial(Node, context.ref, number, below, None), restart=Restart.TEMPORARY)

    @handles(Hop)
    def add(self, message: Hop) -> None:
        self.sum += message.left
        self.left -= 1
        if self.left == 0:
            if self.above is not None:
                self.above.tell(Hop(self.sum))
            elif self.done is not None:
                self.done.set_result(self.sum)


async def skynet_ours() -> float:
    done = asyncio.get_running_loop().create_future()
    async with quiet_system() as system:
        begin = perf_counter()
        system.spawn(lambda: Node(None, 0, 100_000, done))
        assert await done == sum(range(100_000))
        return 111_111 / (perf_counter() - begin)


async def skynet_floor() -> float:
    """Make a tree of tasks without mailboxes, of which each is gone when it has its sum: less than actors."""

    async def node(number: int, size: int) -> int:
        if size == 1:
            return number
        below = size // 10
        tasks = [asyncio.create_task(node(number + index * below, below)) for index in range(10)]
        return sum([await task for task in tasks])

    begin = perf_counter()
    assert await node(0, 100_000) == sum(range(100_000))
    return 111_111 / (perf_counter() - begin)


async def restart_ours() -> float:
    async with quiet_system() as system:
        ref = system.spawn(Fragile, mailbox=ROOMY)
        begin = perf_counter()
        for _ in range(5_000):
            ref.tell(Crash())
        await ref.ask(Total(), timeout=60.0)
        return 5_000 / (perf_counter() - begin)


async def restart_floor() -> float:
    """Restart a task that ends by an exception, from its done callback."""
    left, done, loop = 5_000, asyncio.Event(), asyncio.get_running_loop()

    async def fragile() -> None:
        raise ValueError

    def again(task: asyncio.Task[None]) -> None:
        nonlocal left
        task.exception()
        left -= 1
        if left:
            loop.create_task(fragile()).add_done_callback(again)
        else:
            done.set()

    begin = perf_counter()
    loop.create_task(fragile()).add_done_callback(again)
    await done.wait()
    return 5_000 / (perf_counter() - begin)


async def crash_to_first_message() -> float:
    async with quiet_system() as system:
        ref = system.spawn(Fragile)
        taken: list[float] = []
        for _ in range(2_000):
            begin = perf_counter()
            ref.tell(Crash())
            await ref.ask(Total(), timeout=60.0)
            taken.append(perf_counter() - begin)
        return sorted(taken)[len(taken) // 2] * 1e6


# fairness


async def worst_lag() -> float:
    """Return the worst lag, in ms, of a 1 ms ticker while 500,000 messages over 1,000 actors are handled."""
    async with quiet_system() as system:
        refs = [system.spawn(SyncCounter) for _ in range(1_000)]
        await asyncio.sleep(0.01)
        message = Tick()
        for ref in refs:
            for _ in range(500):
                ref.tell(message)
        lags: list[float] = []
        gc.disable()
        try:
            while not lags or sum(len(ref.recipient.queue) for ref in refs[-3:]):
                begin = perf_counter()
                await asyncio.sleep(0.001)
                lags.append(perf_counter() - begin - 0.001)
        finally:
            gc.enable()
        return max(lags) * 1e3


async def flooded_ask_p99() -> float:
    """Return the p99, in ms, of asks to one actor while another handles 1,000,000 messages."""
    async with quiet_system() as system:
        flooded = system.spawn(SyncCounter, mailbox=Mailbox(capacity=2_000_000))
        other = system.spawn(SyncCounter)
        message, request = Tick(), Total()
        for _ in range(1_000_000):
            flooded.tell(message)
        taken: list[float] = []
        while flooded.recipient.queue:
            begin = perf_counter()
            await other.ask(request, timeout=60.0)
            taken.append(perf_counter() - begin)
            await asyncio.sleep(0)
        return sorted(taken)[int(len(taken) * 0.99)] * 1e3


IDLE = """
import asyncio, sys
from benchmarks.engine.rows import Hooked, Total, quiet_system, resident_bytes

async def main():
    before = resident_bytes()
    async with quiet_system() as system:
        refs = [system.spawn(Hooked) for _ in range(int(sys.argv[1]))]
        await refs[-1].ask(Total(), timeout=600.0)
        print((resident_bytes() - before) / 1e9)
    assert len(asyncio.all_tasks()) == 1

asyncio.run(main())
"""


def idle_actors(number: int = 1_000_000) -> float:
    """Return the gigabytes of so many idle actors, in a process of their own, which has to stop cleanly."""
    command = [sys.executable, "-c", IDLE, str(number)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    return float(done.stdout)


COMPARISONS = {
    "tell, sync handler": (lambda: tell_ours(SyncCounter), lambda: tell_floor(Counter), ">= 0.6", "1/s"),
    "tell, async handler": (lambda: tell_ours(AsyncCounter), lambda: tell_floor(Counter), ">= 0.45", "1/s"),
    "bounded tell": (lambda: tell_ours(SyncCounter), lambda: tell_floor(BoundedCounter), ">= 0.5", "1/s"),
    "fan-in from 100": (fan_in_ours, fan_in_floor, ">= 0.5", "1/s"),
    "ask from outside, sync handler": (lambda: ask_ours(SyncCounter), ask_floor, ">= 0.8", "1/s"),
    "ask from outside, inline async handler": (lambda: ask_ours(InlineCounter), ask_floor, ">= 0.8", "1/s"),
    "1,000 concurrent askers": (askers_ours, askers_floor, ">= 0.8", "1/s"),
    "actor-to-actor ask": (inner_ask_ours, inner_ask_floor, ">= 2", "1/s"),
    "ping-pong": (lambda: ring_ours(2), lambda: ring_floor(2), ">= 3", "hops/s"),
    "ring of 1,000": (lambda: ring_ours(1_000), lambda: ring_floor(1_000), ">= 3", "hops/s"),
    "spawn with a start hook": (spawn_ours, spawn_floor, ">= 2.5", "1/s"),
    "skynet, 10^5 leaves": (skynet_ours, skynet_floor, ">= 1.2", "nodes/s"),
    "restart without backoff": (restart_ours, restart_floor, ">= 0.7", "1/s"),
}
VALUES = {
    "idle memory of an actor": (idle_bytes_ours, "<= 700", "B"),
    "crash to first message": (crash_to_first_message, "<= 10", "us"),
    "worst lag of a 1 ms ticker under 500,000": (worst_lag, "<= 1", "ms"),
    "ask p99 beside a flood of 1,000,000": (flooded_ask_p99, "<= 5", "ms"),
}
PEER_ROWS = {
    "tell beside asyncio.Queue": (lambda: tell_ours(SyncCounter), tell_queue, "asyncio.Queue"),
    "tell beside an anyio memory stream": (lambda: tell_ours(SyncCounter), tell_stream, "anyio"),
    "send beside asyncio.Queue.put": (send_ours, send_queue, "asyncio.Queue(maxsize=100)"),
    "ask, async handler": (lambda: ask_ours(AsyncCounter), ask_floor, "floor"),
}
BY_KIND = {"tell": lambda: tell_ours(SyncCounter), "ask": lambda: ask_ours(SyncCounter)}


def peer_rows() -> dict[str, tuple[Measure, Measure, str]]:
    """Return what is stated without a bound: beside the standard library, and beside the libraries installed here."""
    rows: dict[str, tuple[Measure, Measure, str]] = dict(PEER_ROWS)
    for peer, measures in installed().items():
        rows |= {f"{kind} beside {peer}": (BY_KIND[kind], measure, peer) for kind, measure in measures.items()}
    return rows


def collect(options: argparse.Namespace) -> list[Row]:
    """Measure what the command line asks for."""
    rows: list[Row] = []

    def measured(name: str, **measures: Measure) -> dict[str, float] | None:
        if options.only not in name:
            return None
        return medians(measures, rounds=options.rounds, loop_factory=loop_factory_of(options))

    for name, (ours, floor, target, unit) in COMPARISONS.items():
        if found := measured(name, ours=ours, floor=floor):
            rows.append(ratio_row(name, found["ours"], found["floor"], unit, "floor", target))
    for name, (measure, target, unit) in VALUES.items():
        if found := measured(name, ours=measure):
            rows.append(value_row(name, found["ours"], unit, target))
    if options.only in "a million idle actors":
        rows.append(value_row("a million idle actors", idle_actors(), "GB", "<= 1.5"))
    for name, (ours, peer, against) in peer_rows().items():
        if found := measured(name, ours=ours, peer=peer):
            rows.append(peer_row(name, found["ours"], found["peer"], "1/s", against))
    return rows
