"""Nodes of one process keep what every port keeps, over a network that is quiet or rough."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest

from runtime import ActorCrashed, ActorStopped, ask_first
from runtime.cluster import InProcessNetwork, MemoryFolder, NetworkFaults
from tests.runtime.cluster.cast import Account, AllBack, Borrow, Host, Lender, OpenRouter, Total
from tests.runtime.cluster.conformance import CHECKS, Nodes

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from runtime.cluster import Cluster

NETWORKS = {
    "quiet": NetworkFaults(),
    "rough": NetworkFaults(delay=(0.001, 0.02), loss=0.1, repeats=0.1),
}


class NodesInProcess:
    """Nodes of one process."""

    def __init__(self, network: InProcessNetwork, stack: AsyncExitStack) -> None:
        self._network = network
        self._stack = stack
        self._folders = {name: MemoryFolder() for name in network.homes}

    async def begin(self) -> None:
        """Start all nodes."""
        self.here, *_ = [await self._started(name) for name in self._network.homes]

    async def _started(self, name: str) -> Cluster:
        return await self._stack.enter_async_context(self._network.node(name, journals=self._folders[name]))

    async def kill(self, node: str) -> None:
        self._network.kill(node)

    async def revive(self, node: str) -> None:
        await self._started(node)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_that(check: Callable[[Nodes], Awaitable[None]], network: str) -> None:
    joined = InProcessNetwork(NETWORKS[network], notice=0.5, homes=("a", "b", "c"))
    async with AsyncExitStack() as stack:
        nodes = NodesInProcess(joined, stack)
        await nodes.begin()
        await check(nodes)


@pytest.mark.parametrize("behind", ["refs", "routers of another node"])
async def test_all_answers_from_afar_but_the_first_go_back(behind: str) -> None:
    """G12."""
    joined = InProcessNetwork(NetworkFaults(delay=(0.01, 0.01)), notice=0.5)
    async with joined.node("a") as a, joined.node("b"), joined.node("c"):
        lenders = [await a.spawn(Lender, node=node) for node in "bbcb"]
        host = await a.spawn(Host, node="b")
        asked = lenders if behind == "refs" else [await host.ask(OpenRouter([one]), timeout=10) for one in lenders]
        for turns in range(100):
            asking = asyncio.ensure_future(ask_first(asked, Borrow(), timeout=10))
            await asyncio.sleep(turns * 0.001)
            asking.cancel()
            (outcome,) = await asyncio.gather(asking, return_exceptions=True)
            await asyncio.sleep(1.0)
            lent = [await one.ask(Total(), timeout=10) for one in lenders]
            assert sum(lent) == (0 if isinstance(outcome, asyncio.CancelledError) else 1), (turns, outcome)
            for one in lenders:
                one.tell(AllBack())


@pytest.mark.parametrize("network", NETWORKS)
async def test_a_second_life_of_a_node_is_another_node(network: str) -> None:
    joined = InProcessNetwork(NETWORKS[network], notice=0.5)
    async with joined.node("a") as a:
        async with joined.node("b"):
            first = await a.spawn(Account, 1, node="b")
            assert await first.ask(Total(), timeout=5) == 1
        async with joined.node("b"):
            second = await a.spawn(Account, 2, node="b")
            assert await second.ask(Total(), timeout=5) == 2
            with pytest.raises(ActorStopped):
                await first.ask(Total(), timeout=5)


async def test_a_cut_way_ends_conversations_and_a_healed_one_begins_new_ones() -> None:
    network = InProcessNetwork(notice=0.5)
    async with network.node("a") as a, network.node("b") as b:
        account = await a.spawn(Account, node="b", name="alice")
        await account.ask(Total(), timeout=5)
        network.cut("a", "b")
        with pytest.raises(ActorCrashed, match="unknown"):
            await account.ask(Total(), timeout=60)
        network.heal("a", "b")
        again = await a.find("alice")
        assert again is not None
        assert again != account
        assert await again.ask(Total(), timeout=5) == 0
        assert b.node.named("alice") is not None
