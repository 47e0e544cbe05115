"""Writes the pieces of a stream as the events of each protocol, whichever they were read from. Pure.

A writer is given each delta, and at the end the whole answer in its form. It returns the events that say the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from actors.model_calls.answer import MalformedAnswer, objects_in, read_answer, usage_in
from actors.model_calls.deltas import Delta, ReasoningDelta, RefusalDelta, TextDelta, ToolCallDelta

if TYPE_CHECKING:
    from actors.model_calls.request import Form


class StreamWriter(Protocol):
    """Writes one stream."""

    def begin(self, identity: str, model: str) -> list[dict[str, Any]]:
        """Return the events before the first delta."""
        ...

    def write(self, delta: Delta) -> list[dict[str, Any]]:
        """Return the events of a delta, at least one. Raises `MalformedAnswer` if the form cannot say it."""
        ...

    def end(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the events of the end; `body` is the whole answer in this form."""
        ...


def stream_writer_of(form: Form) -> StreamWriter:
    """Return a new writer of the streams of a protocol; raises ValueError for one that has no streams."""
    match form:
        case "chat":
            return ChatWriter()
        case "responses":
            return ResponsesWriter()
        case "messages":
            return MessagesWriter()
        case "embeddings":
            raise ValueError("embeddings have no streams; leave stream out")


class ChatWriter:
    """Writes the chunks of a chat completion; its last chunk tells the usage. `[DONE]` is for who serves it."""

    def __init__(self) -> None:
        self._head: dict[str, Any] = {}
        self._calls: dict[int, int] = {}
        """The numbers of the calls of tools, by the index that their provider gave them."""
        self._has_refused = False

    def begin(self, identity: str, model: str) -> list[dict[str, Any]]:
        self._head = {"id": identity, "object": "chat.completion.chunk", "created": 0, "model": model}
        return [self._chunk({"role": "assistant", "content": ""})]

    def write(self, delta: Delta) -> list[dict[str, Any]]:
        match delta:
            case TextDelta(text):
                return [self._chunk({"content": text})]
            case ReasoningDelta(text):
                return [self._chunk({"reasoning_content": text})]
            case RefusalDelta(text):
                self._has_refused = True
                return [self._chunk({"refusal": text})]
            case ToolCallDelta(index, identity, name, arguments):
                is_new = index not in self._calls
                number = self._calls.setdefault(index, len(self._calls))
                call: dict[str, Any] = {"index": number, "function": {"arguments": arguments}}
                if is_new:
                    function = {"name": name, "arguments": arguments}
                    call = {"index": number, "id": identity, "type": "function", "function": function}
                return [self._chunk({"tool_calls": [call]})]

    def end(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        reason = next((one.get("finish_reason") for one in objects_in(body, "choices")), None)
        # Some protocols tell only at the end that what came is a refusal.
        late = "" if self._has_refused else read_answer("chat", body).refusal
        events = self.write(RefusalDelta(late)) if late else []
        events.append(self._chunk({}, reason))
        if usage := usage_in(body):
            events.append({**self._head, "choices": [], "usage": usage})
        return events

    def _chunk(self, delta: dict[str, Any], reason: Any = None) -> dict[str, Any]:
        return {**self._head, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}]}


class MessagesWriter:
    """Writes the events of a message. Reasoning is left out, as it is not signed: a ping says that it goes on."""

    def __init__(self) -> None:
        self._count = 0
        self._open: int | str | None = None
        """What is in the open block: "text", or the call of this index."""
        self._begun: set[int] = set()

    def begin(self, identity: str, model: str) -> list[dict[str, Any]]:
        message: dict[str, Any] = {
            "id": identity,
            "type": "message",
            "role": "assistant",
            "model": model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 0, "output_tokens": 0},  # The end tells the usage.
        }
        return [{"type": "message_start", "message": message}]

    def write(self, delta: Delta) -> list[dict[str, Any]]:
        match delta:
            case ReasoningDelta():
                return [{"type": "ping"}]
            case TextDelta(text) | RefusalDelta(text):
                events = self._turn_to("text", {"type": "text", "text": "", "citations": None})
                return [*events, self._delta({"type": "text_delta", "text": text})]
            case ToolCallDelta(index, identity, name, arguments):
                if index in self._begun and self._open != index:
                    raise MalformedAnswer("pieces of several calls of tools come by turns, which Messages cannot say")
                self._begun.add(index)
                block: dict[str, Any] = {"type": "tool_use", "id": identity, "name": name, "input": {}}
                return [
                    *self._turn_to(index, block),
                    self._delta({"type": "input_json_delta", "partial_json": arguments}),
                ]

    def end(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        usage = {name: value for name, value in usage_in(body).items() if name != "cache_creation"}
        return [
            *self._close(),
            {
                "type": "message_delta",
                "delta": {"stop_reason": body.get("stop_reason"), "stop_sequence": None},
                "usage": usage,
            },
            {"type": "message_stop"},
        ]

    def _turn_to(self, content: int | str, block: dict[str, Any]) -> list[dict[str, Any]]:
        if self._open == content:
            return []
        closed = self._close()
        self._open = content
        return [*closed, {"type": "content_block_start", "index": self._count, "content_block": block}]

    def _close(self) -> list[dict[str, Any]]:
        if self._open is None:
            return []
        self._open, closed = None, self._count
        self._count += 1
        return [{"type": "content_block_stop", "index": closed}]

    def _delta(self, delta: dict[str, Any]) -> dict[str, Any]:
        return {"type": "content_block_delta", "index": self._count, "delta": delta}


class ResponsesWriter:
    """Writes the events of a response. Reasoning is left out: the state "in progress" says that it goes on."""

    def __init__(self) -> None:
        self._response: dict[str, Any] = {}
        self._number = 0
        self._items: list[dict[str, Any]] = []
        self._calls: dict[int, int] = {}
        """The places of the calls of tools in the output, by the index that their provider gave them."""
        self._message: int | None = None
        """The place of the message that goes on; None if none does."""
        self._has_refused = False

    def begin(self, identity: str, model: str) -> list[dict[str, Any]]:
        self._response = {
            "id": identity,
            "object": "response",
            "created_at": 0,
            "model": model,
            "status": "in_progress",
            "error": None,
            "incomplete_details": None,
            "instructions": None,
            "metadata": {},
            "output": [],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
        }
        return [self._event("response.created", response=self._response), self._in_progress()]

    def write(self, delta: Delta) -> list[dict[str, Any]]:
        match delta:
            case ReasoningDelta():
                return [self._in_progress()]
            case TextDelta(text):
                return self._say("output_text", "text", text)
            case RefusalDelta(text):
                self._has_refused = True
                return self._say("refusal", "refusal", text)
            case ToolCallDelta():
                return self._call(delta)

    def end(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        late = "" if self._has_refused else read_answer("responses", body).refusal
        events = self.write(RefusalDelta(late)) if late else []
        events += self._end_message()
        for place in self._calls.values():
            item = self._items[place]
            item["status"] = body.get("status")
            at = {"item_id": item["id"], "output_index": place}
            done = "response.function_call_arguments.done"
            events.append(self._event(done, **at, name=item["name"], arguments=item["arguments"]))
            events.append(self._event("response.output_item.done", output_index=place, item={**item}))
        kind = "response.incomplete" if body.get("status") == "incomplete" else "response.completed"
        output = self._items or body.get("output")
        return [*events, self._event(kind, response={**body, "output": output})]

    def _say(self, kind: str, field: str, text: str) -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = []
        place = self._message
        if place is None or self._items[place]["content"][0]["type"] != kind:
            events += self._begin_message(kind, field)
            place = len(self._items) - 1
        item = self._items[place]
        item["content"][0][field] += text
        at = {"item_id": item["id"], "output_index": place, "content_index": 0}
        said: dict[str, Any] = {"delta": text, **({"logprobs": []} if kind == "output_text" else {})}
        return [*events, self._event(f"response.{kind}.delta", **at, **said)]

    def _begin_message(self, kind: str, field: str) -> list[dict[str, Any]]:
        events = self._end_message()
        place = self._message = len(self._items)
        part: dict[str, Any] = {"type": kind, field: ""}
        if kind == "output_text":
            part["annotations"] = []
        item = {"id": f"msg_{self._response['id']}", "type": "message", "role": "assistant", "status": "in_progress"}
        if place:
            item["id"] += f"_{place}"
        self._items.append({**item, "content": [part]})
        at = {"item_id": item["id"], "output_index": place, "content_index": 0}
        return [
            *events,
            self._event("response.output_item.added", output_index=place, item={**item, "content": []}),
            self._event("response.content_part.added", **at, part={**part}),
        ]

    def _end_message(self) -> list[dict[str, Any]]:
        if self._message is None:
            return []
        place, self._message = self._message, None
        item = self._items[place]
        item["status"] = "completed"
        part = item["content"][0]
        field = "refusal" if part["type"] == "refusal" else "text"
        at = {"item_id": item["id"], "output_index": place, "content_index": 0}
        said: dict[str, Any] = {field: part[field], **({"logprobs": []} if field == "text" else {})}
        return [
            self._event(f"response.{part['type']}.done", **at, **said),
            self._event("response.content_part.done", **at, part=part),
            self._event("response.output_item.done", output_index=place, item=item),
        ]

    def _call(self, delta: ToolCallDelta) -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = []
        place = self._calls.get(delta.index)
        if place is None:
            events += self._end_message()
            place = self._calls[delta.index] = len(self._items)
            item: dict[str, Any] = {
                "id": f"fc_{self._response['id']}_{len(self._calls) - 1}",
                "type": "function_call",
                "call_id": delta.id,
                "name": delta.name,
                "arguments": "",
                "status": "in_progress",
            }
            self._items.append(item)
            events.append(self._event("response.output_item.added", output_index=place, item={**item}))
        item = self._items[place]
        item["arguments"] += delta.arguments
        at = {"item_id": item["id"], "output_index": place}
        return [*events, self._event("response.function_call_arguments.delta", **at, delta=delta.arguments)]

    def _in_progress(self) -> dict[str, Any]:
        return self._event("response.in_progress", response=self._response)

    def _event(self, kind: str, **fields: Any) -> dict[str, Any]:
        event = {"type": kind, "sequence_number": self._number, **fields}
        self._number += 1
        return event
