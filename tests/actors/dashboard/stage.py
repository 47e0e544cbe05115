"""A system with providers that fail by plan, and a watcher of it: what the tests of the page look at."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from actors import FunctionTransport, Ledger, Listing, Market, Provider, Supervisor, smart_request
from actors.dashboard import GetUpdate, Update, View, Viewport, Watcher
from actors.errors.families import CallFailed
from actors.ledger import OpenAccount
from runtime import ActorSystem

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

DECODER = msgspec.json.Decoder(Update)


class Stage:
    """A running system, and what one viewer has of it."""

    def __init__(self, system: ActorSystem, supervisor: Any, ledger: Any, watcher: Any) -> None:
        self.system, self.supervisor, self.ledger, self.watcher = system, supervisor, ledger, watcher
        self.view = View()
        self.failing: dict[str, Exception | None] = {}
        self.latency = 0.05

    async def call(self, data: Any) -> Any:
        await asyncio.sleep(self.latency)
        error = self.failing.get(data.provider.name if hasattr(data, "provider") else "")
        if error is not None:
            raise error
        return "answer"

    def transport(self, name: str, *, paid: bool = True) -> FunctionTransport:
        async def call(_call: Any) -> Any:
            await asyncio.sleep(self.latency)
            if (error := self.failing.get(name)) is not None:
                raise error
            return "answer"

        return FunctionTransport(call, paid=paid, idempotent="no")

    async def request(self, **options: Any) -> Any:
        try:
            return await smart_request(
                self.supervisor, **{"service": "shout", "input": "hello", "timeout": 30.0} | options
            )
        except CallFailed as error:
            return error

    async def look(self, **look: Any) -> int:
        """Bring the view up to date, and return how many updates that took."""
        await asyncio.sleep(0.3)
        count = 0
        while encoded := await self.watcher.ask(GetUpdate(seen=self.view.seen, look=Viewport(**look)), timeout=5.0):
            assert len(encoded) <= 65_536
            self.view.apply(DECODER.decode(encoded))
            count += 1
        return count


@asynccontextmanager
async def looked_at(
    *names: str, may_act: bool = False, accounts: dict[str, Any] | None = None, journal: Any = None, **market: Any
) -> AsyncGenerator[Stage]:
    """Run providers of these names, each at two cents a call."""
    async with ActorSystem("shop", log=False) as system:
        stage = Stage(system, None, None, None)
        listings = [
            Listing(
                provider=Provider(name=name, services={"shout"}, price="0.02"),
                transport=lambda name=name: stage.transport(name),
            )
            for name in names or ("alder", "birch")
        ]
        stage.ledger = system.spawn(lambda: Ledger(accounts=accounts or {}, journal=journal), name="ledger")
        stage.supervisor = system.spawn(lambda: Supervisor(Market(providers=listings, **market), ledger=stage.ledger))
        stage.watcher = system.spawn(lambda: Watcher(system, may_act=may_act), name="watcher")
        await stage.ledger.ask(OpenAccount(name="batch", cap="1"), timeout=5.0)
        yield stage
