"""When a request that is short of money asks the ledger again."""

from __future__ import annotations

from actors import BudgetExceeded
from actors.money import Micros
from actors.supervisor.pipeline.money_state import ENOUGH, FUNDS_RECHECK_INTERVAL, MoneyState


def refusal(*, may_free_up: bool = True) -> BudgetExceeded:
    error = BudgetExceeded(needed=Micros(10), available=Micros(3), cap="run", provider="a")
    error.may_free_up = may_free_up
    return error


def test_a_refusal_is_believed_for_a_second_and_a_further_one_for_no_longer():
    first = ENOUGH.after_refusal("a", refusal(), now=100.0)
    assert first.recheck_at == 100.0 + FUNDS_RECHECK_INTERVAL
    second = first.after_refusal("b", refusal(), now=100.6)
    assert (set(second.short_of), second.recheck_at) == ({"a", "b"}, first.recheck_at)


def test_what_was_refused_before_the_recheck_is_stale_after_a_wait_and_forgotten_when_it_is_over():
    short = ENOUGH.after_refusal("a", refusal(), now=100.0)
    assert not short.is_stale
    waited = short.after_wait(now=100.5)
    assert waited == MoneyState(short.short_of, short.recheck_at, is_stale=True)
    assert waited.after_wait(now=100.9) is waited
    assert waited.after_wait(now=101.0) is ENOUGH
    assert ENOUGH.after_wait(now=100.0) is ENOUGH


def test_only_money_that_calls_under_way_may_give_back_is_waited_for():
    short = ENOUGH.after_refusal("a", refusal(may_free_up=False), now=0.0).after_refusal("b", refusal(), now=0.0)
    assert short.first_to_wait_for(["a", "b", "c"]) == "b"
    assert short.first_to_wait_for(["a", "c"]) is None
    assert ENOUGH.first_to_wait_for(["a", "b"]) is None
