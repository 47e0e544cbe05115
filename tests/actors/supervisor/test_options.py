"""The options of requests: given one by one, or as one value for many."""

from __future__ import annotations

from typing import Any

import pytest

from actors import ProviderFilter, RequestOptions, SmartRequest
from actors.providers import Requirement


def test_options_make_the_request_that_they_describe():
    options = RequestOptions(
        budget="0.20",
        where=ProviderFilter(min_reputation=70),
        requirement=Requirement(input_tokens=500),
        strategy="fastest",
        fallback_strategies=["cheapest"],  # type: ignore[arg-type]
        timeout=5.0,
        weights={"tokens": 900},
        tenant="acme",
        on_unknown="pay_again",
    )
    assert options.request("s", "x", account="a", request_id="r", idempotency_key="k") == SmartRequest(
        service="s",
        input="x",
        budget="0.20",
        where=options.where,
        requirement=options.requirement,
        strategies=("fastest", "cheapest"),
        timeout=5.0,
        weights={"tokens": 900},
        tenant="acme",
        on_unknown="pay_again",
        account="a",
        request_id="r",
        idempotency_key="k",
    )


def test_what_is_given_goes_before_the_options_and_none_is_not_given():
    options = RequestOptions(timeout=5.0, tenant="acme")
    changed = options.changed(timeout=9.0, tenant=None, health_check=False)
    assert changed == RequestOptions(timeout=9.0, tenant="acme")
    assert options.changed(budget=None) is options


def test_fallback_strategies_are_several():
    with pytest.raises(TypeError, match="must be several strategies, got the text 'cheapest'"):
        RequestOptions(fallback_strategies="cheapest")  # type: ignore[arg-type]


@pytest.mark.parametrize("budget", ["nonsense", 0.5, "-1"])
def test_a_budget_that_is_no_amount_is_refused_when_the_options_are_made(budget):
    with pytest.raises((TypeError, ValueError), match="amount"):
        RequestOptions(budget=budget)
    with pytest.raises((TypeError, ValueError), match="amount"):
        RequestOptions().changed(budget=budget)


def test_what_a_request_does_with_refused_content_is_fail_or_next():
    assert RequestOptions(on_refused="next").request("s", "x").on_refused == "next"
    assert RequestOptions().request("s", "x").on_refused == "fail"
    odd: Any = "retry"
    with pytest.raises(ValueError, match='on_refused must be "fail" or "next", got \'retry\''):
        RequestOptions(on_refused=odd).request("s", "x")
