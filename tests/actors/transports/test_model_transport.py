"""The transport to models: what it sends, what it reads, and how its failures are named."""

from __future__ import annotations

import contextlib

import pytest

from actors.errors.families import BadAnswer, OutcomeUnknown, Permanent, QuotaExhausted, Throttled, Transient
from actors.limits.reported import ReportedLimit
from actors.model_calls import ModelRequest, preset_named
from actors.model_calls.presets import presets
from actors.transports.model_transport import ModelTransport
from actors.transports.transport import ProviderCall
from tests.actors.transports.http_upstream import answer

pytestmark = pytest.mark.real_time

HELLO = {"messages": [{"role": "user", "content": "Hello"}]}
CHAT = {
    "id": "c-1",
    "object": "chat.completion",
    "model": "true-model",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1},
}
MESSAGE = {
    "id": "m-1",
    "type": "message",
    "model": "true-model",
    "content": [{"type": "text", "text": "Hi"}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 3, "output_tokens": 1},
}


@pytest.fixture
async def model(upstream):
    async with contextlib.AsyncExitStack() as stack:

        def make(preset="openai", **options):
            base = f"http://127.0.0.1:{upstream.port}/v1"
            options = {"base_url": base, "api_key": "sk-secret-key"} | options
            transport = ModelTransport("alder", "m-1", preset=preset_named(preset), **options)
            stack.push_async_callback(transport.aclose)
            return transport

        yield make


def a_call(given=HELLO, **changes):
    fields = {"service": "chat", "input": given, "request_id": "r-1", "idempotency_key": "k-1", "max_cost": "0.01"}
    return ProviderCall(**(fields | {"timeout": 5.0} | changes))


def with_message(**message):
    return {**CHAT, "choices": [{"index": 0, "message": message, "finish_reason": message.pop("reason", "stop")}]}


async def test_the_body_goes_out_as_it_came_but_for_the_model_and_the_bound(upstream, model):
    upstream.script = [answer(200, CHAT)]
    body = {**HELLO, "model": "another", "max_tokens": 50, "temperature": 0.2, "made_up": {"x": [1, None]}}
    reply = await model().call(a_call(body))
    assert reply.output == CHAT
    ((first, headers, sent),) = upstream.requests
    assert first == "POST /v1/chat/completions HTTP/1.1"
    assert sent == {
        **HELLO,
        "model": "m-1",
        "max_completion_tokens": 50,
        "temperature": 0.2,
        "made_up": body["made_up"],
    }
    assert headers["authorization"] == "Bearer sk-secret-key"
    assert headers["x-client-request-id"] == "r-1"
    assert "idempotency-key" not in headers
    assert body["model"] == "another"


async def test_each_form_goes_to_its_own_path_with_the_header_of_its_preset(upstream, model):
    vectors = {"data": [{"index": 0, "embedding": [0.5]}], "model": "m"}
    upstream.script = [answer(200, MESSAGE), answer(200, vectors)]
    asked = ModelRequest(form="messages", body={**HELLO, "max_tokens": 10})
    await model("anthropic").call(a_call(asked))
    await model("mistral").call(a_call({"form": "embeddings", "body": {"input": "Hello"}}))
    (first, headers, sent), (second, _, _) = upstream.requests
    assert (first.split()[1], second.split()[1]) == ("/v1/messages", "/v1/embeddings")
    assert (headers["x-api-key"], headers["anthropic-version"]) == ("sk-secret-key", "2023-06-01")
    assert sent["max_tokens"] == 10


async def test_the_bound_of_the_listing_holds_if_the_request_has_none(upstream, model):
    upstream.script = [answer(200, CHAT), answer(200, CHAT)]
    transport = model("deepseek", max_output=64)
    await transport.call(a_call())
    await transport.call(a_call({**HELLO, "max_completion_tokens": 9}))
    assert [sent["max_tokens"] for _, _, sent in upstream.requests] == [64, 9]


async def test_a_key_is_sent_only_to_a_provider_that_honours_keys(upstream, model):
    upstream.script = [answer(200, CHAT)]
    await model(idempotent="key").call(a_call())
    assert upstream.requests[0][1]["idempotency-key"] == "k-1"


async def test_responses_are_not_stored_at_the_provider(upstream, model):
    upstream.script = [
        answer(200, {"output": [{"type": "message", "content": [{"type": "output_text", "text": "x"}]}]})
    ]
    await model().call(a_call(ModelRequest(form="responses", body={"input": "Hello"})))
    assert upstream.requests[0][2]["store"] is False


async def test_what_cannot_be_said_in_a_form_of_the_provider_goes_to_another(upstream, model):
    asked = ModelRequest(form="messages", body={**HELLO, "max_tokens": 9, "top_k": 5})
    with pytest.raises(Permanent, match=r"does not speak the form 'messages'.*top_k") as told:
        await model("groq").call(a_call(asked))
    assert (told.value.scope, told.value.outcome, told.value.charged) == ("here", "not_started", "no")
    assert not upstream.requests


async def test_a_chat_completion_is_served_by_a_provider_of_messages(upstream, model):
    upstream.script = [answer(200, MESSAGE)]
    reply = await model("anthropic", max_output=64).call(a_call({**HELLO, "seed": 7}))
    ((first, _, sent),) = upstream.requests
    assert first.split()[1] == "/v1/messages"
    assert sent == {
        "model": "m-1",
        "max_tokens": 64,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}],
    }
    assert reply.output["choices"][0]["message"]["content"] == "Hi"
    assert reply.output["usage"]["total_tokens"] == 4
    assert reply.translated == ("seed: approximated (left out)",)


async def test_a_message_is_served_by_a_provider_of_chat_completions(upstream, model):
    upstream.script = [answer(200, CHAT)]
    asked = ModelRequest(form="messages", body={**HELLO, "max_tokens": 9, "stop_sequences": ["x"]})
    reply = await model("groq").call(a_call(asked))
    ((first, _, sent),) = upstream.requests
    assert first.split()[1] == "/v1/chat/completions"
    assert (sent["max_completion_tokens"], sent["stop"]) == (9, ["x"])
    assert reply.output["content"] == [{"type": "text", "text": "Hi", "citations": None}]
    assert reply.translated == ("stop_sequence: approximated (whether one ended the answer is not known)",)


async def test_an_answer_that_the_form_of_the_request_cannot_say_is_paid_and_told(upstream, model):
    call = {"id": "t", "type": "function", "function": {"name": "read", "arguments": '{"path":'}}
    upstream.script = [answer(200, with_message(content=None, tool_calls=[call], reason="tool_calls"))]
    with pytest.raises(BadAnswer, match="no JSON") as told:
        await model("deepseek").call(a_call(ModelRequest(form="messages", body={**HELLO, "max_tokens": 9})))
    assert (told.value.reason, told.value.charged, told.value.answer.output["id"]) == ("not_json", "yes", "c-1")


@pytest.mark.parametrize(
    "given",
    [None, 7, {}, {"messages": []}, {"messages": "x"}, {**HELLO, "max_tokens": 0}, {**HELLO, "top_p": float("nan")}],
)
async def test_what_could_never_be_sent_is_told_before_anything_is_spent(upstream, model, given):
    with pytest.raises(Permanent) as told:
        await model().call(a_call(given))
    assert told.value.outcome == "not_started"
    assert not upstream.requests


OVERLOADED = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
OUT_OF_QUOTA = {"error": {"code": "insufficient_quota", "message": "no more"}}


@pytest.mark.parametrize(
    ("preset", "reply", "family"),
    [
        (
            "openai",
            answer(429, {"error": {"code": "rate_limit_exceeded", "message": "slow"}}, Retry_After="7"),
            Throttled,
        ),
        ("openai", answer(429, OUT_OF_QUOTA), QuotaExhausted),
        ("openai", answer(500, {"error": {"message": "oops"}}), OutcomeUnknown),
        ("openai", answer(200, {"error": {"code": "rate_limit_exceeded", "message": "slow"}}), Throttled),
        ("openai", answer(200, b"<html>"), OutcomeUnknown),
        ("openai", answer(200, {"choices": []}), OutcomeUnknown),
        ("openai", answer(200, {"choices": [{"message": 7}]}), OutcomeUnknown),
        ("anthropic", answer(529, OVERLOADED), Transient),
        ("vllm", answer(500, {"error": {"message": "oops"}}), Transient),
    ],
)
async def test_each_failure_has_the_name_of_its_family(upstream, model, preset, reply, family):
    upstream.script = [reply]
    given = ModelRequest(form="messages", body=HELLO) if preset == "anthropic" else HELLO
    with pytest.raises(family) as told:
        await model(preset).call(a_call(given))
    assert type(told.value) is family


async def test_limits_are_read_in_the_dialect_of_the_preset_wherever_it_is_reached(upstream, model):
    headers = {"X_RateLimit_Limit_Requests": "1000", "X_RateLimit_Limit_Tokens": "6000"}
    upstream.script = [answer(200, CHAT, **headers)]
    reply = await model("groq").call(a_call())
    assert ReportedLimit(limit=1000, window=86_400.0) in reply.limits


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (with_message(content=None), "empty"),
        (with_message(content="  "), "empty"),
        (with_message(content=None, refusal="I will not"), "refused"),
        (with_message(content="half", reason="content_filter"), "filtered"),
        (with_message(content="{half"), "not_json"),
    ],
)
async def test_an_answer_that_is_of_no_use_says_why_and_is_paid(upstream, model, reply, reason):
    upstream.script = [answer(200, reply)]
    with pytest.raises(BadAnswer) as told:
        await model().call(a_call({**HELLO, "response_format": {"type": "json_object"}}))
    assert (told.value.reason, told.value.charged, told.value.outcome) == (reason, "yes", "done")
    assert told.value.answer.output == reply


async def test_an_answer_that_only_calls_tools_is_no_empty_one(upstream, model):
    calls = [{"id": "t", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    upstream.script = [answer(200, with_message(content=None, tool_calls=calls, reason="tool_calls"))]
    assert (await model().call(a_call())).output["choices"][0]["message"]["tool_calls"] == calls


async def test_the_health_check_asks_for_the_models_and_costs_nothing(upstream, model):
    upstream.script = [answer(200, {"data": []})]
    await model().check(timeout=5.0)
    assert upstream.requests[0][0] == "GET /v1/models HTTP/1.1"


async def test_the_key_is_shown_nowhere(upstream, model):
    upstream.script = [answer(401, {"error": {"message": "Incorrect API key provided: sk-secret-key"}})]
    transport = model()
    with pytest.raises(Permanent) as told:
        await transport.call(a_call())
    assert "secret" not in f"{told.value}{told.value!r}{transport!r}"


async def test_a_key_that_a_model_quotes_in_its_refusal_is_masked(upstream, model):
    upstream.script = [answer(200, with_message(content=None, refusal="I will not tell sk-secret-key"))]
    with pytest.raises(BadAnswer, match="I will not tell") as told:
        await model().call(a_call())
    assert "secret" not in f"{told.value}{told.value!r}"


def test_every_preset_can_make_a_transport_and_says_where_it_is_from():
    for name, preset in presets().items():
        assert preset.seen_at, name
        transport = ModelTransport(
            name, "m", preset=preset, base_url=preset.base_url or "https://x.example/v1", api_key="k"
        )
        assert transport.paid is preset.paid
