"""What a user writes: a class whose handlers each take one type of message, checked when the class is made."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, get_args, get_origin

from typing_extensions import TypeVar as TypeVarWithDefault

from runtime.handlers import Handlers, collect_handlers, direct_of
from runtime.mailbox import DEFAULT_MAILBOX, Mailbox
from runtime.messages import Message, Request
from runtime.supervision import DEFAULT_SUPERVISION, Restart, Supervision

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable, Mapping

    from runtime.event_stream import EventStream
    from runtime.log import Logger
    from runtime.ref import ActorRef
    from runtime.registry import ActorRegistry
    from runtime.timers import Timers


M = TypeVarWithDefault("M", default=Any)


class Actor(Generic[M]):
    """The parent of every actor: state of its own, touched by one message at a time.

    Parametrise it with the messages it takes (`class Account(Actor[Deposit | Balance])`) and a type checker
    refuses any other; a plain `Actor` takes any message, and one without a handler becomes a dead letter.
    """

    bound_to: Context | None = None
    """The context, as the runtime sets it when it spawns the actor; read it as `context`."""

    supervision: ClassVar[Supervision] = DEFAULT_SUPERVISION
    """How the children of this actor are supervised."""
    handlers: ClassVar[Handlers] = Handlers()
    """The handlers by message type, collected from the class and its parents."""
    direct: ClassVar[dict[type, Callable[[Any, Any], Any]]] = {}
    """Those of them that need no task of their own."""
    is_async: ClassVar[bool] = False
    """True where one of `direct` is async, so that the actor handles its mail in a task."""
    kind: ClassVar[str] = "actor"
    """What an actor without a name of its own is called, with a number."""
    has_start_hook: ClassVar[bool] = False
    starts_async: ClassVar[bool] = False
    stops_async: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.handlers = collect_handlers(cls)
        cls.direct = direct_of(cls.handlers)
        cls.is_async = any(one.is_async and one.concurrent == 1 for one in cls.handlers.values() if one)
        cls.kind = cls.__name__.lower()
        cls.has_start_hook = cls.started is not Actor.started
        cls.starts_async = inspect.iscoroutinefunction(cls.started)
        cls.stops_async = inspect.iscoroutinefunction(cls.stopped)
        missing = [one.__name__ for one in protocol_of(cls) if cls.handlers[one] is None]
        if missing:
            raise TypeError(f"{cls.__qualname__} declares {', '.join(missing)} but has no handler for it")

    @property
    def context(self) -> Context:
        """The actor's view of the runtime; valid from `started` on, not in `__init__`."""
        if self.bound_to is None:
            raise RuntimeError(
                f"{type(self).__name__}.context exists once the actor is spawned; "
                "move what needs it from __init__ to started()"
            )
        return self.bound_to

    def started(self) -> Any:
        """Prepare, before the first message; override it, sync or async. An exception here is a crash."""

    def stopped(self) -> Any:
        """Clean up, after the last message of this instance; override it, sync or async.

        It runs once for each instance that was started, also after a crash, shielded for `stop_timeout` seconds.
        """

    def unclaimed(self, request: Request[Any], answer: Any) -> None:
        """Take back an answer that was given too late: the asker had been cancelled, or its time was up.

        Override it in an actor whose answers are worth something: a permit, a reservation.
        """

    def broken_invariants(self) -> Iterable[str]:
        """Name what does not hold, although it must once nothing is under way: a permit that did not come back.

        Never called in production. A simulation calls it on every instance, after a run, and fails where it finds any.
        """
        return ()


def protocol_of(cls: type) -> list[type]:
    """Return the messages a class declares by `Actor[A | B]`; empty where it declares none."""
    for base in getattr(cls, "__orig_bases__", ()):
        origin = get_origin(base)
        if isinstance(origin, type) and issubclass(origin, Actor):
            # Only the first parameter is the messages; an actor of its own may have more.
            declared = get_args(base)[0]
            members = get_args(declared) or (declared,)
            return [one for one in members if isinstance(one, type) and issubclass(one, Message)]
    return []


class Spawner(Protocol):
    """Whatever starts actors: a system, or the context of an actor, which then supervises them."""

    def spawn(
        self,
        factory: Callable[[], Actor[M]],
        *,
        name: str | None = None,
        mailbox: Mailbox = DEFAULT_MAILBOX,
        restart: Restart = Restart.TRANSIENT,
    ) -> ActorRef[M]:
        """Start an actor; see `ActorSystem.spawn`."""
        ...


class Context(Protocol):
    """An actor's view of the runtime, as `self.context`; valid from `started` on, not in `__init__`."""

    @property
    def ref(self) -> ActorRef[Any]:
        """The actor's own address."""
        ...

    @property
    def parent(self) -> ActorRef[Any] | None:
        """The address of the actor that spawned this one; None for one spawned by the system."""
        ...

    @property
    def children(self) -> Mapping[str, ActorRef[Any]]:
        """The living children by name, in start order."""
        ...

    @property
    def timers(self) -> Timers:
        """Messages to oneself, later or again and again; gone when the actor restarts or ends."""
        ...

    @property
    def deadline(self) -> float | None:
        """The deadline of the request being handled, in loop time; None where there is none."""
        ...

    @property
    def random(self) -> random.Random:
        """The system's randomness: seeded, so that a simulated run can be replayed."""
        ...

    @property
    def events(self) -> EventStream:
        """The system's event stream."""
        ...

    @property
    def kept(self) -> dict[str, Any]:
        """What this actor keeps over its restarts, by names of its own, and nobody else sees; gone when it ends.

        Everything else of an instance that crashed is given up, as what it crashed with. Keep what must not be lost.
        """
        ...

    @property
    def registry(self) -> ActorRegistry:
        """Who renders which service in this system: actors by key."""
        ...

    @property
    def log(self) -> Logger:
        """A logger whose lines carry the actor's path."""
        ...

    def now(self) -> float:
        """Return the event loop's time in seconds; the only clock the runtime knows."""
        ...

    def spawn(
        self,
        factory: Callable[[], Actor[M]],
        *,
        name: str | None = None,
        mailbox: Mailbox = DEFAULT_MAILBOX,
        restart: Restart = Restart.TRANSIENT,
        stop_timeout: float = 5.0,
    ) -> ActorRef[M]:
        """Start a child, supervised by this actor; see `ActorSystem.spawn`."""
        ...

    def watch(self, ref: ActorRef[Any]) -> None:
        """Have `Terminated` told to this actor, exactly once, when `ref` ends, or now where it has ended."""
        ...

    def unwatch(self, ref: ActorRef[Any]) -> None:
        """Undo `watch`; a `Terminated` that is already in the mailbox stays."""
        ...

    def stash(self, message: Any) -> Any:
        """Put the message being handled aside until `unstash_all`; `return` what this returns, also for a request.

        What is stashed survives a restart, and expires like other mail. Raises `MailboxFull` where as much is stashed
        as the mailbox holds, `RuntimeError` in a concurrent handler, and `ActorStopped` once the actor has ended.
        """
        ...

    def unstash_all(self) -> None:
        """Put what was stashed back in front of the mail, in its order."""
        ...

    def stop(self) -> None:
        """End this actor after the current message."""
        ...
