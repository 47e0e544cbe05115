"""The cluster as a program sees it: join it, place actors on its nodes, and find them by name."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from runtime.cluster.codec import WireRef
from runtime.cluster.errors import NodeLost
from runtime.cluster.frames import FindFrame, SpawnFrame
from runtime.cluster.homes import Keyed
from runtime.cluster.moving import Anywhere, spawn_moving
from runtime.cluster.placing import factory_name
from runtime.cluster.port import Unreachable
from runtime.cluster.remote import RemoteActor
from runtime.errors import ActorCrashed, ActorStopped, AskTimeout
from runtime.messages import Message
from runtime.ref import ActorRef
from runtime.supervision import Restart, RestartIntensity

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runtime.actor import Actor
    from runtime.cluster.node import Node
    from runtime.cluster.port import NodeLife

M = TypeVar("M")

SPAWN_TIMEOUT = 10.0
PLACING = 2.0
"""Seconds for which one node is waited for, if another will do."""
PLACE_AGAIN = 0.25
"""Seconds before all nodes are tried again."""
DEFAULT_INTENSITY = RestartIntensity()


class PlaceActor(Message, frozen=True):
    """The request that an actor be placed; only errors name it."""


class Cluster:
    """Nodes that work together, seen from one of them."""

    def __init__(self, node: Node, nodes: Sequence[str]) -> None:
        self.node = node
        self.nodes = nodes
        """The names of the nodes on which actors can be placed; more may join later."""
        self._turn = 0

    def __repr__(self) -> str:
        return f"<Cluster of {', '.join(self.nodes)}, seen from {self.node.life.name}>"

    async def spawn(
        self,
        factory: Callable[..., Actor[M]],
        *args: Any,
        node: str | Anywhere | None = None,
        name: str | None = None,
        restart: Restart = Restart.TRANSIENT,
        intensity: RestartIntensity = DEFAULT_INTENSITY,
        timeout: float = SPAWN_TIMEOUT,  # noqa: ASYNC109 - a deadline, not a scope.
        **kwargs: Any,
    ) -> ActorRef[M]:
        """Start an actor on a node, by default on each in turn, and return its ref.

        `factory` is a class or a function at the top of a module that the node can import; its arguments travel as
        plain data, Structs and refs. With `ANYWHERE` as its node, the actor is supervised from here: if its node is
        lost, it is started anew on another, at most as often as the `intensity` says, and its ref goes with it; it
        ends with this node. Raises `NotSendable`, what the factory raises there (as `RemoteCrash`), and `AskTimeout`
        after `timeout` seconds.
        """
        packed = self.node.codec.encode([list(args), kwargs])
        wish = SpawnFrame(0, factory_name(factory), packed, name, restart.value)
        if isinstance(node, Anywhere):
            wish = msgspec.structs.replace(wish, name=None, is_owned=True)
            try:
                async with asyncio.timeout(timeout):
                    first = await self._spawn_anywhere(factory, wish)
            except TimeoutError:
                raise AskTimeout(repr(node), "PlaceActor", timeout=timeout) from None
            place = partial(self._spawn_anywhere, factory, wish)
            ref = await spawn_moving(self.node.system, first, place, name=name, intensity=intensity)
            self.node.name(ref, name)
            return ref
        where = node if node is not None else self._next_node()
        if where not in self.nodes:
            raise ValueError(f"there is no node {where!r} in this cluster, only {', '.join(self.nodes)}")
        return await self._spawn_at(where, factory, wish, timeout)

    def _next_node(self) -> str:
        self._turn += 1
        return self.nodes[(self._turn - 1) % len(self.nodes)]

    async def _spawn_anywhere(self, factory: Callable[..., Actor[M]], wish: SpawnFrame) -> ActorRef[M]:
        """Start an actor on the next node that can be reached; wait until there is one."""
        while True:
            for _ in range(len(self.nodes)):
                with suppress(NodeLost, Unreachable, AskTimeout, ActorStopped, ActorCrashed):
                    return await self._spawn_at(self._next_node(), factory, wish, PLACING)
            await asyncio.sleep(PLACE_AGAIN)

    async def _spawn_at(
        self,
        node: str,
        factory: Callable[..., Actor[M]],
        wish: SpawnFrame,
        timeout: float,  # noqa: ASYNC109 - a deadline, not a scope.
    ) -> ActorRef[M]:
        if node == self.node.life.name:
            return self.node.spawn(factory, wish.args, name=wish.name, restart=Restart(wish.restart))
        life = await self._resolved(node, timeout)
        return await self._request(life, lambda number: msgspec.structs.replace(wish, number=number), ActorRef, timeout)

    def ref(self, factory: Callable[[str, Any], Actor[M]], *, key: str, home: str | None = None) -> ActorRef[M]:
        """Return the ref of the actor that has this key, which is started when it is first needed.

        It lives on one of the declared homes, the same for each key; or on `home`, if all callers say so. There it is
        made by `factory(key, journal)`, such as a subclass of `EventSourced`: `journal` is a function that opens its
        journal. A message that cannot reach it ends with `NeverDelivered`, which says why. To watch it is to be told
        of the end of its present activation; the ref still works then. Raises `NotSendable`, and ValueError if no
        homes are declared.
        """
        homes = self.node.hosting.homes
        if not homes:
            raise ValueError(
                "no homes are declared on which keyed actors live; state `homes` when the cluster is joined"
            )
        if not key:
            raise ValueError("key must not be empty: it names the actor")
        if home is not None and home not in homes:
            raise ValueError(f"{home!r} is no home in this cluster, only {', '.join(homes)}")
        return self.node.hosting.ref(Keyed(factory_name(factory), key, home or ""))

    async def find(self, name: str, *, timeout: float = SPAWN_TIMEOUT) -> ActorRef[Any] | None:  # noqa: ASYNC109
        """Return the actor that was spawned under a name, on whichever node; None if there is none."""
        own = self.node.named(name)
        if own is not None:
            return own
        others = [one for one in self.nodes if one != self.node.life.name]
        found: list[Any] = await asyncio.gather(
            *(self._find_at(one, name, timeout) for one in others), return_exceptions=True
        )
        refs: list[ActorRef[Any]] = [one for one in found if isinstance(one, ActorRef)]
        return refs[0] if refs else None

    async def _find_at(self, node: str, name: str, timeout: float) -> Any:  # noqa: ASYNC109 - a deadline.
        life = await self._resolved(node, timeout)
        return await self._request(life, lambda number: FindFrame(number, name), ActorRef | None, timeout)

    async def _resolved(self, node: str, timeout: float) -> NodeLife:  # noqa: ASYNC109 - a deadline.
        try:
            async with asyncio.timeout(timeout):
                return await self.node.port.resolve(node)
        except TimeoutError:
            raise AskTimeout(node, "PlaceActor", timeout=timeout) from None

    async def _request(self, life: NodeLife, frame: Callable[[int], Any], of: Any, timeout: float) -> Any:  # noqa: ASYNC109
        node = RemoteActor(self.node.peer(life), WireRef(life.name, life.epoch, 0, "cluster"))
        now = self.node.engine.time()
        answer, _ = await node.exchange(PlaceActor(), frame, of, now=now, deadline=now + timeout)
        return answer
