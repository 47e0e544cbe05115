"""A town on the mock network of AGIRAILS: one requester with money, and real agents of the SDK as providers."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from unittest import mock

from agirails.level1.agent import Agent
from agirails.level1.config import AgentBehavior, AgentConfig
from agirails.runtime.mock_state_manager import MockStateManager

from actors.agirails.network import AgirailsNetwork
from actors.money import Micros
from actors.providers.provider import Provider
from actors.transports.transport import ProviderCall
from tests.real_time import FAR

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from actors.agirails.transport import AgirailsTransport

REQUESTER = "0x" + "a1" * 20
MINTED = Micros(1_000_000_000)
PRICE = Micros(60_000)
PATIENT = (None, "mock-state.json", int(10_000 * FAR), 10 * FAR)
"""The defaults of the SDK for who reads and writes its books, but for the time that the lock of the books is awaited.

On a busy machine an agent gives up after the 5 seconds of the SDK, and loses what it was to write.
"""


class QuickAgent(Agent):
    POLL_INTERVAL = 0.03


class Town:
    def __init__(self, directory: Path, **options: Any) -> None:
        self.directory = directory
        self.network = AgirailsNetwork(state_directory=directory, requester=REQUESTER, poll_every=0.03, **options)
        self.agents: list[Agent] = []

    def another_network(self, **options: Any) -> AgirailsNetwork:
        return AgirailsNetwork(state_directory=self.directory, requester=REQUESTER, poll_every=0.03, **options)

    def provider(self, name: str, *, services: set[str] | None = None) -> Provider:
        """Describe a provider, whether or not there is an agent that works for it."""
        address = f"0x{int.from_bytes(name.encode()):040x}"
        return Provider(name=name, services=services or {"shout"}, price=PRICE, address=address, response_time=0.1)

    def door(self, name: str) -> AgirailsTransport:
        return self.network.transport(self.provider(name))

    async def open_shop(self, name: str, handler: Callable[[Any], Awaitable[Any]], service: str = "shout") -> Agent:
        """Start an agent that serves with `handler(input)`, once for each transaction."""
        served: dict[str, asyncio.Future[Any]] = {}

        async def serve(job: Any, _context: Any) -> Any:
            # The SDK may begin a job twice.
            if job.id not in served:
                served[job.id] = asyncio.ensure_future(handler(job.input))
            return await served[job.id]

        agent = QuickAgent(
            AgentConfig(
                name=name,
                network="mock",
                wallet=self.provider(name).address,
                state_directory=self.directory,
                behavior=AgentBehavior(concurrency=10, timeout=int(10 * FAR)),
            )
        )
        agent.provide(service, serve)
        await agent.start()
        self.agents.append(agent)
        return agent

    async def is_even(self) -> bool:
        """Tell whether every micro-unit that was minted is in a balance or in an escrow of ours that is listed."""
        runtime = await self.network._purchases._sdk._runtime()
        minted = sum(int(event.data["amount"]) for event in await runtime.events.get_by_type("TokensMinted"))
        held = sum(one.amount for one in await self.network.locked())
        return sum((await self.network.balances()).values()) + held == minted

    async def states(self) -> list[str]:
        books = await self.network._purchases.read()
        return [one.state for one in books.of(REQUESTER)]

    async def until_states(self, *states: str) -> None:
        while await self.states() != list(states):
            pass  # Reading them takes turns with whoever changes them.

    async def close(self) -> None:
        for agent in self.agents:
            agent._active_jobs.clear()  # Those that hang are not waited for.
            await agent.stop()


@asynccontextmanager
async def town_in(directory: Path, **options: Any) -> AsyncIterator[Town]:
    town = Town(directory, **options)
    with mock.patch.object(MockStateManager.__init__, "__defaults__", PATIENT):
        await town.network.mint(MINTED)
        try:
            yield town
        finally:
            await town.close()


async def shout(text: str) -> str:
    return text.upper()


def a_call(**changes: Any) -> ProviderCall:
    fields: dict[str, Any] = {
        "service": "shout",
        "input": "hello",
        "request_id": "request-1",
        "idempotency_key": "key-1",
        "max_cost": PRICE,
        "timeout": FAR,
    }
    return ProviderCall(**(fields | changes))
