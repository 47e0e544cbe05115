"""Troubles of rates: 429s that no rate causes, limits that are shared or only roughly known, and a start in a crowd."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING

from actors.limits.quota import per_minute
from actors.limits.token_bucket import TokenBucket
from actors.market.listing import SharedQuota
from actors.simulation import PriceChange
from benchmarks.scenarios.troubles.drill import Customers, drill
from benchmarks.scenarios.troubles.market import rate_of, three
from benchmarks.scenarios.troubles.outcome import Outcome, Span, outcome_of, part, with_more
from benchmarks.scenarios.troubles.provider import Account, Strays, TroubledProvider

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.scenarios.troubles.contenders import Contender
    from benchmarks.scenarios.troubles.outcome import Served
    from runtime.simulation import Simulation

PLACES, LASTS = 40, 0.02
"""So many calls of so many seconds are under way at once, which makes 2,000 a second."""
AT_FIRST = 600
"""The requests before the first 429, of which the last third tell the rate: all places are in use by then."""
STRAYS: dict[float, int] = {0.001: 3_000, 0.01: 2_000, 0.05: 3_000}
"""The requests after that, by the share of strays."""
PATIENCE = 600.0
CROWD = 500
MINUTES = 5.0
TTL = 600.0
"""Seconds for which discovery believes what it found, by default."""


async def few_strays(simulation: Simulation, contender: Contender) -> Outcome:
    """Of 2,000 calls a second 0.1 % are answered 429 whatever the rate is; a wait of up to 0.5 s is told, or none."""
    return await stray_429s(simulation, contender, 0.001, retry_after=short_wait(simulation))


async def some_strays(simulation: Simulation, contender: Contender) -> Outcome:
    """As before, with 1 %."""
    return await stray_429s(simulation, contender, 0.01, retry_after=short_wait(simulation))


async def many_strays(simulation: Simulation, contender: Contender) -> Outcome:
    """As before, with 5 %; the waits of these calls alone leave 42 % of the rate."""
    return await stray_429s(simulation, contender, 0.05, retry_after=short_wait(simulation))


async def strays_with_long_waits(simulation: Simulation, contender: Contender) -> Outcome:
    """As before, with 0.1 to 5 %, and waits of 1 to 5 s that are told."""
    dice = simulation.random
    return await stray_429s(simulation, contender, dice.choice(list(STRAYS)), retry_after=dice.uniform(1.0, 5.0))


def short_wait(simulation: Simulation) -> float | None:
    return simulation.random.choice([None, 0.2, 0.5])


async def stray_429s(
    simulation: Simulation, contender: Contender, share: float, *, retry_after: float | None
) -> Outcome:
    """Let 40 customers make one request after the other, and compare the rate with that before the first 429.

    `of_ceiling` is its part of what is left if each call waits for its own 429s: (1 - p) t / (t + p R) at a share p,
    t seconds a call and waits of R seconds.
    """
    provider = TroubledProvider(simulation, "alder", price=0, latency=(LASTS, LASTS), idempotent="repeatable")
    provider.listing(max_concurrency=PLACES)
    async with contender(simulation, [provider]) as client:
        customers = Customers(simulation, client, [provider.name])
        await in_a_row(customers, range(AT_FIRST), PLACES)
        before = rate_amid(customers.served[AT_FIRST * 2 // 3 :])
        provider.strays = Strays(simulation.seed, share=share, retry_after=retry_after)
        first = len(provider.attempts)
        await in_a_row(customers, range(AT_FIRST, AT_FIRST + STRAYS[share]), PLACES)
    kept = part(rate_amid(customers.served[AT_FIRST:]), before)
    calls = provider.attempts[first:]
    refused = part(sum(one.kind is not None for one in calls), len(calls))
    ceiling = (1 - refused) * LASTS / (LASTS + refused * (0.5 if retry_after is None else retry_after))
    return outcome_of(customers.served, [provider], more={"rate_kept": kept, "of_ceiling": kept / ceiling})


async def in_a_row(customers: Customers, questions: range, places: int) -> None:
    """Let so many customers make these requests, each one after the other."""
    numbers = iter(questions)

    async def customer() -> None:
        for number in numbers:
            await customers.request(number, timeout=PATIENCE)

    await asyncio.gather(*(customer() for _ in range(places)))


def rate_amid(served: Sequence[Served]) -> float:
    """Return the answers a second, without the first tenth of them, and the last, which are retries."""
    ended = sorted(one.ended for one in served if one.by is not None)
    first, last = len(ended) // 10, len(ended) * 9 // 10
    return (last - first) / (ended[last] - ended[first]) if last > first else 0.0


async def rough_tokens(simulation: Simulation, contender: Contender) -> Outcome:
    """A provider limits requests and tokens; inputs have up to 30 % more or fewer tokens than they are believed to.

    `limit_used` is the part of the scarcer limit that is used, of which callers keep a fifth free.
    """
    dice = simulation.random
    # An input has 550 tokens on average.
    requests, tokens = 240, round(240 * 550 * dice.choice([0.5, 0.9, 1.1, 2.0]))
    provider = TroubledProvider(
        simulation,
        "alder",
        price=0,
        latency=(0.2, 1.0),
        rate_limit=requests / 60,
        burst=requests,
        tokens=TokenBucket(rate=tokens / 60, burst=tokens),
        listed={"limits": (per_minute("requests", requests), per_minute("tokens", tokens)), "max_concurrency": 100},
    )
    provider.tokens_off = 0.3
    async with contender(simulation, [provider]) as client:
        customers = Customers(simulation, client, [provider.name])
        with_patience = asyncio.create_task(in_a_row(customers, range(1_000_000), PLACES))
        await asyncio.sleep(60 * MINUTES)
        with_patience.cancel()
        await asyncio.wait([with_patience])
    late = [one.input for one in provider.attempts if one.at >= 60.0 and one.kind != "Throttled"]
    minutes = MINUTES - 1
    used = max(len(late) / requests, sum(map(provider.true_tokens, late)) / tokens) / minutes
    outcome = outcome_of(customers.served, [provider])
    return with_more(outcome, limit_used=used, part_throttled=part(outcome.throttled, len(provider.attempts)))


async def shared_quota(simulation: Simulation, contender: Contender) -> Outcome:
    """The two preferred providers are models of one account, which states its limit and is asked for more than that."""
    dice = simulation.random
    limit, burst = dice.uniform(1.0, 3.0), dice.randint(2, 5)
    providers = three(simulation)
    account = Account(
        "organization", SharedQuota(rate_limit=limit, burst=burst), TokenBucket(rate=limit * 1.02, burst=burst + 1)
    )
    for provider in providers[:2]:
        provider.account = account
        provider.listing(quota=account.name)
    rate = limit * dice.uniform(1.2, 2.5)
    return await drill(simulation, contender, providers, rate=rate, span=Span(0.0, 60.0), returns=False)


async def warm_start(simulation: Simulation, contender: Contender) -> Outcome:
    """In the first second of a program 500 requests come, to a provider that states its limit."""
    dice = simulation.random
    limit, burst = dice.choice([30.0, 100.0, 200.0]), dice.choice([5, 20, 100])
    listed = {"rate_limit": limit, "burst": burst, "max_concurrency": 100}
    # A bucket that both sides keep runs dry at the same time; the provider's is a hair larger, for the way there.
    provider = TroubledProvider(
        simulation, "alder", price=0, latency=(0.1, 0.3), rate_limit=limit * 1.02, burst=burst + 1, listed=listed
    )
    async with contender(simulation, [provider]) as client, asyncio.TaskGroup() as group:
        customers = Customers(simulation, client, [provider.name])
        for number in range(CROWD):
            group.create_task(customers.request(number, timeout=120.0))
            await asyncio.sleep(dice.uniform(0.0, 2.0 / CROWD))
    took = max(one.ended for one in customers.served)
    return outcome_of(customers.served, [provider], more={"times_the_least": took / (CROWD / limit)})


async def changes(simulation: Simulation, contender: Contender) -> Outcome:
    """In mid-run the preferred provider takes three times its price, and far fewer requests, at fewer places.

    Its registry says so, which discovery asks every ten minutes. `throttled` counts until then, too.
    """
    dice = simulation.random
    providers = three(simulation, rate_limit=51.0, burst=51, listed={"rate_limit": 50.0, "burst": 50})
    at = dice.uniform(100.0, 500.0)
    simulation.inject(PriceChange(provider="alder", at=at, price="0.003"))
    rate = rate_of(simulation, 0.3, 0.6)

    async with contender(simulation, providers) as client, asyncio.TaskGroup() as group:
        customers, has_changed = Customers(simulation, client, [provider.name for provider in providers]), False
        for number in itertools.count():
            now = simulation.now()
            if now >= 2 * TTL:
                break
            if now >= at and not has_changed:
                has_changed = True
                providers[0].shrink(rate=1.0, burst=2, max_concurrency=2)
            group.create_task(customers.request(number))
            await asyncio.sleep(customers.wait(rate))
    return outcome_of(customers.served, providers)
