"""Log lines for the runtime's events, by loguru, which only this module imports."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC
from functools import singledispatch
from typing import TYPE_CHECKING, Any

from loguru import _logger as loguru_module
from loguru import logger
from loguru._datetime import datetime

from runtime.error_text import printable
from runtime.events import (
    ActorFailed,
    ActorRestarted,
    CancellationIgnored,
    DeadLetter,
    Event,
)
from runtime.messages import name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from loguru import Logger


def logger_for(path: str) -> Logger:
    """Return the logger of one actor; each of its lines carries `actor=path`."""
    return logger.bind(actor=path)


LOGGED = (DeadLetter, ActorFailed, ActorRestarted, CancellationIgnored)
"""The events that have a line. The others have no subscriber by default, and need not even be made."""


@singledispatch
def log_event(_event: Event) -> None:
    """Write the line of an event; those that do not concern an operator have none."""


@log_event.register
def _(event: DeadLetter) -> None:
    bound(event.recipient.path, message=name_of(event.message)).warning(
        "dead letter: {} was not handled ({})", name_of(event.message), event.reason.value
    )


@log_event.register
def _(event: ActorFailed) -> None:
    handling = f"while handling {name_of(event.message)}" if event.message is not None else "in a hook"
    error = printable(event.error)
    # A tuple, because loguru asks an error for its truth value.
    log = bound(event.ref.path).opt(exception=(type(error), error, error.__traceback__))
    log.error("{} failed {}", event.ref.path, handling)


@log_event.register
def _(event: ActorRestarted) -> None:
    bound(event.ref.path, attempt=event.attempt).warning("{} restarted, attempt {}", event.ref.path, event.attempt)


@log_event.register
def _(event: CancellationIgnored) -> None:
    bound(event.ref.path).warning("{} ignored the cancellation of {}", event.ref.path, name_of(event.message))


def bound(path: str, **fields: Any) -> Logger:
    """Return a logger that carries the actor's path and these fields."""
    return logger.bind(actor=path, **fields)


@contextmanager
def log_lines(now: Callable[[], float], *, silent: bool) -> Generator[None]:
    """Give every line of loguru in the block the time `now()` (seconds since 1970); if `silent`, write none."""
    module: Any = loguru_module
    core: Any = getattr(logger, "_core")  # noqa: B009 - there is no public way to put handlers back as they were.
    handlers, clock, start = core.handlers, module.aware_now, module.start_time

    def virtual_now() -> datetime:
        return datetime.fromtimestamp(now(), tz=UTC)

    if silent:
        core.handlers = {}
    module.aware_now = virtual_now
    module.start_time = virtual_now()
    try:
        yield
    finally:
        module.aware_now, module.start_time = clock, start
        if silent:
            core.handlers = handlers
