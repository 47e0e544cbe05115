"""Agent frameworks over a door without a socket: their own small programs, answered and streamed by the market."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from actors import GetStatus, Market, Supervisor
from actors.fake import FakeConfig, FakeModel, FakePrice, FaultPlan, fake_server
from actors.fake.config import ScriptedAnswer
from actors.fake.faults import FakeOutage
from actors.models import compatible
from actors.serve import app
from actors.serve.in_process import in_process_transport
from actors.tariffs import Tariff
from runtime import ActorSystem
from tests.real_sdks.three_servers import TOLD, three_servers

openai = pytest.importorskip("openai")

pytestmark = [pytest.mark.frameworks, pytest.mark.slow, pytest.mark.real_time, pytest.mark.filterwarnings("ignore")]
BASE_URL = "http://127.0.0.1/v1"
WEATHER = {
    "name": "weather",
    "description": "Tells the weather.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
ANSWERS = (ScriptedAnswer(contains="weather", kind="tool", text='{"city": "Oslo"}'),)


@asynccontextmanager
async def clients():
    """Give an OpenAI client and its HTTP client over a door whose first provider fails."""
    model = FakeModel(name="swift", price=FakePrice(input="1", output="2"), answers=ANSWERS)
    failing = FakeConfig(models=(model,), plan=FaultPlan(faults=(FakeOutage(),)))
    async with (
        fake_server(failing) as first,
        fake_server(FakeConfig(models=(model,), seed=1)) as second,
        ActorSystem("door", log=False) as system,
    ):
        listings = [
            compatible("swift", base_url=f"{one.url}/v1", name=name, tariff=Tariff(input="1", output="2"))
            for name, one in (("failing", first), ("well", second))
        ]
        market = Market(providers=listings)
        supervisor = system.spawn(lambda: Supervisor(market))
        library = http_library_of(openai)
        transport = in_process_transport(app(supervisor, market), library=library)
        async with library.AsyncClient(transport=transport) as http:
            yield openai.AsyncOpenAI(base_url=BASE_URL, api_key="none", http_client=http), http
        for status in await supervisor.ask(GetStatus(), timeout=5.0):
            assert status.under_way == 0


def http_library_of(sdk):
    """Return what an SDK makes its requests with: httpx2, or httpx in older versions."""
    names = (one.__module__.partition(".")[0] for one in sdk.DefaultAsyncHttpxClient.__mro__)
    name = next(one for one in names if one in {"httpx", "httpx2"})
    return pytest.importorskip(name)


async def test_pydantic_ai_runs_and_streams():
    pydantic_ai = pytest.importorskip("pydantic_ai")
    models = pytest.importorskip("pydantic_ai.models.openai")
    providers = pytest.importorskip("pydantic_ai.providers.openai")
    async with clients() as (client, _):
        model = models.OpenAIChatModel("auto", provider=providers.OpenAIProvider(openai_client=client))
        agent = pydantic_ai.Agent(model)
        assert (await agent.run("Say hello.")).output
        async with agent.run_stream("Say hello.") as answer:
            assert "".join([piece async for piece in answer.stream_text(delta=True)])
        asked = []

        @agent.tool_plain
        def weather(city: str) -> str:
            asked.append(city)
            return "rain"

        await agent.run("How is the weather?", usage_limits=pydantic_ai.UsageLimits(request_limit=2))
        assert asked == ["Oslo"]


async def test_langchain_runs_and_streams():
    chats = pytest.importorskip("langchain_openai")
    async with clients() as (_, http):
        model = chats.ChatOpenAI(model="auto", base_url=BASE_URL, api_key="none", http_async_client=http)
        assert (await model.ainvoke("Say hello.")).content
        assert len([piece async for piece in model.astream("Say hello.")]) > 2


@pytest.mark.parametrize("kind", ["OpenAIChatCompletionsModel", "OpenAIResponsesModel"])
async def test_the_openai_agents_sdk_runs_and_streams(kind):
    agents = pytest.importorskip("agents")
    agents.set_tracing_disabled(True)
    async with clients() as (client, _):
        agent = agents.Agent(name="host", model=getattr(agents, kind)(model="auto", openai_client=client))
        assert (await agents.Runner.run(agent, "Say hello.")).final_output
        running = agents.Runner.run_streamed(agent, "Say hello.")
        kinds = [event.type async for event in running.stream_events()]
        assert "raw_response_event" in kinds
        assert running.final_output


@pytest.mark.parametrize("program", ["pydantic_ai", "langchain", "agents"])
async def test_every_answer_is_right_and_all_books_agree_over_servers_that_fail(program):
    run = {"pydantic_ai": with_pydantic_ai, "langchain": with_langchain, "agents": with_agents}[program]
    async with three_servers(TOLD, answers=ANSWERS) as stage:
        async with openai.AsyncOpenAI(base_url=f"{stage.url}/v1", api_key=stage.key) as client:
            await asyncio.gather(*(run(client, number) for number in range(4)))
        assert await stage.charged_exactly() > 0


async def with_pydantic_ai(client, number):
    pydantic_ai = pytest.importorskip("pydantic_ai")
    models = pytest.importorskip("pydantic_ai.models.openai")
    providers = pytest.importorskip("pydantic_ai.providers.openai")
    agent = pydantic_ai.Agent(models.OpenAIChatModel("auto", provider=providers.OpenAIProvider(openai_client=client)))
    asked = []

    @agent.tool_plain
    def weather(city: str) -> str:
        asked.append(city)
        return "rain"

    assert (await agent.run(f"How is the weather, {number}?")).output
    assert asked == ["Oslo"]
    async with agent.run_stream(f"Say hello, {number}.") as answer:
        assert "".join([piece async for piece in answer.stream_text(delta=True)])


async def with_langchain(client, number):
    chats = pytest.importorskip("langchain_openai")
    library, to = http_library_of(openai), {"base_url": str(client.base_url), "api_key": client.api_key}
    with library.Client() as http:
        async with library.AsyncClient() as other:
            model = chats.ChatOpenAI(model="auto", http_client=http, http_async_client=other, **to)
            bound = model.bind_tools([{"type": "function", "function": WEATHER}])
            assert (await bound.ainvoke(f"How is the weather, {number}?")).tool_calls[0]["args"] == {"city": "Oslo"}
            assert (await asyncio.to_thread(model.invoke, f"Say hello, {number}.")).content
            assert "".join([piece.content async for piece in model.astream(f"Say hi, {number}.")])


async def with_agents(client, number):
    agents = pytest.importorskip("agents")
    agents.set_tracing_disabled(True)
    asked = []

    @agents.function_tool
    def weather(city: str) -> str:
        """Tell the weather."""
        asked.append(city)
        return "rain"

    for kind in (agents.OpenAIChatCompletionsModel, agents.OpenAIResponsesModel):
        agent = agents.Agent(name="host", model=kind(model="auto", openai_client=client), tools=[weather])
        assert (await agents.Runner.run(agent, f"How is the weather, {number}?")).final_output
        running = agents.Runner.run_streamed(agents.Agent(name="host", model=agent.model), f"Say hello, {number}.")
        assert [event async for event in running.stream_events()]
        assert running.final_output
    assert asked == ["Oslo"] * 2
