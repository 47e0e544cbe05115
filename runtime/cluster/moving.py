"""Actors that are started again on another node if theirs is lost, under a ref that goes with them.

The ref leads to a router on the node that has spawned the actor. It hands each message on to the present life. While
there is none, mail waits in the mailbox of the router's home, which is the supervisor of the actor.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, TypeAlias

from runtime.actor import Actor
from runtime.cluster.errors import NodeLost
from runtime.cluster.remote import RemoteActor
from runtime.events import ActorRestarted, Terminated
from runtime.handlers import handles
from runtime.routing.router import Router
from runtime.routing.strategies import RoundRobin
from runtime.supervision import Restart

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from runtime.ref import ActorRef, Recipient
    from runtime.supervision import RestartIntensity
    from runtime.system import ActorSystem

    Place: TypeAlias = Callable[[], Awaitable[ActorRef[Any]]]


class Anywhere:
    """The type of `ANYWHERE`."""

    def __repr__(self) -> str:
        return "ANYWHERE"


ANYWHERE = Anywhere()
"""For `Cluster.spawn(node=ANYWHERE)`: on one node after the other, if each is lost."""


class MovingRouter(Router):
    """Hands each message on to the present life of an actor; while there is none, it waits at home."""

    def __init__(self) -> None:
        super().__init__(RoundRobin())
        self.is_between = True
        """Whether there is no life that takes mail, and another will follow."""
        self.has_begun = asyncio.Event()

    def choose(self, message: Any) -> Recipient | None:
        return self.home if self.is_between or self._is_lost() else super().choose(message)

    def settle(self, routees: Sequence[ActorRef[Any]]) -> None:
        self.is_between = False
        self.has_begun.set()
        super().settle(routees)

    def _is_lost(self) -> bool:
        """Tell whether the node of the present life is gone, which the home is about to hear."""
        recipient = self.routees[0].recipient
        return isinstance(recipient, RemoteActor) and recipient.peer.why_lost is not None


class NodeSupervisor(Actor[Any]):
    """Supervises one actor on other nodes, whose life is `first`: if its node is lost, `place` starts the next."""

    def __init__(self, router: MovingRouter, first: ActorRef[Any], place: Place, intensity: RestartIntensity) -> None:
        self._router = router
        self._life: ActorRef[Any] | None = first
        self._place = place
        self._intensity = intensity
        self._restarts: deque[float] = deque()

    def started(self) -> None:
        assert self._life is not None  # noqa: S101 - it is the first.
        self._go_on(self._life)

    def stopped(self) -> None:
        if self._life is not None:
            self._life.stop()

    @handles(Terminated)
    async def follow(self, message: Terminated) -> None:
        """Start it again if its node is lost; end as it did if it ended there."""
        self._life, error = None, message.exit.error
        if error is None:
            self.context.stop()
            return
        if not isinstance(error, NodeLost) or not self._intensity.tolerates(self._restarts, now=self.context.now()):
            raise error
        self._router.is_between = True
        self._go_on(await self._place())
        self.context.events.publish(ActorRestarted(self.context.ref, len(self._restarts), error))

    def _go_on(self, life: ActorRef[Any]) -> None:
        self._life = life
        self.context.watch(life)
        self._router.settle([life])


async def spawn_moving(
    system: ActorSystem, first: ActorRef[Any], place: Place, *, name: str | None, intensity: RestartIntensity
) -> ActorRef[Any]:
    """Return the ref of an actor whose life is `first`, and if its node is lost, what `place` starts then."""
    router = MovingRouter()
    try:
        home: ActorRef[Any] = system.spawn(
            lambda: NodeSupervisor(router, first, place, intensity), name=name, restart=Restart.TEMPORARY
        )
        router.move_in(home)
        await router.has_begun.wait()  # Before that, it would end without a word to the life that it has.
    except BaseException:
        first.stop()
        raise
    return home
