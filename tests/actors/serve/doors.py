"""A door over fake servers in memory, and a client of it: real bytes in virtual time, without sockets."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx

from actors import Ledger, Market, Supervisor
from actors.fake import FakeConfig, FakeModel, FakePrice, FaultPlan
from actors.models import compatible
from actors.serve import DoorConfig, KeyRing
from actors.serve.app import DoorApp, make_door
from actors.serve.in_process import in_process_transport
from actors.tariffs import Tariff
from runtime import ActorSystem
from tests.fake_wire import FakeWire

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from actors.serve.door import Door

PLAIN = Tariff(input="1", output="2")
HELLO = [{"role": "user", "content": "Say hello."}]


class Stage:
    """A door, a client of it, and the servers behind it."""

    def __init__(
        self,
        door: Door,
        client: httpx.AsyncClient,
        servers: list[FakeWire],
        supervisor: Any,
        ledger: Any,
        system: ActorSystem,
    ):
        self.door, self.client, self.servers, self.system = door, client, servers, system
        self.supervisor, self.ledger = supervisor, ledger
        self.market = Market()
        """The market that it began with."""

    async def post(self, path: str, body: dict[str, Any], **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client.post(path, json=body, headers=named)

    async def chat(self, **fields: Any) -> httpx.Response:
        return await self.post("/v1/chat/completions", {"model": "auto", "messages": HELLO} | fields)

    @property
    def calls(self) -> int:
        return sum(server.provider.books.calls for server in self.servers)


@asynccontextmanager
async def serving(
    *models: str | FakeModel,
    faults: tuple[Any, ...] = (),
    config: DoorConfig | None = None,
    keys: KeyRing | None = None,
    caps: dict[str, Any] | None = None,
    preset: str = "vllm",
    price: str | None = None,
    tariff: Tariff = PLAIN,
    limits: dict[str, Any] | None = None,
    journal: Path | None = None,
    **market: Any,
) -> AsyncGenerator[Stage]:
    """Serve one fake server for each model; `faults` are of the first one, `limits` of each."""
    servers, listings = [], []
    for number, one in enumerate(models or ("swift",)):
        model = FakeModel(name=one, price=FakePrice(input="1", output="2")) if isinstance(one, str) else one
        plan = FaultPlan(faults=faults if number == 0 else ())
        wire = FakeWire(FakeConfig(models=(model,), plan=plan, seed=number))
        servers.append(wire)
        listings.append(
            compatible(
                model.name,
                preset=preset,
                base_url="http://127.0.0.1:1/v1",
                name=f"alder-{number}",
                **({"tariff": tariff} if price is None else {"price": price}),
                wire=wire,
                paid=True,
                **(limits or {}),
            )
        )
    offered = Market(providers=listings, **market)
    async with ActorSystem("door", log=False) as system:
        ledger = system.spawn(lambda: Ledger(accounts=caps or {}, journal=journal))
        supervisor = system.spawn(lambda: Supervisor(offered, ledger=ledger))
        door = make_door(supervisor, offered, DoorConfig() if config is None else config, keys)
        door.clock = asyncio.get_running_loop().time
        transport = in_process_transport(DoorApp(door), library=httpx)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=None) as client:  # noqa: S113 - the time is virtual.
            stage = Stage(door, client, servers, supervisor, ledger, system)
            stage.market = offered
            yield stage
