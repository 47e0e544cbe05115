"""A log line as JSON, or as a record of the standard library's `logging`. Pure functions of what a line has."""

from __future__ import annotations

import json
import logging
from typing import Any, NamedTuple

import msgspec

from runtime.log_text import short_traceback

FIRST_KEYS = ("time", "level", "logger", "actor", "message")
RESERVED = frozenset({*FIRST_KEYS, "exception"})


class LineParts(NamedTuple):
    """What a log line has: `time` is in seconds since 1970, `fields` are the actor's path and what else it tells."""

    time: float
    level: str
    level_number: int
    logger: str
    message: str
    fields: dict[str, Any]
    error: BaseException | None
    place: tuple[str, int, str]
    """The file, the line and the function that wrote it."""


def json_line(parts: LineParts, *, shown_time: str) -> str:
    r"""Return a line as one JSON object; whatever its texts are, it is one line of printable characters without `<`.

    `time`, `level`, `logger`, `actor` and `message` come first, then the other fields, each under its name, and an
    `exception` with its `type` and `traceback`. A field of one of these names is called `field_...`.

    >>> parts = LineParts(0.0, "INFO", 20, "shop.Till", "<b>paid</b>\n", {"actor": "s/till"}, None, ("", 0, ""))
    >>> print(json_line(parts, shown_time="1970-01-01T00:00:00Z"))
    {"time":"1970-01-01T00:00:00Z","level":"INFO","logger":"shop.Till","actor":"s/till","message":"\u003cb>paid\u003c/b>\n"}
    """
    fields = dict(parts.fields)
    first = (shown_time, parts.level, parts.logger, fields.pop("actor", None), parts.message)
    line: dict[str, Any] = dict(zip(FIRST_KEYS, first, strict=True))
    line |= {f"field_{name}" if name in RESERVED else name: value for name, value in fields.items()}
    if parts.error is not None:
        line["exception"] = {"type": type(parts.error).__name__, "traceback": short_traceback(parts.error)}
    try:
        text = msgspec.json.encode(line, enc_hook=str).decode()
    except (TypeError, ValueError, UnicodeError, RecursionError):
        # A key that is no text, a lone surrogate, or what cannot say what it is.
        text = json.dumps({name: _plain(value) for name, value in line.items()})
    text = text.replace("<", "\\u003c")
    return text if text.isprintable() else "".join(map(_escaped, text))


def logging_record(parts: LineParts) -> logging.LogRecord:
    """Return a line as a record of `logging`: `actor` is an attribute of it, and `fields` has all fields."""
    file, line, function = parts.place
    record = logging.LogRecord(parts.logger, parts.level_number, file, line, parts.message, None, None, function)
    record.created, record.msecs = parts.time, parts.time % 1 * 1000
    record.actor, record.fields = parts.fields.get("actor"), parts.fields
    if parts.error is not None:
        # As text, for a formatter would write another one with all frames.
        record.exc_text = short_traceback(parts.error)
    return record


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, int | float):
        return value
    try:
        return str(value)
    except Exception as error:  # noqa: BLE001 - whatever it raises, the rest of the line has to be written.
        return f"cannot be shown: {type(error).__name__}"


def _escaped(character: str) -> str:
    if character.isprintable():
        return character
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[place : place + 2].hex()}" for place in range(0, len(units), 2))
