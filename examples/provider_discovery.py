"""Find providers, choose among them, and let a smart request fall back to the next when one fails.

The best translator answers no ping, the next is overloaded, one is slow, and one knows no German.
"""

from actors import (
    Discovery,
    FunctionTransport,
    Listing,
    Market,
    Provider,
    ProviderCall,
    ProviderFilter,
    Supervisor,
    Transient,
    select_best,
    smart_request,
)
from actors.discovery import Discover
from actors.discovery.discovery import registry_of
from actors.providers.selection import STRATEGIES
from runtime import ActorSystem
from runtime.simulation import Simulation


def translator(name: str, price: str, reputation: float, seconds: float, languages: set[str]) -> Listing:
    async def translate(call: ProviderCall) -> str:
        if name == "birch":
            raise Transient("birch is overloaded", provider=name, outcome="not_started")
        return f"{call.input['text']!r} in {call.input['target']}, by {name}"

    async def check(_: float) -> None:
        if name == "alder":
            raise Transient("no answer to a ping", provider=name)

    provider = Provider(
        name=name,
        services={"translation"},
        price=price,
        reputation=reputation,
        response_time=seconds,
        capabilities=languages,
    )
    door = FunctionTransport(translate, paid=True, idempotent="no", provider=name, check=check)
    return Listing(provider=provider, transport=lambda: door)


async def main() -> None:
    alder = translator("alder", "0.15", 95, 2.0, {"en", "de"})
    birch = translator("birch", "0.10", 92, 0.5, {"en", "de"})
    cedar = translator("cedar", "0.05", 85, 3.0, {"en", "de"})
    dogwood = translator("dogwood", "0.02", 99, 0.2, {"en", "fr"})
    market = Market(providers=[alder, birch, cedar, dogwood])
    where = ProviderFilter(max_price="0.20", min_reputation=80, required_capabilities={"en", "de"})
    async with ActorSystem("translations", log=False) as system:
        discovery = system.spawn(lambda: Discovery(registry_of(market)), name="discovery")
        found = await discovery.ask(Discover(service="translation", where=where), timeout=5.0)
        providers = [listing.provider for listing in found.listings]
        print(f"{len(providers)} of {len(market.providers)} offer it; dropped: {found.dropped}")
        print(", ".join(f"{strategy}: {select_best(providers, strategy).name}" for strategy in STRATEGIES))
        supervisor = system.spawn(lambda: Supervisor(market), name="supervisor")
        result = await smart_request(
            supervisor,
            service="translation",
            input={"text": "Hello", "target": "de"},
            budget="1.00",
            where=where,
            strategy="best",
            fallback_strategies=("balanced", "cheapest"),
            health_check=True,
        )
        print("failed before:", "; ".join(failure.error for failure in result.failures))
        print(f"{result.output}, for {result.cost} in {result.attempts} attempts")


Simulation(seed=1, logs=False).run(main)
