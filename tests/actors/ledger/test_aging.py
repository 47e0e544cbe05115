"""Held money has an age, after which it counts as charged; later news corrects that in both directions."""

from __future__ import annotations

import asyncio
import math
import tempfile
from pathlib import Path
from typing import Any

import pytest

from actors import Ledger
from actors.errors import BudgetExceeded
from actors.events import HeldExpired
from actors.ledger import (
    AlreadyPaid,
    Book,
    BookCall,
    GetHeld,
    GetStatement,
    LedgerConfig,
    MarkUnderWay,
    MoneyReleased,
    MoneySettled,
    PaidUnanswered,
    Reserve,
    Resolve,
    StillUnsettled,
)
from actors.ledger.aging import HeldAges
from actors.ledger.paid_keys import PaidKeys
from actors.money import Micros
from runtime import ActorSystem
from tests.actors.ledger.bank import Money, money
from tests.actors.ledger.test_book import book_with, figures, reserved

HOUR = LedgerConfig(held_for=3600.0)


async def held(bank: Money, key: str = "k", amount: int = 4, **more: Any) -> Any:
    reservation = await bank.reserve(key, amount, **more)
    bank.tell(reservation, "held")
    return reservation


async def test_what_is_held_for_too_long_counts_as_charged_and_its_key_is_paid_without_an_answer():
    async with money(config=HOUR) as bank:
        reservation = await held(bank)
        await asyncio.sleep(3599.0)
        assert await bank.figures() == (0, 4, 0)
        with pytest.raises(StillUnsettled):
            await bank.reserve("k", 1)
        await asyncio.sleep(2.0)
        assert await bank.figures() == (0, 0, 4)
        (event,) = bank.heard(HeldExpired)
        assert (event.reservation, event.provider, event.key, event.amount, event.accounts) == (
            reservation.number,
            "alder",
            "k",
            4,
            ("run",),
        )
        with pytest.raises(PaidUnanswered, match="without an answer") as refused:
            await bank.reserve("k", 1)
        assert (refused.value.outcome, refused.value.charged, refused.value.reservation) == (
            "unknown",
            "held",
            reservation.number,
        )
        assert isinstance(refused.value, AlreadyPaid)
        await asyncio.sleep(10 * 3600.0)
        assert len(bank.heard(HeldExpired)) == 1
        bank.assert_idle()


async def test_it_is_held_for_ever_by_default_and_each_call_by_its_own_terms():
    async with money() as bank:
        await held(bank, "for ever")
        await held(bank, "a minute", held_for=60.0)
        await asyncio.sleep(61.0)
        assert [event.key for event in bank.heard(HeldExpired)] == ["a minute"]
        await asyncio.sleep(1e7)
        assert await bank.figures() == (0, 4, 4)
    async with money(config=HOUR) as bank:
        await held(bank, "for ever", held_for=math.inf)
        await held(bank, "as usual")
        await asyncio.sleep(1e7)
        assert [event.key for event in bank.heard(HeldExpired)] == ["as usual"]


@pytest.mark.parametrize(
    ("charged", "cost", "figures", "kind"),
    [
        ("no", None, (0, 0, 0), MoneyReleased),
        ("yes", 0, (0, 0, 0), MoneySettled),
        ("yes", 3, (0, 0, 3), MoneySettled),
        ("yes", 4, (0, 0, 4), MoneySettled),
        ("yes", None, (0, 0, 4), MoneySettled),
        ("yes", 9, (0, 0, 9), MoneySettled),
    ],
)
@pytest.mark.parametrize("how", ["resolved", "booked"])
async def test_later_news_corrects_it_in_both_directions(
    charged: Any, cost: int | None, figures: tuple[int, int, int], kind: type, how: str
):
    async with money(config=HOUR) as bank:
        reservation = await held(bank)
        await asyncio.sleep(3601.0)
        if how == "booked":
            if charged == "no":
                return  # What was told to be unknown is not free because it is told so once more.
            bank.tell(reservation, charged, cost)
        else:
            entry = await bank.ref.ask(
                Resolve(reservation.number, charged, None if cost is None else Micros(cost)), timeout=1.0
            )
            assert isinstance(entry, kind)
            assert entry.corrects == 4
        assert await bank.figures() == figures
        if figures[2]:
            with pytest.raises(AlreadyPaid) as refused:
                await bank.reserve("k", 1)
            assert not isinstance(refused.value, PaidUnanswered)
            assert refused.value.paid == figures[2]
        else:
            bank.tell(await bank.reserve("k", 1), "no")
        bank.tell(reservation, "yes", 9)
        bank.tell(reservation, "no")
        await bank.figures()
        assert list(bank.instances[-1].book.broken_invariants()) == []


async def test_a_call_under_way_does_not_age():
    async with money(config=HOUR) as bank:
        under_way = await bank.reserve("open", 2)
        reservation = await held(bank)
        bank.ref.tell(MarkUnderWay(reservation.number))
        await asyncio.sleep(10 * 3600.0)
        assert await bank.figures() == (2, 4, 0)
        bank.ref.tell(MarkUnderWay(reservation.number, is_under_way=False))
        await asyncio.sleep(3601.0)
        assert [event.key for event in bank.heard(HeldExpired)] == ["k"]
        bank.tell(under_way)
        await bank.figures()


async def test_a_repetition_does_not_age_and_does_not_make_it_younger():
    async with money(config=HOUR) as bank:
        await held(bank)
        await asyncio.sleep(1800.0)
        again = await bank.reserve("k", 4, intent="repeat")
        await asyncio.sleep(3600.0)
        assert await bank.figures() == (4, 0, 0)
        bank.tell(again, "held")
        await asyncio.sleep(1.0)
        assert await bank.figures() == (0, 0, 4)


@pytest.mark.simulate(seeds=1)
async def test_an_age_outlives_a_restart(simulation, tmp_path: Path):  # noqa: ARG001 - time is simulated.
    # Each run of the test has a journal of its own, also if it is told to run with more seeds.
    path, expired = Path(tempfile.mkdtemp(dir=tmp_path), "run.db"), list[HeldExpired]()
    numbers: dict[str, int] = {}
    for run, lasts in enumerate((2000.0, 1000.0, 1000.0, 10.0)):
        async with ActorSystem("bank") as system:
            system.events.subscribe(HeldExpired, expired.append)
            config = LedgerConfig(held_for=None if run == 1 else 3600.0)
            ledger = system.spawn(lambda config=config: Ledger(config, accounts={"run": Micros(10)}, journal=path))
            if run == 0:
                for key, terms in {"usual": {}, "short": {"held_for": 2500.0}, "under way": {}}.items():
                    wish = Reserve(key=key, provider="alder", amount=Micros(1), accounts=("run",), **terms)
                    reservation = await ledger.ask(wish, timeout=1.0)
                    ledger.tell(BookCall(reservation, "held"))
                    numbers[key] = reservation.number
            if run == 1:
                await asyncio.sleep(1.0)
            if run == 2:
                assert [event.key for event in expired] == ["short"]
                ledger.tell(MarkUnderWay(numbers["under way"]))
            if run == 3:
                assert [event.key for event in expired] == ["short", "usual"]
                with pytest.raises(PaidUnanswered):
                    await ledger.ask(Reserve(key="usual", provider="alder", amount=Micros(1)), timeout=1.0)
                await ledger.ask(Resolve(numbers["usual"], "no"), timeout=1.0)
            await asyncio.sleep(lasts)
    async with ActorSystem("bank") as system:
        ledger = system.spawn(lambda: Ledger(journal=path))
        statement = await ledger.ask(GetStatement("run"), timeout=1.0)
        assert (statement.settled, statement.held) == (1, 1)
        await ledger.ask(Reserve(key="usual", provider="alder", amount=Micros(1)), timeout=1.0)
        assert [one.key for one in await ledger.ask(GetHeld(), timeout=1.0)] == ["under way"]


async def test_a_forgotten_key_is_read_back_with_its_corrections(tmp_path: Path):
    async with money(config=LedgerConfig(held_for=1.0, max_paid_keys=1), journal=tmp_path / "l.db") as bank:
        one, two = await held(bank, "one"), await held(bank, "two")
        await asyncio.sleep(2.0)
        await bank.ref.ask(Resolve(one.number, "no"), timeout=1.0)
        await bank.ref.ask(Resolve(two.number, "yes", Micros(3)), timeout=1.0)
        other = await bank.reserve("other", 1)
        bank.tell(other)
        with pytest.raises(AlreadyPaid) as refused:
            await bank.reserve("two", 1)
        assert refused.value.paid == 3
        await bank.reserve("one", 1)


async def test_what_expires_makes_no_room_under_a_cap_and_what_is_refunded_does():
    async with money(config=HOUR, accounts={"run": Micros(4)}) as bank:
        reservation = await held(bank)
        await asyncio.sleep(3601.0)
        with pytest.raises(BudgetExceeded):
            await bank.reserve("other", 1)
        await bank.ref.ask(Resolve(reservation.number, "no"), timeout=1.0)
        bank.tell(await bank.reserve("other", 4))
        assert await bank.figures() == (0, 0, 4)


def test_a_clock_that_is_set_back_keeps_no_money_and_one_that_jumps_is_believed():
    book = book_with(run=10)
    for key in ("a", "b"):
        book.book(reserved(book, key, 1), "held", at=1_000.0)
    records = book.postings.records
    for now, clock, expects in ((5.0, 1_000.0, 0), (65.0, 1_000.0, 2), (6.0, 1_061.0, 2)):
        ages = HeldAges(60.0)
        for record in records.values():
            ages.note(record, now=4.0, clock=1_000.0)
        assert len(ages.take_due(records, now=now, clock=clock)) == expects
    assert ages.pause(now=7.0) is None


def test_a_closed_account_takes_its_correction():
    book = book_with(run=10, batch=10)
    reservation = reserved(book, "k", 4, accounts=("run", "batch"))
    book.book(reservation, "held", at=1.0)
    book.close("batch", at=2.0)
    book.expire(book.postings.records[reservation.number], at=3.0)
    assert figures(book) == (0, 0, 4)
    book.resolve(reservation.number, "no", at=4.0)
    assert figures(book) == (0, 0, 0)
    assert figures(book, None) == (0, 0, 0)


def test_a_payment_that_is_taken_back_leaves_the_others():
    keys = PaidKeys(10)
    keys.add("k", 3, "alder")
    keys.add("k", 4, "birch")
    keys.take_back("k", 4)
    assert keys.paid("k") == (3, "birch")
    keys.take_back("k", 3)
    keys.take_back("k", 3)
    assert "k" not in keys


@pytest.mark.parametrize(
    ("held_for", "error"), [(0, ValueError), (math.nan, ValueError), ("1", TypeError), (True, TypeError)]
)
def test_an_age_is_a_number_of_seconds(held_for: Any, error: type[Exception]):
    with pytest.raises(error, match="held_for must be"):
        LedgerConfig(held_for=held_for)
    with pytest.raises(error, match="held_for must be"):
        Reserve(key="k", provider="alder", amount=Micros(1), held_for=held_for)


def test_expired_money_is_replayed_as_it_was():
    made = [book_with(run=10), book_with(run=10)]
    entries: list[Any] = []
    book = made[0]
    for number, key in enumerate("abc"):
        entries.append(book.reserve(Reserve(key=key, provider="alder", amount=Micros(3), accounts=("run",)), at=1.0))
        entries.append(book.book(book.reservation(number + 1), "held", at=2.0))
    entries.append(book.mark_under_way(1, at=3.0))
    entries += [book.expire(book.postings.records[number], at=4.0) for number in (2, 3)]
    entries.append(book.resolve(2, "yes", Micros(5), at=5.0))
    for entry in entries:
        made[1].postings.apply(entry)
    assert made[1].postings.figures() == book.postings.figures()
    assert figures(book) == (0, 3, 8)
    assert isinstance(book, Book)
