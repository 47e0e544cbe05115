"""The base class of actors, and the context through which an actor uses the runtime."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, get_args, get_origin

from typing_extensions import TypeVar as TypeVarWithDefault

from runtime.handlers import Handlers, collect_handlers, direct_of
from runtime.mailbox import DEFAULT_MAILBOX, Mailbox
from runtime.messages import Message, Request
from runtime.supervision import Restart, Supervision
from runtime.supervision.strategy import DEFAULT_SUPERVISION

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable, Mapping

    from runtime.event_stream import EventStream
    from runtime.log import Logger
    from runtime.propagation import Carried
    from runtime.ref import ActorRef
    from runtime.registry import ActorRegistry
    from runtime.timers import Timers


M = TypeVarWithDefault("M", default=Any)


class Actor(Generic[M]):
    """The base class of every actor: state of its own, touched by one message at a time.

    Parametrise it with the messages it takes (`class Account(Actor[Deposit | Balance])`) and a type checker
    refuses any other. A plain `Actor` takes any message. A message without a handler becomes a dead letter.
    """

    bound_to: Context | None = None
    """The context, which the runtime sets when it spawns the actor; read it as `context`."""

    supervision: ClassVar[Supervision] = DEFAULT_SUPERVISION
    """How the children of this actor are supervised."""
    handlers: ClassVar[Handlers] = Handlers()
    """The handlers by message type, collected from the class and its base classes."""
    direct: ClassVar[dict[type, Callable[[Any, Any], Any]]] = {}
    """The handlers that need no task of their own."""
    is_async: ClassVar[bool] = False
    """True if one of `direct` is async, so that the actor handles its mail in a task."""
    kind: ClassVar[str] = "actor"
    """The name, followed by a number, of an actor that is spawned without one."""
    take_along: Callable[[], Carried] | None = None
    """What the requests that its async handlers take bring along of their askers' context: called where one is asked,
    it returns context variables of the actor's own with their values. None for what the system propagates alone."""
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
            raise TypeError(
                f"{cls.__qualname__} declares {', '.join(missing)} but has no handler for it; add one by @handles"
            )

    @property
    def context(self) -> Context:
        """The actor's view of the runtime; valid from `started` on, not in `__init__`."""
        if self.bound_to is None:
            raise RuntimeError(
                f"{type(self).__name__}.context exists once the actor is spawned; "
                "move the code that needs it from __init__ to started()"
            )
        return self.bound_to

    def started(self) -> Any:
        """Prepare, before the first message; override it, sync or async. An exception here is a crash."""

    def stopped(self) -> Any:
        """Clean up, after the last message of this instance; override it, sync or async.

        It runs once for each instance that was started, also after a crash, shielded for `stop_timeout` seconds.
        """

    def unclaimed(self, request: Request[Any], answer: Any) -> None:
        """Take back an answer that came too late: its asker was cancelled, or its deadline had passed.

        Override it in an actor whose answers are worth something, such as a permit or a reservation.
        """

    def broken_invariants(self) -> Iterable[str]:
        """Return a line for each invariant that is broken once nothing is under way, such as a permit not given back.

        Never called in production. A simulation calls it on every instance after a run, and fails if there are any.
        """
        return ()


def protocol_of(cls: type) -> list[type]:
    """Return the messages a class declares by `Actor[A | B]`; empty if it declares none."""
    for base in getattr(cls, "__orig_bases__", ()):
        origin = get_origin(base)
        if isinstance(origin, type) and issubclass(origin, Actor):
            # The first parameter is the messages; a generic actor class may have more parameters.
            declared = get_args(base)[0]
            members = get_args(declared) or (declared,)
            return [one for one in members if isinstance(one, type) and issubclass(one, Message)]
    return []


class Spawner(Protocol):
    """Something that spawns actors: a system, or the context of an actor, which then supervises them."""

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
        """The ref of this actor."""
        ...

    @property
    def parent(self) -> ActorRef[Any] | None:
        """The ref of the actor that spawned this one; None if the system did."""
        ...

    @property
    def children(self) -> Mapping[str, ActorRef[Any]]:
        """The living children by name, in start order."""
        ...

    @property
    def timers(self) -> Timers:
        """Timers that send this actor messages, once or repeatedly; cancelled when it restarts or ends."""
        ...

    @property
    def deadline(self) -> float | None:
        """The deadline of the request being handled, in loop time; None if there is none."""
        ...

    @property
    def random(self) -> random.Random:
        """The system's random numbers, seeded so that a simulated run can be replayed."""
        ...

    @property
    def events(self) -> EventStream:
        """The system's event stream."""
        ...

    @property
    def kept(self) -> dict[str, Any]:
        """Values that this actor keeps over its restarts, by names of its own, private to it; dropped when it ends.

        Everything else of an instance that crashed is dropped, because it may be what the crash came from. Put here
        what must not be lost. That of a `DurableActor` outlives the program.
        """
        ...

    @property
    def registry(self) -> ActorRegistry:
        """The actors of this system that are registered under a key."""
        ...

    @property
    def log(self) -> Logger:
        """A logger whose lines carry the actor's path."""
        ...

    @property
    def logs(self) -> bool:
        """Whether this system wants log lines (`ActorSystem(log=)`)."""
        ...

    def now(self) -> float:
        """Return the event loop's time in seconds, the only clock that the runtime uses."""
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
        """Send `Terminated` to this actor, exactly once, when `ref` ends, or now if it has ended."""
        ...

    def unwatch(self, ref: ActorRef[Any]) -> None:
        """Undo `watch`; a `Terminated` that is already in the mailbox stays."""
        ...

    def stash(self, message: Any) -> Any:
        """Set the message being handled aside until `unstash_all`. `return` its result from the handler.

        Stashed messages survive a restart, and expire like other mail. Raises `MailboxFull` if as many are stashed as
        the mailbox holds, RuntimeError in a concurrent handler, and `ActorStopped` once the actor has ended.
        """
        ...

    def unstash_all(self) -> None:
        """Put the stashed messages back in front of the mail, in their order."""
        ...

    def stop(self) -> None:
        """End this actor after the current message."""
        ...
