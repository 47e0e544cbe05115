"""How long a provider is left alone, what for, and for which requests; without a loop."""

from __future__ import annotations

import functools
import math
from random import Random
from typing import Any

import pytest

from actors import Permanent, Throttled, to_micros
from actors.errors import QuotaExhausted
from actors.money import Micros
from actors.supervisor.targets.dear_answers import DearAnswers, after_charge, to_reserve
from actors.supervisor.targets.leaving import DEAR_WAITS, REFUSAL_WAITS, Leave, leave
from actors.supervisor.targets.quote import Quote
from actors.supervisor.targets.refusals import (
    MAX_REFUSALS,
    NO_REFUSALS,
    Refusals,
    Subject,
    after_answer,
    after_failure,
    concern_of,
)
from actors.supervisor.targets.same_transport import makes_same
from tests.proofs import repeated

MODEL = Subject("chat", {"model": "m-1", "messages": [{"content": "hello"}]})
OTHER_INPUT = Subject("chat", {"model": "m-1", "messages": [{"content": "again"}]})
OTHER_MODEL = Subject("chat", {"model": "m-2", "messages": [{"content": "hello"}]})


def no_model(said: str = "no model `m-1`") -> Permanent:
    error = Permanent("404", scope="provider", concerns="name")
    error.said = said
    return error


def refused(before: Refusals, error: Any, subject: Subject, at: float, *, started: float | None = None) -> Refusals:
    return after_failure(before, error, subject, started=at - 0.5 if started is None else started, now=at, random=0.5)


@pytest.mark.parametrize("waits", [REFUSAL_WAITS, DEAR_WAITS])
def test_waits_grow_are_near_their_length_and_jitter_does_not_add_up(waits: tuple[float, ...]):
    for seed in range(repeated(1000)):
        rng, now, nominal = Random(seed), 0.0, 0.0
        last: Leave | None = None
        for count in range(20):
            length = waits[min(count, len(waits) - 1)]
            last = leave(last, waits, now=now, random=rng.random())
            assert 0.9 * length <= last.until - now <= 1.1 * length
            now, nominal = last.until, nominal + length
            assert abs(now - nominal) <= 0.05 * length


def test_a_wait_that_is_stated_holds_up_to_an_hour_and_counts():
    first = leave(None, REFUSAL_WAITS, now=0.0, random=0.5, stated=30.0)
    assert (first.until, leave(None, REFUSAL_WAITS, now=0.0, random=0.5, stated=1e9).until) == (30.0, 3600.0)
    assert leave(first, REFUSAL_WAITS, now=30.0, random=0.5).until == 130.0
    assert leave(None, REFUSAL_WAITS, now=0.0, random=0.5, stated=0.0).until == 10.0
    assert leave(first, REFUSAL_WAITS, now=30.0, random=0.5, stated=30.0).until == 130.0
    assert leave(first, REFUSAL_WAITS, now=30.0, random=0.5, stated=300.0).until == 330.0


@pytest.mark.parametrize(
    ("error", "concerns"),
    [
        (QuotaExhausted("402"), "account"),
        (Permanent("401", scope="provider", concerns="key"), "key"),
        (Permanent("451", scope="provider", concerns="region"), "region"),
        (Permanent("404", scope="provider", concerns="name"), "name"),
        (Permanent("404", scope="provider"), "name"),
        (Permanent("404", scope="provider", concerns="voice"), "name"),
        (Permanent("400", scope="provider", concerns="content"), None),
        (Permanent("400", scope="here", concerns="key"), None),
        (Permanent("400", concerns="key"), None),
        (Throttled("429"), None),
        (None, None),
    ],
    ids=str,
)
def test_what_a_failure_concerns(error: Any, concerns: str | None):
    assert concern_of(error) == concerns


def test_one_input_keeps_itself_away_and_a_second_one_all_that_have_the_name():
    one = refused(NO_REFUSALS, no_model(), MODEL, 1.0)
    assert one.wait(MODEL, 2.0) is not None
    assert one.wait(OTHER_INPUT, 2.0) is None
    two = refused(one, no_model(), OTHER_INPUT, 3.0)
    waits = [two.wait(subject, 4.0) for subject in (MODEL, OTHER_INPUT, Subject("chat", {"model": "m-1"}))]
    assert [None if found is None else found[1] for found in waits] == [9.0] * 3
    assert two.wait(OTHER_MODEL, 4.0) is None
    assert two.wait(Subject("speech", {"model": "m-1"}), 4.0) is None


def test_the_same_input_twice_is_one_input():
    same = Subject("chat", {"model": "m-1", "messages": [{"content": "hello"}]})
    twice = refused(refused(NO_REFUSALS, no_model(), MODEL, 1.0), no_model(), same, 1.2)
    assert twice.wait(OTHER_INPUT, 2.0) is None


def test_an_answer_with_the_name_ends_it_and_one_without_does_not():
    two = refused(refused(NO_REFUSALS, no_model(), MODEL, 1.0), no_model(), OTHER_INPUT, 3.0)
    assert after_answer(two, OTHER_MODEL, started=5.0) == two
    assert after_answer(two, MODEL, started=2.9) == two
    assert after_answer(two, MODEL, started=13.0).all == ()


def test_the_refusals_of_names_are_bounded_and_that_of_the_key_is_kept():
    refusals = refused(NO_REFUSALS, Permanent("401", scope="provider", concerns="key"), MODEL, 1.0)
    for number in range(100):
        refusals = refused(refusals, no_model(f"no model m{number}"), Subject("chat", {"model": f"m{number}"}), 2.0)
    assert len(refusals.all) == MAX_REFUSALS
    assert refusals.wait(OTHER_MODEL, 3.0) is not None


@pytest.mark.parametrize("given", [object(), {1, 2}, lambda: None, [[[]]], "text", None, math.nan, b"x", 2**80])
def test_any_input_has_a_digest_and_names(given: Any):
    subject = Subject("chat", given)
    assert len(subject.digest) == 16
    assert subject.names == ({"text"} if given == "text" else set())


def test_a_deep_or_large_input_is_searched_within_bounds():
    deep: Any = "name"
    for _ in range(100_000):
        deep = [deep]
    assert Subject("chat", deep).names == frozenset()
    large = Subject("chat", [f"n{number}" for number in range(100_000)])
    assert len(large.names) <= 1_000


def test_what_is_reserved_is_the_dearest_charge_of_the_last_hour_in_bounded_memory():
    price = to_micros("0.001")
    rng = Random(7)
    dear: DearAnswers | None = None
    charges: list[tuple[float, int]] = []
    for step in range(5_000):
        now = step * 3.0
        cost = rng.randint(price + 1, 2 * price)
        dear = after_charge(dear, Quote(price, 10.0, price), cost, started=now, now=now, random=0.5)
        charges = [*((at, one) for at, one in charges if at > now - 3600.0), (now, cost)]
        assert to_reserve(dear, Quote(price, 1.0, price), now=now) >= max(one for _, one in charges)
        assert dear is not None
        assert len(dear.charges) <= 61
    assert to_reserve(dear, Quote(price, 1.0, price), now=5_000 * 3.0 + 3661.0) == price
    assert to_reserve(dear, Quote(Micros(2 * price), 1.0, Micros(2 * price)), now=5_000 * 3.0) == 2 * price


def test_makers_of_transports_are_alike_if_code_and_values_are():
    def reached_with(key: str) -> Any:
        def answer() -> str:
            return key

        return lambda: [answer()]

    assert makes_same(reached_with("old"), reached_with("old"))
    assert not makes_same(reached_with("old"), reached_with("new"))
    one = functools.partial(print, "alder", headers={"Key": "old"})
    assert makes_same(one, functools.partial(print, "alder", headers={"Key": "old"}))
    assert not makes_same(one, functools.partial(print, "alder", headers={"Key": "new"}))
    assert not makes_same(one, functools.partial(print, "alder", headers={"Other": "old"}))
    assert not makes_same(one, reached_with("old"))
    assert not makes_same(object(), object())
