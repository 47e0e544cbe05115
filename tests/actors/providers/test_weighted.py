"""Draws by weight: each name as often as its weight says among those that can be called, and all of them once."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.providers.weighted import DRAWS, WeightedDraw

weights = st.dictionaries(
    st.text(alphabet="abcdef", min_size=1, max_size=3), st.sampled_from([0.0, 1e-6, 1.0, 2.5, 1e6]), max_size=30
)


@given(weights, st.randoms(use_true_random=False))
def test_each_name_comes_once_and_those_of_no_weight_come_last_in_their_order(given_weights, rng):
    order = [*WeightedDraw(given_weights).order(rng)]
    assert sorted(order) == sorted(given_weights)
    spares = [name for name, weight in given_weights.items() if weight == 0]
    assert order[len(order) - len(spares) :] == spares


@pytest.mark.parametrize("out", [frozenset(), frozenset("a"), frozenset("ab"), frozenset("c")])
@pytest.mark.parametrize("more", [0, 40])
def test_the_first_of_those_that_can_be_called_comes_by_its_weight(out, more):
    shares = {"a": 5.0, "b": 3.0, "c": 1.0, "d": 1.0, "spare": 0.0}
    # Most of those that cannot be called come after all that are drawn one by one.
    out |= {f"out{number}" for number in range(more)}
    draw, rng = WeightedDraw(shares | dict.fromkeys(out - shares.keys(), 50.0)), random.Random(1)
    firsts = Counter(next(name for name in draw.order(rng) if name not in out) for _ in range(10_000))
    left = {name: weight for name, weight in shares.items() if name not in out}
    for name, weight in left.items():
        # Four standard deviations of a share of a half.
        assert firsts[name] == pytest.approx(10_000 * weight / sum(left.values()), abs=200)
    assert not firsts["spare"]


def test_a_second_choice_is_drawn_by_weight_among_those_left():
    draw, rng = WeightedDraw({"a": 6.0, "b": 3.0, "c": 1.0}), random.Random(2)
    seconds = Counter(order[1] for order in ([*draw.order(rng)] for _ in range(10_000)) if order[0] == "a")
    assert seconds["b"] / seconds.total() == pytest.approx(0.75, abs=0.03)


def test_the_first_among_thousands_takes_one_random_number():
    class Counted(random.Random):
        drawn = 0

        def random(self):
            self.drawn += 1
            return super().random()

    rng = Counted(1)
    next(WeightedDraw({f"p{number}": 1.0 for number in range(5_000)}).order(rng))
    assert rng.drawn == 1 < DRAWS
