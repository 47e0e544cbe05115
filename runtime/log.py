"""Log lines for the runtime's events, by loguru, which only this module imports.

A traceback in them names places, and no values of variables, among which may be secrets and what people wrote.
"""

from __future__ import annotations

import os
import traceback
from contextlib import contextmanager
from datetime import UTC
from functools import singledispatch
from typing import TYPE_CHECKING, Any, cast

from loguru import _logger as loguru_module
from loguru import logger
from loguru._datetime import datetime
from loguru._recattrs import RecordException

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
    from collections.abc import Callable, Generator, Iterator

    from loguru import Logger, Record

YES = frozenset({"1", "true", "yes", "y", "ok", "on"})
"""What loguru takes for yes in its environment variables."""
MAX_TRACEBACK = 20_000
"""Characters of a traceback; of a longer one, the middle is left out."""


def logger_for(path: str) -> Logger:
    """Return the logger of one actor; each of its lines carries `actor=path`.

    Its tracebacks have no values of variables, whatever the sinks are, unless `LOGURU_DIAGNOSE=1` asks for them.
    """
    return bound(path)


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
    return logger.bind(actor=path, **fields).patch(_without_values)


class Traceback(Exception):
    """A traceback as text, which loguru shows as it shows any exception: by its class and what it says."""

    __module__ = "builtins"  # Not shown then.


class PlainException(RecordException):
    """The exception of a log line, for sinks that read it; formatted, it is a text.

    The standard sink of loguru, and each one that is added without `diagnose=False`, writes the values of variables
    beside the lines of a traceback. It takes the frames by unpacking, and gets none.
    """

    def __iter__(self) -> Iterator[Any]:
        text = Traceback(traceback_text(cast("BaseException", self.value)))
        return iter((Traceback, text, None))


def traceback_text(error: BaseException) -> str:
    """Return where an error was raised, with its causes: at most 20,000 characters, without control characters."""
    text = "".join(traceback.format_exception(error)).removeprefix("Traceback ").rstrip("\n")
    if len(text) > MAX_TRACEBACK:
        text = f"{text[: MAX_TRACEBACK // 2]}\n...\n{text[-MAX_TRACEBACK // 2 :]}"
    if text.replace("\n", "").isprintable():
        return text
    return "".join(one if one.isprintable() or one == "\n" else one.encode("unicode_escape").decode() for one in text)


def _without_values(record: Record) -> None:
    found = record["exception"]
    is_asked_for = os.environ.get("LOGURU_DIAGNOSE", "").strip().lower() in YES
    if found is not None and found.value is not None and not is_asked_for:
        record["exception"] = cast("Any", PlainException(found.type, found.value, found.traceback))


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
