import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.money import Micros
from actors.providers.provider import Provider
from actors.providers.selection import ADAPTIVE_STRATEGIES, STRATEGIES, Signals, quality, rank, select_best, two_choices


def provider(name: str, **fields: object) -> Provider:
    return Provider(**{"name": name, "services": {"translation"}} | fields)


GOOD = provider("good", price="0.09", reputation=98, success_rate=0.99, response_time=3.0)
CHEAP = provider("cheap", price="0.01", reputation=50, success_rate=0.80, response_time=4.0)
FAST = provider("fast", price="0.08", reputation=60, success_rate=0.85, response_time=0.2)
SOLID = provider("solid", price="0.03", reputation=90, success_rate=0.97, response_time=1.0)
MARKET = [GOOD, CHEAP, FAST, SOLID]

markets = st.lists(
    st.builds(
        provider,
        name=st.text(alphabet="abcdef", min_size=1, max_size=4),
        price=(st.integers(0, 5) | st.integers(0, 2**62)).map(Micros),
        reputation=st.integers(0, 3).map(lambda step: step * 30) | st.floats(0, 100),
        success_rate=st.sampled_from([0.5, 0.9, 1.0]) | st.floats(0, 1),
        response_time=st.sampled_from([0.1, 1.0]) | st.floats(0, 1e300),
    ),
    min_size=1,
    max_size=8,
    unique_by=lambda one: one.name,
)
strategies = st.sampled_from(STRATEGIES)


def dominates(one: Provider, other: Provider) -> bool:
    """Return whether `one` is no worse in anything and better in something."""
    merits = [(p.reputation, p.success_rate, -p.price, -p.response_time) for p in (one, other)]
    return merits[0] != merits[1] and all(a >= b for a, b in zip(*merits, strict=True))


@pytest.mark.parametrize(
    ("strategy", "first"), [("best", GOOD), ("cheapest", CHEAP), ("fastest", FAST), ("balanced", SOLID)]
)
def test_each_strategy_takes_the_provider_it_is_named_after(strategy, first):
    assert select_best(MARKET, strategy) is first


@given(markets, strategies, st.randoms(use_true_random=False))
def test_the_order_they_are_given_in_does_not_matter(market, strategy, rng):
    shuffled = list(market)
    rng.shuffle(shuffled)
    assert rank(shuffled, strategy) == rank(market, strategy)


@given(markets, strategies)
def test_ranking_keeps_every_provider_and_leaves_its_input_alone(market, strategy):
    before = list(market)
    ranked = rank(market, strategy)
    assert market == before
    assert ranked is not market
    assert sorted(one.name for one in ranked) == sorted(one.name for one in market)


@given(markets, strategies)
def test_the_one_selected_is_the_first_of_the_ranking(market, strategy):
    assert select_best(market, strategy) == rank(market, strategy)[0]


@given(markets)
def test_balanced_never_takes_a_provider_that_another_beats_in_everything(market):
    chosen = select_best(market, "balanced")
    assert not [one.name for one in market if dominates(one, chosen)]


@given(markets)
def test_best_cheapest_and_fastest_take_the_extreme_of_their_measure(market):
    assert quality(select_best(market, "best")) == max(quality(one) for one in market)
    assert select_best(market, "cheapest").price == min(one.price for one in market)
    assert select_best(market, "fastest").response_time == min(one.response_time for one in market)


def test_balanced_measures_against_the_providers_at_hand():
    # Against an assumed maximum, such as a dollar or ten seconds, these prices would be all the same.
    dear = provider("dear", price=Micros(20), reputation=51)
    cheap = provider("cheap", price=Micros(10), reputation=50)
    rest = provider("rest", price=Micros(20), reputation=0, response_time=1.0)
    assert select_best([dear, cheap, rest], "balanced") is cheap


def test_equal_providers_go_by_name():
    twins = [provider("b"), provider("a"), provider("c")]
    for strategy in STRATEGIES:
        assert [one.name for one in rank(twins, strategy)] == ["a", "b", "c"]


def test_among_the_cheapest_the_better_one_comes_first():
    worse, better = provider("a", reputation=10), provider("b", reputation=90)
    assert rank([worse, better], "cheapest") == [better, worse]


def test_quality_is_the_mean_of_reputation_and_success():
    assert quality(provider("a", reputation=80, success_rate=0.5)) == pytest.approx(0.65)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_there_is_no_best_of_nobody(strategy):
    assert rank([], strategy) == []
    with pytest.raises(ValueError, match="no provider to select from"):
        select_best([], strategy)


def test_an_unknown_strategy_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match="one of best, cheapest, fastest, balanced, got 'luckiest'"):
        rank(MARKET, "luckiest")


def test_a_difference_that_quality_rounds_away_still_decides():
    worse = provider("a", success_rate=0.1, reputation=100)
    better = provider("b", success_rate=math.nextafter(0.1, 1), reputation=100)
    assert quality(worse) == quality(better)
    assert select_best([worse, better], "balanced") is better


# The strategies that go by signals.

signals = st.builds(
    Signals,
    loads=st.dictionaries(st.text(alphabet="abcdef", min_size=1, max_size=4), st.sampled_from([0.5, 1.0, 2.0])),
    draws=st.none() | st.tuples(st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True)),
    samples=st.dictionaries(st.text(alphabet="abcdef", min_size=1, max_size=4), st.floats(0, 1)),
)
every_strategy = st.sampled_from((*STRATEGIES, *ADAPTIVE_STRATEGIES))


@given(markets, every_strategy, signals, st.randoms(use_true_random=False))
def test_with_any_signals_none_is_lost_nothing_is_mutated_and_the_order_given_does_not_matter(
    market, strategy, given_signals, rng
):
    before, shuffled = list(market), list(market)
    ranked = rank(market, strategy, given_signals)
    rng.shuffle(shuffled)
    assert market == before
    assert ranked is not market
    assert sorted(one.name for one in ranked) == sorted(one.name for one in market)
    assert rank(shuffled, strategy, given_signals) == ranked
    assert select_best(market, strategy, given_signals) == ranked[0]


@given(markets, every_strategy)
def test_a_tuple_is_ranked_as_a_list_is(market, strategy):
    assert rank(tuple(market), strategy) == rank(market, strategy)


@pytest.mark.parametrize("strategy", [*STRATEGIES, *ADAPTIVE_STRATEGIES])
def test_one_candidate_and_none_are_no_special_case(strategy):
    draws = Signals(draws=(0.99, 0.99))
    assert rank([GOOD], strategy, draws) == [GOOD]
    assert rank([], strategy, draws) == []


@given(st.integers(2, 9), st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True))
def test_two_choices_are_two_different_ones_and_the_less_loaded_wins(count, first, second):
    loads = [float(index * 7 % count) for index in range(count)]
    chosen = two_choices(loads, first, second)
    one = int(first * count)
    assert loads[chosen] <= loads[one]
    if chosen == one:
        # The other one was not lighter, whichever it was; so the heaviest is never the one chosen.
        assert two_choices([0.0 if index == one else 1.0 for index in range(count)], first, second) == one
    assert two_choices([1.0 if index == one else 0.0 for index in range(count)], first, second) != one


def test_the_most_loaded_of_all_is_never_chosen_by_two_choices():
    steps = [step / 20 for step in range(20)]
    loads = {one.name: load for one, load in zip(MARKET, (9.0, 1.0, 2.0, 3.0), strict=True)}
    chosen = [
        select_best(MARKET, "least_loaded", Signals(loads=loads, draws=(first, second))).name
        for first in steps
        for second in steps
    ]
    counts = {one.name: chosen.count(one.name) for one in MARKET}
    assert counts["good"] == 0
    assert counts["cheap"] > counts["fast"] > counts["solid"] > 0


def test_without_draws_the_least_loaded_of_all_comes_first_and_the_others_by_load():
    loads = {"good": 3.0, "cheap": 2.0, "fast": 4.0, "solid": 1.0}
    assert rank(MARKET, "least_loaded", Signals(loads=loads)) == [SOLID, CHEAP, GOOD, FAST]
    assert select_best(MARKET, "least_loaded") is FAST


def test_behind_the_one_chosen_the_others_stand_by_load():
    loads = {"good": 3.0, "cheap": 2.0, "fast": 4.0, "solid": 1.0}
    ranked = rank(MARKET, "least_loaded", Signals(loads=loads, draws=(0.5, 0.99)))
    assert ranked == [GOOD, SOLID, CHEAP, FAST]


def test_a_bandit_pays_a_third_of_the_price_range_for_the_whole_of_the_quality():
    dear, cheap = provider("dear", price=Micros(30)), provider("cheap", price=Micros(10))
    for gain, chosen in ((0.2, cheap), (0.34, dear), (1.0, dear)):
        assert select_best([dear, cheap], "bandit", Signals(samples={"dear": gain, "cheap": 0.0})) is chosen


def test_a_bandit_that_knows_no_sample_goes_by_what_is_declared():
    better, worse = provider("b", reputation=90), provider("a", reputation=10)
    assert rank([worse, better], "bandit") == [better, worse]


def test_balanced_over_equal_values_goes_by_what_differs():
    fast, slow = provider("b", response_time=1.0), provider("a", response_time=2.0)
    assert rank([slow, fast], "balanced") == [fast, slow]
