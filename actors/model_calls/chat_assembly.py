"""Puts the chunks of a chat completion together. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from actors.model_calls.answer import objects_in, text_in, text_of
from actors.model_calls.deltas import Delta, ReasoningDelta, RefusalDelta, TextDelta, ToolCallDelta, size_of
from actors.model_calls.growing import GrowingJson, GrowingText, shown
from actors.model_calls.stream_parts import MAX_CHOICES, NOTHING_NEW, StreamPart, data_of, index_in

if TYPE_CHECKING:
    from actors.model_calls.sse import ServerSentEvent


class ChatChoice:
    """One choice of a chat completion, as far as it has come."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.finish_reason: Any = None
        self.texts: dict[str, GrowingText] = {}
        self.calls: list[ChatCall] = []

    @property
    def is_committed(self) -> bool:
        """Whether a call of a tool has come whole (then the next has begun, or its arguments are), or the end."""
        if self.finish_reason or len(self.calls) > 1:
            return True
        return bool(self.calls) and self.calls[0].arguments.is_whole

    def add_call(self, given: dict[str, Any]) -> ToolCallDelta:
        """Take more of a call of a tool."""
        calls = self.calls
        index = index_in(given, "index", default=min(len(calls), MAX_CHOICES - 1))
        calls += [ChatCall() for _ in range(len(calls), index + 1)]
        call, function = calls[index], given.get("function")
        added = cast("dict[str, Any]", function) if isinstance(function, dict) else {}
        delta = ToolCallDelta(index, text_in(given, "id"), text_in(added, "name"), text_in(added, "arguments"))
        call.id, call.name = call.id or delta.id, call.name or delta.name
        call.arguments.add(delta.arguments)
        return delta

    def body(self) -> dict[str, Any]:
        """Return it as a choice of a body without a stream."""
        message = {"role": "assistant", "content": None, **shown(self.texts)}
        if self.calls:
            message["tool_calls"] = [call.body() for call in self.calls]
        return {"index": self.index, "message": message, "finish_reason": self.finish_reason}


class ChatCall:
    """One call of a tool in a chat completion, as far as it has come."""

    def __init__(self) -> None:
        self.id = self.name = ""
        self.arguments = GrowingJson()

    def body(self) -> dict[str, Any]:
        """Return it as in a body without a stream."""
        return {
            "id": self.id,
            "type": "function",
            "function": {"name": self.name, "arguments": str(self.arguments)},
        }


class ChatAssembler:
    """Puts the chunks of a chat completion with so many `answers` together; the last event is `[DONE]`."""

    def __init__(self, answers: int = 1) -> None:
        self.is_complete = False
        self._answers = answers
        self._head: dict[str, Any] = {}
        self._choices: dict[int, ChatChoice] = {}

    @property
    def may_end(self) -> bool:
        return len(self._choices) >= self._answers and all(one.finish_reason for one in self._choices.values())

    @property
    def is_committed(self) -> bool:
        return any(choice.is_committed for choice in self._choices.values())

    def feed(self, event: ServerSentEvent) -> StreamPart:
        if event.data.strip() == "[DONE]":
            self.is_complete = True
            return NOTHING_NEW
        data = data_of(event)
        if (error := data.get("error")) and isinstance(error, dict | str):
            return StreamPart(data, error={"error": error})
        if data.get("object") == "error":  # Mistral, and older versions of vLLM.
            return StreamPart(data, error=data)
        kept, head = 0, self._head
        for name, value in data.items():
            if value is not None and name != "choices":
                if name not in head:
                    kept = len(event.data)
                head[name] = value
        deltas: list[Delta] = []
        written = 0
        for choice in objects_in(data, "choices"):
            index, is_error = index_in(choice, "index"), choice.get("finish_reason") == "error"
            added = self._add(index, {**choice, "finish_reason": None} if is_error else choice)
            written += sum(map(size_of, added))
            deltas += added if index == 0 else ()
            if is_error:
                error = {"error": {"message": "finish_reason is error"}}
                return StreamPart(data, tuple(deltas), error, written, kept)
        return StreamPart(data, tuple(deltas), None, written, kept)

    def _add(self, index: int, given: dict[str, Any]) -> list[Delta]:
        choice = self._choices.get(index)
        if choice is None:
            choice = self._choices[index] = ChatChoice(index)
        choice.finish_reason = given.get("finish_reason") or choice.finish_reason
        delta = given.get("delta")
        if not isinstance(delta, dict):
            return []
        fields = cast("dict[str, Any]", delta)
        deltas: list[Delta] = []
        for name, kind in CHAT_TEXTS.items():
            # Most chunks have one of these fields, and no call of a tool.
            if (told := fields.get(name)) and (text := text_of(told)):
                choice.texts.setdefault(name, GrowingText()).add(text)
                deltas.append(kind(text))
        if fields.get("tool_calls"):
            deltas += [choice.add_call(call) for call in objects_in(fields, "tool_calls")]
        return deltas

    def body(self) -> dict[str, Any]:
        choices = [self._choices[index].body() for index in sorted(self._choices)]
        return {**self._head, "object": "chat.completion", "choices": choices}


CHAT_TEXTS: dict[str, type[TextDelta | ReasoningDelta | RefusalDelta]] = {
    "content": TextDelta,
    "refusal": RefusalDelta,
    "reasoning_content": ReasoningDelta,
    "reasoning": ReasoningDelta,
}
