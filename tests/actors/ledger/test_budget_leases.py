"""A budget that nodes lease parts of: never passed, whatever is cut off or dies; idle nodes give back."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest

from actors import Ledger, Micros
from actors.errors import BudgetExceeded
from actors.ledger import Book, BookCall, BudgetLessee, GetStatement, MoreMoney, Reserve, budget_lessee
from runtime import RuntimeFault
from runtime.cluster import InProcessNetwork, NetworkFaults
from runtime.simulation import Simulation
from tests.proofs import repeated

if TYPE_CHECKING:
    from runtime import ActorRef
    from runtime.cluster import Cluster

PRICE = Micros(10_000)
NODES = ("a", "b", "c")


async def node_ledger(cluster: Cluster, *, nodes: int = len(NODES), book: Book | None = None) -> ActorRef[Any]:
    """Start the ledger of a node, which leases of the budget at home."""
    home = await cluster.find("money")
    assert home is not None
    more = MoreMoney("run")
    ledger = cluster.node.system.spawn(lambda: Ledger(book=book, accounts={"run": "0"}, on_exhausted=more))
    more.lessee = cluster.node.system.spawn(lambda: BudgetLessee("run", home=home, own=ledger, nodes=nodes))
    return ledger


async def buy(ledger: ActorRef[Any], charged: list[float], rng: random.Random, name: str, count: int) -> int:
    """Buy calls, some of which fail without cost; return how many the budget refused."""
    refused = 0
    for number in range(count):
        wish = Reserve(key=f"{name} {number}", provider="alder", amount=PRICE, accounts=("run",))
        try:
            reservation = await ledger.ask(wish, timeout=20.0)
        except BudgetExceeded:
            refused += 1
            await asyncio.sleep(rng.uniform(0.5, 1.5))
            continue
        except RuntimeFault:
            return refused
        await asyncio.sleep(rng.uniform(0.0, 0.02))
        is_charged = rng.random() < 0.95
        if is_charged:
            charged.append(asyncio.get_running_loop().time())
        ledger.tell(BookCall(reservation, charged="yes" if is_charged else "no"))
    return refused


async def spend(simulation: Simulation) -> None:
    """Three nodes spend a budget of $5 while one is cut off, and perhaps another dies; the cap is never passed."""
    rng = simulation.random
    faults = NetworkFaults(delay=(0.0005, 0.003), loss=rng.choice((0.0, 0.05)), repeats=0.05)
    network = InProcessNetwork(faults, notice=0.5, rng=random.Random(rng.random()))
    charged: list[float] = []
    async with AsyncExitStack() as stack:
        clusters = {name: await stack.enter_async_context(network.node(name)) for name in NODES}
        home = await clusters["a"].spawn(Ledger, accounts={"run": "5"}, node="a", name="money")
        ledgers = {name: await node_ledger(cluster) for name, cluster in clusters.items()}
        async with asyncio.TaskGroup() as group:
            for name, ledger in ledgers.items():
                for number in range(rng.choice((1, 8))):
                    group.create_task(buy(ledger, charged, rng, f"{name} {number}", 60))
            await asyncio.sleep(rng.uniform(0.0, 1.0))
            network.cut("a", "b")
            await asyncio.sleep(rng.uniform(0.2, 3.0))
            if rng.random() < 0.5:
                network.heal("a", "b")
        await asyncio.sleep(5.0)
        statement = await home.ask(GetStatement("run"), timeout=5.0)
        spent = PRICE * len(charged)
        assert spent <= 5_000_000, f"{spent} was charged"
        assert statement.settled + statement.held + statement.reserved >= spent, (statement, spent)


@pytest.mark.simulate(seeds=repeated(200, part=100))
async def test_nodes_that_are_cut_off_never_pass_the_budget(simulation: Simulation):
    await spend(simulation)


def test_a_lease_that_would_be_free_once_its_node_is_lost_is_found(monkeypatch: pytest.MonkeyPatch):
    def unsent(**fields: Any) -> Reserve:
        return Reserve(**fields, is_sent=False)

    monkeypatch.setattr(budget_lessee, "Reserve", unsent)

    def fails(seed: int) -> bool:
        simulation = Simulation(seed=seed)
        try:
            simulation.run(lambda: spend(simulation))
        except AssertionError:
            return True
        return False

    assert any(fails(seed) for seed in range(30))


async def test_what_a_node_does_not_spend_goes_back_and_what_it_spent_is_settled_at_home():
    network = InProcessNetwork()
    charged: list[float] = []
    async with network.node("a") as a, network.node("b") as b:
        home = await a.spawn(Ledger, accounts={"run": "5"}, node="a", name="money")
        ledger = await node_ledger(b, nodes=1)
        assert await buy(ledger, charged, random.Random(1), "b", 20) == 0
        await asyncio.sleep(4.0)
        statement = await home.ask(GetStatement("run"), timeout=5.0)
        assert (statement.settled, statement.reserved) == (PRICE * len(charged), 0)
        assert await buy(ledger, charged, random.Random(1), "b again", 600) > 0  # It can spend the rest, and no more.
        await asyncio.sleep(4.0)
        statement = await home.ask(GetStatement("run"), timeout=5.0)
        assert statement.settled == PRICE * len(charged) == 5_000_000


async def test_most_calls_of_a_node_need_no_question_at_home():
    network = InProcessNetwork()
    charged: list[float] = []
    async with network.node("a") as a, network.node("b") as b:
        home = await a.spawn(Ledger, accounts={"run": "500"}, node="a", name="money")
        ledger = await node_ledger(b, nodes=1_000)
        before = await home.ask(GetStatement("run"), timeout=5.0)
        await buy(ledger, charged, random.Random(1), "b", 250)
        after = await home.ask(GetStatement("run"), timeout=5.0)
        leases = (after.reserved_ever - before.reserved_ever) / 250_000
        assert leases <= 12


async def test_a_node_that_starts_again_spends_no_earlier_lease_and_what_that_one_left_is_held():
    network = InProcessNetwork()
    charged: list[float] = []
    book = Book()  # In place of a journal.
    async with network.node("a") as a:
        home = await a.spawn(Ledger, accounts={"run": "5"}, node="a", name="money")
        async with network.node("b") as b:
            ledger = await node_ledger(b, nodes=1, book=book)
            await buy(ledger, charged, random.Random(1), "b", 20)
        await asyncio.sleep(2.0)
        statement = await home.ask(GetStatement("run"), timeout=5.0)
        held = statement.held
        assert held + statement.settled > PRICE * len(charged)
        assert statement.reserved == 0
        async with network.node("b") as b:
            ledger = await node_ledger(b, nodes=1, book=book)
            await asyncio.sleep(0.1)  # Its lessee starts.
            own = await ledger.ask(GetStatement("run"), timeout=5.0)
            assert own.cap == own.used == PRICE * len(charged)
            await buy(ledger, charged, random.Random(1), "b again", 600)
            await asyncio.sleep(4.0)
        statement = await home.ask(GetStatement("run"), timeout=5.0)
        assert statement.held == held
        assert statement.settled + held == 5_000_000
