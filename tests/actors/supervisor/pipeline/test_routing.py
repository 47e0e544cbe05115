"""Where a request goes next, as a function."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors import (
    AllProvidersFailed,
    BudgetExceeded,
    OutcomeUnknown,
    Permanent,
    Provider,
    Retry,
    Throttled,
    Transient,
    Unclassified,
)
from actors.errors import BulkheadFull, QuotaExhausted
from actors.money import Micros
from actors.providers.selection import rank
from actors.supervisor.pipeline.routing import Tried, after_failure, ends_request, in_force, in_order

if TYPE_CHECKING:
    from collections.abc import Collection

STEADY = Retry(base=2.0, cap=8.0, jitter="none", max_retries=3)


def provider(name: str, price: int, reputation: float = 50.0) -> Provider:
    return Provider(name=name, services={"s"}, price=Micros(price), reputation=reputation)


CHEAP, MIDDLE, DEAR = provider("cheap", 1, 10), provider("middle", 2, 50), provider("dear", 3, 99)
ALL = [DEAR, CHEAP, MIDDLE]


def failed(error: Exception, **facts: float) -> Tried:
    return after_failure(
        error,  # type: ignore[arg-type]
        **{"failures": 1, "now": 100.0, "deadline": 1000.0, "random": 0.0} | facts,  # type: ignore[arg-type]
        policy=STEADY,
    )


def test_the_wait_doubles_with_each_failure_and_ends_after_the_last_retry():
    error = Transient("down")
    assert [failed(error, failures=count).ready_at for count in (1, 2, 3, 4)] == [102.0, 104.0, 108.0, math.inf]


def test_a_wait_that_ends_at_the_deadline_or_later_is_no_wait_but_the_end():
    assert failed(Transient("down"), deadline=102.0).ready_at == math.inf
    assert failed(Transient("down"), deadline=102.5).ready_at == 102.0
    assert failed(Throttled("slow", retry_after=901.0)).ready_at == math.inf
    assert failed(Throttled("slow", retry_after=50.0)).ready_at == 150.0


@pytest.mark.parametrize("error", [QuotaExhausted("pay"), Unclassified("?"), Permanent("no"), OutcomeUnknown("lost")])
def test_what_is_not_retryable_is_not_retried(error: Exception):
    assert failed(error).ready_at == math.inf


@pytest.mark.parametrize(
    ("error", "ends"),
    [
        (Permanent("no"), True),
        (OutcomeUnknown("lost"), True),
        (Transient("down"), False),
        (Throttled("slow"), False),
        (QuotaExhausted("pay"), False),
        (Unclassified("?"), False),
        (BulkheadFull("a", max_concurrency=1), False),
        (BudgetExceeded(needed=Micros(2), available=Micros(1), cap="request"), False),
        (AllProvidersFailed("s", attempts=[]), False),
    ],
    ids=lambda one: type(one).__name__,
)
def test_only_the_callers_mistake_and_an_unknown_outcome_end_a_request(error: Exception, *, ends: bool):
    assert ends_request(error) is ends  # type: ignore[arg-type]


def ordered(tried: dict[str, Tried], strategies: list[Any], *, unhealthy: Collection[str] = ()) -> list[str]:
    ranked = [one.name for one in rank(ALL, in_force(strategies, tried))]
    return [*in_order(ranked, tried=tried, among=ranked, is_unhealthy=lambda name: name in unhealthy)]


def test_untried_ones_come_first_by_the_strategy_in_force_then_those_that_are_ready_soonest():
    ready, later, never = Tried(1, 0.0, 5.0), Tried(2, 0.0, 9.0), Tried(1, 0.0, math.inf)
    assert ordered({}, ["cheapest"]) == ["cheap", "middle", "dear"]
    assert ordered({"cheap": later}, ["cheapest", "best"]) == ["dear", "middle", "cheap"]
    tried = {"cheap": later, "dear": ready}
    assert ordered(tried, ["cheapest"]) == ["middle", "dear", "cheap"]
    assert ordered(tried | {"middle": never}, ["best"]) == ["dear", "cheap"]


def test_the_unhealthy_stand_behind_the_healthy_and_are_never_lost():
    ready = Tried(1, 0.0, 5.0)
    assert ordered({}, ["cheapest"], unhealthy={"cheap"}) == ["middle", "dear", "cheap"]
    everybody = {"cheap", "middle", "dear"}
    assert ordered({}, ["cheapest"], unhealthy=everybody) == ["cheap", "middle", "dear"]
    assert ordered({"dear": ready}, ["best"], unhealthy={"cheap", "middle"}) == [
        "dear",
        "middle",
        "cheap",
    ]


@given(
    tried=st.dictionaries(st.sampled_from(["cheap", "middle", "dear"]), st.sampled_from([3.0, 7.0, math.inf])),
    unhealthy=st.sets(st.sampled_from(["cheap", "middle", "dear"])),
    strategies=st.lists(st.sampled_from(["best", "cheapest", "fastest", "balanced"]), min_size=1, max_size=3),
)
def test_everybody_who_may_be_called_is_named_once(tried: dict[str, float], unhealthy: set[str], strategies: list[str]):
    given_up = {name for name, at in tried.items() if at == math.inf}
    names = ordered({name: Tried(1, 0.0, at) for name, at in tried.items()}, strategies, unhealthy=unhealthy)
    assert sorted(names) == sorted({"cheap", "middle", "dear"} - given_up)
