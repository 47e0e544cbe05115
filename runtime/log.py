"""The runtime's log lines: the one place that imports loguru. Facts arrive as events and leave as lines."""

from __future__ import annotations

from functools import singledispatch
from typing import TYPE_CHECKING, Any

from loguru import logger

from runtime.events import (
    ActorFailed,
    ActorRestarted,
    CancellationIgnored,
    DeadLetter,
    Event,
)
from runtime.messages import name_of

if TYPE_CHECKING:
    from loguru import Logger


def logger_for(path: str) -> Logger:
    """Return the logger of one actor; each of its lines carries `actor=path`."""
    return logger.bind(actor=path)


LOGGED = (DeadLetter, ActorFailed, ActorRestarted, CancellationIgnored)
"""The events that have a line. Nobody wants the others by default, so nobody has to make them."""


@singledispatch
def log_event(_event: Event) -> None:
    """Write the line of an event that concerns an operator; other events have none."""


@log_event.register
def _(event: DeadLetter) -> None:
    bound(event.recipient.path, message=name_of(event.message)).warning(
        "dead letter: {} was not handled ({})", name_of(event.message), event.reason.value
    )


@log_event.register
def _(event: ActorFailed) -> None:
    handling = f"while handling {name_of(event.message)}" if event.message is not None else "in a hook"
    bound(event.ref.path).opt(exception=event.error).error("{} failed {}", event.ref.path, handling)


@log_event.register
def _(event: ActorRestarted) -> None:
    bound(event.ref.path, attempt=event.attempt).warning("{} restarted, attempt {}", event.ref.path, event.attempt)


@log_event.register
def _(event: CancellationIgnored) -> None:
    bound(event.ref.path).warning("{} ignored the cancellation of {}", event.ref.path, name_of(event.message))


def bound(path: str, **fields: Any) -> Logger:
    """Return a logger that carries the actor's path and these fields."""
    return logger.bind(actor=path, **fields)
