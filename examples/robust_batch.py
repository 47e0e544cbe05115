"""The whole combination, embedded in a program: 200 texts, three providers that fail, and a budget.

The providers are simulated: one fails every third call, one every tenth, one is down for a while, and each charges.
Whatever happens, every text is answered once, paid once, and the sum is known to the micro-dollar.
"""

import asyncio
import random
from collections import Counter

from actors import (
    BreakerConfig,
    Done,
    FunctionTransport,
    Listing,
    Market,
    Micros,
    Provider,
    ProviderCall,
    Retry,
    Supervisor,
    Transient,
    robust_batch,
)
from actors.events import BreakerOpened, Rerouted
from runtime import ActorSystem

DICE = random.Random(7)


def unreliable(name: str, price: str, *, fails: float, down: range = range(0)) -> Listing:
    """List a provider that fails a share `fails` of its calls, and those whose number is in `down`."""
    calls = 0

    async def answer(call: ProviderCall) -> str:
        nonlocal calls
        calls += 1
        await asyncio.sleep(DICE.uniform(0.001, 0.005))
        if calls in down or DICE.random() < fails:
            raise Transient(f"{name} is overloaded", provider=name, outcome="not_started")
        return str(call.input).upper()

    return Listing(
        provider=Provider(name=name, services={"uppercase"}, price=price, reputation=90 - 100 * fails),
        transport=lambda: FunctionTransport(answer, paid=True, idempotent="no", provider=name),
    )


async def main() -> None:
    market = Market(
        providers=[
            unreliable("alder", "0.001", fails=0.3),
            unreliable("birch", "0.002", fails=0.1, down=range(20, 40)),
            unreliable("cedar", "0.003", fails=0.01),
        ],
        retry=Retry(base=0.01, cap=0.1),
        breaker=BreakerConfig(open_for=0.1, max_open_for=1.0),
    )
    texts = [f"text number {number}" for number in range(200)]
    answers: dict[str, str] = {}
    by_provider: Counter[str] = Counter()
    spent = Micros(0)
    async with ActorSystem("texts") as system:
        trips: list[BreakerOpened] = []
        reroutes: list[Rerouted] = []
        system.events.subscribe(BreakerOpened, trips.append)
        system.events.subscribe(Rerouted, reroutes.append)
        supervisor = system.spawn(lambda: Supervisor(market), name="supervisor")
        async with robust_batch(supervisor, texts, service="uppercase", budget="1.00") as outcomes:
            async for outcome in outcomes:
                if isinstance(outcome, Done):
                    answers[outcome.item] = outcome.result.output
                    by_provider[outcome.result.provider] += 1
                    spent += outcome.result.cost
    right = sum(answers.get(text) == text.upper() for text in texts)
    print(f"{right} of {len(texts)} texts answered for {spent}")
    print(", ".join(f"{name}: {count}" for name, count in by_provider.most_common()))
    print("at least one breaker opened and one request was rerouted:", bool(trips) and bool(reroutes))


asyncio.run(main())
