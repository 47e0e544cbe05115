"""Limits that are stated: how much of them is used, and how rarely a provider has to say 429, over many seeds."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from actors import FunctionTransport, Listing, Market, Provider, RequestOptions, Supervisor, Throttled, smart_request
from actors.errors.families import CallFailed
from actors.events import CallEnded
from actors.limits.quota import RateLimit, per_minute, quota_of
from actors.simulation import OutOfQuota, SimulatedProvider
from actors.simulation.faults import DIALECTS
from actors.transports import ProviderReply
from runtime import ActorSystem
from runtime.simulation import explore
from tests.proofs import repeated

if TYPE_CHECKING:
    from actors import ProviderCall
    from runtime.simulation import Simulation

SEEDS = range(repeated(100, part=50))


class Metered:
    """A provider that counts requests and tokens as it finds them, in buckets that hold `burst` minutes."""

    def __init__(self, simulation: Simulation, *limits: RateLimit) -> None:
        self.dice = simulation.random
        self.quota = quota_of(*limits)
        self.used: dict[str, list[tuple[float, int]]] = {limit.dimension: [] for limit in limits}
        self.calls = self.throttled = 0

    async def __call__(self, call: ProviderCall) -> Any:
        now = asyncio.get_running_loop().time()
        self.calls += 1
        weights = {"tokens": call.input}
        taken = self.quota.take(now, weights)
        if not isinstance(taken, tuple):
            self.throttled += 1
            raise Throttled("no more for now", retry_after=taken.wait, provider="metered")
        self.quota, grant = taken
        for dimension, used in self.used.items():
            used.append((now, grant.weight_of(dimension)))
        await asyncio.sleep(self.dice.uniform(0.2, 1.0))
        return ProviderReply(output="done", weights=weights)

    def rate(self, dimension: str, since: float, until: float) -> float:
        """Return what was used a second."""
        return sum(weight for at, weight in self.used[dimension] if since <= at < until) / (until - since)


async def estimates_of_tokens_that_are_off(simulation: Simulation) -> None:
    dice = simulation.random
    mean = dice.choice([100, 400, 2_000])
    requests, tokens = 600, round(600 * mean * dice.choice([0.5, 0.9, 1.0, 1.1, 2.0]))
    metered = Metered(
        simulation, per_minute("requests", requests, burst=requests), per_minute("tokens", tokens, burst=tokens)
    )
    listing = Listing(
        provider=Provider(name="metered", services={"s"}, price=0),
        transport=lambda: FunctionTransport(metered, paid=False, idempotent="no", provider="metered"),
        limits=(per_minute("requests", requests), per_minute("tokens", tokens)),
        max_concurrency=100,
    )
    async with ActorSystem("stated") as system:
        supervisor = system.spawn(lambda: Supervisor(Market(providers=[listing])), name="supervisor")

        async def customer() -> None:
            while True:
                estimate = dice.randint(mean // 2, mean * 3 // 2)
                true = round(estimate * dice.uniform(0.7, 1.3))
                await smart_request(
                    supervisor,
                    service="s",
                    input=true,
                    options=RequestOptions(timeout=600, weights={"tokens": estimate}),
                )

        start = asyncio.get_running_loop().time()
        customers = [asyncio.create_task(customer()) for _ in range(60)]
        await asyncio.sleep(210)
        for one in customers:
            one.cancel()
        await asyncio.gather(*customers, return_exceptions=True)
    used = max(
        metered.rate("requests", start + 60, start + 210) * 60 / requests,
        metered.rate("tokens", start + 60, start + 210) * 60 / tokens,
    )
    assert used >= 0.79, used
    assert metered.throttled <= metered.calls / 1000


def test_estimates_of_tokens_that_are_30_percent_off_leave_hardly_any_of_a_limit_unused() -> None:
    assert explore(estimates_of_tokens_that_are_off, seeds=SEEDS).runs == len(SEEDS)


async def an_hour_without_quota(simulation: Simulation) -> None:
    dice = simulation.random
    dialect = tuple(DIALECTS)[simulation.seed % len(DIALECTS)]
    alder = SimulatedProvider(simulation, "alder", services={"s"}, price=dice.choice([0, "0.01"]))
    simulation.inject(OutOfQuota(provider="alder", at=0.0, lasts=3601.0, dialect=dialect))
    every, patience = dice.choice([1.0, 2.0, 7.0]), dice.choice([5.0, 30.0, 400.0])
    refused: list[CallEnded] = []
    async with ActorSystem("bills") as system:
        system.events.subscribe(CallEnded, lambda event: refused.append(event) if event.error else None)
        supervisor = system.spawn(lambda: Supervisor(Market(providers=[alder.listing()])), name="supervisor")

        async def customer(number: int) -> bool:
            try:
                await smart_request(supervisor, service="s", input=number, timeout=patience)
            except CallFailed:
                return False
            return True

        customers: list[asyncio.Task[bool]] = []
        for number in range(int(3_600 / every)):
            customers.append(asyncio.create_task(customer(number)))
            await asyncio.sleep(every * dice.uniform(0.5, 1.5))
        await asyncio.gather(*customers)
        assert len(refused) <= 8, [alder.called_at[:20]]
        # And it is found again when it has been paid.
        await asyncio.sleep(700)
        assert await customer(-1)


def test_a_provider_whose_quota_is_exhausted_is_called_eight_times_in_the_first_hour() -> None:
    assert explore(an_hour_without_quota, seeds=SEEDS).runs == len(SEEDS)
