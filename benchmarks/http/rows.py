"""A whole request over HTTP to a server on loopback that takes 2 ms, beside aiohttp alone and httpx alone.

`python -m benchmarks.http --json`
"""

from __future__ import annotations

import asyncio
import gc
import statistics
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

from benchmarks.harness import Row, loop_factory_of, measured, peer_row, ratio_row
from benchmarks.http.clients import clients
from benchmarks.http.server import running_server

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from benchmarks.http.clients import Client

CALLS = {1: 300, 10: 2_000, 100: 4_000, 1_000: 5_000}
"""How many calls are measured, by how many are made at once."""
MIN_RATE = {1: 0.5, 10: 0.5, 100: 0.5, 1_000: 0.45}
"""The requests a second that we make at least, as a part of those of aiohttp alone."""
MAX_P99 = 2.0
MAX_AT_ONCE = {"httpx": 100}
"""The most calls at once of a client that takes minutes for more."""
SLOW_CLIENTS = {"httpx": 0.1}
"""The part of the calls that a slow client makes."""


@dataclass(frozen=True)
class Speed:
    """The requests a second, and the latency in ms that one request in a hundred exceeds."""

    rate: float
    p99: float


async def speed(client: Client, url: str, at_once: int, calls: int) -> Speed:
    """Make `calls` calls, `at_once` of them at a time, after as many that open the connections."""
    latencies: list[float] = []
    async with client(url, at_once) as post:

        async def caller(share: int) -> None:
            for _ in range(share):
                begin = perf_counter()
                assert await post() == "HELLO, WORLD"
                latencies.append(perf_counter() - begin)

        await asyncio.gather(*[caller(1) for _ in range(at_once)])
        latencies.clear()
        begin = perf_counter()
        await asyncio.gather(*[caller(calls // at_once) for _ in range(at_once)])
        taken = perf_counter() - begin
    return Speed(len(latencies) / taken, statistics.quantiles(latencies, n=100)[98] * 1e3)


def collect(options: argparse.Namespace, *, scale: float = 1.0) -> list[Row]:
    """Measure each client in turns, and return two rows for each number at once and client beside ours."""
    rows: list[Row] = []
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = loop_factory_of(options)
    with running_server() as url:
        for at_once, calls in CALLS.items():
            name = f"smart request over HTTP, {at_once} at once"
            if options.only not in name:
                continue
            compared = {
                client: enter for client, enter in clients().items() if at_once <= MAX_AT_ONCE.get(client, at_once)
            }
            found: dict[str, list[Speed]] = {client: [] for client in compared}
            for _ in range(options.rounds):
                for client, enter in compared.items():
                    gc.collect()
                    share = calls * scale * SLOW_CLIENTS.get(client, 1.0)
                    work = speed(enter, url, at_once, max(at_once, int(share)))
                    found[client].append(measured(lambda work=work: work, loop_factory))
            rates = {client: statistics.median(one.rate for one in speeds) for client, speeds in found.items()}
            p99s = {client: statistics.median(one.p99 for one in speeds) for client, speeds in found.items()}
            rates_target, p99_target = f">= {MIN_RATE[at_once]}", f"<= {MAX_P99}"
            rows += [
                ratio_row(name, rates["ours"], rates["aiohttp"], "1/s", "aiohttp", rates_target),
                ratio_row(f"{name}, p99", p99s["ours"], p99s["aiohttp"], "ms", "aiohttp", p99_target),
            ]
            alone = f"call of the transport alone, {at_once} at once"
            rows.append(peer_row(alone, rates["transport"], rates["aiohttp"], "1/s", "aiohttp"))
            if "httpx" in rates:
                rows += [
                    peer_row(f"{name} beside httpx", rates["ours"], rates["httpx"], "1/s", "httpx"),
                    peer_row(f"{name} beside httpx, p99", p99s["ours"], p99s["httpx"], "ms", "httpx"),
                ]
    return rows
