"""A provider whose answers cost more than it lists: charged, flagged, reserved for, and left alone; in virtual time."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from itertools import pairwise
from random import Random
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from actors import BudgetExceeded, CallFailed, GetStatus, Listing, Market, ProviderReply, Release, to_micros
from actors.errors import Overpriced
from actors.events import DearAnswer, Overcharged
from actors.ledger import GetStatement, MoneyReserved
from actors.money import Micros
from runtime import ActorSystem
from tests.actors.supervisor.stage import Script, Stage, now, offer, staged, steps
from tests.proofs import repeated

if TYPE_CHECKING:
    from actors import ProviderCall

PRICE = to_micros("0.001")


def costs(*amounts: str) -> Script:
    return Script(*[ProviderReply(output="a", cost=to_micros(amount)) for amount in amounts])


async def test_one_dear_answer_is_charged_flagged_and_takes_the_provider_from_no_request():
    a = costs("0.0008", "0.0015", "0.0008")
    async with staged(offer("a", a, price=PRICE, paid=True, idempotent="repeatable")) as stage:
        assert [(await stage.request(timeout=3.0)).cost for _ in range(5)] == [800, 1_500, 800, 800, 800]
        (dear,) = stage.of(DearAnswer)
        assert (dear.provider, dear.listed, dear.charged) == ("a", 1_000, 1_500)
        (over,) = stage.of(Overcharged)
        assert (over.quoted, over.charged) == (1_000, 1_500)
        (status,) = await stage.ref.ask(GetStatus(), timeout=1)
        assert (status.dearest, status.left) == (1_500, ())
        await stage.assert_at_rest()


async def test_after_a_dear_answer_the_dearest_charge_of_the_last_hour_is_reserved():
    a = costs("0.0015", "0.0012", "0.0008")
    async with staged(offer("a", a, price=PRICE)) as stage:
        for _ in range(3):
            await stage.request()
        await asyncio.sleep(3500.0)
        await stage.request()
        await asyncio.sleep(200.0)
        await stage.request()
        assert [one.amount for one in stage.of(MoneyReserved)] == [1_000, 1_500, 1_500, 1_500, 1_000]


async def test_a_cap_is_passed_by_no_call_that_began_after_the_dear_answer():
    a = costs("0.0015")
    async with staged(offer("a", a, price=PRICE), budget="0.0029", price_tolerance=10.0) as stage:
        await stage.request()
        with pytest.raises(BudgetExceeded):
            await stage.request()
        assert (await stage.account("run")).settled == 1_500


async def test_a_reply_without_a_cost_costs_the_price_and_not_what_was_reserved():
    a = Script(ProviderReply(output="a", cost=to_micros("0.0015")), "a")
    async with staged(offer("a", a, price=PRICE)) as stage:
        assert [(await stage.request()).cost for _ in range(2)] == [1_500, 1_000]


async def test_three_dear_answers_within_ten_minutes_leave_the_provider_alone_for_a_minute():
    a, b = costs("0.0011"), Script("b")
    async with staged(offer("a", a, price=PRICE), offer("b", b, price=2 * PRICE)) as stage:
        outputs = [(await stage.request()).output for _ in range(4)]
        assert outputs == ["a", "a", "a", "b"]
        await asyncio.sleep(50.0)
        assert (await stage.request()).output == "b"
        await asyncio.sleep(15.0)
        assert [(await stage.request()).output for _ in range(3)] == ["a", "b", "b"]


async def test_three_dear_answers_over_a_longer_time_do_not():
    a, b = costs("0.0011"), Script("b")
    async with staged(offer("a", a, price=PRICE), offer("b", b, price=2 * PRICE)) as stage:
        for _ in range(6):
            assert (await stage.request()).output == "a"
            await asyncio.sleep(301.0)


@pytest.mark.parametrize(
    ("market", "listing", "cost", "is_left"),
    [
        ({}, {}, "0.002", False),
        ({}, {}, "0.002001", True),
        ({"price_tolerance": 3.0}, {}, "0.003", False),
        ({"price_tolerance": 3.0}, {}, "0.003001", True),
        ({"price_tolerance": 3.0}, {"price_tolerance": 1.0}, "0.001001", True),
    ],
)
async def test_one_answer_above_the_tolerance_leaves_the_provider_alone(
    market: Any,
    listing: Any,
    cost: str,
    is_left: bool,  # noqa: FBT001
):
    a, b = costs(cost), Script("b")
    async with staged(offer("a", a, price=PRICE, **listing), offer("b", b, price=2 * PRICE), **market) as stage:
        assert (await stage.request()).output == "a"
        assert (await stage.request()).output == ("b" if is_left else "a")


async def test_the_error_says_what_was_charged_and_how_it_ends_and_a_request_waits_if_it_can():
    a = costs("0.005", "0.0008")
    async with staged(offer("a", a, price=PRICE)) as stage:
        await stage.request()
        with pytest.raises(Overpriced) as refused:
            await stage.request()
        assert (refused.value.quoted, refused.value.charged_before) == (1_000, 5_000)
        assert 55.0 < (refused.value.retry_after or 0.0) < 65.0
        for words in ("$0.001 it lists", "$0.005", "left alone for", "list another price, or release it"):
            assert words in str(refused.value)
        assert (await stage.request(timeout=100.0)).output == "a"
        assert 55.0 < now() < 65.0
        (status,) = await stage.ref.ask(GetStatus(), timeout=1)
        assert (status.dearest, status.left) == (5_000, ())


@pytest.mark.parametrize("seed", range(repeated(50)))
async def test_a_provider_that_stays_dear_is_left_for_a_minute_growing_to_an_hour(seed: int):
    a, b = costs("0.005"), Script("b")
    async with ActorSystem("stage", seed=seed, log=False) as system:
        market = Market(providers=[offer("a", a, price=PRICE), offer("b", b, price=2 * PRICE)])
        stage = Stage(system, market)
        while now() < 4 * 3600.0:
            await stage.request()
            await asyncio.sleep(10.0)
    waits = [after - before for before, after in pairwise(a.at)]
    for wait, nominal in zip(waits, [60.0, 600.0, 3600.0, 3600.0, 3600.0], strict=False):
        assert 0.9 * nominal <= wait <= 1.1 * nominal + 10.0
    assert len(a.at) == 6


async def test_an_answer_at_its_price_ends_it_and_the_count_begins_anew():
    a, b = costs("0.005", "0.001", "0.0015", "0.0015", "0.0015"), Script("b")
    async with staged(offer("a", a, price=PRICE), offer("b", b, price=2 * PRICE)) as stage:
        await stage.request()
        await asyncio.sleep(65.0)
        assert [(await stage.request()).output for _ in range(5)] == ["a", "a", "a", "a", "b"]


async def test_another_listed_price_ends_it_at_once_and_so_does_a_release():
    a, b = costs("0.005"), Script("b")
    listed = offer("a", a, price=PRICE)
    async with staged(listed, offer("b", b, price=9 * PRICE)) as stage:
        await stage.request()
        assert (await stage.request()).output == "b"
        await stage.ref.ask(Release(provider="a"), timeout=1)
        assert (await stage.request()).output == "a"
        assert (await stage.request()).output == "b"
        # What was charged is reserved after a release too.
        assert [one.amount for one in stage.of(MoneyReserved) if one.provider == "a"] == [1_000, 5_000]


async def test_a_dear_answer_at_an_older_price_tells_nothing_of_the_price_that_is_listed_now():
    listed = [PRICE]
    answers = {"old": ("0.005", 700.0), "new": ("0.01", 0.0)}

    async def answer(call: ProviderCall) -> ProviderReply:
        cost, lasts = answers[call.input]
        await asyncio.sleep(lasts)
        return ProviderReply(output="a", cost=cost)

    async def registry(_service: str) -> list[Listing]:
        return [offer("a", answer, price=listed[0], timeout=900.0)]

    async with staged(offer("c", Script("c")), registry=registry) as stage:
        old = asyncio.create_task(stage.request(input="old", timeout=900.0))
        await asyncio.sleep(670.0)  # The offers are refreshed after 660 s at the latest.
        listed[0] = 2 * PRICE
        for _ in range(3):  # The first of them has the older answer of the registry refreshed.
            with suppress(Overpriced):
                await stage.request(input="new", timeout=0.5)
            await asyncio.sleep(1.0)
        before = (await stage.ref.ask(GetStatus(), timeout=1))[-1]
        assert (before.dearest, len(before.left)) == (10_000, 1)
        await old
        after = (await stage.ref.ask(GetStatus(), timeout=1))[-1]
        assert (after.dearest, len(after.left)) == (10_000, 1)
        assert len(stage.of(DearAnswer)) == 3
        with pytest.raises(Overpriced):
            await stage.request(input="new", timeout=1.0)


async def test_a_provider_that_lists_another_price_is_called_at_once():
    prices = ["0.001", "0.005"]
    a = costs("0.005")

    async def look_up(_service: str) -> list[Listing]:
        return [offer("a", a, price=to_micros(prices[0]))]

    async with staged(offer("c", Script("c")), registry=look_up) as stage:
        await stage.request()
        with pytest.raises(Overpriced):
            await stage.request()
        prices.pop(0)
        await asyncio.sleep(670.0)  # The offers are refreshed after 660 s at the latest.
        for _ in range(5):
            assert (await stage.request()).cost == 5_000
            await asyncio.sleep(1.0)


async def test_a_budget_that_a_registry_changes_holds_from_the_next_look_up_on():
    budgets: list[str | None] = ["0.002", "0.005", None, "0.001"]
    caps = list[object]()

    async def look_up(_service: str) -> list[Listing]:
        listed = offer("a", costs("0.001"), price=PRICE)
        return [msgspec.structs.replace(listed, budget=budgets[0])]

    async with staged(offer("c", Script("c")), registry=look_up) as stage:
        old = asyncio.create_task(stage.request(budget="0.001"))
        while budgets:
            for _ in range(2):  # The first has the older answer of the registry refreshed.
                with suppress(CallFailed):
                    await stage.request(timeout=0.5)
                await asyncio.sleep(1.0)
            caps.append((await stage.ref.ask(GetStatement("provider a"), timeout=1)).cap)
            budgets.pop(0)
            await asyncio.sleep(1000.0)
        await old
    assert caps == [2_000, 5_000, None, 1_000]


@pytest.mark.parametrize("seed", range(repeated(200)))
async def test_only_calls_under_way_at_a_dear_answer_can_pass_a_cap(seed: int):
    rng = Random(seed)
    dear, cap = rng.randint(1_001, 4_000), rng.randint(5_000, 60_000)
    begun: list[float] = []
    dear_at: list[float] = []

    async def answer(_: ProviderCall) -> ProviderReply:
        begun.append(now())
        is_dear = rng.random() < 0.3
        await asyncio.sleep(rng.uniform(0.1, 5.0))
        if is_dear:
            dear_at.append(now())
        return ProviderReply(output="a", cost=Micros(dear if is_dear else rng.randint(0, PRICE)))

    listing = offer("a", answer, price=PRICE, max_concurrency=rng.randint(1, 10))
    async with ActorSystem("stage", seed=seed, log=False) as system:
        market = Market(providers=[listing], budget=f"{cap / 1e6:.6f}", price_tolerance=10.0)
        stage = Stage(system, market)

        async def ask() -> None:
            await asyncio.sleep(rng.uniform(0.0, 60.0))
            await stage.request(timeout=rng.uniform(5.0, 100.0))

        await asyncio.gather(*(ask() for _ in range(60)), return_exceptions=True)
        await steps(3)
        run = await stage.ref.ask(GetStatement("run"), timeout=1)
        under_way = sum(one <= dear_at[0] for one in begun) if dear_at else 0
        assert run.reserved == 0
        assert run.settled + run.held <= cap + under_way * (dear - PRICE)
        late = [one for one in stage.of(Overcharged) if one.charged > one.quoted]
        assert len(late) <= under_way
        await stage.assert_at_rest()
