"""A day of traffic through the door, with every trouble, leaving clients and changing markets: the books hold."""

from __future__ import annotations

import asyncio
import contextlib
import random
from fractions import Fraction

import httpx
import msgspec
import pytest

from actors import Market
from actors.fake import FakeModel, FakePrice
from actors.fake.faults import (
    FakeCut,
    FakeErrorEvent,
    FakeErrorInside,
    FakeGarbage,
    FakeLostReply,
    FakeOutage,
    FakeSlowness,
    FakeStall,
    FakeThrottle,
)
from actors.ledger import GetStatement
from actors.money import Micros
from actors.serve import DoorConfig, KeyRing, Tenant, new_key, replace_market
from actors.serve.app import DoorApp
from tests.actors.serve.doors import HELLO, serving
from tests.proofs import repeated

REQUESTS = repeated(2_000, part=40)
DAY = 86_400.0 * REQUESTS / 2_000
CAP = Micros(200_000)
TROUBLES = (
    FakeOutage(share=0.05),
    FakeOutage(since=DAY / 4, until=DAY / 3),
    FakeThrottle(share=0.05, retry_after=1.0),
    FakeThrottle(since=DAY / 2, until=DAY / 2 + 600.0, retry_after=30.0),
    FakeStall(share=0.03, seconds=900.0),
    FakeStall(share=0.03, at="mid_stream", seconds=900.0),
    FakeCut(share=0.05),
    FakeLostReply(share=0.03),
    FakeErrorInside(share=0.02),
    FakeErrorEvent(share=0.02),
    FakeGarbage(share=0.02),
    FakeSlowness(share=0.1, extra=20.0),
)
PATHS = {"/v1/chat/completions": "max_tokens", "/v1/messages": "max_tokens", "/v1/responses": "max_output_tokens"}


class Customers:
    """The clients of one tenant."""

    def __init__(self, stage, key: str, dice: random.Random) -> None:
        self.stage, self.key, self.dice = stage, key, dice
        self.statuses: dict[int, int] = {}

    async def one(self) -> None:
        dice = self.dice
        await asyncio.sleep(dice.uniform(0, DAY))
        path = dice.choice(list(PATHS))
        body = {"model": "auto", PATHS[path]: dice.randint(16, 400), "stream": dice.random() < 0.5}
        body["input" if path.endswith("responses") else "messages"] = HELLO
        headers = {"authorization": f"Bearer {self.key}"}
        if dice.random() < 0.3:
            headers["idempotency-key"] = f"k-{dice.randint(0, REQUESTS // 10)}-{path}-{body}"
        with contextlib.suppress(TimeoutError, httpx.HTTPError):
            async with asyncio.timeout(dice.choice([0.5, 5.0, None, None, None])):
                response = await self.stage.client.post(path, json=body, headers=headers)
                self.statuses[response.status_code] = self.statuses.get(response.status_code, 0) + 1


@pytest.mark.parametrize("seed", range(2))
async def test_no_cap_is_passed_and_nothing_is_left_open_after_a_day_with_every_trouble(seed):
    dice = random.Random(seed)
    shown, kept = new_key("acme")
    config = DoorConfig(tenants={"acme": Tenant(budget=str(CAP))}, timeout=120.0)
    models = [
        FakeModel(name="swift", price=FakePrice(input="1", output="2"), latency=0.5, token_speed=50.0) for _ in range(3)
    ]
    async with serving(*models, faults=TROUBLES, config=config, keys=KeyRing([kept]), caps={"acme": CAP}) as stage:
        app, whole = DoorApp(stage.door), stage.market
        customers = Customers(stage, shown, dice)
        highest = 0

        async def operator() -> None:
            nonlocal highest
            while True:
                await asyncio.sleep(DAY / 50)
                some = dice.sample(whole.providers, dice.randint(1, 3))
                listings = [msgspec.structs.replace(one, max_concurrency=dice.choice([1, 5, 10])) for one in some]
                await replace_market(app, Market(providers=listings, risk=dice.choice([None, "0.05"])))
                state = await stage.ledger.ask(GetStatement("acme"), timeout=5.0)
                highest = max(highest, state.settled + state.held + state.reserved)

        operating = asyncio.create_task(operator())
        await asyncio.gather(*(customers.one() for _ in range(REQUESTS)))
        operating.cancel()
        await asyncio.wait({operating})
        await asyncio.sleep(3_600.0)
        assert stage.door.under_way == 0
        assert customers.statuses[200] > REQUESTS / 4, customers.statuses
        assert customers.statuses.keys() <= {200, 402, 409, 429, 500, 502, 503, 504}, customers.statuses
        state = await stage.ledger.ask(GetStatement("acme"), timeout=5.0)
        assert state.reserved == 0
        assert max(highest, state.settled + state.held) <= CAP
        theirs = sum((server.provider.books.charged for server in stage.servers), Fraction(0))
        assert theirs <= Fraction(int(state.settled + state.held), 1_000_000)
