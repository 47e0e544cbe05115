"""How much faster than life a simulated market runs, and what a simulated step costs beside a real one.

`python -m benchmarks.simulation --json`
"""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import TYPE_CHECKING

from actors import CallFailed, Market, Supervisor, smart_request
from actors.money import Micros
from actors.simulation import SimulatedProvider, simulated_registry
from benchmarks.harness import Row, bare_row, medians, ratio_row, report
from runtime import Actor, ActorRef, ActorSystem, Message, RuntimeFault, handles
from runtime.simulation import Simulation, explore

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

PROVIDERS = 30
CLIENTS = 68
"""With the providers' gateways, the supervisor and its discovery that makes a hundred actors."""
HOUR = 3_600.0
TASKS = 100
TURNS = 1_000
RUNS = 2_000


class Tick(Message):
    """Time for the next request."""


class Client(Actor[Tick]):
    """Makes one request every `interval` seconds, on average."""

    def __init__(self, supervisor: ActorRef, interval: float) -> None:
        self.supervisor = supervisor
        self.interval = interval
        self.served = 0

    def started(self) -> None:
        self.wait()

    def wait(self) -> None:
        self.context.timers.once(2 * self.interval * self.context.random.random(), Tick())

    @handles(Tick)
    async def make_request(self, message: Tick) -> None:
        self.wait()
        try:
            await smart_request(self.supervisor, service="echo", input=1, timeout=20.0, strategy="balanced")
        except (CallFailed, RuntimeFault):
            return
        self.served += 1


def market_hours(interval: float, hours: float) -> Callable[[], float]:
    """Measure how many hours of a market of a hundred actors pass in a second of ours."""

    async def market(simulation: Simulation) -> int:
        providers = [
            SimulatedProvider(simulation, f"provider-{number}", services={"echo"}, price=Micros(100))
            for number in range(PROVIDERS)
        ]
        clients: list[Client] = []
        registry = simulated_registry(simulation, providers)
        whole = Market(providers=[provider.listing() for provider in providers])
        async with ActorSystem("market") as system:
            supervisor = system.spawn(lambda: Supervisor(whole, registry=registry))

            def client() -> Client:
                clients.append(Client(supervisor, interval))
                return clients[-1]

            for _ in range(CLIENTS):
                system.spawn(client)
            await asyncio.sleep(hours * HOUR)
        return sum(one.served for one in clients)

    def measure() -> float:
        began = perf_counter()
        run = Simulation(1, logs=False).run(market)
        assert run.result > 0.9 * CLIENTS * hours * HOUR / interval / 2
        return hours / (perf_counter() - began)

    return measure


async def turns() -> None:
    """Give a hundred tasks a thousand turns each."""

    async def task() -> None:
        for _ in range(TURNS):
            await asyncio.sleep(0)

    await asyncio.gather(*(task() for _ in range(TASKS)))


def simulated_steps() -> float:
    began = perf_counter()
    run = Simulation(1, logs=False).run(turns)
    return run.steps / (perf_counter() - began)


async def plain_steps() -> float:
    began = perf_counter()
    await turns()
    return TASKS * TURNS / (perf_counter() - began)


def runs() -> float:
    """Measure how many seeds of a small scenario are tried in a second, by two processes."""

    async def scenario() -> None:
        await asyncio.gather(*(asyncio.sleep(number) for number in range(5)))

    began = perf_counter()
    assert explore(scenario, seeds=range(RUNS)).runs == RUNS
    return RUNS / (perf_counter() - began)


def collect(options: argparse.Namespace) -> list[Row]:
    found = medians(
        {
            "busy": market_hours(interval=60.0, hours=0.5),
            "quiet": market_hours(interval=HOUR, hours=24.0),
            "simulated": simulated_steps,
            "plain": plain_steps,
            "runs": runs,
        },
        rounds=options.rounds,
    )
    rows = [
        bare_row("market of 100 actors, 68 requests a minute", found["busy"], "h/s"),
        bare_row("market of 100 actors, 68 requests an hour", found["quiet"], "h/s"),
        ratio_row("steps of tasks", found["simulated"], found["plain"], "1/s", "asyncio", ">= 0.2"),
        bare_row("small scenarios explored by 2 processes", found["runs"], "1/s"),
    ]
    return [row for row in rows if options.only in row.row]


if __name__ == "__main__":
    report(collect, __doc__ or "")
