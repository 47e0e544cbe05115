"""What a cell is made of: every field of the one object behind an actor, as the modules of this package share them."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from runtime.cell.phases import IN_SERVICE, STARTING_UP, Goal, LifeState, Phase

if TYPE_CHECKING:
    import asyncio
    from collections import OrderedDict
    from collections.abc import Callable

    from runtime.actor import Actor
    from runtime.cell.children import Children
    from runtime.cell.far_target import FarTarget
    from runtime.cell.inline_execution import InlineExecution
    from runtime.cell.lanes import Lanes
    from runtime.cell.options import SpawnOptions
    from runtime.engine import Engine
    from runtime.envelope import Ask
    from runtime.mailbox import Mailbox
    from runtime.ref import ActorRef
    from runtime.supervision import Exit, Restart, Supervision
    from runtime.timers import Timers

NO_MAIL: deque[Any] = deque(maxlen=0)
"""Stands in for the queue of an actor that never had mail; an empty deque of its own would cost 760 bytes."""


class PendingSend:
    """A message whose sender waits for room in a mailbox."""

    __slots__ = ("deadline", "message", "tick", "waiter")

    def __init__(self, message: Any, deadline: float, waiter: asyncio.Future[bool]) -> None:
        self.message = message
        self.deadline = deadline
        self.tick = 0
        self.waiter = waiter

    def expire(self) -> None:
        """Give up, because the time to wait is over."""
        if not self.waiter.done():
            self.waiter.set_result(False)


class CellState:
    """The fields of a cell. `Cell` is the only class that has them; what works on them takes them by this name.

    What nearly every actor uses has a slot. The rest are class attributes with a default, which go into the cell's
    `__dict__` once they differ: the garbage collector visits every slot of every cell again and again, and most of
    the cost of many actors is its.
    """

    __slots__ = (
        "__dict__",
        "actor",
        "begun",
        "busy",
        "closed",
        "current",
        "engine",
        "exit",
        "factory",
        "idle",
        "life",
        "name",
        "options",
        "owner",
        "queue",
        "ref",
        "room",
        "started_at",
        "supervised",
        "task",
        "until",
        "wait_queue",
    )

    engine: Engine
    ref: ActorRef[Any]
    owner: CellState | None
    """The cell of the parent; None for the root of the tree."""
    name: str
    options: SpawnOptions
    factory: Callable[[], Actor[Any]]

    # The mail.

    queue: deque[Any]
    """The mailbox: plain messages, envelopes, and what the runtime tells the actor."""
    room: int
    """What `queue` may hold while mail is taken, and 0 before the first message and after the last, so that the fast
    path of `tell` needs one comparison only."""
    closed: bool
    """True once no more mail is taken."""
    wait_queue: OrderedDict[Ask | PendingSend, None] | None
    """What waits for room in the mailbox, in the order of its arrival."""
    stashed: deque[Any] | None = None

    # The work.

    actor: Actor[Any]
    """The present instance."""
    idle: bool
    """True if mail that comes in has to have a turn scheduled."""
    busy: bool
    """True while a sync handler or hook is on the stack; if the instance is to end, it does so afterwards."""
    current: Any
    """The item that is being handled, if it came in an envelope or is handled in `task`."""
    task: asyncio.Task[None] | InlineExecution | None
    """The task that handles the mail of an actor with async handlers, or runs an async `started`; or the inline
    execution of a handler that is not concurrent."""
    until: float | None
    """The deadline of the request whose sync handler runs; for an async one a context variable has it."""
    lanes: Lanes | None = None
    later: dict[asyncio.Future[Any], Any] | None = None
    """The futures that handlers have returned in order to answer later, each with its request, an `Ask` if asked."""

    # The life.

    life: LifeState
    """Its phase and its goal; see `phases`. It changes by `life.advance`, and when a start is over."""
    begun: bool
    """True from the time `started` has returned until the instance is released."""
    started_at: float
    """When the first instance began, in loop time."""
    exit: Exit | None
    """How the actor ended; None until it has."""
    supervised: Children | None
    """The children; None if the instance has spawned none."""
    lifecycle: asyncio.Task[None] | None = None
    """The task that winds the instance down."""
    cause: Exception | None = None
    """What the instance crashed with; then, until the restart is over, what it is restarted for."""
    stale: bool = False
    """True if `actor` has ended, and a new instance is to be made."""
    attempt: int = 0
    """The restarts since the last quiet spell."""
    restarted_at: float = 0.0
    restart_timer: asyncio.TimerHandle | None = None
    end_waiters: list[asyncio.Future[None]] | None = None
    """What waits for the end of the instance, or of the actor."""
    watchers: dict[CellState, None] | None = None
    watching: dict[CellState | FarTarget, None] | None = None
    own_timers: Timers | None = None
    kept_values: dict[str, Any] | None = None

    @property
    def path(self) -> str:
        """Where the actor stands in the tree."""
        return self.name if self.owner is None else f"{self.owner.path}/{self.name}"

    @property
    def mailbox(self) -> Mailbox:
        """What the mailbox holds, and what becomes of the rest."""
        return self.options.mailbox

    @property
    def restart(self) -> Restart:
        """When the actor is restarted."""
        return self.options.restart

    @property
    def supervision(self) -> Supervision:
        """How the children are supervised."""
        return self.actor.supervision

    @property
    def is_alive(self) -> bool:
        """True while the actor handles messages, or prepares to."""
        return self.life is IN_SERVICE or self.life is STARTING_UP

    @property
    def phase(self) -> Phase:
        """Where the actor is in its life."""
        return self.life.phase

    @property
    def goal(self) -> Goal:
        """Why the instance ends; `Goal.NONE` if it does not."""
        return self.life.goal

    def schedule(self) -> None:
        """See that the mail is handled; called when mail comes in and nothing is under way."""
        self.engine.enqueue(self)  # pyright: ignore[reportArgumentType] - see `enqueue`; a call less.
        self.idle = False

    def enqueue(self) -> None:
        """Have a turn soon."""
        self.engine.enqueue(self)  # pyright: ignore[reportArgumentType] - what has this state is a `Cell`, which runs.

    def lane_tasks(self) -> list[asyncio.Future[None]]:
        """Return the executions of concurrent handlers that are under way."""
        return list(self.lanes.running) if self.lanes is not None else []
