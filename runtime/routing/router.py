"""One ref for several actors: a router hands each message on, without a mailbox or a turn of its own.

A router stands before an actor, its home, whose ref leads to the router. Mail stays in the mailbox of the home only
while there is no worker yet, or while a pool restarts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from runtime.actor import Actor
from runtime.cell.cell import Cell
from runtime.cell.inbox import admit_waiters, dead_letter
from runtime.cell.phases import IN_SERVICE
from runtime.cell.state import NO_MAIL
from runtime.envelope import Ask, told
from runtime.errors import ActorStopped
from runtime.events import DeadReason
from runtime.mailbox import DEFAULT_MAILBOX, Mailbox
from runtime.messages import name_of
from runtime.routing.strategies import LeastBusy, RoundRobin
from runtime.supervision import Supervision
from runtime.supervision.strategy import DEFAULT_SUPERVISION

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Coroutine, Sequence

    from runtime.actor import Spawner
    from runtime.ref import ActorRef, Recipient
    from runtime.routing.strategies import Routing
    from runtime.supervision import Exit

M = TypeVar("M")


class Router:
    """What stands behind the ref of a router."""

    def __init__(self, routing: Routing, routees: Sequence[ActorRef[Any]] = ()) -> None:
        self.routing = routing
        self.routees = tuple(routees)
        # For `ActorRef.tell`: a mailbox that never has room.
        self.queue: deque[Any] = NO_MAIL
        self.room = 0
        self.idle = False

    def move_in(self, ref: ActorRef[Any]) -> None:
        """Stand before the actor of this ref from now on."""
        if not isinstance(ref.recipient, Cell):
            raise TypeError(f"{ref!r} cannot be the home of a router")
        self.home: Cell = ref.recipient
        ref.recipient = self

    @property
    def path(self) -> str:
        return self.home.path

    @property
    def closed(self) -> bool:
        return self.home.closed

    @property
    def load(self) -> int:
        return self.home.load + sum(routee.load for routee in self.living())

    def living(self) -> list[Recipient]:
        """Return the routees that take mail; one that is being restarted does."""
        return [ref.recipient for ref in self.routees if not ref.recipient.closed]

    def choose(self, message: Any) -> Recipient | None:
        """Return what gets this message: the home unless it is up and running; None if all routees have ended."""
        return self.pick(message) if self.home.life is IN_SERVICE else self.home

    def pick(self, message: Any) -> Recipient | None:
        """Return one of the routees; None if all have ended."""
        living = self.living()
        return self.routing.choose(message, living) if living else None

    def destination(self, message: Any) -> Recipient:
        """Return the actor that gets this message, also behind further routers; raise `ActorStopped` if none does."""
        chosen = self.choose(message)
        while isinstance(chosen, Router):
            chosen = chosen.choose(message)
        if chosen is None:
            raise ActorStopped(self.path, name_of(message))
        return chosen

    def schedule(self) -> None:
        """Nothing is ever scheduled: a router has no mail."""

    def tell_slowly(self, message: Any) -> None:
        chosen = self.choose(message)
        if chosen is None:
            dead_letter(self.home, message, DeadReason.STOPPED)
        else:
            chosen.tell_slowly(message)

    def take_over(self, item: Any) -> None:
        self._pass_on(item, self.choose(told(item)))

    async def send(self, message: Any, timeout: float | None) -> None:  # noqa: ASYNC109 - a deadline, not a scope.
        await self.destination(message).send(message, timeout)

    async def ask(self, message: Any, timeout: float) -> Any:  # noqa: ASYNC109 - a deadline, not a scope.
        return await self.destination(message).ask(message, timeout)

    def settle(self, routees: Sequence[ActorRef[Any]]) -> None:
        """Hand messages on to these routees from now on, first of all those that have come meanwhile."""
        self.routees = tuple(routees)
        home = self.home
        admit_waiters(home)
        while home.queue:
            item = home.queue.popleft()
            try:
                chosen = self.pick(told(item))
                while isinstance(chosen, Router):
                    chosen = chosen.choose(told(item))
            except Exception as error:  # noqa: BLE001 - of the user's routing; the next asker is told it too.
                if isinstance(item, Ask):
                    item.fail(error)
                dead_letter(home, item, DeadReason.POISON)
            else:
                self._pass_on(item, chosen)
            admit_waiters(home)

    def _pass_on(self, item: Any, chosen: Recipient | None) -> None:
        if chosen is None:
            dead_letter(self.home, item, DeadReason.STOPPED)
        else:
            chosen.take_over(item)

    def request_stop(self) -> None:
        self.home.request_stop()

    def kill(self) -> None:
        self.home.kill()

    def join(self) -> Coroutine[Any, Any, Exit]:
        return self.home.join()

    def describe(self) -> str:
        return f"{self.home.describe()}, {self.routing!r} over {len(self.living())}"


class Hub(Actor[Any]):
    """The home of a router whose routees live elsewhere."""

    def __init__(self, router: Router) -> None:
        self.router = router

    def started(self) -> None:
        self.router.settle(self.router.routees)


class Pool(Actor[Any]):
    """The home of a router over workers of its own: their supervisor."""

    def __init__(
        self, router: Router, factory: Callable[[], Actor[Any]], size: int, mailbox: Mailbox, supervision: Supervision
    ) -> None:
        self.router = router
        self.factory = factory
        self.size = size
        self.mailbox = mailbox
        self._supervision = supervision

    @property
    def supervision(self) -> Supervision:  # type: ignore[override]  # pyright: ignore[reportIncompatibleVariableOverride]
        """How the workers are supervised."""
        return self._supervision

    def started(self) -> None:
        names = [f"worker-{number}" for number in range(1, self.size + 1)]
        spawn = self.context.spawn
        self.router.settle([spawn(self.factory, name=name, mailbox=self.mailbox) for name in names])


def pool(
    spawner: Spawner,
    factory: Callable[[], Actor[M]],
    *,
    size: int,
    routing: Routing | None = None,
    name: str | None = None,
    mailbox: Mailbox = DEFAULT_MAILBOX,
    supervision: Supervision = DEFAULT_SUPERVISION,
) -> ActorRef[M]:
    """Spawn `size` workers under one supervisor, and return a ref that spreads messages over them.

    `spawner` is a system or an actor's context; `routing` is `LeastBusy` by default; `mailbox` is that of each
    worker, and `supervision` how they are supervised. A worker that crashes is restarted and keeps its place and its
    mail, one that has ended for good is passed over, and when all have, the ref behaves as that of a stopped actor.
    Messages of one sender are in order at each worker, not over all of them. Stopping the ref stops the workers.

    A `factory` that raises does so when the pool starts, which is a crash of the pool.
    """
    if type(size) is not int or size < 1:
        raise ValueError(f"size must be a whole number of workers >= 1, got {size!r}")
    if not isinstance(mailbox, Mailbox):
        raise TypeError(f"mailbox must be a Mailbox, got {mailbox!r:.100}")
    if not isinstance(supervision, Supervision):
        raise TypeError(f"supervision must be a Supervision, got {supervision!r:.100}")
    front = Router(checked(routing) or LeastBusy())
    home: ActorRef[Any] = spawner.spawn(lambda: Pool(front, factory, size, mailbox, supervision), name=name)
    front.move_in(home)
    return home


def checked(routing: Routing | None) -> Routing | None:
    """Return a routing as it is; raise `TypeError` if it cannot choose."""
    if routing is not None and (isinstance(routing, type) or not callable(getattr(routing, "choose", None))):
        raise TypeError(f"routing must have a choose() method, such as RoundRobin(), got {routing!r:.100}")
    return routing


def router(
    spawner: Spawner, routees: Sequence[ActorRef[M]], *, routing: Routing | None = None, name: str | None = None
) -> ActorRef[M]:
    """Return a ref that spreads messages over actors that live elsewhere; stopping it leaves them alone.

    `spawner` is a system or an actor's context; `routing` is `RoundRobin` by default. Routees that have ended are
    passed over; when all have, the ref behaves as that of a stopped actor.
    """
    front = Router(checked(routing) or RoundRobin(), routees)
    home: ActorRef[Any] = spawner.spawn(lambda: Hub(front), name=name)
    front.move_in(home)
    return home
