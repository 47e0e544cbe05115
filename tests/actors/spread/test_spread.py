"""A batch spread over nodes: limits and money as in one process, and nothing paid twice if nodes die."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Self

import msgspec
import pytest

from actors import Ledger, Market, Micros, SmartRequest, robust_batch
from actors.batch import Done, Unknown
from actors.errors import BudgetExceeded, NotAdmitted, Permanent
from actors.events import CallEnded, RequestEnded
from actors.ledger import GetHeld, GetStatement
from actors.market import SharedQuota
from actors.simulation import SimulatedProvider
from actors.spread import GetNodes, Spread
from actors.spread.deputy import Deputy
from actors.spread.messages import SeatTerms  # noqa: TC001 - the node reads the annotation.
from actors.spread.share import for_seat, seats_of, with_leased_limits
from actors.supervisor.messages import GetStatus
from runtime.cluster import InProcessNetwork, NetworkFaults
from runtime.simulation import Simulation
from tests.proofs import repeated

if TYPE_CHECKING:
    from actors.batch import RequestOutcome
    from runtime import ActorRef

NODES = ("a", "b", "c")
MARKETS: dict[str, Market] = {}
"""What the deputies of this process serve."""


def deputy(name: str, home: SeatTerms) -> Deputy:
    """Make a deputy on the node where it is placed."""
    return Deputy(MARKETS[name], home)


class World:
    """A home and three nodes over simulated providers, with the books of all."""

    def __init__(self, simulation: Simulation, market: Market, *, faults: NetworkFaults | None = None) -> None:
        self.simulation = simulation
        self.market = market
        self.network = InProcessNetwork(
            faults or NetworkFaults(delay=(0.0005, 0.003)), notice=0.5, rng=random.Random(simulation.seed)
        )
        self.nodes = AsyncExitStack()
        self.events: Counter[str] = Counter()
        self.ledger: ActorRef[Any]
        self.supervisor: ActorRef[Any]

    async def __aenter__(self) -> Self:
        MARKETS["market"] = self.market
        cluster = await self.nodes.enter_async_context(self.network.node("home"))
        for name in NODES:
            await self.join(name)
        self.network.names.remove("home")  # It serves none itself.
        system = cluster.node.system
        system.events.subscribe(RequestEnded, self.count)
        system.events.subscribe(CallEnded, self.count)
        self.ledger = system.spawn(Ledger)
        self.supervisor = system.spawn(
            lambda: Spread(self.market, ledger=self.ledger, cluster=cluster, deputy=deputy, args=("market",))
        )
        await self.supervisor.ask(GetNodes(), timeout=10.0)
        return self

    async def join(self, name: str) -> None:
        await self.nodes.enter_async_context(self.network.node(name))

    def count(self, event: RequestEnded | CallEnded) -> None:
        self.events[type(event).__name__] += 1

    async def __aexit__(self, *_: object) -> None:
        await self.nodes.aclose()

    async def batch(self, count: int, *, keyed: bool = True, **options: Any) -> list[RequestOutcome]:
        requests = [
            SmartRequest(
                service="echo",
                input=number,
                timeout=60.0,
                request_id=f"item {number}",
                idempotency_key=f"item {number}" if keyed else None,
            )
            for number in range(count)
        ]
        async with robust_batch(self.supervisor, requests, **{"max_concurrency": 30} | options) as outcomes:
            return [one async for one in outcomes]


def most_in_a_second(times: list[float]) -> int:
    """Return the largest number of calls that any second held."""
    times, most, first = sorted(times), 0, 0
    for last, now in enumerate(times):
        while now - times[first] >= 1:
            first += 1
        most = max(most, last - first + 1)
    return most


async def served(simulation: Simulation) -> None:
    alder = SimulatedProvider(simulation, "alder", services={"echo"}, price="0.01", idempotent="key")
    market = Market(providers=[alder.listing(rate_limit=100, headroom=1.0, burst=5, max_concurrency=30)], budget="50")
    async with World(simulation, market) as world:
        outcomes = await world.batch(400)
        assert all(isinstance(one, Done) and one.result.output == one.item.input for one in outcomes)
        assert most_in_a_second(alder.called_at) <= 105
        assert simulation.now() < 8  # 400 calls at 100/s.
        assert alder.max_under_way <= 30
        statement = await world.ledger.ask(GetStatement(), timeout=5.0)
        assert statement.settled == alder.income == Micros(10_000) * 400
        assert world.events == {"RequestEnded": 400, "CallEnded": 400}
        (status,) = await world.supervisor.ask(GetStatus(), timeout=5.0)
        assert (status.calls, status.under_way, status.spent) == (400, 0, alder.income)


def test_a_batch_is_served_by_all_nodes_within_one_limit_and_one_ledger() -> None:
    Simulation(seed=1).run(served)


async def with_deaths(simulation: Simulation) -> None:
    """One node dies in mid-run and comes back, whatever the network does meanwhile."""
    rng = simulation.random
    honours = rng.random() < 0.5
    alder = SimulatedProvider(
        simulation, "alder", services={"echo"}, price="0.01", idempotent="key" if honours else "no"
    )
    faults = NetworkFaults(delay=(0.0005, 0.003), loss=rng.choice((0.0, 0.02)), repeats=0.02)
    market = Market(providers=[alder.listing(rate_limit=100, headroom=0.95, max_concurrency=30)])
    async with World(simulation, market, faults=faults) as world:
        run = asyncio.ensure_future(world.batch(200, budget="1.50" if rng.random() < 0.3 else "5"))
        await asyncio.sleep(rng.uniform(0.1, 1.5))
        world.network.kill("b")
        await asyncio.sleep(rng.uniform(0.0, 2.0))
        await world.join("b")
        outcomes = await run
        assert most_in_a_second(alder.called_at) <= 100
        assert not alder.paid_twice
        statement = await world.ledger.ask(GetStatement(), timeout=5.0)
        assert statement.settled + statement.held >= alder.income
        refused = [one for one in outcomes if isinstance(getattr(one, "error", None), BudgetExceeded)]
        unknown = [one for one in outcomes if isinstance(one, Unknown)]
        done = [one for one in outcomes if isinstance(one, Done)]
        if honours:
            assert not unknown
            assert statement.settled == alder.income
        held = await world.ledger.ask(GetHeld(), timeout=5.0)
        assert {one.key.rpartition(":")[2] for one in held} >= {one.item.request_id for one in unknown}
        if not refused:
            assert len(done) + len(unknown) == 200
            assert len(unknown) <= 30


def test_a_node_that_dies_costs_no_item_and_no_key_is_paid_twice() -> None:
    for seed in range(repeated(300, part=60)):
        Simulation(seed=seed).run(with_deaths)


async def without_keys(simulation: Simulation) -> None:
    alder = SimulatedProvider(simulation, "alder", services={"echo"}, price="0.01", idempotent="key")
    async with World(simulation, Market(providers=[alder.listing(max_concurrency=30)])) as world:
        run = asyncio.ensure_future(world.batch(200, keyed=False))
        await asyncio.sleep(0.3)
        world.network.kill("b")
        outcomes = await run
        assert {type(one) for one in outcomes} == {Done, Unknown}
        assert not alder.paid_twice


def test_without_a_key_what_was_under_way_on_a_node_that_dies_is_unknown() -> None:
    Simulation(seed=3).run(without_keys)


async def refusals(simulation: Simulation) -> None:
    alder = SimulatedProvider(simulation, "alder", services={"echo"}, price="0.01")
    async with World(simulation, Market(providers=[alder.listing()])) as world:
        request = SmartRequest(service="echo", input=1, timeout=5.0)
        with pytest.raises(BudgetExceeded) as poor:
            await world.supervisor.ask(msgspec.structs.replace(request, budget="0.001"), timeout=10.0)
        assert (poor.value.needed, str(poor.value.available)) == (Micros(10_000), "$0.001")
        with pytest.raises(Permanent, match="cannot be served on another node"):
            await world.supervisor.ask(
                msgspec.structs.replace(request, where=lambda provider: bool(provider.name)), timeout=10.0
            )
        for name in NODES:
            world.network.kill(name)
        await asyncio.sleep(2.0)
        with pytest.raises(NotAdmitted, match="no node serves requests"):
            await world.supervisor.ask(request, timeout=10.0)
        with pytest.raises(Permanent, match="no node can serve"):
            await world.supervisor.ask(GetNodes(), timeout=10.0)


def test_what_cannot_be_served_is_refused_in_words() -> None:
    Simulation(seed=4).run(refusals)


def test_the_parts_of_a_market_add_up_to_it() -> None:
    simulation = Simulation(seed=0)

    async def check(_: Simulation) -> None:
        alder = SimulatedProvider(simulation, "alder", services={"echo"})
        birch = SimulatedProvider(simulation, "birch", services={"echo"})
        market = Market(
            providers=[
                alder.listing(max_concurrency=7, rate_limit=9),
                birch.listing(max_concurrency=4, rate_limit=9, burst=6, quota="all"),
            ],
            quotas={"all": SharedQuota(rate_limit=50)},
        )
        seats = seats_of(market, 20)
        assert seats == 4
        parts = [for_seat(with_leased_limits(market), seat, seats) for seat in range(seats)]
        assert [
            sum(one.max_concurrency for one in listings) for listings in zip(*(p.providers for p in parts), strict=True)
        ] == [7, 4]
        assert {part.providers[0].quota for part in parts} == {"limits of alder"}
        assert sum(part.providers[1].rate_limit or 0 for part in parts) == 9

    simulation.run(check)
