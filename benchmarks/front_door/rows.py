"""What a front door adds to a call of a model: latency, CPU and memory, beside a bare proxy and litellm's.

`python -m benchmarks.front_door --json`. All doors stand before the same fake server in one run. litellm's proxy is
measured if its command `litellm` is installed beside this Python, or if LITELLM_PROXY names it. Our journal outlives a
power cut, which waits for the disk, and in a second row the process alone. Our door and the bare proxy run on uvloop if
that is installed, and so does litellm's.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import aiohttp
import msgspec

from benchmarks.front_door.doors import BARE, LITELLM, OURS, OURS_PROCESS, DoorNotStarted, running_door
from benchmarks.harness import Row, bare_row, peer_row, ratio_row, value_row
from benchmarks.models.server import running_servers

if TYPE_CHECKING:
    import argparse

    from benchmarks.front_door.doors import RunningDoor

IN_FLIGHT = (1, 4, 16, 64, 256)
BOUNDED = 16
"""The number in flight for which bounds are stated."""
PEERS = {BARE: ("<= 2", ">= 0.5"), LITELLM: ("<= 0.1", ">= 5")}
"""What our added p99 at that number, and our requests for a second of CPU, are to be of a peer's."""
PATH = "/v1/chat/completions"
BODY = msgspec.json.encode(
    {"model": "m", "max_tokens": 32, "messages": [{"role": "user", "content": "Why is the sky blue? " * 20}]}
)


@dataclass(frozen=True)
class Scale:
    """How many calls are made for each number in flight, and for the growth of memory."""

    calls: int = 400
    many: int = 5_000
    in_flight: tuple[int, ...] = IN_FLIGHT
    peers: bool = True


@dataclass(frozen=True)
class Load:
    """What a number of calls took: seconds of each, and of the door's CPU for one."""

    seconds: list[float]
    cpu: float

    def quantile(self, part: float) -> float:
        """Return the milliseconds that a part of the calls took at most."""
        return 1e3 * sorted(self.seconds)[min(len(self.seconds) - 1, int(part * len(self.seconds)))]


@dataclass(frozen=True)
class Door:
    """What one door has added at each number in flight (p50 and p99 of each round), and what it took."""

    rounds: dict[int, list[tuple[float, float]]]
    cpu: float
    growth: float

    def added(self, at_once: int, which: int) -> float:
        """Return the median of the added milliseconds: p50 for 0, p99 for 1."""
        return statistics.median(found[which] for found in self.rounds[at_once])


def collect(options: argparse.Namespace, scale: Scale | None = None) -> list[Row]:
    """Measure every door in turns, `rounds` times, and take medians."""
    return asyncio.run(_collect(options.rounds, scale or Scale()))


async def _collect(rounds: int, scale: Scale) -> list[Row]:
    names = [OURS, OURS_PROCESS, BARE, *([LITELLM] if scale.peers else [])]
    measured: dict[str, Door] = {}
    with running_servers(with_troubles=False) as servers, tempfile.TemporaryDirectory() as folder:
        for name in names:
            try:
                with running_door(name, servers.urls[0], Path(folder)) as door:
                    measured[name] = await _measured(door, servers.urls[0], rounds, scale, grows=name == OURS)
            except DoorNotStarted as error:
                print(error, file=sys.stderr)
    return [*_latency_rows(measured, scale), *_cpu_rows(measured), _memory_row(measured[OURS].growth, scale)]


async def _measured(door: RunningDoor, target: str, rounds: int, scale: Scale, *, grows: bool) -> Door:
    added: dict[int, list[tuple[float, float]]] = {at_once: [] for at_once in scale.in_flight}
    cpu: list[float] = []
    await load(door.url, max(scale.in_flight), scale.calls, door)  # Connections, caches and compiled code.
    for _ in range(rounds):
        for at_once in scale.in_flight:
            direct = await load(target, at_once, scale.calls)
            through = await load(door.url, at_once, scale.calls, door)
            p50, p99 = (through.quantile(part) - direct.quantile(part) for part in (0.5, 0.99))
            added[at_once].append((p50, p99))
            if at_once == BOUNDED:
                cpu.append(through.cpu)
    before = door.memory()
    if grows:
        await load(door.url, BOUNDED, scale.many, door)
    return Door(added, statistics.median(cpu), door.memory() - before)


async def load(url: str, at_once: int, calls: int, door: RunningDoor | None = None) -> Load:
    """Make so many calls, `at_once` at the same time."""
    seconds: list[float] = []
    numbers = iter(range(calls))
    before = 0.0 if door is None else door.cpu()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def ask() -> None:
            for _ in numbers:
                begin = perf_counter()
                headers = {"content-type": "application/json", "authorization": "Bearer none"}
                async with session.post(f"{url}{PATH}", data=BODY, headers=headers) as response:
                    body = await response.read()
                    assert response.status == 200, body
                seconds.append(perf_counter() - begin)

        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(ask())
    return Load(seconds, 0.0 if door is None else (door.cpu() - before) / calls)


def _latency_rows(measured: dict[str, Door], scale: Scale) -> list[Row]:
    rows: list[Row] = []
    for at_once in scale.in_flight:
        for which, called in ((0, "p50"), (1, "p99")):
            row, ours = f"added at {at_once} in flight, {called}", measured[OURS].added(at_once, which)
            for peer in (name for name in measured if name != OURS):
                bound = PEERS.get(peer, ("", ""))[0] if at_once == BOUNDED and which == 1 else ""
                beside, theirs = f"{row}, beside {peer}", measured[peer].added(at_once, which)
                rows.append(
                    ratio_row(beside, ours, theirs, "ms", peer, bound)
                    if bound
                    else peer_row(beside, ours, theirs, "ms", peer)
                )
    return rows


def _cpu_rows(measured: dict[str, Door]) -> list[Row]:
    rates = {name: 1 / door.cpu for name, door in measured.items()}
    rows = [bare_row(f"requests for a second of CPU, {name}", rates[name], "1/s") for name in (OURS, OURS_PROCESS)]
    for peer, (_, bound) in PEERS.items():
        row = f"requests for a second of CPU, beside {peer}"
        if peer in rates:
            rows.append(ratio_row(row, rates[OURS], rates[peer], "1/s", peer, bound))
        else:
            missing = f"{peer} was not measured"
            rows.append(replace(value_row(row, rates[OURS], "1/s", bound), holds=None, against=missing))
    return rows


def _memory_row(growth: float, scale: Scale) -> Row:
    return value_row(f"growth of memory over {scale.many:,} requests", growth, "MB", "<= 20")
