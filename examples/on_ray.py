"""An agent on one machine of a Ray cluster, whose model calls are made on all of them: `python examples/on_ray.py`.

Give it the address of a cluster, or none for one of this machine. The budget and every receipt stay with this program.
"""

import asyncio
import sys
from typing import Any

from actors import Ledger, Micros, smart_request
from actors.fake import FakeConfig, FakeModel, FakePrice, fake_server
from actors.market import parse_market
from actors.spread import GetNodes, Spread, deputy_by_text
from runtime import Actor, ActorRef, Request, handles
from runtime.cluster.on_ray import join

MARKET = 'budget = "1"\n[[providers]]\nname = "nano"\nkind = "compatible"\nmodel = "nano"\nprice = "0.001"\nbase_url = '


class Write(Request[str], frozen=True):
    topic: str


class Agent(Actor[Write]):
    def __init__(self, supervisor: ActorRef[Any]) -> None:
        self.supervisor = supervisor

    @handles(Write)
    async def write(self, message: Write) -> str:
        asks = [{"messages": [{"role": "user", "content": f"{message.topic}, {part}"}]} for part in range(30)]
        results = await asyncio.gather(*(smart_request(self.supervisor, service="chat", input=ask) for ask in asks))
        return f"{len(results)} parts for {sum((one.cost for one in results), Micros(0))}"


async def main(address: str | None) -> None:
    model = FakeModel(name="nano", price=FakePrice(per_call="0.001"), latency=0.1)
    async with fake_server(FakeConfig(models=(model,))) as server, join(address) as cluster:
        text = f'{MARKET}"{server.url}/v1"'
        ledger, market = cluster.node.system.spawn(Ledger), parse_market(text)
        supervisor: ActorRef[Any] = cluster.node.system.spawn(
            lambda: Spread(market, ledger=ledger, cluster=cluster, deputy=deputy_by_text, args=(text, "market.toml"))
        )
        print("calls are made on", ", ".join(await supervisor.ask(GetNodes(), timeout=60)))
        agent = await cluster.spawn(Agent, supervisor, node=cluster.nodes[-1])
        print("the agent wrote", await agent.ask(Write("Glaciers"), timeout=60))
        await server.until_idle()
        print("charged, in dollars:", float(server.books.charged))
        agent.stop()
        supervisor.stop()
        await supervisor.terminated()


if __name__ == "__main__":
    import on_ray  # As the nodes import it: they find what it defines by the name of its module.

    asyncio.run(on_ray.main(sys.argv[1] if len(sys.argv) > 1 else None))
