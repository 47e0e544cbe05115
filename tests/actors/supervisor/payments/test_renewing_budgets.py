"""Budgets of a market that renew: of all requests, and of one provider."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from actors.errors.families import BudgetExceeded
from actors.market.file import parse_market
from actors.market.tables import MarketError
from tests.actors.ledger.clock import Clock
from tests.actors.supervisor.stage import Script, offer, staged

if TYPE_CHECKING:
    from actors.ledger.statement import Statement

HOUR = 3600.0


async def test_a_request_waits_for_the_renewal_if_that_is_within_its_time(monkeypatch: pytest.MonkeyPatch):
    clock = Clock(monkeypatch, begins=24 * HOUR * 20_000)
    script = Script(lasts=0.1)
    async with staged(offer("a", script, price=10), budget="0.000015/hour") as stage:
        assert (await stage.request()).cost == 10
        with pytest.raises(BudgetExceeded) as refused:
            await stage.request(timeout=60.0)
        assert refused.value.retry_after == pytest.approx(HOUR, abs=2.0)
        assert (await stage.request(timeout=2 * HOUR)).cost == 10
        assert clock.now() % HOUR < 5.0
        statement: Statement = await stage.account("run")
        assert (statement.settled, statement.used) == (20, 10)
        await stage.assert_at_rest()


async def test_the_budget_of_one_provider_renews_and_another_is_paid_meanwhile(monkeypatch: pytest.MonkeyPatch):
    Clock(monkeypatch, begins=24 * HOUR * 20_000)
    scripts = Script(lasts=0.1), Script(lasts=0.1)
    listings = offer("a", scripts[0], price=10, budget="0.00001/hour"), offer("b", scripts[1], price=20)
    async with staged(*listings) as stage:
        paid: list[Any] = []
        for _ in range(2):
            paid += [(await stage.request()).cost, (await stage.request()).cost]
            await asyncio.sleep(HOUR)
        assert paid == [10, 20, 10, 20]
        await stage.assert_at_rest()


def test_a_market_file_says_how_a_budget_renews():
    text = """
        budget = "20/day in Europe/Berlin"
        [[providers]]
        name = "alder"
        services = ["s"]
        price = "0.01"
        url = "http://127.0.0.1:1/"
        budget = "5/hour"
        [[providers]]
        kind = "compatible"
        model = "m"
        base_url = "http://127.0.0.1:1/v1"
        price = "0.01"
        budget = "7/12 hours rolling"
    """
    market = parse_market(text)
    shown = [str(market.budget_renewal), *(str(one.budget_renewal) for one in market.providers)]
    assert shown == ["day in Europe/Berlin", "hour", "12 hours rolling"]
    assert [str(one.budget) for one in market.providers] == ["$5.00", "$7.00"]
    with pytest.raises(MarketError, match=r"line 2.*did you mean 'day'"):
        parse_market(text.replace("20/day", "20/dya"))
