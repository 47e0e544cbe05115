"""Writes chat completions: the body, or the chunks of a stream, in each dialect. Pure.

Sources: the OpenAI API reference for the form; the vendors' own references for what differs in usage and messages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actors.fake.answers import Answer, joined
from actors.fake.sse import DONE, data_event

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actors.fake.made import Events, Made

FINISH = {
    "stop": "stop",
    "stop_sequence": "stop",
    "refusal": "stop",
    "length": "length",
    "tools": "tool_calls",
    "content_filter": "content_filter",
}


def chat_body(made: Made) -> dict[str, Any]:
    """Return the body of a chat completion."""
    body = _head(made, "chat.completion")
    body["choices"] = [
        {
            "index": number,
            "message": _message(made, answer),
            "logprobs": _logprobs(answer.text) if made.asked.logprobs else None,
            "finish_reason": FINISH[answer.finish],
        }
        for number, answer in enumerate(made.answers)
    ]
    if made.tells_usage:
        body["usage"] = chat_usage(made)
    if made.dialect_name == "groq":
        body["x_groq"] = {"id": f"req_{made.id[:26]}"}
    return body


def _head(made: Made, kind: str) -> dict[str, Any]:
    head: dict[str, Any] = {
        "id": chat_id(made),
        "object": kind,
        "created": made.created,
        "model": made.model.name,
    }
    if made.dialect_name in {"openai", "azure", "groq", "deepseek", "xai"}:
        head["system_fingerprint"] = f"fp_{made.id[-10:]}"
    if made.dialect_name == "openai":
        head["service_tier"] = "default"
    if made.dialect_name == "openrouter":
        head["provider"] = "Fake"
    return head


def chat_id(made: Made) -> str:
    """Return the id of a completion as the dialect spells it."""
    return f"{made.dialect.id_prefix}{made.id}"


def _message(made: Made, answer: Answer) -> dict[str, Any]:
    refused = joined(answer.refusal) or None
    text = joined(answer.text)
    content = None if answer.tools or (answer.refusal and made.dialect.refusal_field) else text
    message: dict[str, Any] = {"role": "assistant", "content": content}
    if made.dialect.refusal_field:
        message["refusal"] = refused
    elif refused:
        message["content"] = refused
    if made.dialect_name in {"openai", "azure"}:
        message["annotations"] = []
    if answer.reasoning and made.dialect.reasoning_field:
        message[made.dialect.reasoning_field] = joined(answer.reasoning)
    if answer.tools:
        message["tool_calls"] = [
            {"id": one.id, "type": "custom", "custom": {"name": one.name, "input": one.arguments}}
            if one.custom
            else {"id": one.id, "type": "function", "function": {"name": one.name, "arguments": one.arguments}}
            for one in answer.tools
        ]
    return message


def _logprobs(pieces: Sequence[str]) -> dict[str, Any]:
    return {
        "content": [
            {"token": one, "logprob": -0.125, "bytes": list(one.encode()), "top_logprobs": []} for one in pieces
        ],
        "refusal": None,
    }


def chat_usage(made: Made) -> dict[str, Any]:
    """Return the usage as the dialect tells it.

    OpenAI and most others count cached tokens within the prompt, and reasoning within the completion. xAI and Gemini
    tell reasoning beside the completion, within the total alone.
    """
    usage = made.told_usage
    beside = made.dialect_name in {"xai", "gemini"}
    told: dict[str, Any] = {
        "prompt_tokens": usage.all_input,
        "completion_tokens": usage.output - usage.reasoning if beside else usage.output,
        "total_tokens": usage.all_input + usage.output,
    }
    cached = {"cached_tokens": usage.cache_read}
    reasoning = {"reasoning_tokens": usage.reasoning}
    match made.dialect_name:
        case "openai" | "azure" | "openrouter":
            told["prompt_tokens_details"] = cached | {"audio_tokens": 0}
            told["completion_tokens_details"] = reasoning | {
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            }
            if made.dialect_name == "openrouter":
                told["cost"] = float(made.cost)
                told["is_byok"] = False
        case "deepseek":
            told["prompt_tokens_details"] = cached
            told["completion_tokens_details"] = reasoning
            told["prompt_cache_hit_tokens"] = usage.cache_read
            told["prompt_cache_miss_tokens"] = usage.all_input - usage.cache_read
        case "xai":
            told["prompt_tokens_details"] = cached | {
                "text_tokens": usage.all_input,
                "audio_tokens": 0,
                "image_tokens": 0,
            }
            told["completion_tokens_details"] = reasoning | {
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            }
            told["num_sources_used"] = 0
        case "groq":
            told |= {"queue_time": 0.0, "prompt_time": 0.0, "completion_time": 0.0, "total_time": 0.0}
            told |= {"prompt_tokens_details": cached} if usage.cache_read else {}
            told |= {"completion_tokens_details": reasoning} if usage.reasoning else {}
        case _:
            pass
    return told


class _ChatStream:
    """The chunks of one stream."""

    def __init__(self, made: Made) -> None:
        self._made = made
        self._head = _head(made, "chat.completion.chunk")
        self._usage_null = made.asked.include_usage and made.dialect_name in {"openai", "azure"}
        self.tokens = 0

    def chunk(
        self, number: int, delta: dict[str, Any], finish: str | None = None, pieces: Sequence[str] = ()
    ) -> tuple[int, bytes]:
        """Return one chunk, after `pieces` more tokens."""
        self.tokens += len(pieces)
        logprobs = _logprobs(pieces) if pieces and self._made.asked.logprobs and "content" in delta else None
        chunk = self._head | {
            "choices": [{"index": number, "delta": delta, "logprobs": logprobs, "finish_reason": finish}]
        }
        if self._usage_null:
            chunk["usage"] = None
        if finish is not None and self._made.dialect.usage_always and self._made.tells_usage:
            chunk["usage"] = chat_usage(self._made)
        return self.tokens, data_event(chunk)

    def usage(self) -> tuple[int, bytes]:
        """Return the last chunk, which has usage and no choices."""
        return self.tokens, data_event(self._head | {"choices": [], "usage": chat_usage(self._made)})


def chat_events(made: Made) -> Events:
    """Yield the chunks of a stream and its `[DONE]`."""
    chunks = _ChatStream(made)
    for number, answer in enumerate(made.answers):
        yield from _choice_events(chunks, made, number, answer)
    asked_for = made.asked.include_usage and not made.dialect.usage_always
    if made.tells_usage and (asked_for or made.dialect_name == "openrouter"):
        yield chunks.usage()
    yield chunks.tokens, DONE


def _choice_events(chunks: _ChatStream, made: Made, number: int, answer: Answer) -> Events:
    first: dict[str, Any] = {"role": "assistant", "content": None if answer.tools else ""}
    if made.dialect.refusal_field:
        first["refusal"] = None
    yield chunks.chunk(number, first)
    field = made.dialect.reasoning_field
    if field is None:
        chunks.tokens += len(answer.reasoning)
    else:
        for pieces in groups(answer.reasoning, made.model.chunk_tokens):
            yield chunks.chunk(number, {field: joined(pieces)}, pieces=pieces)
    for pieces in groups(answer.text, made.model.chunk_tokens):
        yield chunks.chunk(number, {"content": joined(pieces)}, pieces=pieces)
    refusal = "refusal" if made.dialect.refusal_field else "content"
    for pieces in groups(answer.refusal, made.model.chunk_tokens):
        yield chunks.chunk(number, {refusal: joined(pieces)}, pieces=pieces)
    for index, call in enumerate(answer.tools):
        kind, field = ("custom", "input") if call.custom else ("function", "arguments")
        begun: dict[str, Any] = {"index": index, "id": call.id, "type": kind, kind: {"name": call.name, field: ""}}
        yield chunks.chunk(number, {"tool_calls": [begun]}, pieces=[""])
        for pieces in groups(call.pieces, made.model.chunk_tokens):
            more: dict[str, Any] = {"index": index, kind: {field: joined(pieces)}}
            yield chunks.chunk(number, {"tool_calls": [more]}, pieces=pieces)
    yield chunks.chunk(number, {}, FINISH[answer.finish])


def groups(pieces: Sequence[str], size: int) -> Sequence[Sequence[str]]:
    """Cut pieces into groups of `size`, of which each is one event.

    >>> list(groups(["a", "b", "c"], 2))
    [['a', 'b'], ['c']]
    """
    return [pieces[start : start + size] for start in range(0, len(pieces), size)]
