"""Paid agents on AGIRAILS, of which only one works: every request is answered, and every micro-unit accounted for.

It uses the real SDK, in its mock network. One agent crashes at every job, one hangs for ever, and neither reports it:
the money of what they have begun stays in escrow, and cannot be cancelled. So each request allows that another agent is
paid as well (`on_unknown="pay_again"`), and what the others hold is listed at the end. Needs the extra `agirails`.

    python examples/agirails_market.py 100  # So many requests; 40 by default.
"""

import asyncio
import logging
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

from agirails import Agent, AgentConfig
from agirails.runtime.mock_runtime import MockRuntime

from actors import BreakerConfig, Done, Market, Micros, Provider, SmartRequest, Supervisor, robust_batch
from actors.agirails import AgirailsNetwork
from actors.ledger import GetHeld
from runtime import ActorSystem

REQUESTER = "0x" + "a1" * 20
POLL_EVERY = 0.25  # Seconds; all of them read one file, which grows with every transaction.
closing = asyncio.Event()


async def crash(job: Any, _context: Any) -> str:
    raise RuntimeError(f"no idea what to do with {job.input!r}")


async def hang(_job: Any, _context: Any) -> str:
    await closing.wait()
    raise RuntimeError("gave up when the market closed")


async def shout(job: Any, _context: Any) -> str:
    return str(job.input).upper()


class Shop(NamedTuple):
    address: str
    reputation: float
    handler: Callable[[Any, Any], Awaitable[Any]]
    timeout: float  # Seconds; for one that works, enough of them for a machine that is busy with other things.


SHOPS = {
    "alder": Shop("0x" + "b1" * 20, 90, crash, timeout=3.0),
    "birch": Shop("0x" + "b2" * 20, 80, hang, timeout=3.0),
    "cedar": Shop("0x" + "b3" * 20, 70, shout, timeout=300.0),
}


async def open_shop(name: str, directory: Path) -> Agent:
    agent = Agent(AgentConfig(name=name, wallet=SHOPS[name].address, state_directory=directory))
    agent.POLL_INTERVAL = POLL_EVERY
    agent.provide("shout", SHOPS[name].handler)
    await agent.start()
    # An agent whose writing finds the books busy for 5 seconds loses what it has delivered, as on a busy machine.
    client: Any = agent.client
    books = client.runtime._state_manager  # noqa: SLF001 - there is no public way.
    books._lock_timeout_ms, books._operation_timeout_s = 120_000, 240.0  # noqa: SLF001 - as above.
    return agent


async def serve(market: Market, requests: list[SmartRequest]) -> Counter[str]:
    """Have every request answered, and count the answers of each agent; print what failed, and how often."""
    answered_by: Counter[str] = Counter()
    failures: Counter[str] = Counter()
    async with ActorSystem("market", log=False) as system:
        supervisor = system.spawn(lambda: Supervisor(market), name="supervisor")
        async with robust_batch(supervisor, requests, max_concurrency=10, budget="10") as outcomes:
            async for outcome in outcomes:
                match outcome:
                    case Done(item=item, result=result) if result.output == item.input.upper():
                        answered_by[result.provider] += 1
                    case Done(result=result):
                        failures[f"{result.provider} gave a wrong answer: {result.output!r}"] += 1
                    case _:
                        failures[f"{type(outcome.error).__name__}: {outcome.error}"] += 1
        held = await supervisor.ask(GetHeld(), timeout=60.0)
        print(f"{len(held)} calls may have been paid, and the ledger keeps {Micros(sum(one.amount for one in held))}")
    for failure, count in failures.most_common():
        print(f"{count} failed: {failure}")
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
    names = {shop.address: name for name, shop in SHOPS.items()}
    print(f"{Micros(sum(one.amount for one in held))} held by", dict(Counter(names[one.provider] for one in held)))
    print("all that is under way is listed as held:", under_way == {one.transaction for one in held})
    print("balances + unreleased escrow == minted:", balances + escrow == minted)


async def main(directory: Path, count: int) -> None:
    agents = [await open_shop(name, directory) for name in SHOPS]
    network = AgirailsNetwork(state_directory=directory, requester=REQUESTER, poll_every=POLL_EVERY)
    await network.mint("20")
    listings = [
        network.listing(
            Provider(
                name=name,
                services={"shout"},
                price="0.06",
                reputation=shop.reputation,
                address=shop.address,
            ),
            timeout=shop.timeout,
        )
        for name, shop in SHOPS.items()
    ]
    requests = [
        SmartRequest(service="shout", input=f"text {number}", timeout=600.0, on_unknown="pay_again")
        for number in range(count)
    ]
    answered_by = await serve(Market(providers=listings, breaker=BreakerConfig(open_for=30.0)), requests)
    print(f"{answered_by.total()} of {len(requests)} requests answered, by", dict(answered_by))
    closing.set()
    await asyncio.gather(*(agent.stop() for agent in agents))
    await account_for(network, directory)


logging.getLogger("agirails").addHandler(logging.NullHandler())  # What its agents fail at is told below.
with tempfile.TemporaryDirectory() as folder:
    asyncio.run(main(Path(folder), count=int(sys.argv[1]) if len(sys.argv) > 1 else 40))
