"""What a user writes: a class whose handlers each take one type of message, checked when the class is made."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, get_args, get_origin, overload

import msgspec
from typing_extensions import TypeVar as TypeVarWithDefault

from runtime.messages import Message, Request
from runtime.supervision import DEFAULT_SUPERVISION, Supervision

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Iterable

    from runtime.context import Context
    from runtime.messages import Asks

R = TypeVar("R")
S = TypeVar("S")
Q = TypeVar("Q")
M = TypeVarWithDefault("M", default=Any)
Told = TypeVar("Told", bound=Message)


class Handler(msgspec.Struct, frozen=True):
    """One method of an actor, and the type of message it takes."""

    message: type[Message]
    function: Callable[[Any, Any], Any]
    is_async: bool
    concurrent: int
    borrows: bool = False


class Handlers(dict[type, "Handler | None"]):
    """The handlers of a class by message type; a subclass of a handled message finds its parent's handler."""

    def __missing__(self, message_type: type) -> Handler | None:
        found = next((self[parent] for parent in message_type.__mro__[1:] if self.get(parent)), None)
        self[message_type] = found
        return found


@overload
def handles(
    message: type[Asks[Q, R]], /, *, concurrent: int = 1, borrows: bool = False
) -> Callable[
    [Callable[[S, Q], R] | Callable[[S, Q], Awaitable[R]] | Callable[[S, Q], R | asyncio.Future[R]]],
    Callable[[S, Q], Any],
]: ...
@overload
def handles(
    message: type[Told], /, *, concurrent: int = 1
) -> Callable[[Callable[[S, Told], None] | Callable[[S, Told], Awaitable[None]]], Callable[[S, Told], Any]]: ...
def handles(message: type[Any], /, *, concurrent: int = 1, borrows: bool = False) -> Any:
    """Declare a method, sync or async, as the handler of one type of message and its subclasses.

    The handler of a `Request[R]` returns its answer, an `R`; or an `asyncio.Future` of one, to answer later: the
    actor goes on meanwhile, and the future is cancelled when the asker gives up. An async handler holds the actor
    until it returns, unless `concurrent` lets that many of its messages be handled at the same time, each in a
    task of its own. With `borrows` it runs in the task of its asker instead where it may begin at once, which saves a
    task and two turns of the event loop. Such a handler must end soon after it is cancelled: its asker waits for that,
    beyond its deadline if need be. Raises `TypeError` for what cannot be a handler.
    """
    if not (isinstance(message, type) and issubclass(message, Message)):
        raise TypeError(f"handles() takes a subclass of Message or Request, got {message!r}")
    if concurrent < 1:
        raise TypeError(f"handles({message.__name__}): concurrent must be >= 1, got {concurrent}")
    if borrows and (concurrent == 1 or Request not in message.__mro__):
        raise TypeError(f"handles({message.__name__}): only a concurrent handler of a Request can borrow a task")

    def declare(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        is_async = inspect.iscoroutinefunction(function)
        if concurrent > 1 and not is_async:
            raise TypeError(f"{function.__qualname__}: only an `async def` handler can be concurrent")
        check_annotation(function, message)
        declared: list[Handler] = getattr(function, "declared_handlers", [])
        declared.append(Handler(message, function, is_async, concurrent, borrows))
        function.declared_handlers = declared  # type: ignore[attr-defined]  # pyright: ignore[reportFunctionMemberAccess]
        return function

    return declare


def check_annotation(function: Callable[..., Any], message: type[Message]) -> None:
    """Raise `TypeError` where a handler does not take (self, message), or is annotated with another message."""
    parameters = list(inspect.signature(function).parameters.values())
    if len(parameters) != 2 or any(one.kind is not one.POSITIONAL_OR_KEYWORD for one in parameters):
        raise TypeError(f"{function.__qualname__} must take (self, message: {message.__name__}) and nothing else")
    annotation: Any = parameters[1].annotation
    if isinstance(annotation, str) and annotation != message.__name__:
        # A class made in a function cannot be looked up here; its name can still be compared.
        annotation = getattr(inspect.getmodule(function), annotation, None) or annotation
        mismatch = isinstance(annotation, str) and annotation.isidentifier() and annotation != message.__name__
    else:
        mismatch = annotation is inspect.Parameter.empty
    if isinstance(annotation, type):
        mismatch = not issubclass(message, annotation)
    if mismatch:
        shown = "not at all" if annotation is inspect.Parameter.empty else f"as {annotation!r}"
        raise TypeError(
            f"{function.__qualname__} handles {message.__name__}, but its message is annotated {shown}; "
            f"write `message: {message.__name__}`"
        )


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


def collect_handlers(cls: type) -> Handlers:
    """Collect the handlers of a class and its parents; raise `TypeError` where two take the same message."""
    collected = Handlers()
    for parent in reversed(cls.__mro__):
        own: dict[type, Handler] = {}
        inherited = {handler.function.__name__: handler.message for handler in collected.values() if handler}
        for name, member in vars(parent).items():
            declared = getattr(member, "declared_handlers", ())
            if name in inherited and not declared:
                raise TypeError(
                    f"{parent.__qualname__}.{name} overrides a handler without declaring one; "
                    f"write `@handles({inherited[name].__name__})` above it too"
                )
            for handler in declared:
                if handler.message in own:
                    raise TypeError(
                        f"{parent.__qualname__} has two handlers for {handler.message.__name__}: "
                        f"{own[handler.message].function.__name__} and {handler.function.__name__}"
                    )
                own[handler.message] = handler
        collected.update(own)
    return collected


def direct_of(handlers: Handlers) -> dict[type, Callable[[Any, Any], Any]]:
    """Return the functions that take a message straight: no task of their own, and no answer to be seen to.

    A request, even one that is told instead of asked, has an answer.
    """
    return {
        one.message: one.function
        for one in handlers.values()
        if one and one.concurrent == 1 and not issubclass(one.message, Request)
    }


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
