"""What a provider's state becomes when a call has ended: its place, its tokens, its breaker, its limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from actors import (
    OutcomeUnknown,
    Permanent,
    ProviderReply,
    Throttled,
    Transient,
)
from actors.errors import BulkheadFull, ConnectionFailed
from actors.limits.concurrency import ConcurrencyLimit
from actors.limits.learned import LearnedLimit
from actors.limits.quota import QuotaRefusal, RateLimit, quota_of
from actors.limits.reported import ReportedLimit
from actors.limits.suspicion import Suspicion
from actors.policies.breaker.states import Closed, Open
from actors.supervisor.targets.settlement import EndedCall, settle
from actors.supervisor.targets.state import TargetState
from tests.actors.supervisor.targets.test_admission import CONFIG, TOKENS, USED_TO_ONE_SECOND, decide, refusal

if TYPE_CHECKING:
    from actors.supervisor.targets.admission import Admitted

ANSWER = ProviderReply(output="done")


def settled(
    state: TargetState, admitted: Admitted, error: Any = None, *, now: float = 101.0, timeout: float = 10.0
) -> TargetState:
    ended = EndedCall(now, None, error, timeout, own_timeout=10.0)
    return settle(state, admitted, ended, breaker=CONFIG, random=0.5)


def end(admitted: Admitted, error: Any = None, *, answered: bool = False, now: float = 101.0) -> TargetState:
    if answered:
        return settle(admitted.state, admitted, EndedCall(now, ANSWER, None, 10.0, 10.0), breaker=CONFIG, random=0.5)
    return settled(admitted.state, admitted, error, now=now)


@pytest.mark.parametrize(
    ("error", "failures"),
    [
        (Transient("down"), 1),
        (ConnectionFailed("a", "refused"), 1),
        (OutcomeUnknown("lost"), 1),
        (Throttled("slow"), 0),
        (Permanent("no"), 0),
        (BulkheadFull("a", max_concurrency=2), 0),
        (None, 0),
    ],
    ids=lambda one: type(one).__name__,
)
def test_only_what_is_the_providers_fault_counts_against_it(error: Any, failures: int):
    after = end(decide(TargetState()), error)
    assert isinstance(after.breaker, Closed)
    assert (after.breaker.failures, after.under_way) == (failures, 0)


def test_tokens_come_back_only_from_a_call_that_never_ran():
    state = TargetState(quota=quota_of(RateLimit(rate=1.0)))
    for error, comes_back in ((BulkheadFull("a", max_concurrency=2), True), (Transient("down"), False), (None, False)):
        quota = end(decide(state), error, now=100.0).quota
        assert quota is not None
        assert isinstance(quota.take(100.0), tuple) is comes_back


def test_tokens_of_a_quota_that_was_replaced_meanwhile_do_not_come_back():
    admitted = decide(TargetState(quota=quota_of(RateLimit(rate=1.0))))
    fresh = admitted.state.quota.with_limits(RateLimit(rate=5.0, burst=2))
    state = msgspec.structs.replace(admitted.state, quota=fresh)
    after = settled(state, admitted, ConnectionFailed("a", "x"))
    assert after.quota == fresh
    gone = msgspec.structs.replace(admitted.state, quota=None)
    after = settled(gone, admitted, ConnectionFailed("a", "x"))
    assert after.quota is None


def test_what_an_answer_used_is_corrected_and_what_it_says_of_limits_is_kept():
    admitted = decide(TargetState(quota=TOKENS), weights={"tokens": 40})
    reply = ProviderReply(output="done", weights={"tokens": 100}, limits=(ReportedLimit(remaining=0.0, reset=30.0),))
    after = settle(admitted.state, admitted, EndedCall(100.0, reply, None, 10.0, 10.0), breaker=CONFIG, random=0.5)
    assert after.quota is not None
    assert after.quota.take(100.0, {"requests": 0, "tokens": 10}) == QuotaRefusal(2.0, "tokens")
    assert after.learned.wait(101.0) == 29.0


def test_a_call_that_its_requests_deadline_cut_off_early_does_not_count_against_the_provider():
    admitted = decide(TargetState())
    cut = settled(admitted.state, admitted, Transient("timed out"), timeout=1.0)
    assert isinstance(cut.breaker, Closed)
    assert (cut.breaker.failures, cut.answers.samples) == (0, 0)
    full = end(admitted, Transient("timed out"), now=110.0)
    assert isinstance(full.breaker, Closed)
    assert (full.breaker.failures, full.answers.samples) == (1, 1)


def test_throttling_that_raises_the_alarm_gates_for_as_long_as_asked_and_never_shortens_a_gate():
    admitted = decide(TargetState())
    assert end(admitted, Throttled("slow", retry_after=9.0)).learned.wait(101.0) == 0.0
    suspicious = msgspec.structs.replace(
        admitted, state=msgspec.structs.replace(admitted.state, learned=LearnedLimit(suspicion=Suspicion(alarm=20.0)))
    )
    assert end(suspicious, Throttled("slow", retry_after=9.0)).learned.gated_until == 110.0
    assert end(suspicious, Throttled("slow")).learned.gated_until == 102.0
    learned = LearnedLimit(gated_until=500.0)
    gated = msgspec.structs.replace(admitted, state=msgspec.structs.replace(admitted.state, learned=learned))
    assert end(gated, Throttled("slow", retry_after=9.0)).learned.gated_until == 500.0


def test_a_probe_closes_opens_or_gives_its_place_back():
    admitted = decide(TargetState(breaker=Open(epoch=1, until=100.0)))
    assert admitted.permit.probe
    assert refusal(decide(admitted.state)) == "BreakerOpen"
    assert isinstance(end(admitted, answered=True).breaker, Closed)
    again = end(admitted, Transient("down")).breaker
    assert isinstance(again, Open)
    assert again.until > 101.0
    back = end(admitted).breaker
    assert isinstance(back, Open)
    assert back.until == 101.0


def test_a_probe_whose_key_is_still_at_work_is_no_failure_and_is_soon_repeated():
    admitted = decide(TargetState(breaker=Open(epoch=1, until=100.0, reopened=5)))
    after = end(admitted, Transient("409 Conflict", status=409)).breaker
    assert after == Open(3, until=101.0 + CONFIG.open_for, reopened=5, earlier=2)


@pytest.mark.parametrize(
    ("error", "answered", "now", "quiet_since"),
    [
        (None, True, 102.0, 102.0),
        (ConnectionFailed("a", "refused"), False, 102.0, 102.0),
        (Transient("timed out"), False, 110.0, 100.0),
        (None, False, 102.0, 100.0),
    ],
    ids=["answer", "refusal", "timeout", "cancellation"],
)
def test_neither_a_timeout_nor_a_cancellation_is_a_sign_of_life(error: Any, answered: Any, now: Any, quiet_since: Any):
    assert end(decide(TargetState()), error, answered=answered, now=now).quiet_since == quiet_since


def test_a_timer_that_is_early_by_a_hair_has_expired_all_the_same():
    after = end(decide(TargetState(limit=USED_TO_ONE_SECOND)), Transient("timed out"), now=110.0 - 1e-9)
    assert (after.answers.samples, after.limit.allowed) == (1, 9)


def test_a_call_cut_off_while_others_are_answered_takes_a_place_and_does_not_count_against_the_provider():
    admitted = decide(TargetState(limit=USED_TO_ONE_SECOND))
    at_work = msgspec.structs.replace(admitted.state, under_way=3, quiet_since=105.5)
    after = settled(at_work, admitted, Transient("timed out"), now=106.0, timeout=6.0)
    assert isinstance(after.breaker, Closed)
    assert (after.breaker.failures, after.limit.allowed) == (0, 9)
    stalled = msgspec.structs.replace(at_work, quiet_since=104.5)
    after = settled(stalled, admitted, Transient("timed out"), now=106.0, timeout=6.0)
    assert isinstance(after.breaker, Closed)
    assert (after.breaker.failures, after.limit.allowed) == (1, 9)


def test_a_call_cut_off_after_much_longer_than_usual_counts_against_the_provider_and_takes_a_place():
    admitted = decide(TargetState(limit=ConcurrencyLimit(10, present=0.0, usual=0.0, samples=20)))
    after = settled(admitted.state, admitted, Transient("timed out"), now=103.0, timeout=3.0)
    assert isinstance(after.breaker, Closed)
    assert (after.breaker.failures, after.limit.allowed) == (1, 9)
    assert after.answers.samples == 0
