"""The table of translations, held against the SDKs' own types: no field of theirs is missing in it."""

from __future__ import annotations

import importlib
import json

import pytest

from actors.model_calls import ModelRequest
from actors.model_calls.field_table import field_table
from actors.model_calls.translation import translated
from tests.actors.model_calls.conversations import ANSWERS, REQUESTS
from tests.actors.model_calls.streams import REFUSALS, STREAMS, TOOLS
from tests.actors.model_calls.test_stream_writers import converted

pytest.importorskip("openai")
pytest.importorskip("anthropic")

from anthropic.types import Message, RawMessageStreamEvent
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from tests.real_sdks.strictly import read_strictly

pytestmark = [pytest.mark.sdk, pytest.mark.filterwarnings("ignore")]

REQUEST_TYPES = {
    "chat": ["openai.types.chat.completion_create_params.CompletionCreateParamsStreaming"],
    "responses": ["openai.types.responses.response_create_params.ResponseCreateParamsStreaming"],
    "messages": [
        "anthropic.types.message_create_params.MessageCreateParamsStreaming",
        "anthropic.types.beta.message_create_params.MessageCreateParamsStreaming",
    ],
}
PART_TYPES = {
    "chat_message": [
        "openai.types.chat.ChatCompletionSystemMessageParam",
        "openai.types.chat.ChatCompletionDeveloperMessageParam",
        "openai.types.chat.ChatCompletionUserMessageParam",
        "openai.types.chat.ChatCompletionAssistantMessageParam",
        "openai.types.chat.ChatCompletionToolMessageParam",
    ],
    "chat_text": ["openai.types.chat.ChatCompletionContentPartTextParam"],
    "chat_refusal": ["openai.types.chat.ChatCompletionContentPartRefusalParam"],
    "chat_image": ["openai.types.chat.ChatCompletionContentPartImageParam"],
    "chat_image_url": ["openai.types.chat.chat_completion_content_part_image_param.ImageURL"],
    "chat_tool": ["openai.types.chat.ChatCompletionFunctionToolParam"],
    "chat_function": ["openai.types.shared_params.FunctionDefinition"],
    "chat_call": ["openai.types.chat.ChatCompletionMessageFunctionToolCallParam"],
    "chat_called": ["openai.types.chat.chat_completion_message_function_tool_call_param.Function"],
    "chat_schema": ["openai.types.shared_params.response_format_json_schema.JSONSchema"],
    "responses_message": [
        "openai.types.responses.EasyInputMessageParam",
        "openai.types.responses.response_input_param.Message",
        "openai.types.responses.ResponseOutputMessageParam",
    ],
    "responses_text": [
        "openai.types.responses.ResponseInputTextParam",
        "openai.types.responses.ResponseOutputTextParam",
    ],
    "responses_refusal": ["openai.types.responses.ResponseOutputRefusalParam"],
    "responses_image": ["openai.types.responses.ResponseInputImageParam"],
    "responses_call": ["openai.types.responses.ResponseFunctionToolCallParam"],
    "responses_result": ["openai.types.responses.response_input_param.FunctionCallOutput"],
    "responses_reasoning": ["openai.types.responses.ResponseReasoningItemParam"],
    "responses_tool": ["openai.types.responses.FunctionToolParam"],
    "responses_words": ["openai.types.responses.ResponseTextConfigParam"],
    "responses_schema": ["openai.types.responses.ResponseFormatTextJSONSchemaConfigParam"],
    "responses_thinking": ["openai.types.shared_params.Reasoning"],
    "messages_message": ["anthropic.types.message_param.UserMessageParam"],
    "messages_text": ["anthropic.types.TextBlockParam"],
    "messages_image": ["anthropic.types.ImageBlockParam"],
    "messages_source": ["anthropic.types.Base64ImageSourceParam", "anthropic.types.URLImageSourceParam"],
    "messages_call": ["anthropic.types.ToolUseBlockParam"],
    "messages_result": ["anthropic.types.ToolResultBlockParam"],
    "messages_tool": ["anthropic.types.ToolParam"],
    "messages_choice": [
        "anthropic.types.ToolChoiceAutoParam",
        "anthropic.types.ToolChoiceAnyParam",
        "anthropic.types.ToolChoiceNoneParam",
        "anthropic.types.ToolChoiceToolParam",
    ],
    "messages_output": ["anthropic.types.OutputConfigParam"],
    "messages_schema": ["anthropic.types.JSONOutputFormatParam"],
    "messages_thinking": ["anthropic.types.ThinkingConfigEnabledParam", "anthropic.types.ThinkingConfigAdaptiveParam"],
    "messages_metadata": ["anthropic.types.MetadataParam"],
}


def fields_of(names):
    found = set()
    for name in names:
        module, _, cls = name.rpartition(".")
        try:
            typed = getattr(importlib.import_module(module), cls)
        except (AttributeError, ModuleNotFoundError):  # Another version of the SDK has no such type.
            continue
        found |= typed.__required_keys__ | typed.__optional_keys__
    return found


@pytest.mark.parametrize("form", REQUEST_TYPES)
def test_no_field_of_a_request_is_missing_in_the_table(form):
    fields = fields_of(REQUEST_TYPES[form])
    assert "model" in fields
    assert fields - set(field_table().fields[form]) == set()


@pytest.mark.parametrize("kind", PART_TYPES)
def test_no_field_of_a_part_is_missing_in_the_table(kind):
    row = field_table().parts[kind]
    known = {*row.read, *row.approximated, *row.price_or_speed, *row.not_expressible}
    assert fields_of(PART_TYPES[kind]) - known == set()


def test_each_kind_of_part_is_held_against_a_type():
    assert set(PART_TYPES) == set(field_table().parts)


@pytest.mark.parametrize("form", REQUESTS)
@pytest.mark.parametrize("to", REQUEST_TYPES)
def test_translated_requests_are_of_the_types_of_the_sdks(form, to):
    module, _, name = REQUEST_TYPES[to][0].rpartition(".")
    kind = TypeAdapter(getattr(importlib.import_module(module), name))
    for body in REQUESTS[form].values() if form != to else ():
        sent = translated(ModelRequest(form=form, body=body), [to]).request.body
        kind.validate_python({**sent, "model": "m", "stream": True})


TYPES = {"chat": ChatCompletion, "responses": Response, "messages": Message}


@pytest.mark.parametrize("form", TYPES)
@pytest.mark.parametrize("to", TYPES)
def test_a_translated_answer_is_read_as_the_real_thing(form, to):
    if form != to:
        sent = translated(ModelRequest(form=form, body=REQUESTS[form]["a coding agent"]), [to])
        body, _ = sent.answer(ANSWERS[to])
        read_strictly(TYPES[form], json.dumps(body))


EVENT_TYPES = {"chat": ChatCompletionChunk, "responses": ResponseStreamEvent, "messages": RawMessageStreamEvent}


@pytest.mark.parametrize("streams", [STREAMS, TOOLS, REFUSALS], ids=["text and tool", "parallel tools", "refusal"])
@pytest.mark.parametrize("form", TYPES)
@pytest.mark.parametrize("to", TYPES)
def test_a_translated_stream_is_read_as_the_real_thing(form, to, streams):
    if form != to:
        events, _ = converted(streams[to], form=form, to=to)
        for event in events:
            # The SDKs pass over pings, and have no field for reasoning in chat completions, although many providers do.
            if event.get("type") != "ping" and "reasoning_content" not in json.dumps(event):
                read_strictly(EVENT_TYPES[form], json.dumps(event))
