"""Makes the calls of one client in a process of its own, so that its CPU and its memory are its own alone."""

from __future__ import annotations

import asyncio
import resource
import subprocess
import sys
from collections import Counter
from time import perf_counter, process_time
from typing import TYPE_CHECKING

import msgspec

from benchmarks.models.clients import CLIENTS

if TYPE_CHECKING:
    from benchmarks.models.clients import Asker

WARM_UP = 20
"""The calls that come before those which are measured; they open connections and fill caches."""


class Work(msgspec.Struct):
    """What a client is to do: `count` calls, `at_once` of them at a time, `streams` of ten as streams."""

    client: str
    urls: list[str]
    count: int
    at_once: int
    streams: int = 0


class Found(msgspec.Struct):
    """What became of it: times in seconds, `cpu` for one call; `failed` tells by which error, for each caller."""

    latencies: list[float]
    first_tokens: list[float]
    cpu: float
    megabytes: float
    failed: dict[str, str] = {}
    spent: float | None = None

    @property
    def kinds(self) -> str:
        """The failures by kind, in words."""
        return ", ".join(f"{kind} {count}" for kind, count in Counter(self.failed.values()).most_common())


async def run(work: Work) -> Found:
    """Do the work, and tell what became of it."""
    found = Found([], [], 0.0, 0.0)
    async with CLIENTS[work.client][1](work.urls) as client:
        left = iter(range(WARM_UP))
        await asyncio.gather(
            *(caller(client, work, left, "warm", Found([], [], 0.0, 0.0)) for _ in range(work.at_once))
        )
        left = iter(range(work.count))
        begin = process_time()
        await asyncio.gather(*(caller(client, work, left, "call", found) for _ in range(work.at_once)))
        found.cpu = (process_time() - begin) / work.count
        found.spent = await client.spent()
    found.megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return found


async def caller(client: Asker, work: Work, left: object, name: str, found: Found) -> None:
    for number in left:  # pyright: ignore[reportGeneralTypeIssues]
        who, begin = f"{name}-{number}", perf_counter()
        try:
            if number % 10 < work.streams:
                await client.stream(who, prompt_of(number), lambda: found.first_tokens.append(perf_counter() - begin))  # noqa: B023 - called before the next.
            else:
                await client.ask(who, prompt_of(number))
        except client.errors as error:
            found.failed[who] = type(error).__name__
        else:
            found.latencies.append(perf_counter() - begin)


def prompt_of(number: int) -> str:
    return f"Say in one sentence what is special about the number {number}."


def found_by(work: Work) -> Found:
    """Have a process of its own do the work."""
    command = [sys.executable, "-m", "benchmarks.models.worker"]
    given = msgspec.json.encode(work)
    done = subprocess.run(command, input=given, capture_output=True, check=False)  # noqa: S603 - this interpreter.
    if done.returncode:
        raise RuntimeError(f"{work.client} ended with {done.returncode}: {done.stderr.decode()[-2_000:]}")
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=Found)


if __name__ == "__main__":
    print(msgspec.json.encode(asyncio.run(run(msgspec.json.decode(sys.stdin.buffer.read(), type=Work)))).decode())
