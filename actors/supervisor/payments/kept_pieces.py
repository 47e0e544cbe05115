"""The pieces of a stream as its receipt keeps them, and as they are given again. Pure."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

import msgspec

from actors.model_calls.answer import MalformedAnswer, fields_of, read_answer, text_in
from actors.model_calls.deltas import Delta, ReasoningDelta, RefusalDelta, TextDelta, ToolCallDelta
from actors.model_calls.request import model_request
from actors.model_calls.stream_writers import stream_writer_of
from actors.transports.model_stream import StreamPiece
from actors.transports.streaming import WholeAnswer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from actors.model_calls.request import Form


class ModelPieces(msgspec.Struct, frozen=True):
    """What the pieces of a model's stream said: its deltas, each with those of its kind behind it."""

    identity: str
    model: str
    deltas: tuple[Delta, ...]


def kept_pieces(pieces: Sequence[Any]) -> Any:
    """Return what is kept of the pieces of an answer; None if it did not come piece by piece.

    The events of a model are many times as large as what they say, and can be written again.
    """
    if not pieces or isinstance(pieces[-1], WholeAnswer):
        return None
    if not all(isinstance(one, StreamPiece) for one in pieces):
        return tuple(pieces)
    of_model = cast("Sequence[StreamPiece]", pieces)
    identity, model = _named_in(of_model[0].data)
    return ModelPieces(identity, model, tuple(merged(delta for one in of_model for delta in one.deltas)))


def given_pieces(kept: Any, output: Any, *, asked: Any, is_whole: bool = True) -> tuple[Any, ...]:
    """Return the pieces in which an answer is given again, of the kinds that it came in; `asked` is the input.

    An answer of a model that did not come piece by piece is given in pieces all the same. What has none is one
    `WholeAnswer`, or nothing if it is not whole.
    """
    if isinstance(kept, tuple):
        return cast("tuple[Any, ...]", kept)
    with suppress(MalformedAnswer, TypeError, ValueError):
        return tuple(_of_model(model_request(asked).form, kept, output, is_whole=is_whole))
    return (WholeAnswer(output),) if is_whole else ()


def merged(deltas: Iterable[Delta]) -> Iterator[Delta]:
    """Yield deltas of which no two in a row say more of the same.

    >>> list(merged([TextDelta("a"), TextDelta("b"), ReasoningDelta("c"), TextDelta("d")]))
    [TextDelta(text='ab'), ReasoningDelta(text='c'), TextDelta(text='d')]
    >>> list(merged([ToolCallDelta(0, "t", "add", "{"), ToolCallDelta(0, arguments="}"), ToolCallDelta(1, "u", "sub")]))
    [ToolCallDelta(index=0, id='t', name='add', arguments='{}'), ToolCallDelta(index=1, id='u', name='sub', \
arguments='')]
    """
    first: Delta | None = None
    said: list[str] = []
    for delta in deltas:
        if first is not None and not _goes_on(first, delta):
            yield _with_words(first, "".join(said))
            first = None
        if first is None:
            first, said = delta, []
        said.append(delta.arguments if isinstance(delta, ToolCallDelta) else delta.text)
    if first is not None:
        yield _with_words(first, "".join(said))


def text_of(pieces: Iterable[Any]) -> str:
    """Return the text in pieces: what a model said in them, or the pieces that are text."""
    said: list[str] = []
    for piece in pieces:
        if isinstance(piece, str):
            said.append(piece)
        elif isinstance(piece, StreamPiece):
            said += (delta.text for delta in piece.deltas if isinstance(delta, TextDelta))
    return "".join(said)


def _goes_on(first: Delta, delta: Delta) -> bool:
    if isinstance(first, ToolCallDelta):
        return isinstance(delta, ToolCallDelta) and delta.index == first.index and not delta.id
    return type(delta) is type(first)


def _with_words(delta: Delta, words: str) -> Delta:
    if isinstance(delta, ToolCallDelta):
        return ToolCallDelta(delta.index, delta.id, delta.name, words)
    return type(delta)(words)


def _named_in(data: dict[str, Any]) -> tuple[str, str]:
    """Return the identity and the model that the first event of a stream names."""
    inner = data.get("message") or data.get("response")
    fields = cast("dict[str, Any]", inner) if isinstance(inner, dict) else data
    return text_in(fields, "id"), text_in(fields, "model")


def _of_model(form: Form, kept: Any, output: Any, *, is_whole: bool) -> Iterator[StreamPiece]:
    """Yield the events of a form that say an answer. Raises `MalformedAnswer` if it cannot be said in them."""
    if not isinstance(kept, ModelPieces):
        body = fields_of(output, "the answer")
        kept = ModelPieces(text_in(body, "id"), text_in(body, "model"), tuple(_deltas_of(form, body)))
    writer = stream_writer_of(form)
    yield from map(StreamPiece, writer.begin(kept.identity, kept.model))
    for delta in kept.deltas:
        *before, last = writer.write(delta)
        yield from map(StreamPiece, before)
        yield StreamPiece(last, (delta,))
    if is_whole:
        yield from map(StreamPiece, writer.end(output))


def _deltas_of(form: Form, body: dict[str, Any]) -> Iterator[Delta]:
    answer = read_answer(form, body)
    if answer.reasoning:
        yield ReasoningDelta(answer.reasoning)
    if answer.text:
        yield TextDelta(answer.text)
    if answer.refusal:
        yield RefusalDelta(answer.refusal)
    for index, call in enumerate(answer.tool_calls):
        yield ToolCallDelta(index, call.id, call.name, call.arguments)
