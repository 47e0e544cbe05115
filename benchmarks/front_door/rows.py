"""What a front door adds to a call of a model: latency, CPU and memory, beside a bare proxy and litellm's.

`python -m benchmarks.front_door --json`. All doors stand before the same fake server in one run. litellm's proxy is
measured if its command `litellm` is installed beside this Python, or if LITELLM_PROXY names it.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import aiohttp
import msgspec

from benchmarks.front_door.doors import BARE, LITELLM, OURS, is_installed, running_door
from benchmarks.harness import Row, bare_row, peer_row, ratio_row, value_row
from benchmarks.models.server import running_servers

if TYPE_CHECKING:
    import argparse

    from benchmarks.front_door.doors import RunningDoor

IN_FLIGHT = (1, 4, 16, 64, 256)
BOUNDED = 16
"""The number in flight for which bounds are stated."""
PATH = "/v1/chat/completions"
BODY = msgspec.json.encode(
    {"model": "m", "max_tokens": 32, "messages": [{"role": "user", "content": "Why is the sky blue? " * 20}]}
)


@dataclass(frozen=True)
class Scale:
    """How many calls are made for each number in flight, and for the growth of memory."""

    calls: int = 400
    many: int = 10_000
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


def collect(options: argparse.Namespace, scale: Scale | None = None) -> list[Row]:
    """Measure every door in turns, `rounds` times, and take medians."""
    return asyncio.run(_collect(options.rounds, scale or Scale()))


async def _collect(rounds: int, scale: Scale) -> list[Row]:
    names = [OURS, BARE, *([LITELLM] if scale.peers and is_installed(LITELLM) else [])]
    with running_servers(with_troubles=False) as servers, tempfile.TemporaryDirectory() as folder:
        target = servers.urls[0]
        latency: dict[tuple[str, int], list[tuple[float, float]]] = {}
        cpu: dict[str, list[float]] = {}
        growth = 0.0
        for name in names:
            with running_door(name, target, Path(folder)) as door:
                await load(door.url, max(scale.in_flight), scale.calls, door)  # Connections, caches and compiled code.
                for _ in range(rounds):
                    for at_once in scale.in_flight:
                        direct = await load(target, at_once, scale.calls)
                        through = await load(door.url, at_once, scale.calls, door)
                        added = [through.quantile(part) - direct.quantile(part) for part in (0.5, 0.99)]
                        latency.setdefault((name, at_once), []).append((added[0], added[1]))
                        if at_once == BOUNDED:
                            cpu.setdefault(name, []).append(through.cpu)
                if name == OURS:
                    before = door.memory()
                    await load(door.url, BOUNDED, scale.many, door)
                    growth = door.memory() - before
    return [*_latency_rows(names, latency, scale), *_cpu_rows(names, cpu), _memory_row(growth, scale)]


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


def _latency_rows(
    names: list[str], latency: dict[tuple[str, int], list[tuple[float, float]]], scale: Scale
) -> list[Row]:
    def added(name: str, at_once: int, which: int) -> float:
        return statistics.median(found[which] for found in latency[name, at_once])

    rows: list[Row] = []
    for at_once in scale.in_flight:
        for which, called in ((0, "p50"), (1, "p99")):
            row, ours = f"added at {at_once} in flight, {called}", added(OURS, at_once, which)
            for peer in names[1:]:
                beside = f"{row}, beside {peer}"
                is_bounded = at_once == BOUNDED and which == 1
                bound = "<= 2" if peer == BARE else "<= 0.1"
                theirs = added(peer, at_once, which)
                rows.append(
                    ratio_row(beside, ours, theirs, "ms", peer, bound)
                    if is_bounded
                    else peer_row(beside, ours, theirs, "ms", peer)
                )
    return rows


def _cpu_rows(names: list[str], cpu: dict[str, list[float]]) -> list[Row]:
    rates = {name: 1 / statistics.median(found) for name, found in cpu.items()}
    rows = [bare_row("requests for a second of CPU", rates[OURS], "1/s")]
    for peer, bound in ((BARE, ">= 0.5"), (LITELLM, ">= 5")):
        row = f"requests for a second of CPU, beside {peer}"
        if peer in names:
            rows.append(ratio_row(row, rates[OURS], rates[peer], "1/s", peer, bound))
        else:
            missing = f"{peer} is not installed"
            rows.append(replace(value_row(row, rates[OURS], "1/s", bound), holds=None, against=missing))
    return rows


def _memory_row(growth: float, scale: Scale) -> Row:
    return value_row(f"growth of memory over {scale.many:,} requests", growth, "MB", "<= 20")
