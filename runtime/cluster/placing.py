"""What starts an actor on another node: a factory that it can import, with arguments that have travelled."""

from __future__ import annotations

import importlib
import inspect
from typing import TYPE_CHECKING, Any, cast, get_type_hints

import msgspec

from runtime.actor import Actor
from runtime.cluster.errors import NotSendable
from runtime.ref import ActorRef

if TYPE_CHECKING:
    from collections.abc import Callable


def factory_name(factory: Any) -> str:
    """Return the name under which another node can import a factory. Raises `NotSendable`.

    >>> factory_name(Actor)
    'runtime.actor:Actor'
    >>> factory_name(lambda: None)
    Traceback (most recent call last):
    runtime.cluster.errors.NotSendable: a lambda cannot be placed on another node, which has to import it; define ...
    """
    module, name = getattr(factory, "__module__", None), getattr(factory, "__qualname__", "")
    if not callable(factory) or not module or "<" in name:
        what = "a lambda" if "<lambda>" in name else f"{factory!r:.100}"
        raise NotSendable(
            f"{what} cannot be placed on another node, which has to import it; define a class or a function at the "
            "top of a module"
        )
    if module == "__main__":
        raise NotSendable(
            f"{name} is defined in the program itself, which another node cannot import; move it to a module"
        )
    return f"{module}:{name}"


def factory_named(name: str) -> Callable[..., Any]:
    """Import a factory: a subclass of `Actor`, or a function. Raises `NotSendable`."""
    module, _, path = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise NotSendable(f"the factory {name} cannot be imported here: {error}") from error
    if not (inspect.isfunction(found) or (isinstance(found, type) and issubclass(found, Actor))):
        raise NotSendable(f"{name} makes no actor: it is neither a subclass of Actor nor a function")
    return cast("Callable[..., Any]", found)


def made_of(factory: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]) -> Any:
    """Call a factory with arguments that have travelled, each as the type that it declares."""
    try:
        hints = get_type_hints(factory.__init__ if isinstance(factory, type) else factory)
    except (NameError, TypeError):
        hints = {}
    parameters = list(inspect.signature(factory).parameters)
    positional = [_converted(value, hints.get(name)) for name, value in zip(parameters, args, strict=False)]
    positional += args[len(parameters) :]
    return factory(*positional, **{name: _converted(value, hints.get(name)) for name, value in kwargs.items()})


def _converted(value: Any, of: Any) -> Any:
    return value if of is None or isinstance(value, ActorRef) else msgspec.convert(value, of)  # pyright: ignore[reportUnknownVariableType]
