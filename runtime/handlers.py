"""The handlers of an actor: declared by @handles, and checked when the class is made."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, TypeVar, overload

import msgspec

from runtime.messages import Message, Request

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    from runtime.messages import Asks


R = TypeVar("R")


S = TypeVar("S")


Q = TypeVar("Q")


Told = TypeVar("Told", bound=Message)


class Handler(msgspec.Struct, frozen=True):
    """One method of an actor, and the type of message it takes."""

    message: type[Message]
    function: Callable[[Any, Any], Any]
    is_async: bool
    concurrent: int
    inline: bool = False


class Handlers(dict[type, "Handler | None"]):
    """The handlers of a class by message type; a subclass of a handled message finds its parent's handler."""

    def __missing__(self, message_type: type) -> Handler | None:
        found = next((self[parent] for parent in message_type.__mro__[1:] if self.get(parent)), None)
        self[message_type] = found
        return found


@overload
def handles(
    message: type[Asks[Q, R]], /, *, concurrent: int = 1, inline: bool = False
) -> Callable[
    [Callable[[S, Q], R] | Callable[[S, Q], Awaitable[R]] | Callable[[S, Q], R | asyncio.Future[R]]],
    Callable[[S, Q], Any],
]: ...


@overload
def handles(
    message: type[Told], /, *, concurrent: int = 1
) -> Callable[[Callable[[S, Told], None] | Callable[[S, Told], Awaitable[None]]], Callable[[S, Told], Any]]: ...


def handles(message: type[Any], /, *, concurrent: int = 1, inline: bool = False) -> Any:
    """Declare a method, sync or async, as the handler of one type of message and its subclasses.

    The handler of a `Request[R]` returns its answer, an `R`; or an `asyncio.Future` of one, to answer later: the
    actor goes on meanwhile, and the future is cancelled when the asker gives up. An async handler holds the actor
    until it returns, unless `concurrent` lets that many of its messages be handled at the same time, each in a
    task of its own. With `inline`, an async handler runs in the task of its asker instead if it may begin at once,
    which saves a task and two turns of the event loop. Such a handler must end soon after it is cancelled: its asker
    waits for that, beyond its deadline if need be. Raises `TypeError` for what cannot be a handler.
    """
    if not (isinstance(message, type) and issubclass(message, Message)):
        raise TypeError(f"handles() takes a subclass of Message or Request, got {message!r}")
    if concurrent < 1:
        raise TypeError(f"handles({message.__name__}): concurrent must be >= 1, got {concurrent}")
    if inline and Request not in message.__mro__:
        raise TypeError(
            f"handles({message.__name__}): only the handler of a Request can be inline, since it runs in the task of "
            "its asker; leave `inline` out"
        )

    def declare(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        is_async = inspect.iscoroutinefunction(function)
        if concurrent > 1 and not is_async:
            raise TypeError(f"{function.__qualname__}: only an `async def` handler can be concurrent")
        if inline and not is_async:
            raise TypeError(f"{function.__qualname__}: only an `async def` handler can be inline")
        check_annotation(function, message)
        declared: list[Handler] = getattr(function, "declared_handlers", [])
        declared.append(Handler(message, function, is_async, concurrent, inline))
        function.declared_handlers = declared  # type: ignore[attr-defined]  # pyright: ignore[reportFunctionMemberAccess]
        return function

    return declare


def check_annotation(function: Callable[..., Any], message: type[Message]) -> None:
    """Raise `TypeError` if a handler does not take (self, message), or is annotated with another message."""
    parameters = list(inspect.signature(function).parameters.values())
    if len(parameters) != 2 or any(one.kind is not one.POSITIONAL_OR_KEYWORD for one in parameters):
        raise TypeError(f"{function.__qualname__} must take (self, message: {message.__name__}) and nothing else")
    annotation: Any = parameters[1].annotation
    if isinstance(annotation, str) and annotation != message.__name__:
        # A class made in a function cannot be looked up; its name can still be compared.
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


def collect_handlers(cls: type) -> Handlers:
    """Collect the handlers of a class and its parents; raise `TypeError` if two take the same message."""
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
    """Return the functions that the run queue may call directly: they need no task of their own, and give no answer.

    A request has an answer, even one that is told instead of asked.
    """
    return {
        one.message: one.function
        for one in handlers.values()
        if one and one.concurrent == 1 and not issubclass(one.message, Request)
    }
