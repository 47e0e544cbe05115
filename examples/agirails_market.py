"""Paid agents on AGIRAILS, of which only one works: every request is answered, and every micro-unit accounted for.

It uses the real SDK, in its mock network. One agent crashes at every job, one hangs for ever, and neither reports it:
the money of what they have begun stays in escrow, and cannot be cancelled. So each request allows that another agent is
paid as well (`on_unknown="pay_again"`), and what the others hold is listed at the end. Needs the extra `agirails`.
"""

import asyncio
import logging
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from agirails import Agent, AgentConfig
from agirails.runtime.mock_runtime import MockRuntime

from actors import BreakerConfig, Done, Market, Provider, SmartRequest, Supervisor, robust_batch, usd
from actors import to_micros as micros
from actors.agirails import AgirailsNetwork
from actors.ledger import GetHeld
from runtime import ActorSystem

REQUESTER = "0x" + "a1" * 20
AGENTS = {"alder": ("0x" + "b1" * 20, 90), "birch": ("0x" + "b2" * 20, 80), "cedar": ("0x" + "b3" * 20, 70)}
closing = asyncio.Event()


async def crash(job: Any, _context: Any) -> str:
    raise RuntimeError(f"no idea what to do with {job.input!r}")


async def hang(_job: Any, _context: Any) -> str:
    await closing.wait()
    raise RuntimeError("gave up when the market closed")


async def shout(job: Any, _context: Any) -> str:
    return str(job.input).upper()


async def open_shop(name: str, directory: Path, handler: Callable[[Any, Any], Awaitable[Any]]) -> Agent:
    agent = Agent(AgentConfig(name=name, wallet=AGENTS[name][0], state_directory=directory))
    agent.POLL_INTERVAL = 0.1  # Seconds; an agent looks for work every 2 by default.
    agent.provide("shout", handler)
    await agent.start()
    return agent


async def serve(market: Market, requests: list[SmartRequest]) -> Counter[str]:
    """Have every request answered, and count the answers of each agent."""
    answered_by: Counter[str] = Counter()
    async with ActorSystem("market", log=False) as system:
        supervisor = system.spawn(lambda: Supervisor(market), name="supervisor")
        async with robust_batch(supervisor, requests, max_concurrency=10, budget="10") as outcomes:
            async for outcome in outcomes:
                if isinstance(outcome, Done) and outcome.result.output == outcome.item.input.upper():
                    answered_by[outcome.result.provider] += 1
        held = await supervisor.ask(GetHeld(), timeout=1.0)
        print(f"{len(held)} calls may have been paid, and the ledger keeps ${usd(sum(one.amount for one in held))}")
    return answered_by


async def account_for(network: AgirailsNetwork, directory: Path) -> None:
    """Compare the ledger with the network's own books."""
    await network.settle()  # For answers that came too late.
    held = await network.locked()
    state: Any = await MockRuntime(directory).get_state()
    balances = sum(int(balance) for balance in state.balances.values())
    escrow = sum(int(escrow.amount) for escrow in state.escrows.values() if not escrow.released)
    minted = sum(int(event.data["amount"]) for event in state.events if event.event_type == "TokensMinted")
    under_way = {one.id for one in state.transactions.values() if one.state.value in {"COMMITTED", "IN_PROGRESS"}}
    names = {address: name for name, (address, _) in AGENTS.items()}
    print(f"${usd(sum(one.amount for one in held))} held by", dict(Counter(names[one.provider] for one in held)))
    print("all that is under way is listed as held:", under_way == {one.transaction for one in held})
    print("balances + unreleased escrow == minted:", balances + escrow == minted)


async def main(directory: Path) -> None:
    handlers = {"alder": crash, "birch": hang, "cedar": shout}
    agents = [await open_shop(name, directory, handler) for name, handler in handlers.items()]
    network = AgirailsNetwork(state_directory=directory, requester=REQUESTER)
    await network.mint(micros("20"))
    listings = [
        network.listing(
            Provider(name=name, services={"shout"}, price=micros("0.06"), reputation=reputation, address=address),
            timeout=3.0,
        )
        for name, (address, reputation) in AGENTS.items()
    ]
    requests = [
        SmartRequest(service="shout", input=f"text {number}", timeout=20.0, on_unknown="pay_again")
        for number in range(100)
    ]
    answered_by = await serve(Market(providers=listings, breaker=BreakerConfig(open_for=30.0)), requests)
    print(f"{answered_by.total()} of {len(requests)} requests answered, by", dict(answered_by))
    closing.set()
    await asyncio.gather(*(agent.stop() for agent in agents))
    await account_for(network, directory)


logging.getLogger("agirails").addHandler(logging.NullHandler())  # What its agents fail at is told below.
with tempfile.TemporaryDirectory() as folder:
    asyncio.run(main(Path(folder)))
