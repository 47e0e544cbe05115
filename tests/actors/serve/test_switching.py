"""A door under another market: names and providers change in one turn, and what is under way ends as it began."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest

from actors import Market, Permanent
from actors.fake import FakeConfig, FakeModel, FakePrice
from actors.ledger import GetStatement
from actors.models import compatible
from actors.serve import Alias, DoorConfig, KeyRing, Tenant, new_key, replace_market
from actors.serve.app import DoorApp
from actors.serve.server import DoorServer
from actors.supervisor import MarketChange
from actors.tariffs import Tariff
from tests.actors.serve.doors import HELLO, serving
from tests.fake_wire import FakeWire

SLOW = FakeModel(name="slow", price=FakePrice(input="1", output="2"), latency=0.5, token_speed=2.0)


def offered(model: str, *, name: str = "birch", price: str = "2") -> tuple[Any, FakeWire]:
    wire = FakeWire(FakeConfig(models=(FakeModel(name=model, price=FakePrice(input="1", output=price)),)))
    tariff = Tariff(input="1", output=price)
    url = "http://127.0.0.1:2/v1"
    return compatible(model, preset="vllm", base_url=url, name=name, tariff=tariff, wire=wire, paid=True), wire


def bearer(shown: str) -> dict[str, str]:
    return {"authorization": f"Bearer {shown}"}


async def streaming(stage, **headers: str):
    """Begin a stream that takes 10 seconds, and return its task once it has begun."""
    body = {"model": "slow", "messages": HELLO, "stream": True, "max_tokens": 20}
    begun = asyncio.Event()

    async def read() -> str:
        async with stage.client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as response:
            text = ""
            async for part in response.aiter_text():
                text += part
                begun.set()
            return text

    task = asyncio.create_task(read())
    waiting = asyncio.create_task(begun.wait())
    await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    return task


async def listed(stage) -> list[str]:
    return [one["id"] for one in (await stage.client.get("/v1/models")).json()["data"]]


async def test_names_and_providers_change_together_and_a_stream_goes_on_to_its_end():
    async with serving(SLOW) as stage:
        task = await streaming(stage)
        listing, wire = offered("brisk")
        app = DoorApp(stage.door)
        change = await replace_market(app, Market(providers=[listing]), DoorConfig(aliases={"a": Alias()}))
        assert change == MarketChange(added=("birch",), removed=("alder-0",))
        assert await listed(stage) == ["a", "auto", "cheapest", "fastest", "brisk"]
        assert (await stage.chat(model="slow")).status_code == 404
        assert (await stage.chat(model="a")).headers["x-understudy-provider"] == "birch"
        assert "data: [DONE]" in await task
        assert (stage.calls, wire.provider.books.calls) == (1, 1)
        statement = await stage.ledger.ask(GetStatement(), timeout=1.0)
        assert (statement.reserved, statement.held) == (0, 0)


async def test_no_request_falls_between_two_markets():
    async with serving("swift") as stage:
        app = DoorApp(stage.door)
        answers: list[int] = []

        async def client() -> None:
            answers.extend([(await stage.chat()).status_code for _ in range(40)])

        async def operator() -> None:
            for number in range(20):
                listing, _ = offered(("brisk", "swift")[number % 2], name=f"birch-{number}")
                await asyncio.sleep(0)
                await replace_market(app, Market(providers=[listing]))

        await asyncio.gather(operator(), *(client() for _ in range(5)))
        assert answers == [200] * 200


async def test_what_cannot_be_used_changes_nothing():
    async with serving("swift") as stage:
        app = DoorApp(stage.door)
        listing, _ = offered("brisk")
        with pytest.raises(ValueError, match="another"):
            await replace_market(app, Market(providers=[listing]), DoorConfig(aliases={"brisk": Alias()}))
        with pytest.raises(Permanent):
            await replace_market(app, Market())
        assert await listed(stage) == ["auto", "cheapest", "fastest", "swift"]
        assert (await stage.chat(model="swift")).status_code == 200


async def test_a_price_counts_from_the_next_request():
    async with serving("swift") as stage:
        before = (await stage.chat(max_tokens=10)).headers["x-understudy-cost"]
        listing, _ = offered("swift", price="200")
        await replace_market(DoorApp(stage.door), Market(providers=[listing]))
        assert float((await stage.chat(max_tokens=10)).headers["x-understudy-cost"]) > 10 * float(before)


@pytest.mark.parametrize("cuts", [False, True])
async def test_a_revoked_key_is_refused_at_once_and_its_streams_end_if_it_cuts(cuts):
    shown, kept = new_key("acme")
    other, also = new_key("acme")
    config = DoorConfig(tenants={"acme": Tenant()})
    async with serving(SLOW, config=config, keys=KeyRing([kept, also]), caps={"acme": None}) as stage:
        tasks = [await streaming(stage, **bearer(one)) for one in (shown, other)]
        revoked = msgspec.structs.replace(kept, revoked=stage.door.clock(), cuts=cuts)
        app = DoorApp(stage.door)
        await replace_market(app, stage.market, keys=KeyRing([revoked, also]))
        assert (await stage.client.get("/v1/models", headers=bearer(shown))).status_code == 401
        assert (await stage.client.get("/v1/models", headers=bearer(other))).status_code == 200
        first, second = [await one for one in tasks]
        assert "data: [DONE]" in second
        assert ("data: [DONE]" in first) is not cuts
        assert ("the key was revoked" in first) is cuts
        statement = await stage.ledger.ask(GetStatement("acme"), timeout=1.0)
        assert (statement.reserved, statement.held) == (0, 0)


async def test_a_door_that_drains_refuses_at_once_and_cuts_at_its_limit():
    async with serving(SLOW, caps={"acme": None}) as stage:
        server = DoorServer(stage.door, DoorApp(stage.door))
        assert (await stage.client.get("/readyz")).status_code == 200
        task = await streaming(stage)
        draining = asyncio.create_task(server.drain(5.0))
        await asyncio.sleep(0)
        assert (await stage.client.get("/readyz")).status_code == 503
        assert (await stage.client.get("/healthz")).status_code == 200
        for path in ("/v1/chat/completions", "/v1/messages", "/v1/responses", "/v1/services/x"):
            refused = await stage.post(path, {"model": "auto", "messages": HELLO})
            told = {name: refused.headers[name] for name in ("retry-after", "x-should-retry", "connection")}
            assert (refused.status_code, told["x-should-retry"], told["connection"]) == (503, "true", "close")
            assert told["retry-after"] == "1"
        began = asyncio.get_running_loop().time()
        await draining
        assert asyncio.get_running_loop().time() - began == pytest.approx(5.0)
        text = await task
        assert "data: [DONE]" not in text
        last = json.loads(text.strip().rsplit("data: ", 1)[1].split("\n")[0])
        assert last["error"]["code"] == "closing"
        statement = await stage.ledger.ask(GetStatement(), timeout=1.0)
        assert (statement.reserved, statement.held) == (0, 0)
        assert statement.settled > 0
