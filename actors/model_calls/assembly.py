"""Puts the events of a stream together to the body that the same call would have answered without a stream. Pure.

An assembler is fed each event. It returns what the event adds, and keeps what has come: that is what a stream that is
cut off leaves. Nothing that a provider sends makes it raise anything but `MalformedAnswer`.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

import msgspec

from actors.model_calls.answer import MalformedAnswer, fields_of, is_json, objects_in, text_in, text_of, usage_in
from actors.model_calls.deltas import Delta, ReasoningDelta, RefusalDelta, TextDelta, ToolCallDelta

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actors.model_calls.request import Form
    from actors.model_calls.sse import ServerSentEvent

MAX_CHOICES = 128
"""Choices and blocks of one answer; an index beyond is malformed."""


class StreamPart(NamedTuple):
    """What one event adds: its data, the deltas in it, and the error that it reports, if it reports one."""

    data: dict[str, Any]
    deltas: tuple[Delta, ...] = ()
    error: dict[str, Any] | None = None


NOTHING_NEW = StreamPart({})


class Assembler(Protocol):
    """Puts one stream together."""

    @property
    def is_complete(self) -> bool:
        """Whether the protocol says that the answer has come whole."""
        ...

    @property
    def is_committed(self) -> bool:
        """Whether its receiver may have acted on what came: on a whole call of a tool, or the reason of the end."""
        ...

    @property
    def may_end(self) -> bool:
        """Whether the answer is whole if the connection is closed now, although its last event did not come."""
        ...

    def feed(self, event: ServerSentEvent) -> StreamPart:
        """Take the next event. Raises `MalformedAnswer` if it is none of the protocol."""
        ...

    def body(self) -> dict[str, Any]:
        """Return what has come, as the body of an answer without a stream."""
        ...


def assembler_of(form: Form) -> Assembler:
    """Return a new assembler of the streams of a protocol; raises ValueError for one that has no streams."""
    match form:
        case "chat":
            return ChatAssembler()
        case "responses":
            return ResponsesAssembler()
        case "messages":
            return MessagesAssembler()
        case "embeddings":
            raise ValueError("embeddings have no streams; leave stream out")


def _data_of(event: ServerSentEvent) -> dict[str, Any]:
    try:
        return fields_of(msgspec.json.decode(event.data), "an event")
    except (msgspec.DecodeError, RecursionError) as error:
        raise MalformedAnswer(f"an event is no JSON: {error}") from error


def _index_in(fields: dict[str, Any], *names: str, default: int = 0) -> int:
    for name in names:
        index = default if fields.get(name) is None else fields[name]
        if type(index) is not int or not 0 <= index < MAX_CHOICES:
            raise MalformedAnswer(f"{name} must be a whole number below {MAX_CHOICES}, got {index!r:.100}")
        return index
    return default


class ChatAssembler:
    """Puts the chunks of a chat completion together; the last event is `[DONE]`."""

    def __init__(self) -> None:
        self.is_complete = False
        self._head: dict[str, Any] = {}
        self._choices: dict[int, dict[str, Any]] = {}

    @property
    def may_end(self) -> bool:
        return bool(self._choices) and all(one["finish_reason"] for one in self._choices.values())

    @property
    def is_committed(self) -> bool:
        return any(
            choice["finish_reason"] or _has_whole_call(choice["message"].get("tool_calls", ()))
            for choice in self._choices.values()
        )

    def feed(self, event: ServerSentEvent) -> StreamPart:
        if event.data.strip() == "[DONE]":
            self.is_complete = True
            return NOTHING_NEW
        data = _data_of(event)
        if (error := data.get("error")) and isinstance(error, dict | str):
            return StreamPart(data, error={"error": error})
        for name, value in data.items():
            if name != "choices" and value is not None:
                self._head[name] = value
        deltas: list[Delta] = []
        for choice in objects_in(data, "choices"):
            is_error = choice.get("finish_reason") == "error"
            deltas += self._add({**choice, "finish_reason": None} if is_error else choice)
            if is_error:
                return StreamPart(data, tuple(deltas), {"error": {"message": "finish_reason is error"}})
        return StreamPart(data, tuple(deltas))

    def _add(self, choice: dict[str, Any]) -> list[Delta]:
        index = _index_in(choice, "index")
        kept = self._choices.setdefault(
            index, {"index": index, "message": {"role": "assistant", "content": None}, "finish_reason": None}
        )
        if choice.get("finish_reason"):
            kept["finish_reason"] = choice["finish_reason"]
        delta = choice.get("delta")
        if not isinstance(delta, dict):
            return []
        fields, message = cast("dict[str, Any]", delta), kept["message"]
        deltas: list[Delta] = []
        for name, kind in CHAT_TEXTS.items():
            if text := text_of(fields.get(name)):
                message[name] = (message.get(name) or "") + text
                deltas.append(kind(text))
        calls = objects_in(fields, "tool_calls")
        deltas += [_add_call(message.setdefault("tool_calls", []), call) for call in calls]
        return deltas if index == 0 else []

    def body(self) -> dict[str, Any]:
        choices = [self._choices[index] for index in sorted(self._choices)]
        return {**self._head, "object": "chat.completion", "choices": choices}


CHAT_TEXTS: dict[str, type[TextDelta | ReasoningDelta | RefusalDelta]] = {
    "content": TextDelta,
    "refusal": RefusalDelta,
    "reasoning_content": ReasoningDelta,
    "reasoning": ReasoningDelta,
}


def _add_call(calls: list[dict[str, Any]], given: dict[str, Any]) -> ToolCallDelta:
    index = _index_in(given, "index", default=min(len(calls), MAX_CHOICES - 1))
    while len(calls) <= index:
        calls.append({"id": "", "type": "function", "function": {"name": "", "arguments": ""}})
    call, function = calls[index], given.get("function")
    added = cast("dict[str, Any]", function) if isinstance(function, dict) else {}
    delta = ToolCallDelta(index, text_in(given, "id"), text_in(added, "name"), text_in(added, "arguments"))
    call["id"] = call["id"] or delta.id
    call["function"]["name"] = call["function"]["name"] or delta.name
    call["function"]["arguments"] += delta.arguments
    return delta


def _has_whole_call(calls: Sequence[dict[str, Any]]) -> bool:
    """Tell whether one of the calls of tools has come whole: the next has begun, or its arguments are JSON."""
    if len(calls) != 1:
        return bool(calls)
    arguments = calls[0]["function"]["arguments"]
    return arguments.rstrip().endswith("}") and is_json(arguments)


class ResponsesAssembler:
    """Puts the events of a response together; the last one holds the whole response."""

    def __init__(self) -> None:
        self.is_complete = self.is_committed = False
        self.may_end = False
        self._response: dict[str, Any] = {"object": "response", "output": []}
        self._items: dict[int, dict[str, Any]] = {}

    def feed(self, event: ServerSentEvent) -> StreamPart:
        if event.data.strip() == "[DONE]":  # Some that speak this protocol end so.
            return NOTHING_NEW
        data = _data_of(event)
        kind = text_in(data, "type") or event.event
        if kind == "error":
            return StreamPart(data, error={"error": data.get("error") or data})
        if isinstance(response := data.get("response"), dict):
            self._response = cast("dict[str, Any]", response)
        match kind:
            case "response.completed" | "response.incomplete":
                self.is_complete = self.is_committed = True
                return StreamPart(data)
            case "response.failed":
                return StreamPart(data, error={"error": self._response.get("error") or {"message": "it failed"}})
            case _:
                return StreamPart(data, self._deltas(kind, data))

    def _deltas(self, kind: str, data: dict[str, Any]) -> tuple[Delta, ...]:
        index = _index_in(data, "output_index")
        text = text_in(data, "delta")
        if kind in {"response.output_item.added", "response.output_item.done"}:
            item = fields_of(data.get("item"), "an output item")
            self._items[index] = copy.deepcopy(item)  # It goes on to grow, and the event is its receiver's.
            self.is_committed |= kind.endswith("done") and item.get("type") == "function_call"
            if kind.endswith("added") and item.get("type") == "function_call":
                return (ToolCallDelta(index, text_in(item, "call_id"), text_in(item, "name")),)
            return ()
        if not text:
            return ()
        match kind:
            case "response.output_text.delta":
                self._add_text(index, "output_text", "text", text)
                return (TextDelta(text),)
            case "response.refusal.delta":
                self._add_text(index, "refusal", "refusal", text)
                return (RefusalDelta(text),)
            case "response.reasoning_text.delta" | "response.reasoning_summary_text.delta":
                return (ReasoningDelta(text),)
            case "response.function_call_arguments.delta":
                item = self._items.setdefault(index, {"type": "function_call", "arguments": ""})
                item["arguments"] = text_in(item, "arguments") + text
                return (ToolCallDelta(index, arguments=text),)
            case _:
                return ()

    def _add_text(self, index: int, kind: str, field: str, text: str) -> None:
        item = self._items.setdefault(index, {"type": "message", "role": "assistant", "content": []})
        parts = list(objects_in(item, "content"))
        if not parts or parts[-1].get("type") != kind:
            parts.append({"type": kind})
        _added(parts[-1], field, {field: text})
        item["content"] = parts

    def body(self) -> dict[str, Any]:
        if self.is_complete:
            return self._response
        return {**self._response, "output": [self._items[index] for index in sorted(self._items)]}


class MessagesAssembler:
    """Puts the events of a message together; the last one is `message_stop`."""

    def __init__(self) -> None:
        self.is_complete = self.is_committed = False
        self.may_end = False
        self._message: dict[str, Any] = {"type": "message", "role": "assistant", "content": []}
        self._blocks: dict[int, dict[str, Any]] = {}
        self._inputs: dict[int, str] = {}
        """The JSON of the inputs of tools, as far as it has come."""

    def feed(self, event: ServerSentEvent) -> StreamPart:
        data = _data_of(event)
        deltas: tuple[Delta, ...] = ()
        match text_in(data, "type") or event.event:
            case "error":
                return StreamPart(data, error={"type": "error", "error": data.get("error") or data})
            case "message_start":
                self._message = dict(fields_of(data.get("message"), "the message"))
            case "content_block_start":
                deltas = self._start(_index_in(data, "index"), fields_of(data.get("content_block"), "a block"))
            case "content_block_delta":
                deltas = self._add(_index_in(data, "index"), fields_of(data.get("delta"), "a delta"))
            case "content_block_stop":
                self._stop(_index_in(data, "index"))
            case "message_delta":
                self.is_committed = True
                self._message.update(fields_of(data.get("delta") or {}, "a delta"))
                # Its figures are those of the whole message so far, and it may leave out some of them.
                told = {name: value for name, value in usage_in(data).items() if value is not None}
                self._message["usage"] = {**usage_in(self._message), **told}
            case "message_stop":
                self.is_complete = True
            case _:
                pass
        return StreamPart(data, deltas)

    def _start(self, index: int, block: dict[str, Any]) -> tuple[Delta, ...]:
        self._blocks[index] = dict(block)
        if block.get("type") == "tool_use":
            self._inputs[index] = ""
            return (ToolCallDelta(index, text_in(block, "id"), text_in(block, "name")),)
        text = text_in(block, "text")
        return (TextDelta(text),) if text else ()

    def _add(self, index: int, delta: dict[str, Any]) -> tuple[Delta, ...]:
        block = self._blocks.get(index)
        if block is None:
            raise MalformedAnswer(f"a delta of block {index}, which has not begun")
        match delta.get("type"):
            case "text_delta":
                text = _added(block, "text", delta)
                return (TextDelta(text),) if text else ()
            case "thinking_delta":
                text = _added(block, "thinking", delta)
                return (ReasoningDelta(text),) if text else ()
            case "signature_delta":
                block["signature"] = text_in(delta, "signature")
            case "citations_delta":
                block["citations"] = [*(block.get("citations") or []), delta.get("citation")]
            case "input_json_delta":
                text = text_in(delta, "partial_json")
                self._inputs[index] = self._inputs.get(index, "") + text
                return (ToolCallDelta(index, arguments=text),) if text else ()
            case _:
                pass
        return ()

    def _stop(self, index: int) -> None:
        text = self._inputs.get(index)
        if text is None:
            return
        self.is_committed = True
        if not text:
            return
        try:
            self._blocks[index]["input"] = msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError) as error:
            raise MalformedAnswer(f"the input of a tool is no JSON: {error}") from error

    def body(self) -> dict[str, Any]:
        return {**self._message, "content": [self._blocks[index] for index in sorted(self._blocks)]}


def _added(block: dict[str, Any], field: str, delta: dict[str, Any]) -> str:
    text = text_in(delta, field)
    block[field] = text_in(block, field) + text
    return text
