"""What a ledger publishes: every movement, alerts and overcharges."""

from __future__ import annotations

import asyncio

import pytest

from actors.errors.families import BudgetExceeded
from actors.events import AlertCleared, AlertRaised, Overcharged
from actors.ledger.entries import Entry, MoneyHeld, MoneyReleased, MoneyReserved, MoneySettled
from actors.ledger.messages import BookCall, GetStatement, Resolve
from actors.money import Micros
from runtime import ActorSystem, Event
from tests.actors.ledger.bank import DOLLAR, money
from tests.actors.ledger.journalled import figures, reserve, spawn


def test_entries_are_events():
    assert all(issubclass(one, Event) for one in Entry.__args__)


async def test_every_movement_is_an_event():
    async with money() as bank:
        first, second, third = [await bank.reserve(key, 10) for key in "abc"]
        bank.tell(first, "yes", 7)
        bank.tell(second, "no")
        bank.tell(third, "held")
        await bank.ref.ask(Resolve(third.number, "yes", Micros(9)), timeout=1)
        heard = bank.heard(MoneyReserved, MoneySettled, MoneyReleased, MoneyHeld)
        assert [type(one).__name__ for one in heard] == [
            *["MoneyReserved"] * 3,
            "MoneySettled",
            "MoneyReleased",
            "MoneyHeld",
            "MoneySettled",
        ]
        total = await bank.ref.ask(GetStatement(), timeout=1)
        assert (total.reserved_ever, total.settled, total.released) == (30, 16, 14)


async def test_an_overcharge_is_booked_told_of_and_stops_its_accounts():
    async with money() as bank:
        bank.tell(await bank.reserve("k"), "yes", 12 * DOLLAR)
        assert await bank.figures() == (0, 0, 12 * DOLLAR)
        (event,) = bank.heard(Overcharged)
        assert (event.provider, event.quoted, event.charged) == ("alder", 4 * DOLLAR, 12 * DOLLAR)
        with pytest.raises(BudgetExceeded):
            await bank.reserve("other", 0)


async def test_a_charge_that_became_known_late_is_published_as_one_that_was_not_quoted():
    async with money() as bank:
        reservation = await bank.reserve("k")
        bank.tell(reservation, "no")
        bank.tell(reservation, "yes", 1)
        assert await bank.figures() == (0, 0, 1)
        assert [(one.quoted, one.charged) for one in bank.heard(Overcharged)] == [(0, 1)]


async def test_an_alert_is_raised_once_at_80_percent_and_cleared_below():
    async with money() as bank:
        first = await bank.reserve("a", 5 * DOLLAR)
        second = await bank.reserve("b", 3 * DOLLAR)
        third = await bank.reserve("c", 1 * DOLLAR)
        (alert,) = bank.heard(AlertRaised)
        assert (alert.rule, alert.subject, alert.value, alert.threshold) == ("cap", "run", 0.8, 0.8)
        await asyncio.sleep(7)
        bank.tell(third, "no")
        bank.tell(second, "no")
        bank.tell(first)
        await bank.figures()
        (cleared,) = bank.heard(AlertCleared)
        assert (cleared.subject, cleared.lasted) == ("run", pytest.approx(7))
        assert len(bank.heard(AlertRaised)) == 1


async def test_money_that_is_held_for_long_is_told_of_and_what_a_look_up_settles_is_not():
    async with money() as bank:
        for key in "ab":
            reservation = await bank.reserve(key, 10)
            bank.tell(reservation, "held")
            await asyncio.sleep(20.0)
            await bank.ref.ask(Resolve(reservation.number, "no"), timeout=1)
        await asyncio.sleep(60.0)
        assert bank.heard(AlertRaised) == []
        first = await bank.reserve("c", 10)
        bank.tell(first, "held")
        await asyncio.sleep(20.0)
        second = await bank.reserve("d", 20)
        bank.tell(second, "held")
        await asyncio.sleep(9.0)
        assert bank.heard(AlertRaised) == []
        await asyncio.sleep(2.0)
        (alert,) = bank.heard(AlertRaised)
        assert (alert.rule, alert.subject, alert.value) == ("held", "alder", 1e-05)
        await bank.ref.ask(Resolve(first.number, "no"), timeout=1)
        assert [one.lasted for one in bank.heard(AlertCleared)] == [pytest.approx(1.0)]
        await asyncio.sleep(20.0)
        assert [one.value for one in bank.heard(AlertRaised)] == [1e-05, 2e-05]
        await bank.ref.ask(Resolve(second.number, "no"), timeout=1)
        assert len(bank.heard(AlertCleared)) == 2


async def test_money_that_was_held_for_long_before_a_restart_is_told_of_again(tmp_path):
    path, alerts = tmp_path / "ledger.db", list[AlertRaised]()
    async with ActorSystem("first") as system:
        ledger, _ = spawn(system, path)
        ledger.tell(BookCall(await reserve(ledger, "k", 10), "held"))
        await figures(ledger)
    async with ActorSystem("second") as system:
        system.events.subscribe(AlertRaised, alerts.append)
        ledger, _ = spawn(system, path)
        await asyncio.sleep(31.0)
        await figures(ledger)
    assert [one.rule for one in alerts] == ["held"]


async def test_an_account_beyond_its_alert_is_told_of_again_in_the_next_run(tmp_path):
    path, alerts = tmp_path / "ledger.db", list[AlertRaised | AlertCleared]()
    async with ActorSystem("first") as system:
        ledger, _ = spawn(system, path)
        for number in range(3):
            ledger.tell(BookCall(await reserve(ledger, f"{number}", 800), "no"))
        ledger.tell(BookCall(await reserve(ledger, "k", 800)))
        await figures(ledger)
    async with ActorSystem("second") as system:
        for kind in (AlertRaised, AlertCleared):
            system.events.subscribe(kind, alerts.append)
        ledger, _ = spawn(system, path)
        await figures(ledger)
    assert [(type(one), one.subject) for one in alerts] == [(AlertRaised, "run")]
