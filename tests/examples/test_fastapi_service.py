"""The web service of the examples, asked over real sockets: streams, budgets, statuses, and clients that leave."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import socket
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import uvicorn

from actors import GetStatus, Market, Retry
from actors.fake import FakeConfig, FakeModel, FakePrice, FakeServer, FaultPlan, fake_server
from actors.fake.faults import FakeCut, FakeOutage, FakeStall, FakeThrottle
from actors.ledger import GetStatement
from actors.models import compatible
from actors.tariffs import Tariff

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = [pytest.mark.real_time, pytest.mark.slow]

PATH = Path(__file__).resolve().parents[2] / "examples" / "fastapi_service.py"
PRICE = {"input": "0.25", "output": "2.00"}
BUDGETS = {"acme": "1.00", "initech": "0.00"}


def example() -> Any:
    spec = importlib.util.spec_from_file_location("fastapi_service", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Service:
    """A service that runs, the model behind it, and a client."""

    def __init__(self, app: Any, url: str, model: FakeServer, session: aiohttp.ClientSession) -> None:
        self.app, self.url, self.model, self.session = app, url, model, session

    def ask(self, tenant: str = "acme", **fields: Any) -> Any:
        body = {"text": "Why is the sky blue?", "max_tokens": 40} | fields
        return self.session.post(f"{self.url}/chat", json=body, headers={"Tenant": tenant})

    async def refused(self, tenant: str = "acme", **fields: Any) -> tuple[int, str, int]:
        """Return the status of a refusal, the kind of failure, and the seconds to wait (0: none are told)."""
        async with self.ask(tenant, **fields) as response:
            wait = int(response.headers.get("Retry-After", "0"))
            return response.status, (await response.json())["error"], wait

    @property
    def supervisor(self) -> Any:
        return self.app.state.supervisor


@asynccontextmanager
async def serving(*faults: Any, speed: float = 0.0, **limits: Any) -> AsyncIterator[Service]:
    name = "swift"
    model = FakeModel(name=name, price=FakePrice(**PRICE), token_speed=speed)
    async with fake_server(FakeConfig(models=(model,), plan=FaultPlan(faults=faults))) as fake:
        listing = compatible(name, base_url=f"{fake.url}/v1", tariff=Tariff(**PRICE), **limits)
        app = example().make_app(Market(providers=[listing], retry=Retry(base=0.01, cap=0.02)), BUDGETS)
        listening = socket.create_server(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
        task = asyncio.create_task(server.serve(sockets=[listening]))
        try:
            async with aiohttp.ClientSession() as session:
                yield Service(app, url, fake, session)
        finally:
            server.should_exit = True
            await task


async def test_an_answer_comes_as_a_stream_and_its_cost_is_what_the_model_charged():
    async with serving(speed=400) as service:
        async with service.ask() as response:
            assert (response.status, response.content_type) == (200, "text/event-stream")
            lines = [line.decode().strip() async for line in response.content if line.strip()]
        words = [json.loads(line[6:]).get("text", "") for line in lines if line.startswith("data: ")]
        assert len("".join(words).split()) > 20
        assert lines[-2] == "event: end"
        charged = 1_000_000 * service.model.books.charged
        statement = await service.supervisor.ask(GetStatement("acme"), timeout=5.0)
        assert json.loads(lines[-1][6:])["cost"] == str(statement.settled)
        assert 0 <= statement.settled - charged < 1


async def test_each_failure_before_the_first_word_has_its_status():
    async with serving() as service:
        assert await service.refused("initech") == (402, "BudgetExceeded", 0)
        async with service.ask("umbrella") as response:
            assert response.status == 403
    async with serving(FakeThrottle(retry_after=20.0)) as service:
        refused = [await service.refused(seconds=1.0) for _ in range(4)]
        assert {status for status, _, _ in refused} == {429}
        assert 15 <= refused[-1][2] <= 30
    async with serving(FakeOutage()) as service:
        refused = [await service.refused(seconds=1.0) for _ in range(8)]
        assert {status for status, _, _ in refused} == {503}
        assert all(wait >= 1 for _, _, wait in refused)
    async with serving(FakeOutage(status=400)) as service:
        assert (await service.refused())[0] == 400
    async with serving(FakeOutage(status=500)) as service:
        assert (await service.refused())[0] == 502
    async with serving(FakeStall()) as service:
        assert (await service.refused(seconds=0.3))[0] == 504


async def test_a_stream_that_breaks_off_ends_with_an_error_event():
    async with serving(FakeCut(part=0.6)) as service, service.ask() as response:
        text = await response.text()
    assert response.status == 200
    assert text.count("event: error") == 1
    assert "event: end" not in text
    assert json.loads(text.split("data: ")[-1])["error"] == "StreamBroken"


async def test_a_client_that_leaves_in_mid_stream_gives_back_its_place_its_money_and_its_tasks():
    async with serving(speed=20, max_concurrency=1) as service:
        async with service.ask(max_tokens=1) as response:
            await response.read()
        before = asyncio.all_tasks()
        for _ in range(3):  # The only place at the provider is free again each time.
            async with service.ask(seconds=30.0) as response:
                await response.content.readline()
                response.close()  # As a client does that is killed: the connection is gone.
            async with asyncio.timeout(10.0):
                await service.model.until_idle()
        if ending := asyncio.all_tasks() - before:
            await asyncio.wait(ending, timeout=30.0)
        assert asyncio.all_tasks() - before == set()
        statement = await service.supervisor.ask(GetStatement("acme"), timeout=5.0)
        (status,) = await service.supervisor.ask(GetStatus(), timeout=5.0)
        assert (status.under_way, statement.reserved, statement.held) == (0, 0, 0)
        assert [call.cancelled for call in service.model.books.lines] == [False, True, True, True]
        # What had come is paid, and no more than a little beyond it.
        charged = 1_000_000 * service.model.books.charged
        assert charged <= statement.settled < 500
