"""The errors of a handler or hook that went wrong, as asker, supervisor and author of the actor see them."""

from __future__ import annotations

import asyncio
from inspect import iscoroutine
from typing import Any

from runtime.error_text import described
from runtime.errors import ActorCrashed
from runtime.messages import name_of


def as_failure(error: BaseException) -> Exception:
    """Return what a supervisor is told of an exception; one that concerns more than the actor is described."""
    if isinstance(error, Exception):
        return error
    if isinstance(error, asyncio.CancelledError):
        return RuntimeError("a handler let the CancelledError of something it awaited escape")
    return RuntimeError(f"interrupted by {type(error).__name__}")


def crashed(path: str, message: Any, error: BaseException | None) -> ActorCrashed:
    """Make the error for the asker of a handler that raised, or (`error` None) was cancelled."""
    reason = described(error) if error is not None else "its handler was cancelled"
    failure = ActorCrashed(path, name_of(message), reason=reason)
    failure.__cause__ = error
    return failure


def wrong_answer(path: str, message: Any, answer: Any) -> TypeError:
    """Make the error for a handler that returned what it cannot."""
    if iscoroutine(answer):
        answer.close()
    return TypeError(
        f"the handler of {name_of(message)} in {path} returned something that cannot be an answer: a handler of a "
        "Message returns None, one that awaits is declared `async def`, one that answers later returns a Future"
    )


def waits_for_itself(circle: list[str], message: Any) -> RuntimeError:
    """Make the error for a request that would wait for its own asker; `circle` has the asked actor's path first."""
    if len(circle) == 1:
        return RuntimeError(
            f"{circle[0]} asks itself {name_of(message)} and would wait forever; "
            "call the method, `tell` it, or declare the handler concurrent"
        )
    path = " -> ".join((circle[-1], *circle))
    return RuntimeError(
        f"{circle[-1]} asks {circle[0]} {name_of(message)} and would wait forever, for each waits for the next: "
        f"{path}; `tell` instead of one of the asks, or declare a handler on the way concurrent"
    )
