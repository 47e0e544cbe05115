"""Writes OpenAI's responses: the body at any stage, or the events of a stream. Pure.

Source: the OpenAI API reference of responses and of their events, platform.openai.com/docs/api-reference/responses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from actors.fake.answers import joined
from actors.fake.chat_answers import groups
from actors.fake.sse import named_event

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from actors.fake.answers import Answer
    from actors.fake.made import Events, Made

Stage: TypeAlias = Literal["queued", "in_progress", "cancelled", "failed", "ended"]
ECHOED: dict[str, Any] = {
    "background": False,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "safety_identifier": None,
    "service_tier": "default",
    "temperature": 1.0,
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}
"""What a response repeats of its request, with the values of a request that does not say."""


def response_id(made: Made) -> str:
    """Return the id of a response."""
    return f"resp_{made.id}"


def response_body(made: Made) -> dict[str, Any]:
    """Return a response that has ended."""
    return response_at(made, "ended")


def response_at(made: Made, stage: Stage) -> dict[str, Any]:
    """Return a response at a stage; its output and usage are there once it has ended."""
    (answer,) = made.answers
    asked = made.asked.body
    cut = answer.finish in {"length", "content_filter"}
    status = ("incomplete" if cut else "completed") if stage == "ended" else stage
    body: dict[str, Any] = {
        "id": response_id(made),
        "object": "response",
        "created_at": float(made.created),
        "status": status,
        "error": {"code": "server_error", "message": "The server had an error."} if stage == "failed" else None,
        "incomplete_details": None,
        "model": made.model.name,
        "output": [item for item, _ in _items(made, answer)] if stage == "ended" else [],
        "reasoning": {"effort": _within(asked, "reasoning", "effort"), "summary": None},
        "text": {"format": _within(asked, "text", "format") or {"type": "text"}, "verbosity": "medium"},
        "usage": None,
    }
    body |= {name: asked.get(name) if asked.get(name) is not None else usual for name, usual in ECHOED.items()}
    body["service_tier"] = "default"
    body["tools"] = [_told_tool(tool) for tool in body["tools"]]
    if stage == "ended":
        if cut:
            reason = "max_output_tokens" if answer.finish == "length" else "content_filter"
            body["incomplete_details"] = {"reason": reason}
        if made.tells_usage:
            body["usage"] = _usage(made)
    return body


def _within(asked: dict[str, Any], name: str, inner: str) -> Any:
    outer: Any = asked.get(name)
    return None if outer is None else outer.get(inner)


def _told_tool(tool: dict[str, Any]) -> dict[str, Any]:
    usual: dict[str, Any] = {"strict": True, "parameters": {}}
    return usual | tool if tool.get("type") == "function" else tool


def _usage(made: Made) -> dict[str, Any]:
    usage = made.told_usage
    return {
        "input_tokens": usage.all_input,
        "input_tokens_details": {"cached_tokens": usage.cache_read, "cache_write_tokens": 0},
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.all_input + usage.output,
    }


def _items(made: Made, answer: Answer) -> Iterator[tuple[dict[str, Any], Sequence[str]]]:
    """Yield each item of the output with its pieces."""
    status = "incomplete" if answer.finish in {"length", "content_filter"} else "completed"
    if answer.reasoning:
        yield {"id": f"rs_{made.id}", "type": "reasoning", "summary": []}, answer.reasoning
    if answer.text or answer.refusal or not answer.tools:
        part: dict[str, Any] = (
            {"type": "refusal", "refusal": joined(answer.refusal)}
            if answer.refusal
            else {"type": "output_text", "text": joined(answer.text), "annotations": [], "logprobs": []}
        )
        message = {"id": f"msg_{made.id}", "type": "message", "status": status, "role": "assistant", "content": [part]}
        yield message, answer.refusal or answer.text
    for number, call in enumerate(answer.tools):
        item: dict[str, Any] = {
            "id": f"fc_{made.id[:-2]}{number:02d}",
            "type": "function_call",
            "status": status,
            "call_id": call.id,
            "name": call.name,
            "arguments": call.arguments,
        }
        yield item, call.pieces


class _ResponseStream:
    """The events of one stream, numbered."""

    def __init__(self, made: Made) -> None:
        self._made = made
        self._number = 0
        self.tokens = 0

    def event(self, kind: str, pieces: int = 0, **fields: Any) -> tuple[int, bytes]:
        """Return one event, after so many more tokens."""
        self.tokens += pieces
        data = {"type": kind, "sequence_number": self._number} | fields
        self._number += 1
        return self.tokens, named_event(data)

    def item(self, index: int, item: dict[str, Any], pieces: Sequence[str]) -> Events:
        """Yield the events of one item of the output."""
        empty = item | ({"status": "in_progress"} if "status" in item else {})
        match item["type"]:
            case "message":
                yield self.event("response.output_item.added", output_index=index, item=empty | {"content": []})
                yield from self._part(index, item, pieces)
            case "function_call":
                yield self.event("response.output_item.added", 1, output_index=index, item=empty | {"arguments": ""})
                at = {"item_id": item["id"], "output_index": index}
                for some in groups(pieces, self._made.model.chunk_tokens):
                    kind = "response.function_call_arguments.delta"
                    yield self.event(kind, len(some), **at, delta=joined(some))
                yield self.event(
                    "response.function_call_arguments.done", **at, name=item["name"], arguments=item["arguments"]
                )
            case _:
                yield self.event("response.output_item.added", output_index=index, item=item)
                self.tokens += len(pieces)
        yield self.event("response.output_item.done", output_index=index, item=item)

    def _part(self, index: int, item: dict[str, Any], pieces: Sequence[str]) -> Events:
        (part,) = item["content"]
        word = "refusal" if part["type"] == "refusal" else "text"
        kind = "response.refusal" if word == "refusal" else "response.output_text"
        logprobs: dict[str, Any] = {} if word == "refusal" else {"logprobs": []}
        at = {"item_id": item["id"], "output_index": index, "content_index": 0}
        yield self.event("response.content_part.added", **at, part=part | {word: ""})
        for some in groups(pieces, self._made.model.chunk_tokens):
            yield self.event(f"{kind}.delta", len(some), **at, delta=joined(some), **logprobs)
        yield self.event(f"{kind}.done", **at, **{word: part[word]}, **logprobs)
        yield self.event("response.content_part.done", **at, part=part)


def response_events(made: Made) -> Events:
    """Yield the events of a stream, of which the last has the whole response. There is no `[DONE]`."""
    (answer,) = made.answers
    stream = _ResponseStream(made)
    begun = response_at(made, "in_progress")
    yield stream.event("response.created", response=begun)
    yield stream.event("response.in_progress", response=begun)
    for index, (item, pieces) in enumerate(_items(made, answer)):
        yield from stream.item(index, item, pieces)
    whole = response_at(made, "ended")
    yield stream.event(f"response.{whole['status']}", response=whole)


def response_error_event(_: Made, number: int) -> bytes:
    """Return how a stream of a response ends by an error, as its `number`-th event."""
    message = "The server had an error while processing your request."
    return named_event(
        {"type": "error", "sequence_number": number, "code": "server_error", "message": message, "param": None}
    )
