"""One decision over everything that a call would consume: all of it, or nothing."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors import (
    BreakerConfig,
    BreakerOpen,
    FunctionTransport,
    Listing,
    Provider,
)
from actors.errors import BulkheadFull, DeadlineTooShort, RateLimited
from actors.limits.concurrency import ConcurrencyLimit
from actors.limits.learned import LearnedLimit
from actors.limits.quota import RateLimit, quota_of
from actors.money import Micros
from actors.policies import RetryBudget
from actors.policies.breaker.states import Closed, HalfOpen, Isolated, Open, Permit
from actors.supervisor.targets.admission import Admitted, CallNeeds, Full, Later, Never, admit, time_needed
from actors.supervisor.targets.state import TargetState

CONFIG = BreakerConfig(failure_threshold=2)


async def answer(_: Any) -> str:
    return "done"


LISTING = Listing(
    provider=Provider(name="a", services={"s"}, price=Micros(10)),
    transport=lambda: FunctionTransport(answer, paid=True, idempotent="no"),
    max_concurrency=2,
)


def decide(state: TargetState, **facts: Any) -> Any:
    now, breaker = facts.pop("now", 100.0), facts.pop("breaker", CONFIG)
    return admit(LISTING, state, CallNeeds(**{"deadline": 200.0} | facts), now=now, breaker=breaker)


def refusal(decision: Any) -> str:
    assert isinstance(decision, Later | Full | Never)
    return type(decision.refusal).__name__


def test_an_admission_takes_everything_at_once_and_leaves_its_inputs_as_they_are():
    quota = quota_of(RateLimit(rate=1.0))
    state = TargetState(quota=quota)
    decision = decide(state)
    assert isinstance(decision, Admitted)
    assert decision.state.under_way == 1
    assert decision.state.quota is not None
    assert not isinstance(decision.state.quota.take(100.0), tuple)
    assert state == TargetState(quota=quota)


TWO = ConcurrencyLimit(2)
EMPTY = quota_of(RateLimit(rate=0.5)).take(100.0)[0]  # type: ignore[index]
TOKENS = quota_of(RateLimit(rate=10.0, burst=1), RateLimit(dimension="tokens", rate=5.0, burst=100))
TIRED = RetryBudget(tokens=0.5, min_per_second=0.25, updated=100.0)


@pytest.mark.parametrize(
    ("state", "facts", "kind", "error", "at", "is_sooner_possible"),
    [
        (TargetState(), {"deadline": 100.0}, Never, DeadlineTooShort, None, None),
        (TargetState(learned=LearnedLimit(gated_until=107.0)), {}, Later, RateLimited, 107.0, False),
        (TargetState(limit=TWO, under_way=2), {}, Full, BulkheadFull, None, None),
        (TargetState(quota=EMPTY), {}, Later, RateLimited, 102.0, False),
        (TargetState(quota=TOKENS), {"weights": {"tokens": 101}}, Never, RateLimited, None, None),
        (TargetState(retries=TIRED), {"is_retry": True}, Later, RateLimited, 102.0, False),
        (
            TargetState(retries=RetryBudget(tokens=0.5, min_per_second=0.0)),
            {"is_retry": True},
            Never,
            RateLimited,
            None,
            None,
        ),
        (TargetState(breaker=Open(epoch=1, until=130.0)), {}, Later, BreakerOpen, 130.0, False),
        (TargetState(breaker=HalfOpen(epoch=1, lease_ends=120.0)), {}, Later, BreakerOpen, 120.0, True),
        (TargetState(breaker=Isolated(epoch=1)), {}, Never, BreakerOpen, None, None),
        # What cannot change is told before what may: nobody waits for a place at an isolated provider.
        (TargetState(breaker=Isolated(epoch=1), under_way=2), {}, Never, BreakerOpen, None, None),
    ],
)
def test_each_refusal_says_whether_and_when_to_come_back(
    state: TargetState, facts: Any, kind: Any, error: Any, at: Any, is_sooner_possible: Any
):
    decision = decide(state, **facts)
    assert isinstance(decision, kind)
    assert isinstance(decision.refusal, error)
    if isinstance(decision, Later):
        assert (decision.at, decision.is_sooner_possible) == (at, is_sooner_possible)


def test_who_may_be_admitted_in_time_is_told_by_the_clock_or_by_a_call_under_way():
    later = Later(provider="a", queue=("provider", "a"), at=50.0, wait=10.0)
    assert (later.is_in_time(50.1), later.is_in_time(50.0)) == (True, False)
    assert msgspec.structs.replace(later, is_sooner_possible=True).is_in_time(1.0)


def test_a_retry_takes_a_retry_token_and_a_first_attempt_adds_to_them():
    assert decide(TargetState(), is_retry=True).state.retries.tokens == RetryBudget().tokens - 1
    assert decide(TargetState()).state.retries.tokens == RetryBudget().tokens + 0.1


def test_a_provider_that_has_just_come_back_gets_a_part_of_its_places():
    eased = TargetState(breaker=Closed(3, since=100.0), limit=ConcurrencyLimit(10), under_way=1)
    assert refusal(decide(eased)) == "BulkheadFull"
    assert isinstance(decide(eased, now=130.0), Admitted)


@given(
    under_way=st.integers(0, 3),
    gated=st.floats(90, 110),
    is_retry=st.booleans(),
    tokens=st.floats(0, 3),
    breaker=st.sampled_from([Closed(), Open(1, 90.0), Open(1, 110.0), HalfOpen(1, 90.0), HalfOpen(1, 110.0)]),
)
def test_what_is_admitted_keeps_every_limit(**facts: Any):
    state = TargetState(
        breaker=facts["breaker"],
        quota=EMPTY if facts["under_way"] == 1 else None,
        learned=LearnedLimit(gated_until=facts["gated"]),
        limit=TWO,
        retries=RetryBudget(tokens=facts["tokens"], updated=100.0),
        under_way=facts["under_way"],
    )
    decision = decide(state, is_retry=facts["is_retry"])
    if isinstance(decision, Admitted):
        assert decision.state.under_way <= LISTING.max_concurrency
        assert facts["gated"] <= 100.0
        assert decision.permit.probe == (not isinstance(facts["breaker"], Closed))
        assert decision.state.retries.tokens >= 0
    else:
        assert decision.refusal.outcome == "not_started"


USED_TO_ONE_SECOND = ConcurrencyLimit(10, present=0.0, usual=0.0, samples=20)


def test_a_call_that_cannot_end_in_time_is_not_begun():
    state = TargetState(limit=USED_TO_ONE_SECOND)
    late = decide(state, deadline=100.9)
    assert isinstance(late, Never)
    assert isinstance(late.refusal, DeadlineTooShort)
    assert (late.refusal.needed, late.refusal.left) == (pytest.approx(1.0), pytest.approx(0.9))
    assert isinstance(decide(state, deadline=101.1), Admitted)


def test_a_probe_must_have_time_enough_to_prove_something():
    waiting = TargetState(breaker=Open(epoch=1, until=100.0), limit=USED_TO_ONE_SECOND)
    assert refusal(decide(waiting, deadline=104.4)) == "DeadlineTooShort"
    assert decide(waiting, deadline=104.6).permit.probe
    # Where nobody has as much, half of its time is enough.
    assert decide(waiting, deadline=102.1, patience=4.0).permit.probe


def test_a_provider_on_probation_must_have_as_much_time():
    back = TargetState(breaker=Closed(3, since=90.0), limit=USED_TO_ONE_SECOND)
    assert refusal(decide(back, deadline=102.4)) == "DeadlineTooShort"
    assert isinstance(decide(back, deadline=102.6), Admitted)
    assert isinstance(decide(back, now=160.0, deadline=161.1), Admitted)


def test_while_there_may_be_a_queue_the_time_that_answers_take_at_present_must_be_left():
    slow = ConcurrencyLimit(10, present=math.log(4.0), usual=0.0, samples=20)
    assert refusal(decide(TargetState(limit=slow, under_way=1), deadline=103.9)) == "DeadlineTooShort"
    assert isinstance(decide(TargetState(limit=slow, under_way=1), deadline=104.1), Admitted)
    assert isinstance(decide(TargetState(limit=slow), deadline=101.1), Admitted)


@given(
    present=st.floats(-3, 3),
    usual=st.floats(-3, 3),
    under_way=st.integers(0, 3),
    patience=st.floats(0.01, 100),
    breaker=st.sampled_from([Closed(), Closed(2, since=90.0), Open(1, 90.0)]),
)
def test_a_request_that_has_just_come_always_has_time_enough_for_what_an_answer_usually_takes(
    present: float, usual: float, under_way: int, patience: float, breaker: Any
):
    limit = ConcurrencyLimit(10, present=present, usual=usual, samples=20)
    state = TargetState(limit=limit, under_way=under_way, breaker=breaker)
    permit = Permit(0, probe=isinstance(breaker, Open), admitted=100.0)
    needed = time_needed(state, permit, now=100.0, patience=patience, breaker=CONFIG)
    assert limit.usual_latency <= needed or needed == patience / 2
    assert needed <= max(limit.usual_latency, patience / 2)


FIVE = BreakerConfig(failure_threshold=5)


def test_while_nothing_is_answered_no_more_calls_are_sent_than_open_the_breaker():
    quiet = TargetState(limit=USED_TO_ONE_SECOND, under_way=4, quiet_since=98.9)
    assert isinstance(decide(quiet, breaker=FIVE), Admitted)
    more = msgspec.structs.replace(quiet, under_way=5)
    assert refusal(decide(more, breaker=FIVE)) == "BulkheadFull"
    assert isinstance(decide(msgspec.structs.replace(more, quiet_since=99.1), breaker=FIVE), Admitted)


def test_what_a_provider_declares_tells_how_soon_it_should_answer_as_long_as_nothing_is_known():
    said = TargetState(limit=ConcurrencyLimit(10, declared=2.0), under_way=5, quiet_since=97.9)
    assert refusal(decide(said, breaker=FIVE)) == "BulkheadFull"
    assert isinstance(decide(msgspec.structs.replace(said, limit=ConcurrencyLimit(10)), breaker=FIVE), Admitted)


@pytest.mark.parametrize(("failures", "places"), [(0, 10), (1, 10), (2, 3), (4, 1)])
def test_while_a_provider_fails_no_more_calls_are_sent_than_open_its_breaker(failures: int, places: int):
    failing = TargetState(breaker=Closed(failures=failures), limit=ConcurrencyLimit(10), under_way=places - 1)
    assert isinstance(decide(failing, breaker=FIVE), Admitted)
    full = msgspec.structs.replace(failing, under_way=places)
    assert refusal(decide(full, breaker=FIVE)) == "BulkheadFull"
