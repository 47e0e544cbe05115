"""Log lines for the runtime's events and the actors' own, by loguru, which only this module imports.

Each line carries the path of its actor as a field and the actor's class as the name of its logger, and no text in it
acts on a terminal or passes for another line. The lines of a system go where the program's other lines of loguru go,
or as JSON to standard error, or to the standard library's `logging`.
"""

from __future__ import annotations

import logging
import os
import sys
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC
from functools import singledispatch
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

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
from runtime.log_format import LineParts, json_line, logging_record
from runtime.log_text import MAX_MESSAGE, harmless, short_traceback
from runtime.messages import name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from loguru import Logger, Record

    from runtime.ref import ActorRef

LogFormat: TypeAlias = Literal["json", "logging"]
"""Where the lines of a system go, if not where those of loguru go."""
YES = frozenset({"1", "true", "yes", "y", "ok", "on"})
"""What loguru takes for yes in its environment variables."""

of_system: ContextVar[Logger | None] = ContextVar("of_system", default=None)
"""The logger of the system in whose context the code runs, if the system has one of its own."""
is_silent: ContextVar[bool] = ContextVar("is_silent", default=False)
"""True within a simulation that writes no lines."""


def logger_for(path: str) -> Logger:
    """Return a logger whose lines carry `actor=path`; the name of the logger is the module that writes the line.

    Its tracebacks have no values of variables, whatever the sinks are, unless `LOGURU_DIAGNOSE=1` asks for them.
    """
    return (of_system.get() or logger).bind(actor=path).patch(_make_safe)


def logger_of(path: str, actor: object, own: Logger | None) -> Logger:
    """Return the logger of an actor of a system, whose logger is `own` if it has one of its own.

    It has the name of the actor's class, because loggers of `logging` are never freed.
    """
    kind = type(actor)
    name = f"{kind.__module__}.{kind.__qualname__}"

    def rename(record: Record) -> None:
        record["name"] = name
        _make_safe(record)

    return (own or logger).bind(actor=path).patch(rename)


def system_logger(log: bool | LogFormat) -> Logger | None:  # noqa: FBT001 - the value of an option.
    """Return the logger of a system whose lines go elsewhere than those of loguru; None for another system.

    Raises ValueError for an unknown format.
    """
    if isinstance(log, bool):
        return None
    if log not in {"json", "logging"}:
        raise ValueError(f"log must be True, False, 'json' or 'logging', got {log!r}")
    core: Any = loguru_module.Core()
    # As loguru's own module makes its logger, which has no public way to make another one.
    one = cast(
        "Logger",
        loguru_module.Logger(
            core=core,
            exception=None,
            depth=0,
            record=False,
            lazy=False,
            colors=False,
            raw=False,
            capture=True,
            patchers=[],
            extra=dict[str, Any](),
        ),
    )
    if is_silent.get():
        return one
    level: str | int = os.environ.get("LOGURU_LEVEL", "DEBUG")
    if log == "json":
        one.add(_write_json, level=level, format="", catch=True)
    else:
        one.add(_write_logging, level=0, format="", catch=True)
    return one


def _write_json(message: Any) -> None:
    record = message.record
    if sys.stderr is not None:
        sys.stderr.write(json_line(_parts_of(record), shown_time=record["time"].isoformat()) + "\n")


def _write_logging(message: Any) -> None:
    parts = _parts_of(message.record)
    log = logging.getLogger(parts.logger)
    if log.isEnabledFor(parts.level_number):
        log.handle(logging_record(parts))


def _parts_of(record: Record) -> LineParts:
    found = record["exception"]
    return LineParts(
        time=record["time"].timestamp(),
        level=record["level"].name,
        level_number=record["level"].no,
        logger=record["name"] or "understudy",
        message=record["message"],
        fields=record["extra"],
        error=None if found is None else found.value,
        place=(record["file"].path, record["line"], record["function"]),
    )


LOGGED = (DeadLetter, ActorFailed, ActorRestarted, CancellationIgnored)
"""The events that have a line. The others have no subscriber by default, and need not even be made."""


@singledispatch
def log_event(_event: Event) -> None:
    """Write the line of an event; those that do not concern an operator have none."""


@log_event.register
def _(event: DeadLetter) -> None:
    _log_of(event.recipient).bind(message=name_of(event.message)).warning(
        "dead letter: {} was not handled ({})", name_of(event.message), event.reason.value
    )


@log_event.register
def _(event: ActorFailed) -> None:
    handling = f"while handling {name_of(event.message)}" if event.message is not None else "in a hook"
    error = printable(event.error)
    # A tuple, because loguru asks an error for its truth value.
    log = _log_of(event.ref).opt(exception=(type(error), error, error.__traceback__))
    log.error("{} failed {}", event.ref.path, handling)


@log_event.register
def _(event: ActorRestarted) -> None:
    _log_of(event.ref).bind(attempt=event.attempt).warning("{} restarted, attempt {}", event.ref.path, event.attempt)


@log_event.register
def _(event: CancellationIgnored) -> None:
    _log_of(event.ref).warning("{} ignored the cancellation of {}", event.ref.path, name_of(event.message))


def _log_of(ref: ActorRef) -> Logger:
    home: Any = ref.recipient.home
    return logger_of(home.path, home.actor, home.engine.logger)


class Traceback(Exception):
    """A traceback as text, which loguru shows as it shows any exception: by its class and what it says."""

    __module__ = "builtins"  # Not shown then.


class PlainException(RecordException):
    """The exception of a log line, for sinks that read it; formatted, it is a text.

    The standard sink of loguru, and each one that is added without `diagnose=False`, writes the values of variables
    beside the lines of a traceback. It takes the frames by unpacking, and gets none.
    """

    def __iter__(self) -> Iterator[Any]:
        text = Traceback(short_traceback(cast("BaseException", self.value)))
        return iter((Traceback, text, None))


def _make_safe(record: Record) -> None:
    """Make the texts of a record harmless; called only if a sink wants the record."""
    record["message"] = harmless(record["message"])
    extra = record["extra"]
    for name, value in extra.items():
        if isinstance(value, str) and (len(value) > MAX_MESSAGE or not value.isprintable()):
            extra[name] = harmless(value)
    _without_values(record)


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

    token = is_silent.set(silent)
    if silent:
        core.handlers = {}
    module.aware_now = virtual_now
    module.start_time = virtual_now()
    try:
        yield
    finally:
        is_silent.reset(token)
        module.aware_now, module.start_time = clock, start
        if silent:
            core.handlers = handlers
