"""Context variables that travel from the asker of a request to its handler, such as the id of a trace."""

from __future__ import annotations

from contextvars import ContextVar, Token, copy_context
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine

Carried: TypeAlias = tuple[tuple[ContextVar[Any], Any], ...]
"""Variables with the values that they had at the asker."""

OWN = "understudy_"
"""How the names of the runtime's own variables begin; the deadline travels by itself."""
MISSING: Any = object()


class Propagation:
    """Which variables travel: those given, or with None all that the asker has set."""

    __slots__ = ("_variables",)

    def __init__(self, variables: Collection[ContextVar[Any]] | None) -> None:
        self._variables = None if variables is None else tuple(variables)

    def capture(self) -> Carried:
        """Return the values that the variables have here; one that is not set is left out."""
        if self._variables is None:
            return tuple((one, value) for one, value in copy_context().items() if not one.name.startswith(OWN))
        values = ((one, one.get(MISSING)) for one in self._variables)
        return tuple((one, value) for one, value in values if value is not MISSING)


def propagation_of(propagate: Collection[ContextVar[Any]] | bool) -> Propagation | None:  # noqa: FBT001 - True stands for all.
    """Return what `ActorSystem(propagate=)` asks for, None if that is nothing; raises TypeError for anything else."""
    if isinstance(propagate, bool):
        return Propagation(None) if propagate else None
    if not isinstance(propagate, list | tuple | set | frozenset) or not all(
        isinstance(one, ContextVar) for one in propagate
    ):
        raise TypeError(f"propagate must be True, or the context variables that travel, got {propagate!r:.100}")
    return Propagation(propagate) if propagate else None


def carried_to(addressee: Any) -> Carried:
    """Return what a request that is asked here brings along to an actor, the one behind the cell `addressee`."""
    propagation, take_along = addressee.engine.propagation, addressee.actor.take_along
    carried: Carried = () if propagation is None else propagation.capture()
    return carried if take_along is None else carried + take_along()


def set_all(carried: Carried) -> list[Token[Any]]:
    """Give the variables the values that they had at the asker; `reset_all` takes the tokens."""
    return [variable.set(value) for variable, value in carried]


def reset_all(tokens: list[Token[Any]]) -> None:
    """Give the variables back the values they had before."""
    for token in reversed(tokens):
        token.var.reset(token)


def call_with(carried: Carried, function: Callable[[Any, Any], Any], actor: Any, message: Any) -> Any:
    """Call a sync handler with what its request carries."""
    tokens = set_all(carried)
    try:
        return function(actor, message)
    finally:
        reset_all(tokens)


async def await_with(
    carried: Carried, function: Callable[[Any, Any], Coroutine[Any, Any, Any]], actor: Any, message: Any
) -> Any:
    """Await an async handler with what its request carries."""
    tokens = set_all(carried)
    try:
        return await function(actor, message)
    finally:
        reset_all(tokens)
