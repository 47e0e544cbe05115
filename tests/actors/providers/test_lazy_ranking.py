"""Orders that are worked out as far as they are read: what they cost, and that they are those of the strategies."""

import random
from collections import Counter
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.money import Micros
from actors.providers import lazy_ranking
from actors.providers.bandit import Bandit, after_score, rescore
from actors.providers.lazy_ranking import (
    MAX_ARMS,
    Ranking,
    Remembered,
    by_drawn_quality,
    by_load,
    by_two_choices,
    drawn,
)
from actors.providers.provider import Provider
from actors.providers.selection import STRATEGIES, rank


def provider(name, **facts):
    return Provider(**{"name": name, "services": {"s"}, "reputation": 50, "success_rate": 0.5} | facts)


def providers(count):
    return [provider(f"p{number}", reputation=number % 100, price=Micros(number % 7)) for number in range(count)]


@given(st.integers(0, 30), st.randoms(use_true_random=False))
def test_each_is_drawn_once_and_by_load_as_well(count, rng):
    assert sorted(drawn(range(count), rng)) == list(range(count))
    assert sorted(by_two_choices(range(count), lambda number: number % 3, rng)) == list(range(count))


def test_each_order_is_drawn_as_often_as_any_other():
    rng = random.Random(1)
    orders = Counter(tuple(drawn("abc", rng)) for _ in range(6_000))
    assert len(orders) == 6
    assert min(orders.values()) > 850


def test_the_first_is_the_less_loaded_of_two_and_the_most_loaded_of_all_comes_last_of_three():
    rng = random.Random(1)
    firsts = Counter(next(by_two_choices([3, 1, 2], lambda load: load, rng)) for _ in range(3_000))
    assert set(firsts) == {1, 2}
    assert firsts[1] == pytest.approx(2_000, abs=100)
    assert {[*by_two_choices([3, 1, 2], lambda load: load, rng)][-1] for _ in range(50)} == {3}


def test_of_two_that_are_loaded_alike_the_better_one_comes_first():
    ranking = Ranking([provider("a"), provider("b", reputation=90)], "least_loaded")
    assert {next(by_load(ranking.providers, ranking.names, lambda _: 1.0, random.Random(n))) for n in range(9)} == {"b"}


@pytest.mark.parametrize("count", [10, 1_000, 30_000])
def test_two_are_rated_for_a_choice_by_load_from_however_many(count):
    asked = []

    def load(number):
        asked.append(number)
        return number

    order = by_two_choices(range(count), load, random.Random(1))
    assert next(order) == min(asked)
    assert len(asked) == 2
    list(islice(order, 5))
    assert len(asked) == 7


@pytest.mark.parametrize("count", [10, 1_000, 30_000])
@pytest.mark.parametrize("scored", [0, 10, 1_000])
def test_a_bandit_draws_for_eighty_at_most(count, scored, monkeypatch):
    ranking, bandit = Ranking(providers(count), "bandit"), Bandit()
    for number in range(scored):
        bandit = after_score(bandit, f"p{number % count}", 0.5)
    rng, draws = random.Random(1), []
    beta = rng.betavariate
    monkeypatch.setattr(rng, "betavariate", lambda a, b: draws.append(a) or beta(a, b))
    keys = []
    key = lazy_ranking.quality_key
    monkeypatch.setattr(lazy_ranking, "quality_key", lambda one: keys.append(one) or key(one))
    next(by_drawn_quality(ranking, bandit, rng))
    assert len(draws) == len(keys) == min(count, MAX_ARMS)


def test_a_bandit_tries_out_hundreds_and_calls_the_few_good_ones_far_more_often_than_by_chance():
    rng, bandit = random.Random(3), Bandit()
    ranking = Ranking([provider(f"p{number}") for number in range(1_000)], "bandit")
    good = {f"p{number}" for number in range(0, 1_000, 20)}
    chosen = []
    for _ in range(2_000):
        name = next(by_drawn_quality(ranking, bandit, rng))
        chosen.append(name)
        bandit = after_score(bandit, name, float(rng.random() < (0.95 if name in good else 0.3)))
    assert len(set(chosen)) > 300
    assert sum(name in good for name in chosen[1_000:]) > 3 * 1_000 / 20


@given(st.integers(0, 250), st.randoms(use_true_random=False))
def test_a_bandit_names_each_once(count, rng):
    assert sorted(by_drawn_quality(Ranking(providers(count), "bandit"), Bandit(), rng)) == sorted(
        one.name for one in providers(count)
    )


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_ranking_is_that_of_the_strategy_and_those_scored_are_merged_in(strategy):
    some, bandit = providers(20), Bandit()
    ranking = Ranking(some, strategy)
    assert list(ranking.names) == [one.name for one in rank(some, strategy)]
    for _ in range(30):
        bandit = after_score(after_score(bandit, "p3", 1.0), "p19", 0.0)
    rated = rescore(bandit, some, 0.0)
    found = list(ranking.with_scored(rated))
    if strategy != "balanced":  # It keeps the scale of what is declared.
        assert found == [one.name for one in rank([rated.get(one.name, one) for one in some], strategy)]
    assert sorted(found) == sorted(ranking.names)


def test_what_was_read_is_read_again_and_no_further_than_asked():
    read = []
    names = Remembered(read.append(number) or number for number in range(5))
    assert list(islice(names, 2)) == list(islice(names, 2)) == [0, 1]
    assert read == [0, 1]
    assert list(names) == list(names) == [0, 1, 2, 3, 4]
    assert read == [0, 1, 2, 3, 4]
