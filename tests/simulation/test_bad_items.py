"""Items that fail everywhere among providers that fail by chance: each is found, and no other is taken for one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from actors import AllProvidersFailed, FunctionTransport, Listing, Market, Provider, Supervisor, smart_request
from actors.errors import PoisonItem
from actors.errors.classification import classify_status
from runtime import ActorSystem
from runtime.simulation import explore
from tests.proofs import repeated

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actors import ProviderCall
    from runtime.simulation import Simulation

SEEDS = range(repeated(100, part=34))
COUNTS = (2, 3, 5)
"""How many providers there are, by turns."""
ITEMS = 400


async def errors_of_bad_items(
    simulation: Simulation, rates: Sequence[float], *, known_after: int = ITEMS // 4
) -> list[AllProvidersFailed]:
    """Serve items at providers that fail at these rates: the first are good, and 20 of the last 300 are bad.

    All others are answered, but for a few that fail by chance at providers that fail.
    """
    dice = simulation.random
    items = known_after + ITEMS * 3 // 4
    bad = set(dice.sample(range(known_after, items), ITEMS // 20))
    failed: dict[int, AllProvidersFailed] = {}

    def listing(number: int, rate: float) -> Listing:
        async def answer(call: ProviderCall) -> Any:
            await asyncio.sleep(dice.uniform(0.1, 0.3))
            if call.input in bad or dice.random() < rate:
                raise classify_status(500, provider=f"p{number}")
            return call.input

        provider = Provider(name=f"p{number}", services={"s"}, reputation=90 - 10 * number, response_time=0.2)
        transport = lambda: FunctionTransport(answer, paid=False, idempotent="repeatable")  # noqa: E731
        return Listing(provider=provider, transport=transport, max_concurrency=100)

    async with ActorSystem("batch") as system:
        market = Market(providers=[listing(number, rate) for number, rate in enumerate(rates)])
        supervisor = system.spawn(lambda: Supervisor(market))

        async def serve(item: int) -> None:
            try:
                assert (await smart_request(supervisor, service="s", input=item, timeout=30.0)).output == item
            except AllProvidersFailed as error:
                failed[item] = error

        async with asyncio.TaskGroup() as group:
            for item in range(items):
                group.create_task(serve(item))
                await asyncio.sleep(dice.expovariate(20.0))
    assert bad <= failed.keys()
    # As many failures as make a bad item certain come by chance, too, once in 5,000 items.
    assert len(failed) - len(bad) <= (items / 600 if any(rates) else 0)
    return sorted((failed[item] for item in bad), key=lambda error: len(error.attempts))


async def healthy_providers(simulation: Simulation) -> None:
    count = COUNTS[simulation.seed % len(COUNTS)]
    errors = await errors_of_bad_items(simulation, [0.0] * count)
    assert all(isinstance(error, PoisonItem) for error in errors)
    assert len(errors[len(errors) // 2].attempts) == 2
    assert len(errors[-1].attempts) <= 4


def test_healthy_providers_settle_it_with_two_attempts() -> None:
    assert explore(healthy_providers, seeds=SEEDS).runs == len(SEEDS)


async def a_single_healthy_provider(simulation: Simulation) -> None:
    errors = await errors_of_bad_items(simulation, [0.0])
    assert len(errors[len(errors) // 2].attempts) <= 3


def test_a_single_healthy_provider_settles_it_with_two_or_three() -> None:
    assert explore(a_single_healthy_provider, seeds=SEEDS).runs == len(SEEDS)


async def failing_providers(simulation: Simulation) -> None:
    # Their product is 3 in 10,000, which a fourth failure brings below 1 in 5,000. Each share is measured, and half a
    # standard deviation is added to it, so that now and then three are enough, or five or six are needed.
    errors = await errors_of_bad_items(simulation, [0.3, 0.1, 0.01], known_after=1_500)
    attempts = [len(error.attempts) for error in errors]
    assert attempts[len(attempts) // 2] in {3, 4}, attempts
    assert attempts[-1] <= 8, attempts


def test_providers_that_fail_at_30_and_10_and_1_percent_settle_it_with_four() -> None:
    assert explore(failing_providers, seeds=SEEDS).runs == len(SEEDS)
