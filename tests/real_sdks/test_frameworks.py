"""Agent frameworks over a door without a socket: their own small programs, answered and streamed by the market."""

from __future__ import annotations

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

openai = pytest.importorskip("openai")

pytestmark = [pytest.mark.frameworks, pytest.mark.slow, pytest.mark.real_time, pytest.mark.filterwarnings("ignore")]
BASE_URL = "http://127.0.0.1/v1"
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
