"""What a client is told of each failure."""

from __future__ import annotations

import pytest

from actors.errors import (
    AllProvidersFailed,
    Attempt,
    BudgetExceeded,
    OutcomeUnknown,
    Permanent,
    Throttled,
    TooManyWaiting,
    Transient,
)
from actors.errors.families import BadAnswer, BreakerOpen, InputTooLong, NoProvider
from actors.ledger.errors import AlreadyPaid, KeyReused
from actors.money import Micros
from actors.serve.problems import Problem, problem_of

M = Micros(1)


def failed(*kinds: str, refused=(), cost=0) -> AllProvidersFailed:
    attempts = [Attempt(provider="a", error="e", kind=kind, started=0.0, latency=0.0, cost=cost) for kind in kinds]
    return AllProvidersFailed("chat", attempts=attempts, refused=refused)


@pytest.mark.parametrize(
    ("error", "is_late", "status", "should_retry"),
    [
        (Permanent("bad"), False, 400, None),
        (Permanent("bad", status=422), False, 422, None),
        (Permanent("no key", status=401), False, 400, None),
        (InputTooLong("chat", attempts=[], largest=(10, "a")), False, 400, None),
        (KeyReused("k", fields=("input",)), False, 422, False),
        (AlreadyPaid("k", paid=M, paid_to="a"), False, 409, False),
        (OutcomeUnknown("lost"), False, 502, False),
        (OutcomeUnknown("lost"), True, 504, False),
        (BadAnswer("empty", reason="empty"), False, 502, False),
        (failed("Transient"), False, 503, None),
        (failed("Transient"), True, 503, None),
        (failed("Permanent"), False, 502, None),
        (failed("Unclassified"), True, 504, None),
        (failed("Transient", cost=M), False, 503, False),
        (failed(refused=[BreakerOpen("a", retry_after=7.2)]), False, 503, None),
        (failed("Throttled", "Transient"), False, 429, None),
        (BudgetExceeded(needed=M, available=M, cap="acme"), False, 402, False),
        (failed(refused=[BudgetExceeded(needed=M, available=M, cap="acme")]), False, 402, False),
        (TooManyWaiting("chat", max_waiting=5, retry_after=3.0), False, 429, None),
        (Throttled("wait", retry_after=4.0), False, 429, None),
        (Transient("down"), False, 503, None),
        (NoProvider("chat", offered=0), False, 503, None),
    ],
)
def test_each_failure_has_its_status(error, is_late, status, should_retry):
    problem = problem_of(error, is_late=is_late)
    assert (problem.status, problem.should_retry) == (status, should_retry)
    # An SDK that is told to come again is told when; never where money was spent.
    assert ("retry-after" in problem.headers()) == (status in {429, 503})
    assert problem.message


def test_the_wait_is_the_shortest_that_is_known():
    refused = [BreakerOpen("a", retry_after=7.2), BreakerOpen("b", retry_after=None)]
    assert problem_of(failed(refused=refused), is_late=False).headers()["retry-after"] == "8"


@pytest.mark.parametrize("form", [None, "chat", "responses", "messages"])
def test_a_problem_has_the_form_of_its_protocol(form):
    problem = Problem(429, "wait", code="TooManyWaiting")
    body = problem.body(form, request_id="r-1")
    assert body["error"]["message"] == "wait"
    assert body["error"]["type"] == "rate_limit_error"
    assert ("request_id" in body) == (form == "messages")
    event = problem.event(form, request_id="r-1", number=7)
    assert event == (
        {"type": "error", "sequence_number": 7, "code": "TooManyWaiting", "message": "wait", "param": None}
        if form == "responses"
        else body
    )
