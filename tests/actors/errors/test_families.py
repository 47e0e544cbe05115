import copy
import pickle

import pytest

from actors.errors.families import (
    AllProvidersFailed,
    Attempt,
    BreakerOpen,
    BudgetExceeded,
    BulkheadFull,
    CallFailed,
    ConnectionFailed,
    DeadlineTooShort,
    NoProvider,
    NotAdmitted,
    OutcomeUnknown,
    Permanent,
    PoisonItem,
    QuotaExhausted,
    RateLimited,
    Throttled,
    TooManyWaiting,
    Transient,
    Unclassified,
)
from actors.money import Micros
from runtime import Refusal


def attempt(kind: str = "Transient", cost: int = 0) -> Attempt:
    return Attempt(provider="acme", error="503", kind=kind, started=1.0, latency=0.25, cost=Micros(cost))


EVERY_ERROR = [
    BreakerOpen("acme", retry_after=4.0),
    RateLimited("acme/requests", retry_after=0.5),
    BulkheadFull("acme", max_concurrency=8),
    TooManyWaiting("summary", max_waiting=8, retry_after=1.5),
    BudgetExceeded(needed=Micros(200_000), available=Micros(50_000), cap="request"),
    DeadlineTooShort(needed=2.0, left=0.5),
    ConnectionFailed("acme", "refused"),
    Transient("down", provider="acme", status=503),
    Throttled("slow down", provider="acme", status=429, retry_after=7.0),
    QuotaExhausted("pay", provider="acme", status=402),
    Permanent("bad", provider="acme", status=400),
    Unclassified("odd", provider="acme"),
    OutcomeUnknown("lost", provider="acme"),
    NoProvider("translation", offered=3, dropped={"unavailable": 2, "over max_price 0.20": 1}),
    AllProvidersFailed("translation", attempts=[attempt()]),
    PoisonItem("translation", attempts=[attempt()], chance=0.0001),
]
names = [error.kind for error in EVERY_ERROR]


@pytest.mark.parametrize("error", EVERY_ERROR, ids=names)
def test_every_error_is_an_answer_and_not_a_crash(error):
    assert isinstance(error, Refusal)
    assert isinstance(error, CallFailed)


@pytest.mark.parametrize("error", EVERY_ERROR, ids=names)
@pytest.mark.parametrize("clone", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])  # noqa: S301 - our own bytes.
def test_every_error_survives_a_copy_with_its_data(error, clone):
    other = clone(error)
    assert type(other) is type(error)
    assert str(other) == str(error)
    assert vars(other) == vars(error)


@pytest.mark.parametrize("error", EVERY_ERROR[:7], ids=names[:7])
def test_a_call_that_was_not_admitted_never_ran_and_cost_nothing(error):
    assert isinstance(error, NotAdmitted)
    assert (error.outcome, error.charged) == ("not_started", "no")


def test_each_family_states_the_decision_of_its_caller():
    decisions = {error.kind: (error.retryable, error.blames_provider) for error in EVERY_ERROR}
    assert decisions == {
        "BreakerOpen": (True, False),
        "RateLimited": (True, False),
        "BulkheadFull": (True, False),
        "TooManyWaiting": (True, False),
        "BudgetExceeded": (False, False),
        "DeadlineTooShort": (False, False),
        "ConnectionFailed": (True, True),
        "Transient": (True, True),
        "Throttled": (True, False),
        "QuotaExhausted": (False, False),
        "Permanent": (False, False),
        "Unclassified": (False, True),
        "OutcomeUnknown": (False, True),
        "NoProvider": (False, False),
        "AllProvidersFailed": (False, False),
        "PoisonItem": (False, False),
    }


def test_the_money_of_an_unknown_outcome_stays_held():
    error = OutcomeUnknown("no answer within 5 s", provider="acme")
    assert (error.outcome, error.charged) == ("unknown", "held")


def test_what_is_said_of_one_error_leaves_its_family_alone():
    Transient("reset", charged="held", outcome="done")
    assert (Transient("reset").charged, Transient("reset").outcome) == ("no", "unknown")


def test_an_open_breaker_says_when_to_retry_and_an_isolated_one_that_a_hand_must_act():
    assert str(BreakerOpen("acme", retry_after=4.0)) == "breaker of 'acme' is open; retry in 4.0 s"
    assert str(BreakerOpen("acme", retry_after=None)) == "breaker of 'acme' is open; release it by hand"


def test_an_exceeded_budget_names_the_need_the_rest_and_the_cap():
    error = BudgetExceeded(needed=Micros(200_000), available=Micros(50_000), cap="run", provider="acme")
    assert (error.needed, error.available, error.cap, error.provider) == (200_000, 50_000, "run", "acme")
    assert "needs $0.20 but only $0.05 of the run budget is left" in str(error)


def test_no_provider_says_how_many_were_offered_and_why_each_was_dropped():
    error = NoProvider("translation", offered=3, dropped={"unavailable": 2, "over max_price 0.20": 1})
    assert error.dropped == {"unavailable": 2, "over max_price 0.20": 1}
    assert "3 providers offer 'translation', but none is left: 2 unavailable, 1 over max_price 0.20" in str(error)
    assert "register a provider" in str(NoProvider("translation", offered=0))


def test_all_providers_failed_lists_each_attempt():
    error = AllProvidersFailed("translation", attempts=[attempt(), attempt("Throttled", cost=1_500)])
    assert [one.kind for one in error.attempts] == ["Transient", "Throttled"]
    assert str(error).splitlines() == [
        "all providers of 'translation' failed, 2 attempts:",
        "  1. acme: Transient after 0.250 s, $0.00: 503",
        "  2. acme: Throttled after 0.250 s, $0.0015: 503",
    ]


@pytest.mark.parametrize(
    ("attempts", "outcome", "charged"),
    [
        ([attempt()], "done", "no"),
        ([attempt(cost=5), attempt()], "done", "yes"),
        ([attempt(cost=5), attempt("OutcomeUnknown")], "unknown", "held"),
    ],
)
def test_the_failure_of_all_sums_up_outcome_and_charge_of_its_attempts(attempts, outcome, charged):
    error = AllProvidersFailed("translation", attempts=attempts)
    assert (error.outcome, error.charged) == (outcome, charged)


def test_a_call_that_was_sent_took_one_wire_call_unless_stated_otherwise_and_one_that_never_ran_took_none():
    taken = {error.kind: error.wire_calls for error in EVERY_ERROR}
    none = {error.kind for error in EVERY_ERROR if isinstance(error, NotAdmitted)} - {"ConnectionFailed"}
    assert taken == {kind: 0 if kind in none else 1 for kind in taken}
    assert Transient("down", wire_calls=3).wire_calls == 3
