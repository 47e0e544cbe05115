"""What one event of a stream adds to its answer, and how its fields are read. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, cast

import msgspec

from actors.model_calls.answer import MalformedAnswer, fields_of, text_in
from actors.model_calls.deltas import Delta  # noqa: TC001 - a NamedTuple.
from actors.model_calls.growing import GrowingText

if TYPE_CHECKING:
    from actors.model_calls.sse import ServerSentEvent

MAX_CHOICES = 128
"""Choices and blocks of one answer; an index beyond is malformed."""


class StreamPart(NamedTuple):
    """What one event adds: its data, the deltas in it, and the error that it reports, if it reports one.

    `written` is the bytes that it adds to the answer, those of further choices too, and `kept` those that an assembler
    keeps besides.
    """

    data: dict[str, Any]
    deltas: tuple[Delta, ...] = ()
    error: dict[str, Any] | None = None
    written: int = 0
    kept: int = 0


NOTHING_NEW = StreamPart({})


def data_of(event: ServerSentEvent) -> dict[str, Any]:
    """Return the JSON object of an event. Raises `MalformedAnswer` if it is none."""
    try:
        return fields_of(_only(msgspec.json.decode(event.data)), "an event")
    except (msgspec.DecodeError, RecursionError) as error:
        raise MalformedAnswer(f"an event is no JSON: {error}") from error


def _only(data: object) -> object:
    """Return the only element of a list, as Google sends an error; anything else as it is."""
    several = cast("list[object]", data) if isinstance(data, list) else []
    return several[0] if len(several) == 1 else cast("object", data)


def index_in(fields: dict[str, Any], *names: str, default: int = 0) -> int:
    """Return the first of the named fields as the index of a choice or block. Raises `MalformedAnswer`."""
    for name in names:
        index = default if fields.get(name) is None else fields[name]
        if type(index) is not int or not 0 <= index < MAX_CHOICES:
            raise MalformedAnswer(f"{name} must be a whole number below {MAX_CHOICES}, got {index!r:.100}")
        return index
    return default


def grow(fields: dict[str, Any], name: str, text: str) -> str:
    """Add a text to one that grows, and return what was added."""
    grown = fields.get(name)
    if not isinstance(grown, GrowingText):
        grown = fields[name] = GrowingText(text_in(fields, name))
    if text:
        grown.add(text)
    return text
