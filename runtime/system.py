"""The actor system: it spawns actors and stops them, and is entered with `async with` in any asyncio program."""

from __future__ import annotations

import asyncio
from inspect import iscoroutine, iscoroutinefunction
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, overload

import anyio

from runtime.actor import Actor
from runtime.cell.cell import Cell, check_name
from runtime.cell.inspection import RowWindow
from runtime.cell.options import DEFAULT_OPTIONS
from runtime.cell.phases import IN_SERVICE
from runtime.engine import Engine
from runtime.error_text import annotate, printable
from runtime.errors import SystemClosed
from runtime.log import LOGGED, LogFormat, log_event, of_system, system_logger
from runtime.mailbox import DEFAULT_MAILBOX, Mailbox
from runtime.propagation import propagation_of
from runtime.supervision import Restart, Supervision
from runtime.supervision.strategy import DEFAULT_SUPERVISION

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine, Sequence
    from concurrent.futures import Future
    from contextvars import ContextVar
    from types import TracebackType

    from runtime.event_stream import EventStream
    from runtime.interceptor import Interceptor
    from runtime.ref import ActorRef
    from runtime.registry import ActorRegistry
    from runtime.snapshot import ActorRows, ActorSnapshot

M = TypeVar("M")
P = ParamSpec("P")
T = TypeVar("T")


class Guardian(Actor):
    """The root actor, which has children and no handlers."""

    def __init__(self, supervision: Supervision) -> None:
        self._supervision = supervision

    @property
    def supervision(self) -> Supervision:  # type: ignore[override]  # pyright: ignore[reportIncompatibleVariableOverride]
        """How the actors spawned by the system are supervised."""
        return self._supervision


class Root(Cell):
    """The cell at the root of the tree; a failure that escalates to it ends the system."""

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
    that escalates beyond `supervision` cancels the block and is raised from it; `on_failure` is called with it first,
    so that a program whose block only waits, such as a web server's, can be shut down. `seed` makes the system's random
    numbers repeatable; `log` writes failures, restarts and dead letters as log lines, and lets actors write lines of
    their work: True by loguru, "json" as one JSON object a line on standard error, and "logging" by the standard
    library's `logging`; every message passes the `interceptors`. `propagate` names the context variables that travel
    from an asker to the handler of its request, such as the id of a trace, or is True for all of them. Many systems may
    live in one process, and in one loop.
    """

    def __init__(
        self,
        name: str = "system",
        *,
        supervision: Supervision = DEFAULT_SUPERVISION,
        seed: int | None = None,
        log: bool | LogFormat = True,
        interceptors: Sequence[Interceptor] = (),
        on_failure: Callable[[Exception], object] | None = None,
        propagate: Collection[ContextVar[Any]] | bool = False,
    ) -> None:
        check_name(name, "a system's")
        if not isinstance(supervision, Supervision):
            raise TypeError(f"supervision must be a Supervision, got {supervision!r}")
        if on_failure is not None and (not callable(on_failure) or iscoroutinefunction(on_failure)):
            raise TypeError(f"on_failure must be a function that is not async, got {on_failure!r}")
        self._log = log
        self._logger = system_logger(log)
        self._interceptors = tuple(interceptors)
        self.name = name
        self._supervision = supervision
        self._seed = seed
        self._engine: Engine | None = None
        self._root: Root | None = None
        self._host: asyncio.Task[Any] | None = None
        self._cancelled_host = False
        self._failure: Exception | None = None
        self._on_failure = on_failure
        self._propagation = propagation_of(propagate)
        self._first_failure: Exception | None = None
        self._ended: asyncio.Event | None = None
        """Set once the system has failed or has been left."""

    async def __aenter__(self) -> Self:
        if self._engine is not None:
            raise SystemClosed(self.name, "entering it a second time")
        loop = asyncio.get_running_loop()
        # Before the context of the system is made, so that it is the logger of what runs there.
        outer = of_system.set(self._logger) if self._logger is not None else None
        # A loop may provide another kind of engine, as that of a simulation does.
        make_engine: type[Engine] = getattr(loop, "actor_engine", Engine)
        self._engine = make_engine(self.name, loop, self._seed, self._interceptors)
        self._engine.propagation = self._propagation
        if outer is not None:
            of_system.reset(outer)
        self._engine.logs, self._engine.logger = bool(self._log), self._logger
        for event_type in LOGGED if self._log else ():
            self._engine.events.subscribe(event_type, log_event)
        self._root = self._engine.root = Root(self._engine, self._supervision, self._fail)
        self._ended = asyncio.Event()
        # Not a cancel scope, which the task that entered it would have to leave; a fixture is left by another task.
        self._host = asyncio.current_task()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        root, engine, host, ended = self._root, self._engine, self._host, self._ended
        if root is None or engine is None or ended is None:
            raise SystemClosed(self.name, "leaving it")
        self._host = None
        if error is not None:
            engine.failing(error)
        root.request_stop()
        pending = self._cancelled_host and not isinstance(error, asyncio.CancelledError)
        cancelled = await self._join(root, pending=pending)
        engine.deadlines.close()
        ended.set()
        if self._cancelled_host and host is not None:
            host.uncancel()
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure from (error if isinstance(error, Exception) else None)
        if cancelled:
            raise asyncio.CancelledError

    async def _join(self, root: Root, *, pending: bool) -> bool:
        """Wait until every actor has ended, in any case; return True if the waiting task was cancelled.

        With `pending`, a cancellation by this system itself is still to come, and does not count.
        """
        cancelled = False
        while True:
            try:
                with anyio.CancelScope(shield=True):
                    await root.join()
                    # A task that is about to return is done one turn later.
                    await asyncio.sleep(0)
            except asyncio.CancelledError:
                if not pending:
                    # A second cancellation while the block ends: do not wait for the handlers any longer.
                    cancelled = True
                    root.kill()
                pending = False
            else:
                return cancelled

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

        `factory` is an actor class, or a function that makes an actor; a restart calls it again. If it raises here, the
        caller gets the error and nothing is spawned. `name` is unique among living actors; by default it is the class
        and a number. `mailbox` has the capacity and the overflow rule. `restart` says when the actor is restarted.
        `stop_timeout` is the seconds that its current message, and then its `stopped` hook, have when it is to stop.

        Raises `NameTaken`, `SystemClosed`, and TypeError if the factory does not make an actor.
        """
        root = self._root
        if root is None or root.life is not IN_SERVICE:
            raise SystemClosed(self.name, "spawn")
        return root.spawn(factory, name=name, mailbox=mailbox, restart=restart, stop_timeout=stop_timeout)

    @property
    def events(self) -> EventStream:
        """The event stream: failures, restarts, ends and dead letters, and events of your own."""
        return self._living("events").engine.events

    @property
    def logs(self) -> bool:
        """Whether this system wants log lines (`log=`)."""
        return bool(self._log)

    @property
    def children(self) -> dict[str, ActorRef[Any]]:
        """The living actors that the system itself spawned, by name, in start order."""
        return dict(self._living("children").children)

    @property
    def registry(self) -> ActorRegistry:
        """The actors of this system that are registered under a key."""
        return self._living("registry").engine.registry

    def snapshot(self) -> ActorSnapshot:
        """Return every actor as plain values, the system's root at the top; also while the system is being left.

        Raises `SystemClosed` if the system has not been entered.
        """
        if self._root is None:
            raise SystemClosed(self.name, "snapshot")
        return self._root.snapshot()

    def rows(self, opened: Collection[str] = (), *, first: int = 0, most: int = 100) -> ActorRows:
        """Return a part of the tree of actors as lines, at most `most` from line `first` on.

        The root and the actors whose paths are `opened` show their children. This costs what is shown and opened, and
        not what there is, so that a tree of many thousand actors can be looked at again and again. Raises
        `SystemClosed` if the system has not been entered.
        """
        if self._root is None:
            raise SystemClosed(self.name, "rows")
        return RowWindow({self._root.path, *opened}, first=first, most=most).rows(self._root)

    def find(self, path: str) -> ActorRef[Any] | None:
        """Return the living actor at a path, such as `shop/supervisor/ledger`; None if there is none."""
        found = self._cell(path)
        return None if found is None else found.ref

    def restart(self, path: str) -> bool:
        """Restart the actor at a path, as if it had crashed; return False if there is none.

        Its supervisor decides what follows, as of any crash: a temporary actor ends, and too many restarts escalate.
        """
        found = self._cell(path)
        if found is None:
            return False
        found.failed(RuntimeError("restarted by hand"), None)
        return True

    def _cell(self, path: str) -> Any:
        """Return the cell of the actor at a path, below the root."""
        root = self._living("looking for an actor")
        name, *names = path.split("/")
        if name != root.path or not names:
            return None
        found: Any = root
        for one in names:
            children = found.supervised
            found = None if children is None else children.by_name.get(one)
            if found is None:
                return None
        return found

    def tree(self) -> str:
        """Return every actor as text for people, one line each: name, class, phase, work and mail.

        Raises `SystemClosed` if the system has not been entered.
        """
        return self.snapshot().tree()

    @overload
    def from_thread(
        self, function: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]: ...
    @overload
    def from_thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]: ...
    def from_thread(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Future[Any]:
        """Call `function` on the system's event loop soon: the only way in from another thread.

        For example `system.from_thread(ref.tell, message)`, or
        `system.from_thread(ref.ask, request, timeout=1.0).result()`. If the function returns a coroutine, that runs on
        the loop too. The future has the result or the error, which is reported nowhere else. Cancelling the future
        cancels the call. The call has the context variables of the thread, and with them, in a thread of
        `run_in_thread`, the deadline of the request being handled.

        Calls of one thread begin in the order in which it makes them. Raises `SystemClosed`. Never wait for the result
        on the loop's own thread.
        """
        entering = enter(function, args, kwargs)
        try:
            return asyncio.run_coroutine_threadsafe(entering, self._living("from_thread").engine.loop)
        except BaseException:
            entering.close()
            raise

    async def failed(self) -> Exception | None:
        """Wait until a failure ends the system, and return it; None once the system has been left without one.

        For a task beside the system's block, which itself is cancelled. Raises `SystemClosed` if the system has not
        been entered.
        """
        if self._ended is None:
            raise SystemClosed(self.name, "failed")
        await self._ended.wait()
        return self._first_failure

    def _living(self, action: str) -> Root:
        root = self._root
        if root is None or not root.is_alive:
            raise SystemClosed(self.name, action)
        return root

    def _fail(self, error: Exception) -> None:
        annotate(error, f"not handled by any supervisor of system {self.name!r}")
        if self._first_failure is not None or self._ended is None:
            return
        self._failure = self._first_failure = error
        if self._engine is not None:
            self._engine.failing(error)
        self._ended.set()
        if self._on_failure is not None:
            try:
                self._on_failure(error)
            except Exception as broken:  # noqa: BLE001 - reported; the system is failing for another reason already.
                asyncio.get_running_loop().call_exception_handler(
                    {"message": f"on_failure of system {self.name!r} raised", "exception": printable(broken)}
                )
        if self._host is not None:
            self._cancelled_host = self._host.cancel()

    def __repr__(self) -> str:
        if self._root is None:
            return f"<ActorSystem {self.name!r} not entered>"
        actors = sum(1 for _ in self._root.snapshot().walk()) - 1
        return f"<ActorSystem {self._root.describe()}, {actors} actors>"


async def enter(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call `function`, and await its result if that is a coroutine."""
    outcome = function(*args, **kwargs)
    return await outcome if iscoroutine(outcome) else outcome
