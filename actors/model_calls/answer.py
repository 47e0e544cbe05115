"""What a model answered: text, tool calls, why it ended. Read from the body of each protocol. Pure.

Whatever a provider sends, reading it ends with an answer or with `MalformedAnswer`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from actors.model_calls.request import Form


class MalformedAnswer(ValueError):
    """A body that is no answer of its protocol."""


class ToolCall(msgspec.Struct, frozen=True):
    """A call of a tool that the model asks for. `arguments` is text: JSON, if the model kept to the form."""

    id: str
    name: str
    arguments: str


class ModelAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of a model, whatever its protocol.

    `finish_reason` is "stop", "length", "tool_calls", "content_filter" or "refusal", or else the provider's own word;
    "" if it states none. `usage` is what the provider says of tokens, as it came. `text` is that of the first choice.
    """

    text: str = ""
    reasoning: str = ""
    refusal: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: str = ""
    model: str = ""
    id: str = ""
    usage: dict[str, Any] = {}

    @property
    def is_empty(self) -> bool:
        """Whether the model said nothing at all."""
        return not (self.text.strip() or self.tool_calls or self.refusal)


FINISH_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "eos": "stop",
    "max_tokens": "length",
    "max_output_tokens": "length",
    "model_length": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "function_call": "tool_calls",
    "SAFETY": "content_filter",
    "safety": "content_filter",
}
"""The words of protocols for the same reason: Anthropic's, the Responses API's, and those that gateways pass on."""


def read_answer(form: Form, body: object) -> ModelAnswer:
    """Return the answer in the body of a protocol. Raises `MalformedAnswer` if it is none.

    >>> read_answer("chat", {"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}]}).text
    'Hi'
    """
    return READERS[form](fields_of(body, "the answer"))


def fields_of(value: object, what: str) -> dict[str, Any]:
    """Return `value`, which must be a JSON object."""
    if not isinstance(value, dict):
        raise MalformedAnswer(f"{what} is no JSON object")
    return cast("dict[str, Any]", value)


def text_in(fields: dict[str, Any], name: str) -> str:
    """Return a field that is text; "" if there is none."""
    value = fields.get(name)
    return value if isinstance(value, str) else ""


def objects_in(fields: dict[str, Any], name: str) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects of a field that is a list; none if it is no list."""
    value = fields.get(name)
    if isinstance(value, list):
        for one in cast("list[object]", value):
            if isinstance(one, dict):
                yield cast("dict[str, Any]", one)


def is_json(text: str) -> bool:
    """Tell whether a text is JSON.

    >>> is_json('{"a": 1}'), is_json('{"a"')
    (True, False)
    """
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def usage_in(fields: dict[str, Any]) -> dict[str, Any]:
    """Return what the provider says of tokens; {} if it says nothing."""
    usage = fields.get("usage")
    return cast("dict[str, Any]", usage) if isinstance(usage, dict) else {}


def finish_reason_of(word: str) -> str:
    """Return our word for the reason a protocol gives for the end of an answer.

    >>> finish_reason_of("end_turn"), finish_reason_of("length"), finish_reason_of("a_new_one")
    ('stop', 'length', 'a_new_one')
    """
    return FINISH_REASONS.get(word, word)


def text_of(content: object) -> str:
    """Return the text of a content: a text, or a list of parts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    parts = objects_in({"content": content}, "content")
    return "".join(text_in(part, "text") for part in parts if part.get("type") in ("text", "output_text", None))


def _read_chat(body: dict[str, Any]) -> ModelAnswer:
    choices = list(objects_in(body, "choices"))
    if not choices:
        raise MalformedAnswer("it has no choices")
    choice = choices[0]
    message = fields_of(choice.get("message"), "the message of the first choice")
    calls = tuple(_call_of(call) for call in objects_in(message, "tool_calls"))
    return ModelAnswer(
        text=text_of(message.get("content")),
        reasoning=text_in(message, "reasoning_content") or text_in(message, "reasoning"),
        refusal=text_in(message, "refusal"),
        tool_calls=calls,
        finish_reason=finish_reason_of(text_in(choice, "finish_reason")),
        model=text_in(body, "model"),
        id=text_in(body, "id"),
        usage=usage_in(body),
    )


def _call_of(call: dict[str, Any]) -> ToolCall:
    function = fields_of(call.get("function") or call.get("custom"), "the function of a tool call")
    return ToolCall(text_in(call, "id"), text_in(function, "name"), text_in(function, "arguments"))


def _read_responses(body: dict[str, Any]) -> ModelAnswer:
    if not isinstance(body.get("output"), list):
        raise MalformedAnswer("it has no output")
    texts: list[str] = []
    refusals: list[str] = []
    reasoning: list[str] = []
    calls: list[ToolCall] = []
    for item in objects_in(body, "output"):
        match item.get("type"):
            case "message":
                texts.append(text_of(item.get("content")))
                refusals += [text_in(part, "refusal") for part in objects_in(item, "content")]
            case "function_call":
                calls.append(ToolCall(text_in(item, "call_id"), text_in(item, "name"), text_in(item, "arguments")))
            case "reasoning":
                reasoning += [text_in(part, "text") for part in objects_in(item, "summary")]
            case _:
                pass
    return ModelAnswer(
        text="".join(texts),
        reasoning="\n".join(one for one in reasoning if one),
        refusal="".join(refusals),
        tool_calls=tuple(calls),
        finish_reason=_reason_of_response(body, has_calls=bool(calls)),
        model=text_in(body, "model"),
        id=text_in(body, "id"),
        usage=usage_in(body),
    )


def _reason_of_response(body: dict[str, Any], *, has_calls: bool) -> str:
    details = body.get("incomplete_details")
    if isinstance(details, dict):
        return finish_reason_of(text_in(cast("dict[str, Any]", details), "reason"))
    if body.get("status") not in ("completed", None):
        return text_in(body, "status")
    return "tool_calls" if has_calls else "stop"


def _read_messages(body: dict[str, Any]) -> ModelAnswer:
    if not isinstance(body.get("content"), list):
        raise MalformedAnswer("it has no content")
    blocks = list(objects_in(body, "content"))
    calls = tuple(
        ToolCall(text_in(block, "id"), text_in(block, "name"), msgspec.json.encode(block.get("input") or {}).decode())
        for block in blocks
        if block.get("type") == "tool_use"
    )
    reason = finish_reason_of(text_in(body, "stop_reason"))
    text = "".join(text_in(block, "text") for block in blocks if block.get("type") == "text")
    return ModelAnswer(
        text=text,
        reasoning="".join(text_in(block, "thinking") for block in blocks if block.get("type") == "thinking"),
        refusal=(text or "the model refused to answer") if reason == "refusal" else "",
        tool_calls=calls,
        finish_reason=reason,
        model=text_in(body, "model"),
        id=text_in(body, "id"),
        usage=usage_in(body),
    )


def _read_embeddings(body: dict[str, Any]) -> ModelAnswer:
    if not isinstance(body.get("data"), list):
        raise MalformedAnswer("it has no data")
    return ModelAnswer(finish_reason="stop", model=text_in(body, "model"), usage=usage_in(body))


READERS: dict[Form, Callable[[dict[str, Any]], ModelAnswer]] = {
    "chat": _read_chat,
    "responses": _read_responses,
    "messages": _read_messages,
    "embeddings": _read_embeddings,
}
