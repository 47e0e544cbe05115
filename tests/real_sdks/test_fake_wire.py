"""What a fake server sends, held against the SDKs' own types: strictly, body by body and event by event."""

from __future__ import annotations

import asyncio
import base64
from array import array
from typing import Any

import msgspec
import pytest

from actors.fake import FakeConfig, FakeModel, FakePrice, fake_server
from actors.fake.config import ScriptedAnswer
from tests.actors.fake.calls import asks, call

openai = pytest.importorskip("openai")
anthropic = pytest.importorskip("anthropic")

from anthropic.types import Message, MessageTokensCount, ModelInfo, RawMessageStreamEvent  # noqa: E402
from openai.types import CreateEmbeddingResponse, Model  # noqa: E402 - after what skips this file.
from openai.types.chat import ChatCompletion, ChatCompletionChunk  # noqa: E402
from openai.types.responses import Response, ResponseStreamEvent  # noqa: E402

from tests.real_sdks.strictly import read_strictly  # noqa: E402

pytestmark = [pytest.mark.sdk, pytest.mark.slow, pytest.mark.real_time, pytest.mark.filterwarnings("ignore")]

PRICE = FakePrice(input="1", output="5", cache_read="0.1", cache_write="1.25", cache_write_1h="2")
ANSWERS = (
    ScriptedAnswer(contains="refuse", kind="refusal"),
    ScriptedAnswer(contains="filter", kind="content_filter"),
    ScriptedAnswer(contains="nothing", kind="empty"),
)
MODEL = FakeModel(name="m", price=PRICE, answers=ANSWERS, parallel_tools=2, chunk_tokens=3)
CONFIG = FakeConfig(models=(MODEL, FakeModel(name="e", kind="embedding", price=PRICE)))
PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer", "minimum": 1, "maximum": 7},
        "unit": {"enum": ["C", "F"]},
        "where": {"$ref": "#/$defs/Place"},
    },
    "required": ["city", "days", "unit", "where"],
    "$defs": {"Place": {"type": "object", "properties": {"lat": {"type": "number"}, "tags": {"type": "array"}}}},
}
TOOLS = [
    {"type": "function", "function": {"name": name, "description": "d", "parameters": PARAMETERS}}
    for name in ("weather", "forecast")
]
SCHEMA = {"type": "json_schema", "json_schema": {"name": "s", "schema": PARAMETERS, "strict": True}}
CHATS: dict[str, dict[str, Any]] = {
    "text": asks(),
    "long": asks(max_completion_tokens=3),
    "two": asks(n=2),
    "tools": asks(tools=TOOLS),
    "schema": asks(response_format=SCHEMA),
    "object": asks(response_format={"type": "json_object"}),
    "refusal": asks("please refuse"),
    "filter": asks("please filter"),
    "empty": asks("say nothing"),
    "reasoning": asks(reasoning_effort="high"),
    "cached": asks("long " * 2000),
    "logprobs": asks(logprobs=True),
    "stop": asks(stop=[" "]),
}
CLAUDE_TOOLS = [{"name": name, "input_schema": PARAMETERS} for name in ("weather", "forecast")]
LONG = [{"type": "text", "text": "word " * 3000, "cache_control": {"type": "ephemeral"}}]
HOUR = [{"type": "text", "text": "hour " * 3000, "cache_control": {"type": "ephemeral", "ttl": "1h"}}]
MESSAGES: dict[str, dict[str, Any]] = {
    "text": asks(max_tokens=100),
    "long": asks(max_tokens=3),
    "tools": asks(max_tokens=1000, tools=CLAUDE_TOOLS),
    "thinking": asks(max_tokens=2000, thinking={"type": "enabled", "budget_tokens": 1024}),
    "thinking and tools": asks(max_tokens=2000, thinking={"type": "adaptive"}, tools=CLAUDE_TOOLS),
    "cut tools": asks(max_tokens=6, tools=CLAUDE_TOOLS),
    "schema": asks(max_tokens=500, output_config={"format": {"type": "json_schema", "schema": PARAMETERS}}),
    "refusal": asks("please refuse", max_tokens=100),
    "empty": asks("say nothing", max_tokens=100),
    "cached": asks(max_tokens=100, system=LONG),
    "cached for an hour": asks(max_tokens=100, system=HOUR),
    "stop": asks(max_tokens=100, stop_sequences=[" "]),
}

FUNCTIONS = [{"type": "function", "name": name, "parameters": PARAMETERS} for name in ("weather", "forecast")]
RESPONSES: dict[str, dict[str, Any]] = {
    "text": {"input": "hello"},
    "items": {"input": [{"role": "user", "content": [{"type": "input_text", "text": "hello"}]}], "instructions": "Be."},
    "long": {"input": "hello", "max_output_tokens": 3},
    "tools": {"input": "hello", "tools": FUNCTIONS},
    "schema": {"input": "hello", "text": {"format": {"type": "json_schema", "name": "s", "schema": PARAMETERS}}},
    "refusal": {"input": "please refuse"},
    "empty": {"input": "say nothing"},
    "reasoning": {"input": "hello", "reasoning": {"effort": "high"}},
    "not stored": {"input": "hello", "store": False},
}


def merged(chunks: list[Any]) -> list[dict[str, Any]]:
    """Put the chunks of a stream together, as a client does."""
    choices: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        for one in chunk["choices"]:
            choice = choices.setdefault(one["index"], {"content": "", "refusal": "", "calls": {}, "finish": None})
            delta = one["delta"]
            choice["content"] += delta.get("content") or ""
            choice["refusal"] += delta.get("refusal") or ""
            choice["finish"] = one["finish_reason"] or choice["finish"]
            for part in delta.get("tool_calls", ()):
                made = choice["calls"].setdefault(part["index"], {"arguments": ""})
                made["arguments"] += part["function"]["arguments"]
                made |= {name: part[name] for name in ("id", "type") if name in part}
    return [choices[number] for number in sorted(choices)]


@pytest.mark.parametrize("name", CHATS)
async def test_a_chat_completion_is_one_and_its_stream_says_the_same(name: str):
    async with fake_server(CONFIG) as server, fake_server(CONFIG) as other:
        whole = await call(server, CHATS[name])
        streamed = await call(other, CHATS[name] | {"stream": True, "stream_options": {"include_usage": True}})
    read = read_strictly(ChatCompletion, whole.body)
    assert read.to_dict() == whole.json
    *events, done = streamed.events
    assert done == "[DONE]"
    for event in events:
        assert read_strictly(ChatCompletionChunk, msgspec.json.encode(event)).to_dict() == event
    assert [one["finish"] for one in merged(events)] == [one.finish_reason for one in read.choices]
    assert events[-1]["usage"].keys() == whole.json["usage"].keys()


@pytest.mark.parametrize("name", MESSAGES)
async def test_a_message_is_one_and_so_are_its_events(name: str):
    async with fake_server(CONFIG) as server:
        whole = await call(server, MESSAGES[name], path="/v1/messages")
        streamed = await call(server, MESSAGES[name] | {"stream": True}, path="/v1/messages")
    read = read_strictly(Message, whole.body)
    assert read.to_dict() == whole.json
    for event in streamed.events:
        if event["type"] != "ping":  # The SDK leaves it out.
            assert read_strictly(RawMessageStreamEvent, msgspec.json.encode(event)).to_dict() == event
    kinds = [event["type"] for event in streamed.events]
    assert (kinds[0], kinds[-2:]) == ("message_start", ["message_delta", "message_stop"])
    assert kinds.count("content_block_start") == kinds.count("content_block_stop") == len(read.content)


@pytest.mark.parametrize("name", RESPONSES)
async def test_a_response_is_one_and_so_are_its_events(name: str):
    body = {"model": "m"} | RESPONSES[name]
    async with fake_server(CONFIG) as server, fake_server(CONFIG) as other:
        whole = await call(server, body, path="/v1/responses")
        streamed = await call(other, body | {"stream": True}, path="/v1/responses")
    read = read_strictly(Response, whole.body)
    assert read.to_dict() == whole.json
    for event in streamed.events:
        assert read_strictly(ResponseStreamEvent, msgspec.json.encode(event)).to_dict() == event
    assert [event["sequence_number"] for event in streamed.events] == list(range(len(streamed.events)))
    last = streamed.events[-1]
    assert last["type"] == f"response.{read.status}"
    assert [one["type"] for one in last["response"]["output"]] == [one.type for one in read.output]


async def test_a_response_of_the_background_goes_on_and_can_be_cancelled():
    slow = FakeModel(name="m", price=PRICE, latency=3600.0)
    quick = FakeModel(name="quick", price=PRICE, latency=0.01)
    async with fake_server(FakeConfig(models=(slow, quick))) as server:
        client = openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="sk-test", max_retries=0)
        async with client:
            begun = await client.responses.create(model="m", input="hello", background=True)
            other = await client.responses.create(model="quick", input="hello", background=True)
            waiting = await client.responses.retrieve(begun.id)
            cancelled = await client.responses.cancel(begun.id)
            await server.until_idle()
            done = await client.responses.retrieve(other.id)
    assert (begun.status, waiting.status, cancelled.status, done.status) == (
        "queued",
        "queued",
        "cancelled",
        "completed",
    )
    assert done.output_text
    first, second = server.books.lines
    assert (first.cancelled, first.usage.output) == (True, 0)
    assert second.usage.output == done.usage.output_tokens


async def test_embeddings_are_the_same_as_numbers_and_in_base64():
    body = {"model": "e", "input": ["one", "two"], "dimensions": 8}
    async with fake_server(CONFIG) as server:
        numbers = await call(server, body, path="/v1/embeddings")
        packed = await call(server, body | {"encoding_format": "base64"}, path="/v1/embeddings")
    read = read_strictly(CreateEmbeddingResponse, numbers.body)
    for one, other in zip(read.data, packed.json["data"], strict=True):
        assert one.embedding == array("f", base64.b64decode(other["embedding"])).tolist()
        assert len(one.embedding) == 8
    assert packed.json["usage"] == numbers.json["usage"]


async def test_models_and_counts_are_told():
    async with fake_server(CONFIG) as server:
        models = await call(server, None, path="/v1/models", method="GET")
        one = await call(server, None, path="/v1/models/m", method="GET")
        theirs = await call(server, None, path="/v1/models", method="GET", anthropic_version="2023-06-01")
        count = await call(server, asks(system="short"), path="/v1/messages/count_tokens")
        message = await call(server, asks(system="short", max_tokens=10), path="/v1/messages")
        await server.until_idle()
    read_strictly(list[Model], msgspec.json.encode(models.json["data"]))
    read_strictly(Model, one.body)
    read_strictly(list[ModelInfo], msgspec.json.encode(theirs.json["data"]))
    assert read_strictly(MessageTokensCount, count.body).input_tokens == message.json["usage"]["input_tokens"]
    assert server.books.calls == 1


async def test_the_openai_sdk_reads_it_field_by_field():
    async with fake_server(CONFIG) as server:
        client = openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="sk-test", max_retries=0)
        async with client:
            for name, body in CHATS.items():
                typed = await client.chat.completions.create(**body)
                plain = await call(server, body)
                assert ignoring_id(typed.to_dict()).keys() == ignoring_id(plain.json).keys(), name
                assert typed._request_id == server.books.lines[-2].request_id
            made = await client.chat.completions.create(**CHATS["tools"])
            arguments = msgspec.json.decode(made.choices[0].message.tool_calls[0].function.arguments)
            assert arguments.keys() >= {"city", "days", "unit", "where"}
            vectors = await client.embeddings.create(model="e", input="one")
            assert len(vectors.data[0].embedding) == 256
            assert [one.id async for one in client.models.list()] == ["m", "e"]
            with pytest.raises(openai.NotFoundError) as caught:
                await client.chat.completions.create(**asks(model="other"))
            assert caught.value.code == "model_not_found"


def ignoring_id(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name not in {"id", "created"}}


async def test_the_anthropic_sdk_reads_it_and_puts_streams_together():
    async with fake_server(CONFIG) as server:
        client = anthropic.AsyncAnthropic(base_url=server.url, api_key="sk-test", max_retries=0)
        async with client:
            for name, body in MESSAGES.items():
                whole = await client.messages.create(**body)
                async with client.messages.stream(**body) as stream:
                    streamed = await stream.get_final_message()
                assert streamed.stop_reason == whole.stop_reason, name
                assert [one.type for one in streamed.content] == [one.type for one in whole.content], name
                assert streamed.usage.output_tokens > 0 or name == "empty", name
            count = await client.messages.count_tokens(model="m", messages=[{"role": "user", "content": "hello"}])
            assert count.input_tokens > 0
            with pytest.raises(anthropic.NotFoundError):
                await client.messages.create(**asks(model="other", max_tokens=10))


async def test_a_cache_is_written_once_and_read_then():
    body = MESSAGES["cached"]
    async with fake_server(CONFIG) as server:
        first, second = [(await call(server, body, path="/v1/messages")).json["usage"] for _ in range(2)]
        chats = [(await call(server, CHATS["cached"])).json["usage"] for _ in range(2)]
    assert first["cache_creation_input_tokens"] == second["cache_read_input_tokens"] == 3750
    assert first["input_tokens"] == second["input_tokens"] < 100
    cached = [one["prompt_tokens_details"]["cached_tokens"] for one in chats]
    assert cached[0] == 0
    assert cached[1] % 128 == 0
    assert 2000 < cached[1] <= chats[1]["prompt_tokens"]
    await asyncio.sleep(0)
