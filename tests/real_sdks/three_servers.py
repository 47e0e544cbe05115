"""A door over three model servers that fail, and what its clients were told of costs on the wire."""

from __future__ import annotations

import re
from contextlib import AsyncExitStack, asynccontextmanager
from fractions import Fraction

import aiohttp

from actors import Ledger, Supervisor
from actors.fake import FakeConfig, FakeModel, FakePrice, FaultPlan, fake_server
from actors.fake.faults import FakeOutage, FakeStall, FakeThrottle
from actors.ledger import GetStatement
from actors.market import parse_market
from actors.money import ZERO, to_micros
from actors.serve import DoorConfig, KeyRing, Tenant, new_key
from actors.serve.app import DoorApp, make_door
from actors.serve.server import DoorServer
from runtime import ActorSystem

PROVIDER = """
[[providers]]
name = "alder-{number}"
kind = "{kind}"
model = "swift"
base_url = "{url}"
api_key = "none"
tariff = {{ input = "1", output = "2" }}
max_concurrency = 20
timeout = 10.0
on_cut = "stops"
"""
KINDS = (("compatible", "/v1"), ("compatible", "/v1"), ("anthropic", ""))
"""What the servers speak, and the path at which they do."""
TOLD = (
    FakeOutage(share=0.2),
    FakeThrottle(share=0.2, retry_after=0.05),
    FakeStall(share=0.2, seconds=0.2),
    FakeStall(share=0.2, seconds=0.2, at="mid_stream"),
)
"""Faults that leave no doubt of what was charged."""
MICRO = Fraction(1, 1_000_000)
COST = re.compile(rb"^: understudy .*\bcost=([0-9.]+)", re.MULTILINE)


class OnTheWire:
    """Hands requests on to a door, and adds up the costs that its clients are told, in a header or a comment."""

    def __init__(self, app):
        self.app, self.told = app, ZERO

    async def __call__(self, scope, receive, send):
        async def heard(message):
            found = [value for name, value in message.get("headers", ()) if name == b"x-understudy-cost"]
            found += COST.findall(message.get("body", b""))
            for cost in found:
                self.told += to_micros(cost.decode())
            await send(message)

        await self.app(scope, receive, heard)


class ThreeServers:
    """The door, the servers behind it, and the books of all sides."""

    def __init__(self, url, key, servers, ledger, wire):
        self.url, self.key, self.servers, self.ledger, self.wire = url, key, servers, ledger, wire

    async def statement(self):
        """Return the tenant's account."""
        return await self.ledger.ask(GetStatement("acme"), timeout=5.0)

    async def calls(self):
        """Return what each server tells of its calls in its books, once it is idle: the charge of each in dollars."""
        told = []
        async with aiohttp.ClientSession() as session:
            for server in self.servers:
                await server.until_idle()
                async with session.get(f"{server.url}/books") as response:
                    told += (await response.json())["calls"]
        return told

    async def charged_exactly(self):
        """Return the dollars that the servers charged, once all books are seen to agree without any doubt."""
        calls, statement = await self.calls(), await self.statement()
        theirs = sum(Fraction(call["charged"]) for call in calls)
        assert self.wire.told == statement.settled
        assert (statement.reserved, statement.held, statement.estimated) == (0, 0, 0)
        assert 0 <= int(statement.settled) * MICRO - theirs < len(calls) * MICRO
        return theirs


@asynccontextmanager
async def three_servers(faults, *, answers=(), risk=None):
    """Serve a door for one tenant over three servers with `faults`; one of them speaks Anthropic's protocol."""
    shown, kept = new_key("acme")
    model = FakeModel(name="swift", price=FakePrice(input="1", output="2"), answers=answers)
    async with AsyncExitStack() as stack:
        servers = [
            await stack.enter_async_context(
                fake_server(FakeConfig(models=(model,), plan=FaultPlan(faults=faults), seed=seed))
            )
            for seed in range(3)
        ]
        text = "" if risk is None else f'risk = "{risk}"\n'
        text += "".join(
            PROVIDER.format(number=number, kind=kind, url=server.url + path)
            for number, (server, (kind, path)) in enumerate(zip(servers, KINDS, strict=True))
        )
        market = parse_market(text)
        system = await stack.enter_async_context(ActorSystem("door", log=False))
        ledger = system.spawn(lambda: Ledger(accounts={"acme": "5"}))
        supervisor = system.spawn(lambda: Supervisor(market, ledger=ledger))
        config = DoorConfig(tenants={"acme": Tenant(budget="5")}, timeout=60.0)
        door = make_door(supervisor, market, config, KeyRing([kept]))
        wire = OnTheWire(DoorApp(door))
        server = await stack.enter_async_context(DoorServer(door, wire, port=0))
        yield ThreeServers(server.url, shown, servers, ledger, wire)
