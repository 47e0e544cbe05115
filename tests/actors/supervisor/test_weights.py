"""Requests that choose by weight: each provider gets its part of those that it can take."""

from collections import Counter

import pytest

from actors.market import Listing, Market, provider
from actors.market.file import parse_market
from actors.supervisor import Supervisor, smart_request
from runtime import ActorSystem
from tests.proofs import repeated

COUNT = repeated(10_000)


def listed(name: str, weight: float, *, is_down: bool = False) -> Listing:
    async def answer(_):
        if is_down:
            raise ConnectionError("no route")
        return name

    return provider(name, answer, service="s", idempotent="repeatable", weight=weight)


async def shares_of(*listings: Listing, **options) -> Counter[str]:
    async with ActorSystem("weights", seed=3, log=False) as system:
        supervisor = system.spawn(lambda: Supervisor(Market(providers=listings)))
        asked = {"service": "s", "input": 1, "strategy": "weighted"} | options
        return Counter([(await smart_request(supervisor, **asked)).provider for _ in range(COUNT)])


async def test_each_gets_its_share_and_a_spare_nothing():
    shares = await shares_of(listed("alder", 6), listed("birch", 3), listed("cedar", 1), listed("spare", 0))
    for name, share in (("alder", 0.6), ("birch", 0.3), ("cedar", 0.1)):
        assert shares[name] / COUNT == pytest.approx(share, abs=2 / COUNT**0.5)  # Four standard deviations of a half.
    assert not shares["spare"]


async def test_the_share_of_one_that_is_down_is_shared_by_the_others():
    shares = await shares_of(
        listed("alder", 6, is_down=True), listed("birch", 3), listed("cedar", 1), listed("spare", 0)
    )
    assert shares["birch"] / COUNT == pytest.approx(0.75, abs=2 / COUNT**0.5)
    assert shares["cedar"] / COUNT == pytest.approx(0.25, abs=2 / COUNT**0.5)


async def test_a_spare_gets_what_no_other_can_take():
    shares = await shares_of(listed("alder", 6, is_down=True), listed("spare", 0))
    assert shares == {"spare": COUNT}


async def test_a_seed_says_who_gets_what():
    listings = [listed("alder", 1), listed("birch", 2)]
    assert await shares_of(*listings) == await shares_of(*listings)


def test_a_market_file_states_weights():
    market = parse_market("""
        [[providers]]
        name = "alder"
        services = ["s"]
        url = "http://127.0.0.1:8001/"
        weight = 3

        [[providers]]
        kind = "compatible"
        model = "birch"
        base_url = "http://127.0.0.1:8002/v1"
        weight = 0.5
    """)
    assert [one.weight for one in market.providers] == [3, 0.5]


@pytest.mark.parametrize("weight", [-1, float("nan"), float("inf"), 1e7, 1e-9])
def test_a_weight_that_cannot_be_one_is_refused(weight):
    with pytest.raises(ValueError, match=r"weight must be 0, or from 1e-06 to 1e\+06, got"):
        listed("alder", weight)


@pytest.mark.parametrize("weight", [True, "3", None])
def test_a_weight_that_is_no_number_is_refused(weight):
    with pytest.raises(TypeError, match="weight must be a number, got"):
        listed("alder", weight)
