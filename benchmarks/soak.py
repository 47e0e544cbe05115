"""Random spawn, tell, ask, cancel, crash and stop at full speed; nothing may grow, and no reply may be lost.

`python -m benchmarks.soak --seconds 600`
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
from collections import Counter
from pathlib import Path
from time import monotonic

from loguru import logger

from benchmarks.engine.rows import resident_bytes
from runtime import (
    IMMEDIATELY,
    Actor,
    ActorRef,
    ActorSystem,
    Mailbox,
    MailboxFull,
    Message,
    Refusal,
    Request,
    RestartIntensity,
    RuntimeFault,
    Supervision,
    handles,
)

DRIVERS = 50
CAST = 200
TOLERANT = Supervision(intensity=RestartIntensity(max_restarts=1_000_000), backoff=IMMEDIATELY)


class Note(Message):
    """Counted."""


class Crash(Message):
    """Makes its receiver crash."""


class Hatch(Message):
    """Makes its receiver spawn a child that soon stops itself."""


class Echo(Request[int]):
    """Answered with its number, maybe after a while."""

    number: int
    wait: float = 0.0


class No(Refusal):
    """Some questions are refused."""


class Sync(Actor[Note | Crash | Echo | Hatch]):
    """Answers at once."""

    supervision = TOLERANT

    @handles(Note)
    def note(self, message: Note) -> None:
        """Do nothing."""

    @handles(Crash)
    def crash(self, message: Crash) -> None:
        raise ValueError

    @handles(Hatch)
    def hatch(self, message: Hatch) -> None:
        self.context.spawn(Mayfly)

    @handles(Echo)
    def echo(self, message: Echo) -> int:
        if message.number % 13 == 0:
            raise No
        return message.number


class Async(Sync):
    """Answers after a while."""

    @handles(Echo)
    async def echo(self, message: Echo) -> int:  # type: ignore[override]
        await asyncio.sleep(message.wait)
        return message.number


class Concurrent(Sync):
    """Answers several at the same time."""

    @handles(Echo, concurrent=8)
    async def echo(self, message: Echo) -> int:  # type: ignore[override]
        await asyncio.sleep(message.wait)
        return message.number


class Mayfly(Actor[Note]):
    """Stops itself soon."""

    def started(self) -> None:
        self.context.timers.once(0.001, Note())

    @handles(Note)
    def note(self, message: Note) -> None:
        self.context.stop()


class Soak:
    """The actors, the drivers and what they saw."""

    def __init__(self, system: ActorSystem, seed: int) -> None:
        self.system = system
        self.dice = random.Random(seed)
        self.cast: list[ActorRef[Note | Crash | Echo | Hatch]] = []
        self.seen: Counter[str] = Counter()
        self.open_asks = 0

    def spawn(self) -> ActorRef[Note | Crash | Echo | Hatch]:
        self.seen["spawn"] += 1
        return self.system.spawn(self.dice.choice([Sync, Async, Concurrent]), mailbox=Mailbox(capacity=100))

    async def drive(self) -> None:
        """Do one random thing after the other."""
        dice = self.dice
        while True:
            place = dice.randrange(CAST)
            ref = self.cast[place]
            match dice.randrange(10):
                case 0:
                    dice.choice([ref.stop, ref.kill])()
                    self.cast[place] = self.spawn()
                case 1:
                    self.tell(ref, Crash())
                case 2:
                    self.tell(ref, Hatch())
                case 3 | 4:
                    for _ in range(20):
                        self.tell(ref, Note())
                case 5:
                    await self.ask_and_cancel(ref)
                case _:
                    await self.ask(ref)
            await asyncio.sleep(0)

    def tell(self, ref: ActorRef[Note | Crash | Hatch], message: Note | Crash | Hatch) -> None:
        try:
            ref.tell(message)
            self.seen["tell"] += 1
        except MailboxFull:
            self.seen["full"] += 1

    async def ask(self, ref: ActorRef[Echo]) -> None:
        number = self.dice.randrange(1_000)
        self.open_asks += 1
        try:
            answer = await ref.ask(
                Echo(number, wait=self.dice.random() * 0.004), timeout=self.dice.choice([0.002, 1.0])
            )
            if answer != number:
                self.seen["WRONG ANSWER"] += 1
            self.seen["answer"] += 1
        except (RuntimeFault, Refusal) as error:
            self.seen[type(error).__name__] += 1
        finally:
            self.open_asks -= 1

    async def ask_and_cancel(self, ref: ActorRef[Echo]) -> None:
        task = asyncio.create_task(self.ask(ref))
        for _ in range(self.dice.randrange(4)):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        self.seen["cancel"] += 1


def sample(soak: Soak) -> dict[str, float]:
    """Return what must not grow."""
    return {
        "tasks": len(asyncio.all_tasks()),
        "actors": len(soak.system.children),
        "megabytes": resident_bytes() / 1e6,
        "descriptors": sum(1 for _ in Path("/proc/self/fd").iterdir()),
    }


async def run(seconds: float, seed: int) -> bool:
    """Soak, report, and tell whether all is well."""
    logger.disable("runtime")
    samples: list[dict[str, float]] = []
    async with ActorSystem("soak", supervision=TOLERANT) as system:
        soak = Soak(system, seed)
        soak.cast = [soak.spawn() for _ in range(CAST)]
        drivers = [asyncio.create_task(soak.drive()) for _ in range(DRIVERS)]
        begin = monotonic()
        while monotonic() - begin < seconds:
            await asyncio.sleep(min(1.0, seconds / 20))
            samples.append(sample(soak))
            for driver in drivers:
                if driver.done():
                    driver.result()
        for driver in drivers:
            driver.cancel()
        await asyncio.gather(*drivers, return_exceptions=True)
    # Those who were still asking when their actors stopped have been told by now.
    for _ in range(10):
        await asyncio.sleep(0)
    lost = soak.open_asks
    left = len(asyncio.all_tasks()) - 1
    # The first tenth, or the first minute of a long run, is for caches and pools to fill.
    settled = samples[int(min(60, len(samples) * 0.1)) :]
    half = len(settled) // 2
    growth = {
        name: statistics.median(one[name] for one in settled[half:])
        / statistics.median(one[name] for one in settled[:half])
        for name in settled[0]
    }
    well = lost == 0 and left == 0 and soak.seen["WRONG ANSWER"] == 0 and all(one < 1.1 for one in growth.values())
    facts = {
        "seconds": seconds,
        "seen": dict(soak.seen),
        "lost": lost,
        "left": left,
        "growth": growth,
        "last": samples[-1],
    }
    print(json.dumps(facts, indent=1))
    return well


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    sys.exit(0 if asyncio.run(run(options.seconds, options.seed)) else 1)
