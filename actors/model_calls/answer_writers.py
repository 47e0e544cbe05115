"""Writes the answer of a model as the body of each protocol, whichever it was read from. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actors.model_calls.answer import MalformedAnswer
from actors.model_calls.conversation import tool_input
from actors.tariffs.usage import read_usage

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.model_calls.answer import ModelAnswer
    from actors.model_calls.field_table import Remarks
    from actors.model_calls.request import Form
    from actors.tariffs.usage import Usage

DIALECTS: dict[Form, str] = {"chat": "chat", "responses": "responses", "messages": "anthropic"}
"""The dialect in which each protocol tells usage."""
STOP_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
    "refusal": "refusal",
}
FINISH_REASONS = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
    "refusal": "stop",  # The refusal stands in the message.
}
INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


def write_answer(form: Form, answer: ModelAnswer, usage: Usage | None, remarks: Remarks) -> dict[str, Any]:
    """Return the body that says the same in another form. Raises `MalformedAnswer` if that form cannot say it."""
    return WRITERS[form](answer, usage, remarks)


def usage_of(form: Form, answer: ModelAnswer) -> Usage | None:
    """Return the usage that an answer of a form tells; None if it tells none."""
    return read_usage(answer.usage, DIALECTS[form])


def reason_of(reason: str, words: dict[str, str], remarks: Remarks) -> str:
    """Return the word of a protocol for the reason of the end."""
    if reason not in words:
        remarks.approximated("finish_reason", f"{words['stop']!r} for {reason!r:.100}")
    return words.get(reason, words["stop"])


def chat_usage(usage: Usage | None) -> dict[str, Any] | None:
    """Return usage as chat completions tell it: cached tokens are part of the prompt, reasoning of the completion."""
    if usage is None:
        return None
    details = {"cached_tokens": usage.cache_read, "cache_write_tokens": usage.cache_write + usage.cache_write_1h}
    return {
        "prompt_tokens": usage.all_input,
        "completion_tokens": usage.all_output,
        "total_tokens": usage.all_input + usage.all_output,
        "prompt_tokens_details": details,
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    }


def responses_usage(usage: Usage | None) -> dict[str, Any] | None:
    """Return usage as Responses tells it: cached tokens are part of the input, reasoning of the output."""
    if usage is None:
        return None
    details = {"cached_tokens": usage.cache_read, "cache_write_tokens": usage.cache_write + usage.cache_write_1h}
    return {
        "input_tokens": usage.all_input,
        "input_tokens_details": details,
        "output_tokens": usage.all_output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.all_input + usage.all_output,
    }


def messages_usage(usage: Usage | None) -> dict[str, Any]:
    """Return usage as Messages tells it: cached tokens stand beside the input. The form must have it."""
    if usage is None:
        return {"input_tokens": 0, "output_tokens": 0}
    written = usage.cache_write + usage.cache_write_1h
    told: dict[str, Any] = {
        "input_tokens": usage.input,
        "output_tokens": usage.all_output,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": usage.cache_read,
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.cache_write,
            "ephemeral_1h_input_tokens": usage.cache_write_1h,
        },
    }
    return {**told, "output_tokens_details": {"thinking_tokens": usage.reasoning}} if usage.reasoning else told


def _write_chat(answer: ModelAnswer, usage: Usage | None, remarks: Remarks) -> dict[str, Any]:
    message: dict[str, Any] = {
        "role": "assistant",
        "content": None if answer.refusal else answer.text or None,
        "refusal": answer.refusal or None,
    }
    if answer.reasoning:
        message["reasoning_content"] = answer.reasoning
    if answer.tool_calls:
        message["tool_calls"] = [
            {"id": one.id, "type": "function", "function": {"name": one.name, "arguments": one.arguments}}
            for one in answer.tool_calls
        ]
    reason = reason_of(answer.finish_reason, FINISH_REASONS, remarks)
    body = {
        "id": answer.id,
        "object": "chat.completion",
        "created": 0,
        "model": answer.model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": reason}],
    }
    return body if usage is None else {**body, "usage": chat_usage(usage)}


def _write_responses(answer: ModelAnswer, usage: Usage | None, remarks: Remarks) -> dict[str, Any]:
    leave_out_reasoning(answer, remarks)
    if answer.finish_reason not in FINISH_REASONS:
        reason_of(answer.finish_reason, FINISH_REASONS, remarks)
    why = INCOMPLETE.get(answer.finish_reason)
    status = "completed" if why is None else "incomplete"
    return {
        "id": answer.id,
        "object": "response",
        "created_at": 0,
        "model": answer.model,
        "status": status,
        "error": None,
        "incomplete_details": None if why is None else {"reason": why},
        "instructions": None,
        "metadata": {},
        "output": output_items(answer, status),
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": responses_usage(usage),
    }


def output_items(answer: ModelAnswer, status: str) -> list[dict[str, Any]]:
    """Return the output of a response."""
    items: list[dict[str, Any]] = []
    part: dict[str, Any] | None = None
    if answer.refusal:
        part = {"type": "refusal", "refusal": answer.refusal}
    elif answer.text or not answer.tool_calls:
        part = {"type": "output_text", "text": answer.text, "annotations": []}
    if part is not None:
        message = {"id": f"msg_{answer.id}", "type": "message", "role": "assistant", "status": status}
        items.append({**message, "content": [part]})
    for number, call in enumerate(answer.tool_calls):
        items.append(
            {
                "id": f"fc_{answer.id}_{number}",
                "type": "function_call",
                "call_id": call.id,
                "name": call.name,
                "arguments": call.arguments,
                "status": status,
            }
        )
    return items


def _write_messages(answer: ModelAnswer, usage: Usage | None, remarks: Remarks) -> dict[str, Any]:
    leave_out_reasoning(answer, remarks)
    said = answer.refusal or answer.text
    blocks: list[dict[str, Any]] = [{"type": "text", "text": said, "citations": None}] if said else []
    blocks += [
        {
            "type": "tool_use",
            "id": call.id,
            "name": call.name,
            "input": tool_input(call.name, call.arguments or "{}", MalformedAnswer),
        }
        for call in answer.tool_calls
    ]
    if usage is None:
        remarks.approximated("usage", "0, as the provider told none and the form must have it")
    reason = "refusal" if answer.refusal else reason_of(answer.finish_reason, STOP_REASONS, remarks)
    return {
        "id": answer.id,
        "type": "message",
        "role": "assistant",
        "model": answer.model,
        "content": blocks,
        "stop_reason": reason,
        "stop_sequence": None,
        "usage": messages_usage(usage),
    }


def leave_out_reasoning(answer: ModelAnswer, remarks: Remarks) -> None:
    """Tell that reasoning was left out: unsigned, it would be refused when the conversation comes back with it."""
    if answer.reasoning:
        remarks.approximated("reasoning of the answer", "left out, as it is not signed for this form")


WRITERS: dict[Form, Callable[[ModelAnswer, Usage | None, Remarks], dict[str, Any]]] = {
    "chat": _write_chat,
    "responses": _write_responses,
    "messages": _write_messages,
}
