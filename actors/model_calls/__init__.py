"""Calls of models as data: the protocols' requests, answers and streams, and the presets of known providers. Pure."""

from actors.model_calls.answer import MalformedAnswer, ModelAnswer, ToolCall, read_answer
from actors.model_calls.deltas import Delta, ReasoningDelta, RefusalDelta, TextDelta, ToolCallDelta
from actors.model_calls.presets import Preset, preset_named
from actors.model_calls.request import Form, ModelRequest

__all__ = [
    "Delta",
    "Form",
    "MalformedAnswer",
    "ModelAnswer",
    "ModelRequest",
    "Preset",
    "ReasoningDelta",
    "RefusalDelta",
    "TextDelta",
    "ToolCall",
    "ToolCallDelta",
    "preset_named",
    "read_answer",
]
