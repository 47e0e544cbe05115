"""Frameworks and SDKs against a fake server that fails: they read its answers and errors as a real provider's."""

from __future__ import annotations

import contextlib
import importlib
from typing import Any, get_args

import pytest

from actors.fake import FakeConfig, FakeModel, FaultPlan, fake_server
from actors.fake.config import DialectName, ScriptedAnswer
from actors.fake.faults import FakeErrorEvent, FakeOutage, FakeThrottle
from tests.actors.fake.calls import asks

openai = pytest.importorskip("openai")
anthropic = pytest.importorskip("anthropic")

pytestmark = [pytest.mark.sdk, pytest.mark.slow, pytest.mark.real_time, pytest.mark.filterwarnings("ignore")]

MODELS = (FakeModel(name="m"),)
STATUSES: dict[int, str] = {
    400: "BadRequestError",
    401: "AuthenticationError",
    403: "PermissionDeniedError",
    404: "NotFoundError",
    409: "ConflictError",
    422: "UnprocessableEntityError",
    429: "RateLimitError",
    500: "InternalServerError",
}


def failing(status: int, dialect: DialectName) -> FakeConfig:
    plan = FaultPlan(faults=(FakeOutage(status=status, message="Told so.", retry_after=3.0),))
    return FakeConfig(models=MODELS, dialect=dialect, plan=plan)


@pytest.mark.parametrize("dialect", [one for one in get_args(DialectName) if one != "anthropic"])
async def test_the_openai_sdk_reads_every_error_of_every_dialect(dialect: DialectName):
    for status, name in STATUSES.items():
        async with fake_server(failing(status, dialect)) as server:
            client = openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="sk-test", max_retries=0)
            async with client:
                with pytest.raises(getattr(openai, name)) as caught:
                    await client.chat.completions.create(**asks())
        assert caught.value.status_code == status
        assert "Told so." in caught.value.response.text
        # The SDK does not look for messages in the arrays of Gemini, nor where xAI has them.
        assert dialect in {"gemini", "xai"} or "Told so." in str(caught.value)


async def test_the_anthropic_sdk_reads_every_error():
    for status, name in STATUSES.items():
        async with fake_server(failing(status, "anthropic")) as server:
            client = anthropic.AsyncAnthropic(base_url=server.url, api_key="sk-test", max_retries=0)
            async with client:
                with pytest.raises(getattr(anthropic, name)) as caught:
                    await client.messages.create(**asks(max_tokens=9))
        assert caught.value.status_code == status
        assert caught.value.request_id == server.books.lines[0].request_id
        assert caught.value.body["error"]["message"] == "Told so."


async def test_the_sdks_retry_a_stray_429_and_each_try_is_in_the_books():
    plan = FaultPlan(faults=(FakeThrottle(tries=1, retry_after=0.001),))
    async with fake_server(FakeConfig(models=MODELS, plan=plan)) as server:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="sk-test", max_retries=1) as client:
            await client.chat.completions.create(**asks())
        async with anthropic.AsyncAnthropic(base_url=server.url, api_key="sk-test", max_retries=1) as other:
            await other.messages.create(**asks(max_tokens=9))
        await server.until_idle()
    assert [line.status for line in server.books.lines] == [429, 200, 429, 200]


async def test_an_error_in_mid_stream_is_the_sdks_own_error():
    plan = FaultPlan(faults=(FakeErrorEvent(after_events=4),))
    async with fake_server(FakeConfig(models=MODELS, plan=plan)) as server:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="sk-test", max_retries=0) as client:
            stream = await client.chat.completions.create(**asks(stream=True))
            with pytest.raises(openai.APIError):
                await all_of(stream)
            events = await client.responses.create(model="m", input="hello", stream=True)
            assert [one.type for one in await all_of(events)][-1] == "error"  # It is no exception to the SDK.
        async with anthropic.AsyncAnthropic(base_url=server.url, api_key="sk-test", max_retries=0) as other:
            messages = await other.messages.create(**asks(max_tokens=50, stream=True))
            with pytest.raises(anthropic.APIStatusError) as caught:
                await all_of(messages)
    assert caught.value.body["error"]["type"] == "overloaded_error"


async def all_of(stream: Any) -> list[Any]:
    return [one async for one in stream]


@pytest.mark.parametrize("form", ["chat", "responses", "messages"])
async def test_an_agent_of_pydantic_ai_calls_its_tool_and_answers_in_its_type(form: str):
    pydantic_ai = pytest.importorskip("pydantic_ai")
    models = importlib.import_module(f"pydantic_ai.models.{'anthropic' if form == 'messages' else 'openai'}")
    providers = importlib.import_module(f"pydantic_ai.providers.{'anthropic' if form == 'messages' else 'openai'}")
    told: list[str] = []

    def weather(city: str) -> str:
        """Tell the weather of a city."""
        told.append(city)
        return "fair"

    answers = (ScriptedAnswer(contains="typed", kind="tool", tool="final_result"),)
    server_config = FakeConfig(models=(FakeModel(name="m", answers=answers),))
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(fake_server(server_config))
        if form == "messages":
            client = anthropic.AsyncAnthropic(base_url=server.url, api_key="sk-test")
            provider = providers.AnthropicProvider(anthropic_client=await stack.enter_async_context(client))
            model = models.AnthropicModel("m", provider=provider)
        else:
            client = openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="sk-test")
            provider = providers.OpenAIProvider(openai_client=await stack.enter_async_context(client))
            model = (models.OpenAIChatModel if form == "chat" else models.OpenAIResponsesModel)("m", provider=provider)
        plain = await pydantic_ai.Agent(model, tools=[weather]).run("hello")
        typed = await pydantic_ai.Agent(model, output_type=dict[str, int]).run("typed")
        async with pydantic_ai.Agent(model).run_stream("in pieces") as stream:
            text = await stream.get_output()
        await server.until_idle()
    assert told
    assert plain.output
    assert isinstance(typed.output, dict)
    assert text
    assert plain.usage.output_tokens == sum(line.usage.output for line in list(server.books.lines)[:2])
