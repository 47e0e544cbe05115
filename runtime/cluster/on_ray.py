"""The port on Ray, which places nodes on machines, starts them again, and notices their death.

The only module that imports Ray. Nothing but bytes and names goes through it: what Ray pickles is never a message.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import time
import traceback
import uuid
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from runtime.cluster.cluster import Cluster
from runtime.cluster.errors import NodeLost, NotOneCluster
from runtime.cluster.journals import JournalFolder
from runtime.cluster.node import Node
from runtime.cluster.port import NodeLife, Unreachable, Versions, own_versions
from runtime.system import ActorSystem

try:
    ray: Any = importlib.import_module("ray")
    failures: Any = importlib.import_module("ray.exceptions")
    scheduling: Any = importlib.import_module("ray.util.scheduling_strategies")
except ImportError as error:
    raise ImportError('runtime.cluster.on_ray needs Ray; write: pip install "understudy[ray]"') from error

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

NAMESPACE = "understudy"
PULL = 5.0
"""Seconds for which a guest's open call waits at its node."""
GUEST_SILENCE = 2.0
"""Seconds without an open call after which a guest counts as gone."""
GONE = b""
"""What is answered for a guest that is gone."""
RESTART = 10.0
"""Seconds that Ray may take to start a node again."""
LOOK = 1.0
"""Seconds between two looks at which machines there are."""
CALLS = 10_000
"""Calls that a node takes at once; most of them wait."""


class Hello(msgspec.Struct, frozen=True):
    """What a node says of itself."""

    life: NodeLife
    versions: Versions
    homes: tuple[str, ...] = ()


_decode_hello = msgspec.msgpack.Decoder(Hello).decode


class Guest:
    """A program that has joined at a node: it is reached by the call that it keeps open there."""

    def __init__(self) -> None:
        self.batches: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue()
        self.replies: dict[int, asyncio.Future[bytes]] = {}
        self.calls = 0
        self.seen = time.monotonic()
        self.has_left = False
        self._last = 0

    @property
    def is_gone(self) -> bool:
        """Tell whether it has left, or keeps no call open any more."""
        return self.has_left or (not self.calls and time.monotonic() - self.seen > GUEST_SILENCE)

    async def deliver(self, batch: bytes) -> bytes:
        """Hand it a batch, and return its reply; `GONE` if it is gone."""
        self._last += 1
        number = self._last
        reply = self.replies[number] = asyncio.get_running_loop().create_future()
        self.batches.put_nowait((number, batch))
        try:
            while not self.is_gone:
                with suppress(TimeoutError):
                    async with asyncio.timeout(GUEST_SILENCE):
                        return await asyncio.shield(reply)
                self.batches.put_nowait((number, batch))  # It may have been lost on the way; it is taken once.
            return GONE
        finally:
            del self.replies[number]

    def take(self, replies: list[tuple[int, bytes]]) -> None:
        """Take its replies."""
        for number, data in replies:
            reply = self.replies.get(number)
            if reply is not None and not reply.done():
                reply.set_result(data)

    async def pull(self, replies: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
        """Take its replies, and return the next batches for it; none after a while."""
        self.take(replies)
        self.calls += 1
        try:
            batches: list[tuple[int, bytes]] = []
            with suppress(TimeoutError):
                async with asyncio.timeout(PULL):
                    batches.append(await self.batches.get())
            while not self.batches.empty():
                batches.append(self.batches.get_nowait())
            return batches
        finally:
            self.calls -= 1
            self.seen = time.monotonic()


class NodeHost:
    """The Ray actor of one machine, with an ordinary actor system inside; each start of it is a new life."""

    def __init__(self, cluster: str, name: str, nodes: list[str], homes: tuple[str, ...], journals: str | None) -> None:
        self._cluster = cluster
        self._homes = homes
        self._journals = journals
        self._life = NodeLife(name, time.time_ns() // 1_000)
        self._nodes = nodes
        self._guests: dict[str, Guest] = {}
        self._node: asyncio.Task[Node] | None = None
        self._running: asyncio.Task[None] | None = None

    async def hello(self, nodes: list[str]) -> bytes:
        """Return who this is; the names of all nodes are told by who joins."""
        self._nodes[:] = sorted({*self._nodes, *nodes})
        await self._started()
        return msgspec.msgpack.encode(Hello(self._life, own_versions(f"ray {ray.__version__}"), self._homes))

    async def process(self) -> int:
        """Return the id of the process, for tests that kill it."""
        return os.getpid()

    async def deliver(self, to: str, batch: bytes) -> bytes:
        """Hand a batch to this node, or to one of its guests."""
        if to == self._life.name:
            return await (await self._started()).receive(batch)
        guest = self._guests.get(to)
        return GONE if guest is None or guest.is_gone else await guest.deliver(batch)

    async def pull(self, guest: str, replies: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
        """The call that a guest keeps open."""
        return await self._guests.setdefault(guest, Guest()).pull(replies)

    async def reply(self, guest: str, replies: list[tuple[int, bytes]]) -> None:
        """Take the replies of a guest, whose call waits for batches."""
        self._guests.setdefault(guest, Guest()).take(replies)

    async def leave(self, guest: str) -> None:
        """Take note that a guest has left."""
        known = self._guests.pop(guest, None)
        if known is not None:
            known.has_left = True

    async def outlive(self, of: str, epoch: int) -> str:
        """Return, with the reason, when a life is over; if it is this node's own, the call ends with the process."""
        if of != self._life.name:
            guest = self._guests.get(of)
            while guest is not None and not guest.is_gone:  # noqa: ASYNC110 - that is a matter of time.
                await asyncio.sleep(GUEST_SILENCE / 4)
            return "the program has left"
        if epoch == self._life.epoch:
            await asyncio.get_running_loop().create_future()  # It is never done: the call ends with the process.
        return "it has been started again"

    async def _started(self) -> Node:
        if self._node is None:
            self._node = asyncio.ensure_future(self._start())
        return await asyncio.shield(self._node)

    async def _start(self) -> Node:
        started: asyncio.Future[Node] = asyncio.get_running_loop().create_future()

        async def run() -> None:
            try:
                async with ActorSystem(self._life.name) as system:
                    port = RayPort(self._cluster, own=self._life)
                    is_home = self._life.name in self._homes and self._journals is not None
                    folder = JournalFolder(Path(str(self._journals)) / self._life.name) if is_home else None
                    started.set_result(Node(self._life, system, port, homes=self._homes, journals=folder))
                    await asyncio.get_running_loop().create_future()  # It runs as long as the process does.
            except Exception:  # noqa: BLE001 - printed; a node whose system has failed is of no use.
                traceback.print_exc()
                os._exit(1)  # Ray starts it again, as a new life.

        self._running = asyncio.ensure_future(run())
        return await started


class RayPort:
    """Reaches the nodes of one cluster by Ray's names."""

    def __init__(
        self, cluster: str, *, own: NodeLife | None = None, homes: Sequence[str] = (), journals: str | None = None
    ) -> None:
        self._cluster = cluster
        self._own = own
        self._homes = tuple(homes)
        self._journals = journals
        self._handles: dict[str, Any] = {}
        self.versions = own_versions(f"ray {ray.__version__}")

    async def place(self, node: str) -> NodeLife:
        ids = {name: id_ for id_, name in (await asyncio.to_thread(living_nodes)).items()}
        if node not in ids:
            raise NodeLost(node, f"Ray has no such node, only {', '.join(sorted(ids))}")
        options = {
            "name": self._name(node),
            "namespace": NAMESPACE,
            "lifetime": "detached",
            "get_if_exists": True,
            "max_restarts": -1,
            "max_task_retries": 0,
            "max_concurrency": CALLS,
            "num_cpus": 0,
            "scheduling_strategy": scheduling.NodeAffinitySchedulingStrategy(ids[node], soft=False),
        }
        self._handles[node] = (
            ray.remote(NodeHost)
            .options(**options)
            .remote(self._cluster, node, sorted(ids), self._homes, self._journals)
        )
        life, homes = await self._hello(node, sorted(ids))
        if homes != self._homes:
            raise NotOneCluster(
                f"node {node!r} was started with the homes {', '.join(homes) or 'none'} for keyed actors, not "
                f"{', '.join(self._homes) or 'none'}; state the same, or another `cluster`"
            )
        return life

    async def resolve(self, node: str) -> NodeLife:
        if self._own is not None and node == self._own.name:
            return await self._own_life()
        life, _ = await self._hello(node, [])
        return life

    async def _own_life(self) -> NodeLife:
        """Return the life of the node itself if Ray's head counts its machine as alive."""
        assert self._own is not None  # noqa: S101 - seen by the caller.
        here = ray.get_runtime_context().get_node_id()
        if not any(one["Alive"] and one["NodeID"] == here for one in await asyncio.to_thread(ray.nodes)):
            raise NodeLost(self._own.name, "Ray counts its machine as dead")
        return self._own

    async def _hello(self, node: str, nodes: list[str]) -> tuple[NodeLife, tuple[str, ...]]:
        handle = await self._handle(node)
        begin = time.monotonic()
        while True:
            try:
                told = _decode_hello(await handle.hello.remote(nodes))
                break
            except failures.ActorUnavailableError as error:  # Ray starts it again.
                if time.monotonic() - begin > RESTART:
                    raise NodeLost(node, f"it has not answered for {RESTART:g} s") from error
                await asyncio.sleep(RESTART / 50)
            except failures.RayError as error:
                raise NodeLost(node, f"it does not answer: {type(error).__name__}") from error
        self.versions.check(node, told.versions)
        return told.life, told.homes

    async def process_of(self, node: str) -> int:
        """Return the id of a node's process."""
        handle = await self._handle(node)
        return await handle.process.remote()

    async def send_batch(self, to: NodeLife, batch: bytes) -> bytes:
        handle = await self._handle(to.name)
        try:
            reply = await handle.deliver.remote(to.name, batch)
        except failures.ActorDiedError as error:
            self._handles.pop(to.name.rpartition("@")[2], None)
            raise NodeLost(to.name, "Ray says that it has died") from error
        except failures.RayError as error:
            raise Unreachable(f"{to.name}: {type(error).__name__}") from error
        if reply == GONE:
            raise NodeLost(to.name, "the program has left")
        return reply

    async def watch(self, life: NodeLife) -> str:
        handle = await self._handle(life.name)
        try:
            return await handle.outlive.remote(life.name, life.epoch)
        except failures.RayError as error:
            return f"Ray says {type(error).__name__}"

    async def _handle(self, node: str) -> Any:
        host = node.rpartition("@")[2]  # A guest is reached at its node.
        handle = self._handles.get(host)
        if handle is None:
            try:
                handle = await asyncio.to_thread(ray.get_actor, self._name(host), NAMESPACE)
            except ValueError as error:
                raise NodeLost(host, "Ray knows no such node") from error
            self._handles[host] = handle
        return handle

    async def open_call(self, guest: Node) -> None:
        """Keep a call open at the guest's node, by which others reach it, until it is cancelled."""
        handle = await self._handle(guest.life.name)
        replies: list[tuple[int, bytes]] = []
        tasks: dict[asyncio.Task[bytes], int] = {}
        pulling = asyncio.ensure_future(_result(handle.pull.remote(guest.life.name, [])))
        while True:
            await asyncio.wait([pulling, *tasks], return_when=asyncio.FIRST_COMPLETED)
            for task in [one for one in tasks if one.done()]:
                number = tasks.pop(task)
                if not task.cancelled() and task.exception() is None:
                    replies.append((number, task.result()))
            if pulling.done():
                batches: list[tuple[int, bytes]] = []
                try:
                    batches = pulling.result()
                except failures.RayError:  # The node is started again; what it had for the guest comes again.
                    await asyncio.sleep(RESTART / 50)
                for number, batch in batches:
                    tasks[guest.create_task(guest.receive(batch))] = number
                pulling = asyncio.ensure_future(_result(handle.pull.remote(guest.life.name, replies)))
                replies = []
            elif replies:
                with suppress(failures.RayError):
                    await _result(handle.reply.remote(guest.life.name, replies))
                replies = []

    async def arrive(self, guest: NodeLife) -> None:
        """Have the guest's node know of it before any other node hears of it."""
        handle = await self._handle(guest.name)
        await handle.reply.remote(guest.name, [])

    async def leave(self, guest: NodeLife) -> None:
        """Tell the guest's node that it has left."""
        with suppress(failures.RayError, NodeLost):
            handle = await self._handle(guest.name)
            await handle.leave.remote(guest.name)

    async def follow(self, names: list[str]) -> None:
        """Place nodes on the machines that join, and take those that leave from the names, until it is cancelled."""
        refused: set[str] = set()
        while True:
            await asyncio.sleep(LOOK)
            living = set((await asyncio.to_thread(living_nodes)).values())
            names[:] = [name for name in names if name in living]
            refused &= living
            for name in sorted(living.difference(names, refused)):
                try:
                    await self.place(name)
                    names.append(name)
                except (NodeLost, NotOneCluster) as error:
                    refused.add(name)
                    logging.getLogger(__name__).warning("node %s does not join: %s", name, error)

    def _name(self, node: str) -> str:
        return f"{self._cluster}/{node}"


async def _result(ref: Any) -> Any:
    return await ref


def living_nodes() -> dict[str, str]:
    """Return the names of the nodes that Ray counts as alive, by their ids."""
    return {one["NodeID"]: name_of_node(one) for one in ray.nodes() if one["Alive"]}


def name_of_node(node: dict[str, Any]) -> str:
    """Return the name of a node of Ray: the one that it was started with, or the beginning of its id."""
    name = str(node.get("NodeName") or "")
    return name if name and name != node.get("NodeManagerAddress") else str(node["NodeID"])[:8]


@asynccontextmanager
async def join(
    address: str | None = None, *, cluster: str = "understudy", homes: Sequence[str] = (), journals: str | None = None
) -> AsyncGenerator[Cluster]:
    """Join the cluster of Ray at `address` (None: the one that runs here, or a new one of this machine alone).

    Each machine gets a node, named as Ray names it; `cluster.nodes` follows those that join and leave. This program is
    a guest at the node of its own machine: its own actors are those of `cluster.node.system`, and are reached by the
    others as long as the block lasts. Programs that join another `cluster` of the same Ray have nodes of their own.

    Keyed actors live on the nodes that `homes` names, the same for all programs that join. Each of them has its
    journals in the folder `journals`, below its own name, on a disk of its machine. Raises `NotOneCluster` if the nodes
    run with other homes.
    """
    if not ray.is_initialized():
        # A new cluster is told what it is to be; one that runs takes no such word.
        new = {"include_dashboard": False} if address is None else {}
        options = {"namespace": NAMESPACE, "log_to_driver": False, "logging_level": logging.ERROR, **new}
        await asyncio.to_thread(ray.init, address, **options)
    port = RayPort(cluster, homes=homes, journals=journals)
    living = await asyncio.to_thread(living_nodes)
    names = sorted(living.values())
    for name in names:
        await port.place(name)
    home = living.get(ray.get_runtime_context().get_node_id(), names[0])
    own = NodeLife(f"guest-{uuid.uuid4().hex[:8]}@{home}", time.time_ns() // 1_000)
    async with ActorSystem("guest") as system:
        node = Node(own, system, port, homes=tuple(homes))
        await port.arrive(own)
        tasks = [asyncio.ensure_future(port.open_call(node)), asyncio.ensure_future(port.follow(names))]
        try:
            yield Cluster(node, names)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await node.aclose()
            await port.leave(own)
