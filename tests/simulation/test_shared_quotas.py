"""Quotas that several providers and supervisors share: never exceeded, in order, and exact whatever is cancelled."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from actors import Listing, Market, RateLimiter, Supervisor, smart_request
from actors.errors.families import BudgetExceeded, CallFailed, Throttled
from actors.ledger.messages import OpenAccount
from actors.market import SharedQuota, parse_market
from actors.money import Micros
from actors.rate_limiter.messages import Acquire
from actors.simulation import SimulatedProvider
from runtime import ActorSystem, RuntimeFault
from runtime.simulation import Crash
from tests.actors.supervisor.stage import Script, offer, staged
from tests.proofs import repeated

if TYPE_CHECKING:
    from runtime.simulation import Simulation

SEEDS = repeated(100)
TWO_A_SECOND = SharedQuota(rate_limit=2.0, burst=3, headroom=1.0)


def assert_never_over(at: list[float], *, rate: float, burst: int) -> None:
    at = sorted(at)
    for first in range(len(at)):
        for last in range(first, len(at)):
            assert last - first + 1 <= burst + rate * (at[last] - at[first]) + 1e-3, (at[first], at[last])


def drawing_on(quota: str, provider: SimulatedProvider) -> Listing:
    return provider.listing(quota=quota)


@pytest.mark.simulate(seeds=SEEDS)
async def test_two_supervisors_never_exceed_the_quota_that_they_share_whatever_crashes_or_is_cancelled(
    simulation: Simulation,
):
    dice = simulation.random
    rate, burst = dice.uniform(1.0, 8.0), dice.randint(1, 6)
    quota = SharedQuota(rate_limit=rate, burst=burst, headroom=1.0)
    providers = [
        SimulatedProvider(simulation, name, services={"s"}, price=dice.choice([0, "0.01"]), latency=(0.0, 1.0))
        for name in ("alder", "birch", "cedar")
    ]
    other = dice.choice(["org", "other", None])
    for actor in dice.sample(["shared/org", "shared/one", "shared/org"], dice.randint(0, 3)):
        simulation.inject(Crash(at=dice.uniform(0, 30), actor=actor, may_miss=True))
    markets = [
        Market(
            providers=[one.listing(quota=other if one.name == "cedar" else "org", max_concurrency=2) for one in some],
            quotas={"org": quota, "other": TWO_A_SECOND},
        )
        for some in (providers[:2], providers[1:])
    ]
    limiters: list[RateLimiter] = []

    def limiter() -> RateLimiter:
        limiters.append(RateLimiter("org", limits=quota.all_limits(), headroom=quota.headroom))
        return limiters[-1]

    async with ActorSystem("shared") as system:
        org = system.spawn(limiter, name="org")
        supervisors = [
            system.spawn(lambda market=market: Supervisor(market, quotas={"org": org}), name=name)
            for market, name in zip(markets, ("one", "two"), strict=True)
        ]

        async def customer(number: int) -> None:
            await asyncio.sleep(dice.uniform(0, 20))
            asking = smart_request(dice.choice(supervisors), service="s", input=number, timeout=dice.uniform(1, 60))
            try:
                async with asyncio.timeout(dice.choice([0.0, 0.5, 3.0, None, None])):
                    await asking
            except (CallFailed, RuntimeFault, TimeoutError):
                pass

        await asyncio.gather(*(customer(number) for number in range(60)))
        await asyncio.sleep(2.0)
        assert list(limiters[-1].broken_invariants()) == []
        # Nothing has leaked: after a while of rest, the whole burst is there.
        await asyncio.sleep(burst / rate + 1.0)
        for _ in range(burst):
            await org.ask(Acquire(at_once=True), timeout=1.0)
    at = [at for one in providers if other == "org" or one.name != "cedar" for at in one.called_at]
    assert_never_over(at, rate=rate, burst=burst)


@pytest.mark.simulate(seeds=SEEDS)
async def test_a_quota_that_is_shared_is_used_to_the_full_and_in_the_order_of_asking(simulation: Simulation):
    dice = simulation.random
    alder = SimulatedProvider(simulation, "alder", services={"s"}, latency=(0.1, 0.2))
    market = Market(providers=[drawing_on("org", alder)], quotas={"org": TWO_A_SECOND})
    done: list[int] = []
    async with ActorSystem("shared") as system:
        supervisor = system.spawn(lambda: Supervisor(market), name="one")

        async def customer(number: int) -> None:
            async with asyncio.timeout(0.0 if number % 4 == 3 else None):
                await smart_request(supervisor, service="s", input=number, timeout=100)

        customers: list[asyncio.Task[None]] = []
        for number in range(40):
            customers.append(asyncio.create_task(customer(number)))
            await asyncio.sleep(dice.choice([0.0, 0.01, 0.1]))
        await asyncio.gather(*customers, return_exceptions=True)
        done = [number for number, one in enumerate(customers) if one.exception() is None]
    assert done == [number for number in range(40) if number % 4 != 3]
    # A cancelled request may have been granted a permit, and given it back: so each has its turn as if it had not been.
    assert alder.called_at[-1] - alder.called_at[0] <= (len(done) - 3) / 2.0 + 1.0
    assert_never_over(alder.called_at, rate=2.0, burst=3)


async def test_one_429_holds_back_all_who_share_the_quota():
    throttled = Throttled("slow down", retry_after=5.0, provider="alder")
    alder, birch = Script(throttled, "alder"), Script("birch")
    async with staged(
        offer("alder", alder, quota="org"),
        offer("birch", birch, quota="org"),
        quotas={"org": SharedQuota(rate_limit=100.0, burst=10)},
    ) as stage:
        start = asyncio.get_running_loop().time()
        await stage.request(timeout=30.0)
        assert min(birch.at + alder.at[1:]) - start >= 5.0
        await stage.assert_at_rest()


async def test_a_429_of_a_listing_that_does_not_learn_holds_back_none_of_the_others():
    throttled = Throttled("slow down", retry_after=5.0, provider="alder")
    alder, birch = Script(throttled, "alder"), Script("birch")
    async with staged(
        offer("alder", alder, quota="org", learning=False),
        offer("birch", birch, quota="org"),
        quotas={"org": SharedQuota(rate_limit=100.0, burst=10)},
    ) as stage:
        start = asyncio.get_running_loop().time()
        for _ in range(3):
            await stage.request(timeout=30.0)
        assert asyncio.get_running_loop().time() - start < 1.0
        assert len(alder.at) >= 1
        await stage.assert_at_rest()


async def test_another_provider_is_called_before_a_request_waits_for_a_shared_quota():
    alder, birch = Script("alder"), Script("birch")
    async with staged(
        offer("alder", alder, quota="org"), offer("birch", birch, price=5), quotas={"org": TWO_A_SECOND}
    ) as stage:
        results = [await stage.request() for _ in range(5)]
        assert [one.provider for one in results] == ["alder"] * 3 + ["birch"] * 2
        await stage.assert_at_rest()


async def test_nothing_of_a_shared_quota_is_taken_if_there_is_no_money():
    alder = Script("alder")
    async with staged(offer("alder", alder, price=5, quota="org"), quotas={"org": TWO_A_SECOND}) as stage:
        for _ in range(9):
            with pytest.raises(CallFailed):
                await stage.request(budget="0.000001", timeout=0.2)
        results = await asyncio.gather(*(stage.request() for _ in range(3)))
        assert len(results) == 3
        assert max(alder.at) == min(alder.at)


ONE_IN_1000_SECONDS = SharedQuota(rate_limit=0.001, burst=1, headroom=1.0)


async def test_a_request_that_waits_for_a_shared_quota_takes_a_place_that_becomes_free_elsewhere():
    alder, birch = Script("alder", lasts=0.1), Script("birch", lasts=0.5)
    async with staged(
        offer("alder", alder, quota="org"),
        offer("birch", birch, max_concurrency=1),
        quotas={"org": ONE_IN_1000_SECONDS},
    ) as stage:
        results = await asyncio.gather(*(stage.request(timeout=30) for _ in range(10)))
        assert [one.provider for one in results].count("birch") == 9
        await stage.assert_at_rest()


async def test_a_request_waits_for_all_the_quotas_that_may_serve_it():
    alder, birch = Script("alder", lasts=0.1), Script("birch", lasts=0.5)
    async with staged(
        offer("alder", alder, quota="org"),
        offer("birch", birch, quota="other"),
        quotas={"org": ONE_IN_1000_SECONDS, "other": SharedQuota(rate_limit=1.0, burst=1, headroom=1.0)},
    ) as stage:
        results = await asyncio.gather(*(stage.request(timeout=30) for _ in range(10)))
        assert [one.provider for one in results].count("birch") == 9
        assert birch.at[-1] - birch.at[0] <= 8.01
        await stage.assert_at_rest()


async def test_a_request_that_is_short_of_money_and_of_a_shared_quota_waits_for_both():
    alder = Script("alder", lasts=2.0)
    quota = SharedQuota(rate_limit=1.0, burst=1, headroom=1.0)
    async with staged(offer("alder", alder, price=5, quota="org"), quotas={"org": quota}) as stage:
        await stage.ref.ask(OpenAccount(name="a", cap=Micros(6)), timeout=1)
        asked = (stage.request(timeout=30, account="a") for _ in range(3))
        results = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(one) for one in results[1:]] == [BudgetExceeded] * 2
        assert len(alder.at) == 1
        await stage.assert_at_rest()


async def test_quotas_may_have_any_names():
    alder, birch = Script("alder"), Script("birch")
    async with staged(
        offer("alder", alder, quota="a/b"),
        offer("birch", birch, quota="a-b"),
        quotas={"a/b": TWO_A_SECOND, "a-b": TWO_A_SECOND},
    ) as stage:
        results = await asyncio.gather(*(stage.request() for _ in range(6)))
        assert {one.provider for one in results} == {"alder", "birch"}


def test_a_quota_is_stated_once_in_a_market_file():
    pytest.importorskip("aiohttp")
    text = """
        [quotas.org]
        rate_limit = 5
        burst = 2

        [[providers]]
        name = "alder"
        services = ["s"]
        url = "http://127.0.0.1:1/"
        quota = "org"
    """
    market = parse_market(text)
    assert market.quotas == {"org": SharedQuota(rate_limit=5, burst=2)}
    assert market.providers[0].quota == "org"
    with pytest.raises(
        ValueError, match=r"providers\[0\]\.quota \('alder', line 10\): there is no table \[quotas\.other\]"
    ):
        parse_market(text.replace('quota = "org"', 'quota = "other"'))
