"""Nodes in one process, joined by a network that delays, loses and repeats batches, and is cut, as a test says."""

from __future__ import annotations

import asyncio
import os
import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec

from runtime.cluster.cluster import Cluster
from runtime.cluster.errors import NodeLost
from runtime.cluster.journals import JournalFolder
from runtime.cluster.node import Node
from runtime.cluster.port import NodeLife, Unreachable, Versions, own_versions
from runtime.system import ActorSystem

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from runtime.cluster.journals import Journals


class NetworkFaults(msgspec.Struct, frozen=True, kw_only=True):
    """What happens to a batch, and to its reply, on the way: delays in seconds, shares from 0 to 1."""

    delay: tuple[float, float] = (0.0, 0.0)
    loss: float = 0.0
    repeats: float = 0.0


class InProcessNetwork:
    """Joins nodes of one process. `notice` is the seconds after which a node that is not heard of counts as dead.

    `homes` are the names of the nodes on which keyed actors live.
    """

    def __init__(
        self,
        faults: NetworkFaults | None = None,
        *,
        notice: float = 1.5,
        rng: random.Random | None = None,
        homes: Sequence[str] = (),
    ) -> None:
        self.homes = homes
        self.faults = faults or NetworkFaults()
        self.notice = notice
        self.rng = rng or random.Random(0)
        self.names: list[str] = []
        self.living: dict[str, Node] = {}
        self._epochs: dict[str, int] = {}
        self._cut: set[frozenset[str]] = set()
        self._isolated: set[str] = set()
        self._changes: list[asyncio.Future[None]] = []

    def __repr__(self) -> str:
        return f"<InProcessNetwork of {', '.join(self.living)}, {len(self._cut)} ways cut>"

    @asynccontextmanager
    async def node(
        self, name: str, *, journals: str | os.PathLike[str] | Journals | None = None
    ) -> AsyncGenerator[Cluster]:
        """Run a node as long as the block lasts; one of the same name afterwards is a new life of it.

        A home of keyed actors has its `journals` in this folder.
        """
        folder = JournalFolder(journals) if isinstance(journals, str | os.PathLike) else journals
        epoch = self._epochs[name] = self._epochs.get(name, 0) + 1
        if name not in self.names:
            self.names.append(name)
        async with ActorSystem(name) as system:
            port = InProcessPort(self, name)
            node = Node(NodeLife(name, epoch), system, port, homes=self.homes, journals=folder)
            self.living[name] = node
            try:
                yield Cluster(node, self.names)
            finally:
                if self.living.get(name) is node:
                    self.kill(name)
                await node.aclose()

    def kill(self, name: str) -> None:
        """Let a node answer nothing any more, as if its machine were gone."""
        self.living.pop(name, None)
        self._changed()

    def cut(self, one: str, other: str) -> None:
        """Let nothing through between two nodes, until it is healed."""
        self._cut.add(frozenset((one, other)))
        self._changed()

    def heal(self, one: str, other: str) -> None:
        """Let everything through between two nodes again."""
        self._cut.discard(frozenset((one, other)))
        self._changed()

    def isolate(self, name: str) -> None:
        """Cut a node off from the cluster: from all other nodes, and from what knows which nodes there are."""
        self._isolated.add(name)
        self._changed()

    def rejoin(self, name: str) -> None:
        """Undo `isolate`."""
        self._isolated.discard(name)
        self._changed()

    def is_cut(self, one: str, other: str) -> bool:
        """Tell whether nothing gets through between two nodes."""
        return frozenset((one, other)) in self._cut or (one != other and not self._isolated.isdisjoint((one, other)))

    def is_isolated(self, name: str) -> bool:
        """Tell whether a node is cut off from the cluster."""
        return name in self._isolated

    def is_alive(self, life: NodeLife) -> bool:
        """Tell whether a life goes on."""
        node = self.living.get(life.name)
        return node is not None and node.life == life

    async def change(self) -> None:
        """Wait until a node ends, or a way is cut or healed."""
        change: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._changes.append(change)
        await change

    def _changed(self) -> None:
        changes, self._changes = self._changes, []
        for one in changes:
            if not one.done():
                one.set_result(None)


class InProcessPort:
    """The port of one node to such a network."""

    versions: Versions = own_versions("in process")

    def __init__(self, network: InProcessNetwork, own: str) -> None:
        self._network = network
        self._own = own

    async def place(self, node: str) -> NodeLife:
        return await self.resolve(node)

    async def resolve(self, node: str) -> NodeLife:
        if self._network.is_isolated(self._own):
            raise Unreachable(f"{self._own} is cut off from the cluster")
        living = self._network.living.get(node)
        if living is None:
            raise NodeLost(node, "it does not run")
        return living.life

    async def send_batch(self, to: NodeLife, batch: bytes) -> bytes:
        network, faults = self._network, self._network.faults
        if not network.is_alive(to) and to.name in network.living:
            raise NodeLost(to.name, "it has been started again")
        await self._travel(to)
        node = network.living.get(to.name)
        if node is None:
            raise Unreachable(f"{to.name} does not answer")
        if faults.repeats and network.rng.random() < faults.repeats:
            await node.receive(batch)
        reply = await node.receive(batch)
        await self._travel(to)
        return reply

    async def watch(self, life: NodeLife) -> str:
        network = self._network
        while True:
            if not network.is_alive(life) or network.is_cut(self._own, life.name):
                try:
                    async with asyncio.timeout(network.notice):
                        while not network.is_alive(life) or network.is_cut(self._own, life.name):
                            await network.change()
                except TimeoutError:
                    return "it has not been heard of"
            else:
                await network.change()

    async def _travel(self, to: NodeLife) -> None:
        faults, rng = self._network.faults, self._network.rng
        least, most = faults.delay
        if most:
            await asyncio.sleep(rng.uniform(least, most))
        if self._network.is_cut(self._own, to.name) or (faults.loss and rng.random() < faults.loss):
            raise Unreachable(f"nothing gets through to {to.name}")
