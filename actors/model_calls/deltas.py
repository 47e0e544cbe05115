"""What a stream of a model gives piece by piece, whatever its protocol. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actors.model_calls.answer import ModelAnswer


class TextDelta(msgspec.Struct, frozen=True):
    """More of the text."""

    text: str


class ReasoningDelta(msgspec.Struct, frozen=True):
    """More of what the model thinks before it answers."""

    text: str


class RefusalDelta(msgspec.Struct, frozen=True):
    """More of the words in which the model refuses."""

    text: str


class ToolCallDelta(msgspec.Struct, frozen=True):
    """More of a call of a tool: the first one has its `id` and `name`; all texts of `arguments` together are the JSON.

    `index` tells the calls of one answer apart.
    """

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


Delta: TypeAlias = TextDelta | ReasoningDelta | RefusalDelta | ToolCallDelta


def deltas_of(answer: ModelAnswer) -> Iterator[Delta]:
    """Yield what a whole answer says; a refusal is for its end to tell."""
    if answer.reasoning:
        yield ReasoningDelta(answer.reasoning)
    if answer.text:
        yield TextDelta(answer.text)
    for index, call in enumerate(answer.tool_calls):
        yield ToolCallDelta(index, call.id, call.name, call.arguments)


def size_of(delta: Delta) -> int:
    """Return the bytes of what a delta adds to the answer.

    >>> size_of(TextDelta("Grüße")), size_of(ToolCallDelta(0, "t-1", "add", "{"))
    (7, 4)
    """
    text = delta.name + delta.arguments if isinstance(delta, ToolCallDelta) else delta.text
    return len(text) if text.isascii() else len(text.encode(errors="replace"))
