"""A budget with one home that dies, is cut off and lives on beside its next life: no node spends money twice."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest

from actors import Ledger, Micros
from actors.errors import CallFailed
from actors.ledger import (
    BookCall,
    BudgetLessee,
    GetStatement,
    MoreMoney,
    OpenAccount,
    Reserve,
    budget_lessee,
    home_ledger,
)
from runtime import Refusal, RuntimeFault
from runtime.cluster import InProcessNetwork, MemoryFolder, NetworkFaults
from runtime.simulation import ScenarioFailed, explore
from tests.proofs import repeated
from tests.runtime.cluster.unlocked import UnlockedFolder

if TYPE_CHECKING:
    from actors.ledger.statement import Statement
    from runtime import ActorRef
    from runtime.cluster import Cluster
    from runtime.persistence import Journal
    from runtime.simulation import Simulation

PRICE = Micros(10_000)
CAP = Micros(1_000_000)
BUYERS = ("a", "b")


class Shops:
    """A home and two nodes that buy; each has lives, and the home's may overlap."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        faults = NetworkFaults(delay=(0.0005, 0.003), loss=rng.choice((0.0, 0.05)), repeats=0.05)
        self.network = InProcessNetwork(faults, notice=1.5, rng=random.Random(rng.random()), homes=("home",))
        self.at_home = UnlockedFolder()
        self.own = {name: MemoryFolder() for name in BUYERS}
        self.charged = 0
        self.stop = asyncio.Event()

    async def run(self) -> Statement:
        async with asyncio.TaskGroup() as group:
            for name in ("home", *BUYERS):
                group.create_task(self._live(name, group))
            async with self.network.node("here") as here:
                money = here.ref(home_ledger, key="money")
                await asyncio.sleep(0.1)
                await money.ask(OpenAccount(name="run", cap=CAP), timeout=20.0)
                await self._trouble()
                statement: Statement = await money.ask(GetStatement("run"), timeout=20.0)
            self.stop.set()
            self.network.cut("", "")
        return statement

    async def _live(self, name: str, group: asyncio.TaskGroup) -> None:
        while not self.stop.is_set():
            ended = asyncio.Event()
            group.create_task(self._one_life(name, ended))
            await ended.wait()
            await asyncio.sleep(self.rng.choice((0.0, 1.0)))

    async def _one_life(self, name: str, ended: asyncio.Event) -> None:
        network = self.network
        async with AsyncExitStack() as stack:
            journals = self.at_home if name == "home" else None
            cluster = await stack.enter_async_context(network.node(name, journals=journals))
            buying = asyncio.ensure_future(self._buy(cluster, name)) if name in BUYERS else None
            while network.is_alive(cluster.node.life) and not self.stop.is_set():
                await network.change()
            if buying is not None:
                buying.cancel()
                await asyncio.gather(buying, return_exceptions=True)
            else:
                ended.set()  # The next life begins while this one goes on.
                await asyncio.sleep(0.0 if self.stop.is_set() else self.rng.choice((0.0, 3.0)))
        ended.set()

    async def _buy(self, cluster: Cluster, name: str) -> None:
        """Buy calls from the node's own ledger, which leases of the budget at home."""
        system, more = cluster.node.system, MoreMoney("run")
        folder, home = self.own[name], cluster.ref(home_ledger, key="money")

        def own_journal(**options: Any) -> Journal:
            return folder.open("own", **options)

        ledger: ActorRef[Any] = system.spawn(
            lambda: Ledger(accounts={"run": "0"}, journal=own_journal, on_exhausted=more)
        )
        more.lessee = system.spawn(lambda: BudgetLessee("run", home=home, own=ledger, nodes=len(BUYERS)))
        for number in range(1_000):
            wish = Reserve(
                key=f"{name} {cluster.node.life.epoch} {number}", provider="alder", amount=PRICE, accounts=("run",)
            )
            try:
                reservation = await ledger.ask(wish, timeout=5.0)
            except (RuntimeFault, Refusal, CallFailed):
                await asyncio.sleep(self.rng.uniform(0.2, 1.0))
                continue
            await asyncio.sleep(self.rng.uniform(0.0, 0.05))
            is_charged = self.rng.random() < 0.95
            self.charged += PRICE * is_charged
            assert self.charged <= CAP, f"{self.charged} was charged"
            ledger.tell(BookCall(reservation, charged="yes" if is_charged else "no"))

    async def _trouble(self) -> None:
        rng, network = self.rng, self.network
        for _ in range(rng.randrange(1, 5)):
            await asyncio.sleep(rng.uniform(0.2, 2.0))
            one = rng.choice(("home", "home", *BUYERS))
            if rng.random() < 0.5:
                network.kill(one)
            else:
                network.isolate(one)
                await asyncio.sleep(rng.choice((0.4, 1.2, 4.0)))
                network.rejoin(one)
        await asyncio.sleep(8.0)


async def spend(simulation: Simulation) -> None:
    shops = Shops(simulation.random)
    statement = await shops.run()
    assert shops.charged <= CAP, f"{shops.charged} was charged"
    assert statement.settled + statement.held + statement.reserved >= shops.charged, (statement, shops.charged)
    assert shops.charged


def test_a_budget_is_never_spent_twice_whatever_its_home_goes_through() -> None:
    """G13."""
    seeds = range(repeated(10_000, part=500))
    assert explore(spend, seeds=seeds).runs == len(seeds)


def test_a_lease_that_would_be_free_once_its_home_began_again_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def unsent(**fields: Any) -> Reserve:
        return Reserve(**fields, is_sent=False)

    monkeypatch.setattr(budget_lessee, "Reserve", unsent)
    with pytest.raises(ScenarioFailed, match="charged"):
        explore(spend, seeds=range(100), processes=1)
