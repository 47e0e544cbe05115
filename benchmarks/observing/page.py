"""What the live page costs: a smart request with metrics and an open page, and the page of a large, busy system."""

from __future__ import annotations

import asyncio
import gc
import http.client
import json
import statistics
import subprocess
import sys
from contextlib import asynccontextmanager, suppress
from time import perf_counter, process_time, thread_time
from typing import TYPE_CHECKING, Any

from actors import Monitor, Supervisor, smart_request
from actors.dashboard.server import Dashboard
from benchmarks.harness import Row, bare_row, ratio_row, value_row
from benchmarks.observing.paired import cpu_of_each
from benchmarks.resilience.calls import no_op_market, nothing
from runtime import IMMEDIATELY, Actor, ActorSystem, Message, RestartIntensity, Supervision, handles
from tests.actors.dashboard.browser import CHROMIUM, browsing

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

ACTORS, REQUESTS, RESTARTS = 10_000, 1_000, 200
"""The actors of the large system, and what happens in it in each second."""
TICK = 0.01
"""Seconds between two bursts of its load."""
TOKEN = "of a benchmark, no secret"  # noqa: S105 - it guards nothing but the benchmark.
NODES = "document.getElementsByTagName('*').length"
SCROLL = """
(async (steps) => {
  const tree = document.getElementById("tree");
  for (let step = 0; step < steps; step += 1) {
    tree.scrollTop = (step * 7919) % tree.scrollHeight;
    await new Promise((done) => setTimeout(done, 100));
  }
})(STEPS)
"""


class Crash(Message, frozen=True):
    """What makes a child fail."""


class Member(Actor[Crash]):
    """One of many, which fails when it is told to."""

    @handles(Crash)
    def crash(self, message: Crash) -> None:
        """Fail."""
        raise RuntimeError("as the benchmark wants")


class Crowd(Actor):
    """The parent of many actors, which lets each of them fail as often as it does."""

    supervision = Supervision(intensity=RestartIntensity(max_restarts=10_000_000), backoff=IMMEDIATELY)

    def __init__(self, count: int) -> None:
        self.count = count

    def started(self) -> None:
        self.members = [self.context.spawn(Member, name=f"member-{number}") for number in range(self.count)]


def viewer(address: str) -> subprocess.Popen[bytes]:
    """Start a process that looks at a page and prints the seconds and the bytes of each update."""
    return subprocess.Popen(  # noqa: S603 - this file.
        [sys.executable, "-m", "benchmarks.observing.page", address], stdout=subprocess.PIPE
    )


def look(address: str) -> None:
    """Print the seconds at which updates of a page came, and their bytes, until the page ends."""
    connection = http.client.HTTPConnection(address, timeout=60)
    headers = {"content-type": "application/json", "x-understudy": "1"}
    connection.request("POST", "/session", json.dumps({"token": TOKEN}), headers)
    answer = connection.getresponse()
    answer.read()
    cookie = answer.headers["set-cookie"].partition(";")[0]
    connection.request("GET", "/stream", headers={"cookie": cookie})
    stream = connection.getresponse()
    with suppress(OSError, http.client.HTTPException):
        while line := stream.readline():
            if line.startswith(b"data: {"):
                print(perf_counter(), len(line) - 7, flush=True)


@asynccontextmanager
async def watched(page: Dashboard) -> AsyncGenerator[list[tuple[float, int]]]:
    """Enter a page that one viewer in a process of its own looks at; yields what it got, once the block has ended."""
    updates: list[tuple[float, int]] = []
    process = viewer(page.address.removeprefix("http://").rstrip("/"))
    try:
        yield updates
    finally:
        process.terminate()
        told = await asyncio.to_thread(process.communicate)
        updates += [(float(at), int(size)) for at, size in (line.split() for line in told[0].splitlines())]


async def page(turns: int, calls: int) -> list[Row]:
    """Return the rows."""
    return [await of_a_request(turns, calls), *await of_a_crowd(seconds=max(2.0, calls / 10))]


async def of_a_request(turns: int, calls: int) -> Row:
    """Return what metrics, reasons and one open page add to a smart request, as one CPU makes them all the time."""
    async with ActorSystem("bare", log=False) as bare, ActorSystem("looked-at", log=False) as system:
        system.spawn(Monitor)
        kinds = [one.spawn(lambda: Supervisor(no_op_market())) for one in (bare, system)]

        def requests(supervisor: Any) -> Callable[[], Awaitable[None]]:
            async def some() -> None:
                for _ in range(calls):
                    await smart_request(
                        supervisor, service="benchmark", input=nothing, budget="0.20", health_check=True
                    )
                await asyncio.sleep(0)  # A request takes no turn of the loop, and the page has to have some.

            return some

        async with Dashboard(system, token=TOKEN) as opened, watched(opened):
            await asyncio.sleep(0.5)
            operations = [requests(one) for one in kinds]
            off, on = await cpu_of_each(operations, turns=max(2, turns // 5), calls=2 * calls)
        return ratio_row("page: metrics, reasons and an open page", on / calls, off / calls, "µs", "without", "<= 1.1")


async def of_a_crowd(*, seconds: float) -> list[Row]:
    """Return what the page of a large, busy system costs; each figure is of so many seconds."""
    async with ActorSystem("busy", log=False) as system:
        crowd = Crowd(ACTORS)
        system.spawn(lambda: crowd, name="crowd")
        supervisor = system.spawn(lambda: Supervisor(no_op_market()), name="supervisor")
        loading = asyncio.create_task(load(supervisor, crowd))
        try:
            await asyncio.sleep(seconds)
            gc.collect()
            gc.freeze()  # What the ten thousand actors cost a collection is none of the page.
            without = await share_of_a_core(seconds)
            slice_without = await longest_slice(seconds)
            async with Dashboard(system, token=TOKEN) as opened:
                async with watched(opened) as updates:
                    await asyncio.sleep(seconds)
                    looked_at = await share_of_a_core(seconds)
                    slices = await longest_slice(seconds)
                drawn = await drawing(opened, seconds) if CHROMIUM else []
        finally:
            gc.unfreeze()
            loading.cancel()
            await asyncio.wait({loading})
    times = [at for at, _ in updates]
    rate = (len(times) - 1) / (times[-1] - times[0])
    return [
        value_row(
            "page of a crowd: added to a core",
            100 * (looked_at - without),
            "%",
            "<= 10",
            f"without: {100 * without:.3g}",
        ),
        value_row("page of a crowd: longest slice of the loop", slices, "ms", "<= 5", f"without: {slice_without:.3g}"),
        value_row("page of a crowd: updates", rate, "/s", "<= 4"),
        value_row("page of a crowd: largest update", max(size for _, size in updates) / 1024, "KB", "<= 64"),
        *drawn,
    ]


async def load(supervisor: Any, crowd: Crowd) -> None:
    """Make requests, and actors fail, some at each tick, for ever."""
    number = 0
    begun = asyncio.get_running_loop().time()
    while True:
        number += 1
        for _ in range(int(REQUESTS * TICK)):
            await smart_request(supervisor, service="benchmark", input=nothing, budget="0.20")
        for place in range(int(RESTARTS * TICK)):
            crowd.members[(number * 7 + place * 4_999) % len(crowd.members)].tell(Crash())
        await asyncio.sleep(begun + number * TICK - asyncio.get_running_loop().time())


async def share_of_a_core(seconds: float) -> float:
    """Return the CPU that this process takes for each second."""
    begun, taken = perf_counter(), process_time()
    await asyncio.sleep(seconds)
    return (process_time() - taken) / (perf_counter() - begun)


async def longest_slice(seconds: float) -> float:
    """Return the ms of CPU of the longest turn of the loop: what others wait for that are due meanwhile."""
    until, longest = perf_counter() + seconds, 0.0
    while perf_counter() < until:
        begun = thread_time()
        await asyncio.sleep(0)
        longest = max(longest, thread_time() - begun)
    return longest * 1e3


async def drawing(opened: Dashboard, seconds: float) -> list[Row]:
    """Return what a browser does for the page while it scrolls through the actors."""
    async with browsing() as browser:
        await browser.open(opened.url)
        await browser.until("document.querySelectorAll('#providers .card').length")
        await browser.eval("document.getElementById('tab-actors').click()")
        line = "[...document.querySelectorAll('.line')].find((one) => one.textContent.includes('crowd'))"
        await browser.click(line)
        await browser.press("ArrowRight")
        await browser.until("document.getElementById('actor-count').textContent.startsWith('10,0')")
        await browser.eval(SCROLL.replace("STEPS", str(int(10 * seconds))))
        nodes = await browser.eval(NODES)
        spent = sorted(await browser.eval("window.understudySpent"))
    return [
        value_row("page of a crowd: nodes of its document", nodes, "", "<= 2000"),
        bare_row("page of a crowd: scripting of an update, p50", statistics.median(spent), "ms"),
        bare_row("page of a crowd: scripting of an update, p95", spent[int(len(spent) * 0.95)], "ms"),
    ]


if __name__ == "__main__":
    look(sys.argv[1])
