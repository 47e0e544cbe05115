"""Puts the events of a stream together to the body that the same call would have answered without a stream. Pure.

An assembler is fed each event. It returns what the event adds, and keeps what has come: that is what a stream that is
cut off leaves. Nothing that a provider sends makes it raise anything but `MalformedAnswer`.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Protocol, cast

import msgspec

from actors.model_calls.answer import MalformedAnswer, fields_of, objects_in, text_in, usage_in
from actors.model_calls.chat_assembly import ChatAssembler
from actors.model_calls.deltas import Delta, ReasoningDelta, RefusalDelta, TextDelta, ToolCallDelta, size_of
from actors.model_calls.growing import GrowingText, shown
from actors.model_calls.stream_parts import NOTHING_NEW, StreamPart, data_of, grow, index_in

if TYPE_CHECKING:
    from actors.model_calls.request import Form
    from actors.model_calls.sse import ServerSentEvent


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
        """Whether the answer is whole if nothing more can be read: only figures and the last event are missing."""
        ...

    def feed(self, event: ServerSentEvent) -> StreamPart:
        """Take the next event. Raises `MalformedAnswer` if it is none of the protocol."""
        ...

    def body(self) -> dict[str, Any]:
        """Return what has come, as the body of an answer without a stream."""
        ...


def assembler_of(form: Form, *, answers: int = 1) -> Assembler:
    """Return a new assembler of the streams of a protocol; raises ValueError for one that has no streams.

    `answers` is how many a chat completion was asked for.
    """
    match form:
        case "chat":
            return ChatAssembler(answers)
        case "responses":
            return ResponsesAssembler()
        case "messages":
            return MessagesAssembler()
        case "embeddings":
            raise ValueError("embeddings have no streams; leave stream out")


class ResponsesAssembler:
    """Puts the events of a response together; the last one holds the whole response."""

    def __init__(self) -> None:
        self.is_complete = self.is_committed = False
        self.may_end = False
        self._response: dict[str, Any] = {"object": "response", "output": []}
        self._items: dict[int, dict[str, Any]] = {}
        self._sizes: dict[int, int] = {}
        """The bytes that are kept of each item."""

    def feed(self, event: ServerSentEvent) -> StreamPart:
        if event.data.strip() == "[DONE]":  # Some that speak this protocol end so.
            return NOTHING_NEW
        data = data_of(event)
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
            case "response.output_item.added" | "response.output_item.done":
                return self._take_item(data, is_done=kind.endswith("done"), size=len(event.data))
            case _:
                index = index_in(data, "output_index")
                deltas = self._deltas(kind, index, text_in(data, "delta"))
                written = sum(map(size_of, deltas))
                if written:
                    self._sizes[index] = self._sizes.get(index, 0) + written
                return StreamPart(data, deltas, None, written)

    def _take_item(self, data: dict[str, Any], *, is_done: bool, size: int) -> StreamPart:
        """Take a whole item, which stands for what has come of it before."""
        index, item = index_in(data, "output_index"), fields_of(data.get("item"), "an output item")
        self._items[index] = copy.deepcopy(item)  # It goes on to grow, and the event is its receiver's.
        before = self._sizes.get(index, 0)
        self._sizes[index] = max(before, size)
        deltas: tuple[Delta, ...] = ()
        if item.get("type") == "function_call":
            self.is_committed |= is_done
            if not is_done:
                deltas = (ToolCallDelta(index, text_in(item, "call_id"), text_in(item, "name")),)
        return StreamPart(data, deltas, None, sum(map(size_of, deltas)), max(0, size - before))

    def _deltas(self, kind: str, index: int, text: str) -> tuple[Delta, ...]:
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
                grow(self._items.setdefault(index, {"type": "function_call"}), "arguments", text)
                return (ToolCallDelta(index, arguments=text),)
            case _:
                return ()

    def _add_text(self, index: int, kind: str, field: str, text: str) -> None:
        item = self._items.setdefault(index, {"type": "message", "role": "assistant"})
        if not isinstance(item.get("content"), list):
            item["content"] = []
        parts = cast("list[Any]", item["content"])
        last = cast("dict[str, Any]", parts[-1]) if parts and isinstance(parts[-1], dict) else {}
        if last.get("type") != kind:
            last = {"type": kind}
            parts.append(last)
        grow(last, field, text)

    def body(self) -> dict[str, Any]:
        if self.is_complete:
            return self._response
        return {**self._response, "output": [_shown_item(self._items[index]) for index in sorted(self._items)]}


def _shown_item(item: dict[str, Any]) -> dict[str, Any]:
    whole = shown(item)
    if isinstance(item.get("content"), list):
        whole["content"] = [shown(part) for part in objects_in(item, "content")]
    return whole


class MessagesAssembler:
    """Puts the events of a message together; the last one is `message_stop`."""

    def __init__(self) -> None:
        self.is_complete = self.is_committed = False
        self.may_end = False
        self._message: dict[str, Any] = {"type": "message", "role": "assistant", "content": []}
        self._blocks: dict[int, dict[str, Any]] = {}
        self._inputs: dict[int, GrowingText] = {}
        """The JSON of the inputs of tools, as far as it has come."""
        self._cited: set[int] = set()
        """The blocks whose citations have grown."""

    def feed(self, event: ServerSentEvent) -> StreamPart:
        data = data_of(event)
        deltas: tuple[Delta, ...] = ()
        kind = text_in(data, "type") or event.event
        match kind:
            case "error":
                return StreamPart(data, error={"type": "error", "error": data.get("error") or data})
            case "message_start":
                self._message = dict(fields_of(data.get("message"), "the message"))
            case "content_block_start":
                deltas = self._start(index_in(data, "index"), fields_of(data.get("content_block"), "a block"))
            case "content_block_delta":
                deltas = self._add(index_in(data, "index"), fields_of(data.get("delta"), "a delta"))
            case "content_block_stop":
                self._stop(index_in(data, "index"))
            case "message_delta":
                self.is_committed = True
                self._message.update(fields_of(data.get("delta") or {}, "a delta"))
                self.may_end = bool(self._message.get("stop_reason"))
                # Its figures are those of the whole message so far, and it may leave out some of them.
                told = {name: value for name, value in usage_in(data).items() if value is not None}
                self._message["usage"] = {**usage_in(self._message), **told}
            case "message_stop":
                self.is_complete = True
            case _:
                pass
        is_kept = not deltas and kind not in {"ping", "content_block_stop", "message_stop"}
        return StreamPart(data, deltas, None, sum(map(size_of, deltas)), len(event.data) if is_kept else 0)

    def _start(self, index: int, block: dict[str, Any]) -> tuple[Delta, ...]:
        self._blocks[index] = dict(block)
        if block.get("type") == "tool_use":
            self._inputs[index] = GrowingText()
            return (ToolCallDelta(index, text_in(block, "id"), text_in(block, "name")),)
        text = text_in(block, "text")
        return (TextDelta(text),) if text else ()

    def _add(self, index: int, delta: dict[str, Any]) -> tuple[Delta, ...]:
        block = self._blocks.get(index)
        if block is None:
            raise MalformedAnswer(f"a delta of block {index}, which has not begun")
        match delta.get("type"):
            case "text_delta":
                text = grow(block, "text", text_in(delta, "text"))
                return (TextDelta(text),) if text else ()
            case "thinking_delta":
                text = grow(block, "thinking", text_in(delta, "thinking"))
                return (ReasoningDelta(text),) if text else ()
            case "signature_delta":
                block["signature"] = text_in(delta, "signature")
            case "citations_delta":
                self._cite(index, delta.get("citation"))
            case "input_json_delta":
                text = text_in(delta, "partial_json")
                self._inputs.setdefault(index, GrowingText()).add(text)
                return (ToolCallDelta(index, arguments=text),) if text else ()
            case _:
                pass
        return ()

    def _cite(self, index: int, citation: object) -> None:
        block = self._blocks[index]
        if index not in self._cited:
            # The list of the event itself is its receiver's.
            given = block.get("citations")
            block["citations"] = list(cast("list[object]", given)) if isinstance(given, list) else []
            self._cited.add(index)
        block["citations"].append(citation)

    def _stop(self, index: int) -> None:
        if index not in self._inputs:
            return
        self.is_committed = True
        text = str(self._inputs[index])
        if not text or index not in self._blocks:
            return
        try:
            self._blocks[index]["input"] = msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError) as error:
            raise MalformedAnswer(f"the input of a tool is no JSON: {error}") from error

    def body(self) -> dict[str, Any]:
        return {**self._message, "content": [shown(self._blocks[index]) for index in sorted(self._blocks)]}
