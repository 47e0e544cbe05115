"""What a call is charged: a function of its reply, its error, and how far it came."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from actors import OutcomeUnknown, Permanent, ProviderReply, Transient
from actors.money import Micros
from actors.supervisor.payments.charge import AS_STATED, NOTHING, Charge, charge_of


@pytest.mark.parametrize("terms", [*product((False, True), (0, 10), (False, True))])
def test_an_answer_is_charged_at_the_cost_that_it_states(terms: Any):
    terms = dict(zip(("sent", "reserved", "paid"), terms, strict=True))
    assert charge_of(ProviderReply(output=1, cost=Micros(7)), None, **terms) == Charge("yes", Micros(7), AS_STATED)
    assert charge_of(ProviderReply(output=1), None, **terms) == Charge("yes", None)


@pytest.mark.parametrize(
    ("error", "charged"),
    [
        (Transient("500", charged="no"), "no"),
        (Transient("500", charged="yes"), "yes"),
        (Transient("500", charged="held"), "held"),
        (OutcomeUnknown("lost"), "held"),
        (Permanent("400"), "no"),
    ],
)
def test_a_failure_says_itself_what_was_charged(error: Any, charged: Any):
    assert charge_of(None, error, sent=True, reserved=Micros(10), paid=True) == Charge(charged)


@pytest.mark.parametrize(("sent", "charged"), [(False, "no"), (True, "held")])
def test_how_far_a_cancelled_call_came_is_unknown_once_it_was_sent(sent: Any, charged: Any):
    assert charge_of(None, None, sent=sent, reserved=Micros(10), paid=False) == Charge(charged)
    assert charge_of(None, None, sent=sent, reserved=Micros(0), paid=True) == Charge(charged)


@pytest.mark.parametrize("error", [None, OutcomeUnknown("lost")])
def test_nothing_is_held_for_a_call_that_costs_nothing(error: Any):
    assert charge_of(None, error, sent=True, reserved=Micros(0), paid=False) == NOTHING
