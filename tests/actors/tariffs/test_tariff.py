"""Tariffs: prices as text, exact sums, rounded up once a call; bounds that no usage within a demand passes."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.money import MAX_MICROS, Micros
from actors.tariffs import Demand, Tariff, Tier, Usage
from actors.tariffs.tariff import MOST_OUTPUT

KINDS = ("input", "output", "cache_read", "cache_write", "cache_write_1h", "reasoning")
prices = st.decimals(min_value=0, max_value=10**6, places=9, allow_nan=False).map(str)
counts = st.integers(min_value=0, max_value=10**7)


@st.composite
def tariffs(draw: st.DrawFn) -> Tariff:
    optional = st.none() | prices
    tiers = [
        Tier(above=above, **{kind: draw(optional) for kind in KINDS})
        for above in sorted(draw(st.sets(st.integers(0, 10**6), max_size=3)))
    ]
    rest = {kind: draw(optional) for kind in KINDS[2:]}
    return Tariff(input=draw(prices), output=draw(prices), per_call=draw(prices), tiers=tuple(tiers), **rest)


usages = st.builds(Usage, **dict.fromkeys(KINDS, counts))


def price_in_force(tariff: Tariff, usage: Usage, kind: str) -> Fraction:
    """What a token costs, in dollars, reckoned independently of the code under test."""
    reached = [tier for tier in tariff.tiers if usage.all_input > tier.above]
    tier = reached[-1] if reached else None
    wanted: str | None = kind
    parents = {"cache_read": "input", "cache_write": "input", "cache_write_1h": "cache_write", "reasoning": "output"}
    while wanted is not None:
        for one in (tier, tariff):
            if one is not None and (price := getattr(one, wanted)) is not None:
                return Fraction(price) / 10**6
        wanted = parents.get(wanted)
    return Fraction(0)


@given(tariffs(), usages)
def test_a_cost_is_exact_and_rounded_up_once(tariff: Tariff, usage: Usage) -> None:
    exact = Fraction(str(tariff.per_call)) + sum(
        (getattr(usage, kind) * price_in_force(tariff, usage, kind) for kind in KINDS), Fraction(0)
    )
    assert tariff.cost(usage) == math.ceil(exact * 10**6)


@given(tariffs(), usages)
def test_no_usage_within_a_demand_costs_more_than_its_bound(tariff: Tariff, usage: Usage) -> None:
    demand = Demand(input_bound=usage.all_input, input_estimate=0, output_bound=usage.all_output)
    assert tariff.cost(usage) <= tariff.most(demand)


@given(tariffs(), counts, st.integers(0, 10**12))
def test_the_output_that_money_buys_costs_no_more_than_that_money(tariff: Tariff, read: int, money: int) -> None:
    demand = Demand(input_bound=read, input_estimate=0)
    bought = tariff.most_output(demand, Micros(money))
    if 0 < bought < MOST_OUTPUT:
        bounded = Demand(input_bound=read, input_estimate=0, output_bound=bought)
        assert tariff.most(bounded) <= money
        more = Demand(input_bound=read, input_estimate=0, output_bound=bought + 1)
        assert tariff.most(more) > money or tariff.most(more) == MAX_MICROS


def test_the_caller_s_decimal_context_changes_nothing() -> None:
    with localcontext() as context:
        context.prec = 2
        tariff = Tariff(input=Decimal("0.12345678"), output="1234.5678")
        assert tariff.cost(Usage(input=10**6, output=10**6)) == 1_234_691_257  # $1,234.69125678


def test_equal_prices_have_one_digest_and_others_another() -> None:
    one = Tariff(input="0.250", output=2)
    assert one.digest == Tariff(input=Decimal("0.25"), output="2.0", cache_read="0.25", reasoning="2").digest
    assert one == Tariff(input=".25", output="2e0")
    others = {
        one.digest,
        Tariff(input="0.26", output=2).digest,
        Tariff(input="0.25", output=2, per_call="0.01").digest,
        Tariff(input="0.25", output=2, tiers=(Tier(above=10, input="1"),)).digest,
        Tariff(input="0.25", output=2, tiers=(Tier(above=11, input="1"),)).digest,
    }
    assert len(others) == 5


@pytest.mark.parametrize("price", ["", "-1", "nan", "inf", "x", "1e99", "9" * 13, "0." + "1" * 19, " ", "1_0x"])
def test_what_is_no_price_is_refused(price: str) -> None:
    with pytest.raises(ValueError, match="input of a tariff"):
        Tariff(input=price)


@pytest.mark.parametrize("price", [0.25, True, b"1", Micros(5)])
def test_a_price_of_a_wrong_type_is_refused(price: object) -> None:
    with pytest.raises(TypeError, match="as text"):
        Tariff(input="1", output=price)  # type: ignore[arg-type]


def test_sums_beyond_the_largest_amount_stop_there() -> None:
    dear = Tariff(input="999999999999")
    assert dear.cost(Usage(input=2**40 - 1)) == MAX_MICROS


def test_tiers_must_be_in_order() -> None:
    with pytest.raises(ValueError, match="lowest first"):
        Tariff(input="1", tiers=(Tier(above=10), Tier(above=10)))
    with pytest.raises(ValueError, match="above must be"):
        Tier(above=-1)
