"""Sends 300 prompts to the cheapest of three models that is up, within a budget, and reports who answered for how much.

Three servers on this machine play the models, each with prices, limits and faults of its own. In earnest the listings
are `openai("gpt-5-mini")`, `anthropic("claude-sonnet-4-6")` and so on; nothing else changes.
"""

import asyncio
from contextlib import AsyncExitStack

from actors import BreakerConfig, Done, Market, Retry, Supervisor, robust_batch
from actors.batch import BatchSummary
from actors.fake import FakeConfig, FakeLimits, FakeModel, FakePrice, FakeServer, FaultPlan, fake_server
from actors.fake.faults import FakeOutage, FakeThrottle
from actors.model_calls import ModelRequest, read_answer
from actors.models import compatible
from actors.tariffs import Tariff
from runtime import ActorSystem

MODELS = [  # Prices are dollars for a million tokens, limits are requests a minute.
    FakeModel(name="nano", price=FakePrice(input="0.05", output="0.40"), latency=0.05),
    FakeModel(name="mini", price=FakePrice(input="0.25", output="2.00"), latency=0.1, limits=FakeLimits(requests=120)),
    FakeModel(name="large", price=FakePrice(input="3.00", output="15.00"), latency=0.2),
]
PLANS = [
    FaultPlan(faults=(FakeOutage(since=1.0, until=2.0), FakeOutage(share=0.05))),  # Down for a second, shaky always.
    FaultPlan(faults=(FakeThrottle(share=0.05, retry_after=0.2),)),  # A 429 now and then, without a reason.
    FaultPlan(),
]
PROMPTS = [f"Say in one sentence what is special about the number {number}." for number in range(300)]


def market_of(servers: dict[str, FakeServer]) -> Market:
    listings = [
        compatible(
            model.name,
            base_url=f"{servers[model.name].url}/v1",
            tariff=Tariff(input=model.price.input, output=model.price.output),
        )
        for model in MODELS
    ]
    # Short waits for a short run; the defaults are for real providers.
    return Market(
        providers=listings,
        retry=Retry(base=0.1, cap=0.5),
        breaker=BreakerConfig(open_for=0.3, max_open_for=0.6),
    )


async def route(market: Market) -> BatchSummary:
    requests = [ModelRequest(form="chat", body={"messages": [{"role": "user", "content": one}]}) for one in PROMPTS]
    async with ActorSystem("router", log=False) as system:
        supervisor = system.spawn(lambda: Supervisor(market))
        batch = robust_batch(
            supervisor, requests, service="chat", strategy="cheapest", budget="1.00", max_concurrency=20, rate_limit=75
        )
        async with batch as outcomes:
            async for outcome in outcomes:
                if isinstance(outcome, Done) and outcome.index == 0:
                    print("the first answer:", read_answer("chat", outcome.result.output).text)
        return outcomes.summary


async def main() -> None:
    async with AsyncExitStack() as stack:
        servers: dict[str, FakeServer] = {}
        for model in MODELS:
            servers[model.name] = await stack.enter_async_context(fake_server(FakeConfig(models=(model,))))
        for server, plan in zip(servers.values(), PLANS, strict=True):
            server.set_plan(plan)  # Its times count from now.
        summary = await route(market_of(servers))
        charged = 1_000_000 * sum(server.books.charged for server in servers.values())
        print(f"{summary}\nbooked {summary.cost}, charged ${float(charged) / 1_000_000:.6f};", end=" ")
        print("each call is rounded up, and so both agree:", 0 <= summary.cost - charged < len(PROMPTS))


if __name__ == "__main__":
    asyncio.run(main())
