"""Writes Anthropic's messages: the body, or the events of a stream. Pure.

Source: Anthropic's API reference of messages and of streaming, platform.claude.com/docs/en/api.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import msgspec

from actors.fake.answers import joined
from actors.fake.chat_answers import groups
from actors.fake.refusals import error_body
from actors.fake.sse import named_event

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from actors.fake.answers import Answer, ToolCallMade
    from actors.fake.made import Events, Made

STOP = {
    "stop": "end_turn",
    "stop_sequence": "stop_sequence",
    "refusal": "refusal",
    "length": "max_tokens",
    "tools": "tool_use",
    "content_filter": "refusal",
}


def message_id(made: Made) -> str:
    """Return the id of a message."""
    return f"msg_{made.id[:24]}"


def message_body(made: Made) -> dict[str, Any]:
    """Return a message."""
    (answer,) = made.answers
    return _message(made, [block for block, _ in _blocks(made, answer)], answer=answer)


def _message(made: Made, content: list[dict[str, Any]], *, answer: Answer | None) -> dict[str, Any]:
    """Return a message; without an answer it is the one that begins a stream."""
    body: dict[str, Any] = {
        "id": message_id(made),
        "type": "message",
        "role": "assistant",
        "model": made.model.name,
        "content": content,
        "stop_reason": None if answer is None else STOP[answer.finish],
        "stop_sequence": None if answer is None else answer.stop_sequence,
    }
    if made.tells_usage:
        body["usage"] = _usage(made, output=min(1, made.told_usage.output) if answer is None else None)
    return body


def _usage(made: Made, *, output: int | None = None) -> dict[str, Any]:
    """Return the usage: input tokens are those that no cache served or stored, which are told beside them."""
    usage = made.told_usage
    told: dict[str, Any] = {
        "input_tokens": usage.input,
        "cache_creation_input_tokens": usage.cache_write + usage.cache_write_1h,
        "cache_read_input_tokens": usage.cache_read,
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.cache_write,
            "ephemeral_1h_input_tokens": usage.cache_write_1h,
        },
        "output_tokens": usage.output if output is None else output,
        "service_tier": "standard",
    }
    if usage.reasoning and output is None:
        told["output_tokens_details"] = {"thinking_tokens": usage.reasoning}
    return told


def _blocks(made: Made, answer: Answer) -> Iterator[tuple[dict[str, Any], Sequence[str]]]:
    """Yield each block of content with its pieces."""
    if answer.reasoning:
        signature = made.id * 4
        yield {"type": "thinking", "thinking": joined(answer.reasoning), "signature": signature}, answer.reasoning
    if text := answer.text or answer.refusal:
        yield {"type": "text", "text": joined(text)}, text
    for call in answer.tools:
        yield _tool_use(call), call.pieces


def _tool_use(call: ToolCallMade) -> dict[str, Any]:
    try:
        arguments: Any = msgspec.json.decode(call.arguments)
    except msgspec.DecodeError:
        arguments = {}  # They were cut off by the limit of tokens.
    given = cast("dict[str, Any]", arguments) if isinstance(arguments, dict) else {}
    identity = call.id.replace("call_", "toolu_")
    return {"type": "tool_use", "id": identity, "name": call.name, "input": given}


def message_events(made: Made) -> Events:
    """Yield the events of a stream."""
    (answer,) = made.answers
    tokens = 0
    yield tokens, named_event({"type": "message_start", "message": _message(made, [], answer=None)})
    for index, (block, pieces) in enumerate(_blocks(made, answer)):
        yield tokens, named_event({"type": "content_block_start", "index": index, "content_block": _empty(block)})
        if index == 0:
            yield tokens, named_event({"type": "ping"})
        if block["type"] == "tool_use":
            tokens += 1
            yield tokens, _delta(index, {"type": "input_json_delta", "partial_json": ""})
        for some in groups(pieces, made.model.chunk_tokens):
            tokens += len(some)
            yield tokens, _delta(index, _piece(block["type"], joined(some)))
        if block["type"] == "thinking":
            yield tokens, _delta(index, {"type": "signature_delta", "signature": block["signature"]})
        yield tokens, named_event({"type": "content_block_stop", "index": index})
    delta = {"stop_reason": STOP[answer.finish], "stop_sequence": answer.stop_sequence}
    ending: dict[str, Any] = {"type": "message_delta", "delta": delta}
    if made.tells_usage:
        usage = _usage(made)
        ending["usage"] = {
            name: usage[name]
            for name in (
                "input_tokens",
                "cache_creation_input_tokens",
                "cache_read_input_tokens",
                "output_tokens",
                "output_tokens_details",
            )
            if name in usage
        }
    yield tokens, named_event(ending)
    yield tokens, named_event({"type": "message_stop"})


def _empty(block: dict[str, Any]) -> dict[str, Any]:
    match block["type"]:
        case "thinking":
            return block | {"thinking": "", "signature": ""}
        case "text":
            return block | {"text": ""}
        case _:
            return block | {"input": {}}


def _delta(index: int, delta: dict[str, Any]) -> bytes:
    return named_event({"type": "content_block_delta", "index": index, "delta": delta})


def _piece(kind: str, text: str) -> dict[str, Any]:
    match kind:
        case "thinking":
            return {"type": "thinking_delta", "thinking": text}
        case "text":
            return {"type": "text_delta", "text": text}
        case _:
            return {"type": "input_json_delta", "partial_json": text}


def message_error_event(made: Made, _: int) -> bytes:
    """Return how a stream of a message ends by an error."""
    return named_event(error_body(made.dialect, 529))
