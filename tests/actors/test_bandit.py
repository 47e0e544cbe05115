import random
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.bandit import (
    Answers,
    Bandit,
    BanditConfig,
    ScoreAnswer,
    after_score,
    posterior,
    samples,
    without,
)
from actors.provider import Provider
from actors.selection import Signals, select_best


def provider(name, **facts):
    return Provider(**{"name": name, "services": {"s"}, "reputation": 50, "success_rate": 0.5} | facts)


ALDER, BIRCH = provider("alder", price=10), provider("birch", price=10)


def play(rng, bandit, providers, qualities, rounds):
    """Let the bandit choose, score each answer by the true quality, and return it with its choices."""
    chosen = []
    for _ in range(rounds):
        drawn = samples(bandit, providers, rng)
        choice = select_best(providers, "bandit", Signals(samples=drawn)).name
        chosen.append(choice)
        bandit = after_score(bandit, choice, float(rng.random() < qualities[choice]))
    return bandit, chosen


def test_each_score_makes_all_before_it_count_less():
    bandit = Bandit()
    for name, score in (("a", 1.0), ("b", 0.25), ("a", 0.5)):
        bandit = after_score(bandit, name, score, BanditConfig(discount=0.5))
    assert bandit.steps == 3
    assert (bandit.arms["a"].good, bandit.arms["a"].bad) == (0.25 + 0.5, 0.5)
    good, bad = posterior(bandit, provider("b"), BanditConfig(discount=0.5))
    assert (good, bad) == (1.0 + 0.5 * 0.25, 1.0 + 0.5 * 0.75)


def test_without_any_score_the_prior_has_the_mean_of_what_is_declared():
    assert posterior(Bandit(), ALDER) == (1.0, 1.0)
    good, bad = posterior(Bandit(), provider("a", reputation=90, success_rate=0.9))
    assert (good, bad) == (pytest.approx(1.8), pytest.approx(0.2))
    assert min(posterior(Bandit(), provider("a", reputation=100, success_rate=1.0))) > 0


def test_it_takes_whoever_answers_well():
    for seed in range(20):
        _, chosen = play(random.Random(seed), Bandit(), [ALDER, BIRCH], {"alder": 0.3, "birch": 0.9}, 300)
        assert mean(name == "birch" for name in chosen[50:]) > 0.8, seed


def test_a_silent_drop_in_quality_is_noticed_and_so_is_the_recovery():
    for seed in range(20):
        rng = random.Random(seed)
        bandit, chosen = play(rng, Bandit(), [ALDER, BIRCH], {"alder": 0.95, "birch": 0.7}, 300)
        assert mean(name == "alder" for name in chosen[-200:]) > 0.6, seed
        bandit, chosen = play(rng, bandit, [ALDER, BIRCH], {"alder": 0.1, "birch": 0.7}, 300)
        assert mean(name == "birch" for name in chosen[50:]) > 0.75, seed
        _, chosen = play(rng, bandit, [ALDER, BIRCH], {"alder": 0.95, "birch": 0.3}, 400)
        assert mean(name == "alder" for name in chosen[200:]) > 0.6, seed


def test_without_forgetting_the_drop_would_go_unnoticed():
    bandit, patient = Bandit(), BanditConfig(discount=1.0)
    for _ in range(1000):
        bandit = after_score(bandit, "alder", 1.0, patient)
    forgetful = bandit = Bandit(arms=bandit.arms, steps=bandit.steps)
    for _ in range(60):
        bandit = after_score(bandit, "alder", 0.0, patient)
        forgetful = after_score(forgetful, "alder", 0.0)
    kept, seen = posterior(bandit, ALDER, patient), posterior(forgetful, ALDER)
    assert kept[0] / sum(kept) > 0.9
    assert seen[0] / sum(seen) < 0.9


def test_among_the_equally_good_it_takes_the_cheap_one_and_pays_for_quality():
    dear = provider("dear", price=100)
    for seed in range(10):
        rng = random.Random(seed)
        _, chosen = play(rng, Bandit(), [ALDER, dear], {"alder": 0.9, "dear": 0.9}, 300)
        assert mean(name == "alder" for name in chosen[100:]) > 0.85, seed
        _, chosen = play(rng, Bandit(), [ALDER, dear], {"alder": 0.2, "dear": 0.95}, 300)
        assert mean(name == "dear" for name in chosen[100:]) > 0.7, seed


@given(st.integers(0, 2**32), st.lists(st.sampled_from("abc"), max_size=20))
def test_the_same_draws_give_the_same_samples_however_the_providers_are_given(seed, scored):
    bandit = Bandit()
    for name in scored:
        bandit = after_score(bandit, name, 0.5)
    three = [provider(name) for name in "abc"]
    drawn = samples(bandit, three, random.Random(seed))
    assert drawn == samples(bandit, three[::-1], random.Random(seed))
    assert set(drawn) == set("abc")
    assert all(0 <= one <= 1 for one in drawn.values())


def test_a_score_leaves_the_state_before_it_alone():
    before = after_score(Bandit(), "a", 1.0)
    after_score(before, "b", 1.0)
    assert set(before.arms) == {"a"}
    assert set(without(after_score(before, "b", 1.0), ["b"]).arms) == {"b"}


@pytest.mark.parametrize("score", [-0.1, 1.1, float("nan")])
def test_a_score_beyond_0_to_1_is_refused(score):
    with pytest.raises(ValueError, match="score must be from 0 to 1"):
        after_score(Bandit(), "a", score)
    with pytest.raises(ValueError, match="score must be from 0 to 1"):
        ScoreAnswer(service="s", score=score, provider="a")


def test_a_scored_answer_is_named_in_one_way():
    for names in ({}, {"request_id": "r", "provider": "a"}):
        with pytest.raises(ValueError, match="request_id of the answer or its provider"):
            ScoreAnswer(service="s", score=1.0, **names)


@pytest.mark.parametrize("discount", [0.0, 1.1])
def test_an_impossible_discount_is_refused(discount):
    with pytest.raises(ValueError, match="discount must be above 0"):
        BanditConfig(discount=discount)


def test_the_latest_answers_are_remembered_each_for_one_score():
    answers = Answers(max_answers=2)
    for request_id, name in (("r1", "a"), ("r2", "b"), ("r3", "c")):
        answers.note("s", request_id, name)
    assert len(answers) == 2
    scores = [ScoreAnswer(service="s", score=1.0, request_id=one) for one in ("r1", "r2", "r2", "r3")]
    assert [answers.scored(score) for score in scores] == [None, "b", None, "c"]
    assert answers.scored(ScoreAnswer(service="s", score=1.0, provider="z")) == "z"
    with pytest.raises(ValueError, match="max_answers must be >= 1"):
        Answers(max_answers=0)


def test_an_answer_noted_again_is_the_newest():
    answers = Answers(max_answers=2)
    for request_id, name in (("r1", "a"), ("r2", "b"), ("r1", "c"), ("r3", "d")):
        answers.note("s", request_id, name)
    score = ScoreAnswer(service="s", score=0.5, request_id="r1")
    assert answers.scored(score) == "c"
