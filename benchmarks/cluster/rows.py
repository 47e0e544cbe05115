"""What another machine costs: asks and tells between nodes, beside bare calls of Ray actors in the same run."""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import statistics
import sys
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from benchmarks.cluster.counter import Bare, Count, Counted, Counter
from benchmarks.harness import Row, bare_row, ratio_row, value_row

if TYPE_CHECKING:
    import argparse
    from collections.abc import Awaitable, Callable

    from runtime.cluster import Cluster

ASKS = 300
AT_ONCE = 100
MANY = 3_000
TELLS = 20_000
HEALTH = {"initial_delay_ms": 0, "period_ms": 300, "timeout_ms": 600, "failure_threshold": 3}


def collect(options: argparse.Namespace) -> list[Row]:
    """Start three machines of Ray in this one, and measure."""
    os.environ.update({f"RAY_health_check_{name}": str(value) for name, value in HEALTH.items()})
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    utils: Any = importlib.import_module("ray.cluster_utils")
    size = {"num_cpus": 1, "object_store_memory": 80_000_000}
    machines = utils.Cluster(
        initialize_head=True, head_node_args={**size, "include_dashboard": False, "node_name": "a"}
    )
    for name in "bc":
        machines.add_node(**size, node_name=name)
    ray: Any = importlib.import_module("ray")
    ray.init(address=machines.address, namespace="understudy", log_to_driver=False)
    try:
        return asyncio.run(measure(options.rounds, ray))
    finally:
        ray.shutdown()
        machines.shutdown()


async def measure(rounds: int, ray: Any) -> list[Row]:
    """Take every figure in turns with that of a bare call."""
    on_ray: Any = importlib.import_module("runtime.cluster.on_ray")
    async with on_ray.join() as here:
        counter = await here.spawn(Counter, node="b")
        bare = ray.remote(Bare).options(num_cpus=0, max_concurrency=1_000).remote()
        await bare.add.remote(b"x" * 300)

        async def ask() -> None:
            await counter.ask(Counted(), timeout=60.0)

        async def call() -> None:
            await bare.add.remote(b"x" * 300)

        figures: dict[str, list[float]] = {}
        for _ in range(rounds):
            for name, taken in (
                ("ask", await latency(ask)),
                ("call", await latency(call)),
                ("asks", await rate(ask)),
                ("calls", await rate(call)),
                ("tells", await tells(counter)),
            ):
                figures.setdefault(name, []).append(taken)
        found = {name: statistics.median(values) for name, values in figures.items()}
        rows = [
            ratio_row("ask, p50", found["ask"] * 1e3, found["call"] * 1e3, "ms", "a bare call", "<= 1.3"),
            ratio_row(f"asks a second, {AT_ONCE} at once", found["asks"], found["calls"], "1/s", "bare calls", ">= 1"),
            ratio_row("tells a second, in batches", found["tells"], found["calls"], "1/s", "bare calls", ">= 40"),
        ]
        process = await here.node.port.process_of("c")
        rows.append(bare_row("memory of a node", resident(process), "MB"))
        rows.append(value_row("time to notice a death", await death(here), "s", "<= 2"))
    return rows


async def latency(ask: Callable[[], Awaitable[None]]) -> float:
    """Return the median of the seconds that one after another take."""
    taken: list[float] = []
    for _ in range(ASKS):
        begin = perf_counter()
        await ask()
        taken.append(perf_counter() - begin)
    return statistics.median(taken)


async def rate(ask: Callable[[], Awaitable[None]]) -> float:
    """Return how many a second are answered, many at once."""
    left = iter(range(MANY))

    async def caller() -> None:
        for _ in left:
            await ask()

    begin = perf_counter()
    await asyncio.gather(*(caller() for _ in range(AT_ONCE)))
    return MANY / (perf_counter() - begin)


async def tells(counter: Any) -> float:
    """Return how many messages a second arrive."""
    before = await counter.ask(Counted(), timeout=60.0)
    begin = perf_counter()
    for number in range(TELLS):
        counter.tell(Count(number, "x" * 280))
        if number % 1_000 == 0:
            await asyncio.sleep(0)
    assert await counter.ask(Counted(), timeout=120.0) == before + TELLS
    return TELLS / (perf_counter() - begin)


async def death(here: Cluster) -> float:
    """Return the seconds from the kill of a node to the news of it."""
    port: Any = here.node.port
    doomed = await here.spawn(Counter, node="c")
    await doomed.ask(Counted(), timeout=60.0)
    end = asyncio.ensure_future(doomed.terminated())
    await asyncio.sleep(0.1)
    os.kill(await port.process_of("c"), signal.SIGKILL)
    begin = perf_counter()
    await end
    return perf_counter() - begin


def resident(process: int) -> float:
    """Return the memory of a process in MB."""
    lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024
