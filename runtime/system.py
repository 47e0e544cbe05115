"""The actor system: the root of the tree, entered with `async with` in any running asyncio program."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar

import anyio

from runtime.actor import Actor
from runtime.cell import Cell
from runtime.context import DEFAULT_OPTIONS
from runtime.engine import Engine
from runtime.errors import SystemClosed
from runtime.events import Event
from runtime.log import log_event
from runtime.mailbox import DEFAULT_MAILBOX, Mailbox
from runtime.supervision import DEFAULT_SUPERVISION, Restart, Supervision

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from runtime.event_stream import EventStream
    from runtime.ref import ActorRef

M = TypeVar("M")
P = ParamSpec("P")
T = TypeVar("T")


class Guardian(Actor):
    """The root actor: it has no handlers, only children."""

    def __init__(self, supervision: Supervision) -> None:
        self._supervision = supervision

    @property
    def supervision(self) -> Supervision:  # type: ignore[override]  # pyright: ignore[reportIncompatibleVariableOverride]
        """How the actors spawned by the system are supervised."""
        return self._supervision


class Root(Cell):
    """The root of the tree; what escalates to it ends the system."""

    __slots__ = ("fail",)

    def __init__(self, engine: Engine, supervision: Supervision, fail: Callable[[Exception], None]) -> None:
        self.fail = fail

        def make() -> Guardian:
            return Guardian(supervision)

        super().__init__(engine, None, engine.name, make, make(), DEFAULT_OPTIONS)

    def child_escalated(self, error: Exception) -> None:
        self.fail(error)


class ActorSystem:
    """A tree of actors that lives as long as its `async with` block.

    Leaving the block stops every actor, the last started first, and leaves no task, timer or file behind. A failure
    that escalates beyond `supervision` cancels the block and leaves it as that very exception. `seed` makes the
    system's randomness repeatable. Many systems may live in one process, and in one loop.
    """

    def __init__(
        self, name: str = "system", *, supervision: Supervision = DEFAULT_SUPERVISION, seed: int | None = None
    ) -> None:
        if not name or "/" in name:
            raise ValueError(f"a system's name must not be empty or contain '/', got {name!r}")
        self.name = name
        self._supervision = supervision
        self._random = random.Random(seed)
        self._engine: Engine | None = None
        self._root: Root | None = None
        self._scope: anyio.CancelScope | None = None
        self._failure: Exception | None = None

    async def __aenter__(self) -> Self:
        if self._engine is not None:
            raise SystemClosed(self.name, "entering it a second time")
        self._engine = Engine(self.name, asyncio.get_running_loop(), self._random)
        self._engine.events.subscribe(Event, log_event)
        self._root = Root(self._engine, self._supervision, self._fail)
        self._scope = anyio.CancelScope()
        self._scope.__enter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        scope, root, engine = self._scope, self._root, self._engine
        if scope is None or root is None or engine is None:
            raise SystemClosed(self.name, "leaving it")
        swallowed = scope.__exit__(kind, error, traceback)
        with anyio.CancelScope(shield=True):
            root.request_stop()
            await root.join()
            engine.deadlines.close()
            # A task that has said its last word is done one turn later.
            await asyncio.sleep(0)
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure from (error if isinstance(error, Exception) else None)
        return bool(swallowed)

    def spawn(
        self,
        factory: Callable[[], Actor[M]],
        *,
        name: str | None = None,
        mailbox: Mailbox = DEFAULT_MAILBOX,
        restart: Restart = Restart.TRANSIENT,
        stop_timeout: float = 5.0,
    ) -> ActorRef[M]:
        """Start an actor and return its ref at once; its `started` hook runs before its first message.

        `factory` is an actor class or a function that makes one: a restart calls it again. What it raises here is
        raised to the caller, and nothing is spawned. `name` (unique among the living; by default class and number)
        is its place in the tree, `mailbox` its capacity and overflow rule, `restart` when it is restarted, and
        `stop_timeout` the seconds its current message, and then its `stopped` hook, have when it is to stop.

        Raises `NameTaken`, `SystemClosed`, and `TypeError` where the factory does not make an actor.
        """
        root = self._living("spawn")
        return root.spawn(factory, name=name, mailbox=mailbox, restart=restart, stop_timeout=stop_timeout)

    @property
    def events(self) -> EventStream:
        """The stream of facts: failures, restarts, ends, dead letters, and your own events."""
        return self._living("events").engine.events

    @property
    def children(self) -> dict[str, ActorRef[Any]]:
        """The living actors that the system itself spawned, by name, in start order."""
        return dict(self._living("children").children)

    def from_thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> None:
        """Call `function` on the system's event loop soon: the one way in from a foreign thread.

        `system.from_thread(ref.tell, message)`. What it raises goes to the loop's exception handler.
        """
        engine = self._living("from_thread").engine
        engine.loop.call_soon_threadsafe(lambda: function(*args, **kwargs), context=engine.context.copy())

    def _living(self, action: str) -> Root:
        root = self._root
        if root is None or not root.is_alive:
            raise SystemClosed(self.name, action)
        return root

    def _fail(self, error: Exception) -> None:
        error.add_note(f"not handled by any supervisor of system {self.name!r}")
        if self._failure is None:
            self._failure = error
            if self._scope is not None:
                self._scope.cancel()

    def __repr__(self) -> str:
        if self._root is None:
            return f"<ActorSystem {self.name!r} not entered>"
        return f"<ActorSystem {self._root.describe()}, {len(self._root.children)} actors>"
