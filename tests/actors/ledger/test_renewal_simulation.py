"""Money over every renewal and every jump of the clock: each period keeps its cap at every entry, and sums agree."""

from __future__ import annotations

from collections import defaultdict
from random import Random
from typing import Any

import pytest

from actors.errors.families import CallFailed
from actors.ledger.book import Book
from actors.ledger.entries import CapRenewed, MoneyHeld, MoneyReleased, MoneyReserved, MoneySettled
from actors.ledger.messages import Costing, Reserve
from actors.ledger.periods import SLICES, Renewal
from actors.ledger.saved_book import BookSaver, restore
from actors.money import Micros
from tests.proofs import repeated

CAP = 1_000
RENEWALS = {
    "hour": Renewal("hour"),
    "day": Renewal("day", "Europe/Berlin"),
    "month": Renewal("month", "America/St_Johns"),
    "rolling": Renewal("hour", rolling=True),
}
DAY = 86_400.0


class Model:
    """What one account may spend, counted anew from its entries alone: by the period in which each was reserved."""

    def __init__(self, renewal: Renewal, start: int) -> None:
        self.renewal = renewal
        self.start = start
        self.of_call: dict[int, int] = {}
        self.used: dict[int, int] = defaultdict(int)
        self.overrun: dict[int, int] = defaultdict(int)

    def counted(self, start: int) -> list[int]:
        """Return the starts of the periods that count with one: of a rolling window, the slices before it."""
        length = self.renewal.window // SLICES
        first = start - SLICES * length if self.renewal.rolling else start
        return [one for one in self.used if first <= one <= start]

    def check(self, start: int) -> None:
        """See that no more is reserved than the cap, beyond what calls have cost that was never reserved."""
        counted = self.counted(start)
        assert sum(self.used[one] for one in counted) <= CAP + sum(self.overrun[one] for one in counted), self.renewal


class Life:
    """A book whose accounts renew, the clock that it goes by, and what an auditor has counted."""

    def __init__(self, seed: int) -> None:
        self.dice = Random(seed)
        self.clock = self.dice.uniform(1.0e9, 2.0e9)
        self.book = Book()
        self.entries: list[Any] = []
        self.receipts: dict[int, int] = {}
        self.calls: list[Any] = []
        self.models: dict[str, Model] = {}
        self.note(self.book.open("all", cap=None, at=self.clock))
        for name, renewal in RENEWALS.items():
            self.note(self.book.open(name, cap=Micros(CAP), renewal=renewal, parent="all", at=self.clock))
            self.models[name] = Model(renewal, renewal.period(self.clock).start)

    def note(self, entry: Any) -> None:
        """Count an entry, and see that every cap is kept at it."""
        self.entries.append(entry)
        match entry:
            case CapRenewed():
                model = self.models[entry.account]
                assert entry.start > model.start, "a period came again"
                model.start = entry.start
            case MoneyReserved():
                for name in set(entry.accounts) & set(self.models):
                    model = self.models[name]
                    period = model.of_call.setdefault(entry.reservation, model.start)
                    model.used[period] += entry.amount
                    if entry.amount:
                        model.check(period)
            case MoneySettled() | MoneyReleased() | MoneyHeld():
                self.end(entry)
            case _:
                pass
        if len(self.entries) % 20 == 0:
            assert list(self.book.broken_invariants()) == []

    def end(self, entry: MoneySettled | MoneyReleased | MoneyHeld) -> None:
        """Count what became of a call: its receipt, and what it gave back, or cost beyond, in its period."""
        number = entry.reservation
        if isinstance(entry, MoneySettled):
            self.receipts[number] = int(entry.cost)
        elif isinstance(entry, MoneyReleased):
            self.receipts[number] = 0
        for name in set(entry.accounts) & set(self.models):
            model = self.models[name]
            period = model.of_call[number]
            beyond = int(entry.overcharged) if isinstance(entry, MoneySettled) else 0
            model.used[period] += beyond - int(entry.released)
            model.overrun[period] += beyond
            if isinstance(entry, MoneySettled) and entry.is_late:  # All of it had been released.
                model.used[period] += int(entry.cost) - beyond + int(entry.released)
                model.overrun[period] += int(entry.cost)

    def let_time_pass(self) -> None:
        """Let the clock go on by minutes or days, leap ahead, or be put back."""
        dice = self.dice
        jump = dice.random()
        if jump < 0.6:
            self.clock += dice.expovariate(1 / 300)
        elif jump < 0.75:
            self.clock += dice.expovariate(1 / DAY)
        elif jump < 0.78:
            self.clock += dice.uniform(0, 90 * DAY)
        elif jump < 0.82:
            self.clock -= dice.uniform(0, 40 * DAY)

    def step(self) -> None:
        """Let time pass, and then reserve, or tell what became of a call."""
        dice, book = self.dice, self.book
        self.let_time_pass()
        names = dice.sample(list(RENEWALS), dice.randrange(1, 4))
        for name in names:
            if (entry := book.renew(name, at=self.clock)) is not None:
                self.note(entry)
        if dice.random() < 0.5 or not self.calls:
            wish = Reserve(
                key=f"k{dice.randrange(40)}",
                provider=dice.choice(["alder", "birch"]),
                amount=Micros(dice.randrange(1, 500)),
                accounts=book.accounts.with_parents(tuple(names)),
                intent=dice.choice(["again", "again", "repeat"]),
            )
            made = book.reserve(wish, at=self.clock)
            if isinstance(made, MoneyReserved):
                self.note(made)
                self.calls.append(book.reservation(made.reservation))
            elif made.retry_after is not None and dice.random() < 0.1:
                self.see_it_renew(made.account or "", int(made.needed), made.retry_after)
            return
        call = dice.choice(self.calls)
        charged = dice.choice(["yes", "yes", "no", "held"])
        cost = dice.choice([None, Micros(int(call.amount * dice.uniform(0, 1.5)))]) if charged == "yes" else None
        costing = dice.choice([None, Costing(basis="estimated")])
        if (entry := book.book(call, charged, cost, costing=costing, at=self.clock)) is not None:
            self.note(entry)

    def see_it_renew(self, account: str, needed: int, retry_after: float) -> None:
        """See that a refusal has told the truth: after that time there is room, if nothing else is reserved."""
        again = restored(self.book)
        again.renew(account, at=self.clock + retry_after)
        state = again.accounts.states[account].drawn[-1]
        assert state.used + needed <= state.limit
        before = restored(self.book)
        if retry_after > 1.0:
            before.renew(account, at=self.clock + retry_after - 1.0)
            state = before.accounts.states[account].drawn[-1]
            assert state.used + needed > state.limit, "it could have been tried again before"


def restored(book: Book) -> Book:
    """Return a book made of a snapshot of this one."""
    saver = BookSaver(book.postings)
    while not saver.prepare(50):
        pass
    content = saver.save()
    assert content is not None
    again = Book()
    for _ in restore(again.postings, content):
        pass
    for key, (cost, provider) in book.paid_keys.all().items():
        again.paid_keys.restore(key, cost, provider)
    return again


def replayed(entries: list[Any]) -> Book:
    """Return a book made of the journal's entries."""
    book = Book()
    for entry in entries:
        book.postings.apply(entry)
    return book


@pytest.mark.parametrize("seed", range(repeated(3_000, part=100)))
def test_each_period_keeps_its_cap_over_renewals_and_jumps_of_the_clock(seed: int) -> None:
    life = Life(seed)
    for _ in range(150):
        try:
            life.step()
        except CallFailed:
            continue  # Its key was paid, or is under way.
    total = life.book.statement("all")
    assert total.settled == sum(life.receipts.values())
    for name, model in life.models.items():
        statement = life.book.statement(name)
        assert statement.settled == sum(cost for number, cost in life.receipts.items() if number in model.of_call)
        assert statement.period is not None
        assert statement.period.used == sum(model.used[one] for one in model.counted(model.start))
    for again in (restored(life.book), replayed(life.entries)):
        assert again.postings.figures() == life.book.postings.figures()
        for name in RENEWALS:
            assert again.statement(name) == life.book.statement(name)
