"""What a client gets of an answer: under the name that it asked for, with headers that say what it took. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import msgspec

from actors.model_calls.answer import read_answer, text_in
from actors.model_calls.deltas import deltas_of
from actors.model_calls.stream_writers import stream_writer_of
from actors.money import usd

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actors.errors.families import BadAnswer
    from actors.model_calls.request import Form
    from actors.money import Micros
    from actors.supervisor.messages import SmartResult

_encode = msgspec.json.Encoder().encode
DONE = b"data: [DONE]\n\n"
COMMENT = b": waiting\n\n"


def result_headers(result: SmartResult) -> dict[str, str]:
    """Return the headers that say what an answer took; the cost is in dollars."""
    headers = {
        "x-understudy-provider": _header(result.provider),
        "x-understudy-cost": usd(result.cost),
        "x-understudy-attempts": str(result.attempts),
    }
    model = text_in(cast("dict[str, Any]", result.output), "model") if isinstance(result.output, dict) else ""
    if model:
        headers["x-understudy-model"] = _header(model)
    if result.saved:
        headers["x-understudy-saved"] = usd(result.saved)
    if result.replayed:
        headers["x-understudy-replayed"] = "true"
    if result.translated:
        headers["x-understudy-translated"] = _header("; ".join(result.translated))
    return headers


def bad_answer_headers(error: BadAnswer) -> dict[str, str]:
    """Return the headers of an answer of no use, which is given as it came."""
    return {
        "x-understudy-provider": _header(error.provider or ""),
        "x-understudy-cost": usd(error.spent),
        "x-understudy-attempts": str(error.calls),
    }


def _header(text: str) -> str:
    return text.encode("ascii", "replace").decode().replace("\r", " ").replace("\n", " ")[:500]


def named_answer(output: Any, name: str) -> bytes:
    """Return the body of an answer, under the name that was asked for."""
    return _encode({**output, "model": name} if isinstance(output, dict) else output)


def named_event(event: dict[str, Any], name: str) -> dict[str, Any]:
    """Return an event of a stream under the name that was asked for.

    >>> named_event({"object": "chat.completion.chunk", "model": "gpt-5-mini-2026"}, "auto")["model"]
    'auto'
    """
    if "model" in event:
        return {**event, "model": name}
    for field in ("response", "message"):
        inner = event.get(field)
        if isinstance(inner, dict) and "model" in inner:
            return {**event, field: {**cast("dict[str, Any]", inner), "model": name}}
    return event


def without_usage(event: dict[str, Any]) -> dict[str, Any] | None:
    """Return a chunk of a chat as a client gets it that asked for no usage; None if it has nothing else."""
    if "usage" not in event:
        return event
    if not event.get("choices"):
        return None
    return {field: value for field, value in event.items() if field != "usage"}


def is_usage(event: dict[str, Any]) -> bool:
    """Return whether a chunk of a chat is the one that tells the usage."""
    return bool(event.get("usage")) and not event.get("choices")


def with_spent(event: dict[str, Any], result: SmartResult) -> dict[str, Any]:
    """Return the chunk of the usage with what the answer took; the cost is in dollars."""
    spent: dict[str, Any] = {"provider": result.provider, "cost": usd(result.cost), "attempts": result.attempts}
    if result.saved:
        spent["saved"] = usd(result.saved)
    return {**event, "understudy": spent}


def spent_comment(result: SmartResult) -> bytes:
    """Return the last comment of a stream, which says what it took."""
    cost, replayed = usd(result.cost), " replayed" if result.replayed else ""
    saved = f" saved={usd(result.saved)}" if result.saved else ""
    said = (
        f": understudy provider={_header(result.provider)} cost={cost} attempts={result.attempts}{saved}{replayed}\n\n"
    )
    return said.encode()


def lost_comment(cost: Micros, attempts: int | None) -> bytes:
    """Return the last comment of a stream that came to nothing, or to nothing of use; empty if that is not known."""
    return b"" if attempts is None else f": understudy cost={usd(cost)} attempts={attempts}\n\n".encode()


def written(form: Form, event: dict[str, Any]) -> bytes:
    r"""Return an event as a stream of its protocol frames it.

    >>> written("messages", {"type": "ping"})
    b'event: ping\ndata: {"type":"ping"}\n\n'
    """
    if form == "chat":
        return b"data: %b\n\n" % _encode(event)
    return b"event: %b\ndata: %b\n\n" % (str(event.get("type", "message")).encode(), _encode(event))


def events_of(form: Form, output: Any) -> Iterator[dict[str, Any]]:
    """Yield a whole answer as the events of a stream."""
    answer, writer = read_answer(form, output), stream_writer_of(form)
    yield from writer.begin(answer.id, answer.model)
    for delta in deltas_of(answer):
        yield from writer.write(delta)
    yield from writer.end(output)
