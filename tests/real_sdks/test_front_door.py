"""The front door under the real SDKs of OpenAI and Anthropic: what they read of it, and what their retries cost."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager

import httpx
import pytest

from actors import Ledger, Market, Supervisor
from actors.fake import FakeConfig, FakeModel, FakePrice, FaultPlan, fake_server
from actors.fake.faults import FakeOutage, FakeStall
from actors.models import compatible
from actors.serve import DoorConfig, KeyRing, Tenant, new_key
from actors.serve.app import DoorApp, make_door
from actors.serve.in_process import in_process_transport
from actors.serve.server import DoorServer
from actors.tariffs import Tariff
from runtime import ActorSystem

anthropic = pytest.importorskip("anthropic")
httpx2 = pytest.importorskip("httpx2")
openai = pytest.importorskip("openai")

pytestmark = [pytest.mark.sdk, pytest.mark.slow, pytest.mark.real_time]
HELLO = [{"role": "user", "content": "Say hello."}]
TOOL = {
    "name": "weather",
    "description": "Tells the weather.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


class Stage:
    """A door with one tenant, over fake servers."""

    def __init__(self, url, key, servers, door):
        self.url, self.key, self.servers, self.door = url, key, servers, door

    def openai(self, kind=openai.AsyncOpenAI, **options):
        return kind(base_url=f"{self.url}/v1", api_key=self.key, **options)

    def anthropic(self, kind=anthropic.AsyncAnthropic, **options):
        return kind(base_url=self.url, api_key=self.key, **options)

    @property
    def charges(self):
        return sum(server.books.calls for server in self.servers)


@asynccontextmanager
async def serving(*faults, **model):
    shown, kept = new_key("acme")
    config = DoorConfig(tenants={"acme": Tenant(budget="5")})
    model = FakeModel(name="swift", price=FakePrice(input="1", output="2"), **model)
    plan = FaultPlan(faults=faults)
    async with (
        fake_server(FakeConfig(models=(model,), plan=plan)) as first,
        fake_server(FakeConfig(models=(model,), seed=1)) as second,
        ActorSystem("door", log=False) as system,
    ):
        servers = (first, second) if faults else (first,)
        listings = [
            compatible(
                "swift",
                preset="vllm",
                base_url=f"{server.url}/v1",
                name=f"alder-{number}",
                tariff=Tariff(input="1", output="2"),
                paid=True,
            )
            for number, server in enumerate(servers)
        ]
        market = Market(providers=listings)
        ledger = system.spawn(lambda: Ledger(accounts={"acme": "5"}))
        supervisor = system.spawn(lambda: Supervisor(market, ledger=ledger))
        door = make_door(supervisor, market, config, KeyRing([kept]))
        async with DoorServer(door, DoorApp(door), port=0) as server:
            yield Stage(server.url, shown, servers, door)


async def test_openai_reads_answers_streams_and_tools():
    async with serving() as stage, stage.openai() as client:
        answer = await client.chat.completions.create(model="auto", messages=HELLO, max_tokens=8)
        assert (answer.model, answer.choices[0].finish_reason, answer.usage.completion_tokens) == ("auto", "length", 8)
        text = ""
        async with await client.chat.completions.create(
            model="auto", messages=HELLO, max_tokens=8, stream=True, stream_options={"include_usage": True}
        ) as stream:
            async for chunk in stream:
                text += chunk.choices[0].delta.content or "" if chunk.choices else ""
        assert text
        assert chunk.usage.completion_tokens == 8
        assert float(chunk.understudy["cost"]) > 0
        response = await client.responses.create(model="auto", input="Say hello.", max_output_tokens=16)
        assert response.output_text
        async with await client.responses.create(model="auto", input="Say hello.", stream=True) as events:
            kinds = [event.type async for event in events]
        assert kinds[0] == "response.created"
        assert kinds[-1] == "response.completed"
        called = await client.chat.completions.create(
            model="auto", messages=HELLO, tools=[{"type": "function", "function": TOOL}], tool_choice="required"
        )
        (call,) = called.choices[0].message.tool_calls
        assert call.function.name == "weather"
        assert "city" in json.loads(call.function.arguments)
        assert {one.id for one in (await client.models.list()).data} == {"auto", "cheapest", "fastest", "swift"}
        raw = await client.chat.completions.with_raw_response.create(model="swift", messages=HELLO)
        assert raw.headers["x-understudy-provider"] == "alder-0"


async def test_anthropic_reads_answers_streams_and_tools():
    async with serving() as stage, stage.anthropic() as client:
        answer = await client.messages.create(model="auto", messages=HELLO, max_tokens=8)
        assert (answer.model, answer.stop_reason, answer.usage.output_tokens) == ("auto", "max_tokens", 8)
        async with client.messages.stream(model="auto", messages=HELLO, max_tokens=8) as stream:
            text = "".join([piece async for piece in stream.text_stream])
            final = await stream.get_final_message()
        assert text == final.content[0].text != ""
        assert final.usage.output_tokens == 8
        tool = {"name": "weather", "description": "Tells it.", "input_schema": TOOL["parameters"]}
        called = await client.messages.create(
            model="auto", messages=HELLO, max_tokens=200, tools=[tool], tool_choice={"type": "any"}
        )
        assert called.stop_reason == "tool_use"
        assert "city" in next(one for one in called.content if one.type == "tool_use").input
        counted = await client.messages.count_tokens(model="auto", messages=HELLO)
        assert counted.input_tokens > 0


async def test_the_sync_clients_read_the_same():
    async with serving() as stage:
        plain, other = stage.openai(openai.OpenAI), stage.anthropic(anthropic.Anthropic)

        def ask():
            chat = plain.chat.completions.create(model="auto", messages=HELLO, max_tokens=8)
            message = other.messages.create(model="auto", messages=HELLO, max_tokens=8)
            vectors = plain.models.list()
            return chat.choices[0].message.content, message.content[0].text, vectors.data

        assert all(await asyncio.to_thread(ask))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"model": "swfit"}, openai.NotFoundError),
        ({"messages": []}, openai.BadRequestError),
        ({"api_key": "usk-1-2"}, openai.AuthenticationError),
        ({"max_tokens": 4_000_000}, openai.APIStatusError),
    ],
)
async def test_a_failure_is_the_error_that_its_sdk_has_for_it(options, expected):
    async with serving() as stage:
        options = {"model": "auto", "messages": HELLO} | options
        key = options.pop("api_key", stage.key)
        async with openai.AsyncOpenAI(base_url=f"{stage.url}/v1", api_key=key) as client:
            with pytest.raises(expected) as caught:
                await client.chat.completions.create(**options)
        if expected is openai.APIStatusError:
            assert caught.value.status_code == 402
        assert stage.charges == 0
        async with anthropic.AsyncAnthropic(base_url=stage.url, api_key=stage.key) as client:
            with pytest.raises(anthropic.NotFoundError):
                await client.messages.create(model="swfit", messages=HELLO, max_tokens=5)


async def test_an_outage_is_not_seen():
    async with serving(FakeOutage()) as stage, stage.openai(max_retries=0) as client:
        answers = await asyncio.gather(
            *(client.chat.completions.create(model="auto", messages=HELLO, max_tokens=8) for _ in range(20))
        )
        assert all(answer.choices[0].message.content for answer in answers)


@pytest.mark.parametrize("stream", [False, True])
async def test_the_retries_of_an_sdk_are_paid_once(stream):
    async with serving(latency=2.5) as stage:
        for make, error in ((stage.openai, openai.APITimeoutError), (stage.anthropic, anthropic.APITimeoutError)):
            before = stage.charges
            async with make(timeout=1.0, max_retries=5) as client:
                create = client.chat.completions.create if error is openai.APITimeoutError else client.messages.create
                answer = await create(model="auto", messages=HELLO, max_tokens=8, stream=stream)
                if stream:
                    assert [piece async for piece in answer]
            await stage.servers[0].until_idle()
            assert stage.charges - before == 1


async def test_anthropic_reads_a_door_without_a_socket_and_streams_as_it_comes():
    async with serving(FakeStall(at="mid_stream", after_events=4, seconds=1.0), output_tokens=20.0) as stage:
        http = httpx2.AsyncClient(transport=in_process_transport(DoorApp(stage.door), library=httpx2))
        loop = asyncio.get_running_loop()
        async with anthropic.AsyncAnthropic(
            base_url="http://127.0.0.1", api_key=stage.key, http_client=http, max_retries=0
        ) as client:
            whole = await client.messages.create(model="auto", max_tokens=50, messages=HELLO)
            async with client.messages.stream(model="auto", max_tokens=50, messages=HELLO) as stream:
                came = [loop.time() async for _ in stream]
                answer = await stream.get_final_message()
        assert whole.content[0].text
        assert answer.content[0].text
        assert answer.model == "auto"
        assert came[-1] - came[0] > 0.5


async def test_a_door_without_a_socket_streams_as_it_comes():
    async with serving(FakeStall(at="mid_stream", after_events=3, seconds=1.0), output_tokens=20.0) as stage:
        transport = in_process_transport(DoorApp(stage.door), library=httpx)
        loop = asyncio.get_running_loop()
        async with openai.AsyncOpenAI(
            base_url="http://127.0.0.1/v1", api_key=stage.key, http_client=httpx.AsyncClient(transport=transport)
        ) as client:
            stream = await client.chat.completions.create(model="auto", messages=HELLO, stream=True)
            came = [loop.time() async for _ in stream]
        assert came[-1] - came[0] > 0.5
