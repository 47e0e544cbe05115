"""Receipts in a journal: in few bytes, told with what was paid under their keys, and refused if they are damaged."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, cast

import pytest

from actors.errors.families import Permanent
from actors.ledger.book import Book
from actors.ledger.journal import MoneyJournal
from actors.ledger.messages import Costing, Reserve
from actors.ledger.receipt import KeepAnswers, PaidAnswer, Purchase
from actors.ledger.receipts import JournalReceipts
from actors.money import Micros
from runtime.persistence import SqliteJournal

if TYPE_CHECKING:
    from pathlib import Path

    from actors.ledger.entries import MoneyReserved

PRINT = b"of a field   of another " + bytes(12)


class Trade:
    """A book with a journal and its receipts, as a ledger keeps them."""

    def __init__(self, path: Path, keep: KeepAnswers = "full") -> None:
        self.journal, self.book, self.kept = MoneyJournal(path), Book(), keep
        for entry in self.journal.read():
            self.book.postings.apply(entry)
        if not self.book.is_open("run"):
            self.journal.append(self.book.open("run", cap=None, at=1.0))
        self.receipts = JournalReceipts(self.journal)

    def pay(
        self, key: str, cost: int, *, number: int = 1, before: int = 0, keeps: bool = True, sure: bool = True
    ) -> int:
        own = key if number == 1 else f"purchase {number} of {key}"
        wish = Reserve(key=own, provider="alder", amount=Micros(300), accounts=("run",), intent="again")
        made = cast("MoneyReserved", self.book.reserve(wish, at=2.0))
        self.journal.append(made)
        call, costing = self.book.reservation(made.reservation), None if sure else Costing(basis="estimated")
        settled = self.book.book(call, "yes", Micros(cost), costing=costing, at=2.0)
        assert settled is not None
        if keeps:
            answer = PaidAnswer(Purchase(key, PRINT, number), "answered", b"the answer", Micros(before))
            self.receipts.keep(answer, cost=Micros(cost), provider="alder", at=2.0, keep=self.kept)
        self.journal.append(settled)
        return made.reservation

    def check(self, *keys: str) -> None:
        """Make sure that the journal and the book know the same of what was paid."""
        assert [self.journal.paid(key) for key in keys] == [self.book.paid_keys.paid(key) for key in keys]


def test_what_was_paid_under_a_key_is_known_whether_its_receipt_says_so_or_not(tmp_path: Path) -> None:
    trade = Trade(tmp_path / "l.db")
    trade.pay("one", 200)
    trade.pay("none", 100, keeps=False)
    trade.pay("free", 0)
    trade.pay("two", 100, keeps=False)
    trade.pay("two", 200, before=100)
    trade.pay("same", 100)
    trade.pay("same", 100, keeps=False)
    trade.pay("again", 100)
    trade.pay("again", 70, number=2)
    estimated = trade.pay("estimated", 90, sure=False)
    keys = ("one", "none", "free", "two", "same", "again", "purchase 2 of again", "estimated", "other")
    trade.check(*keys)
    trade.journal.append(trade.book.resolve(estimated, "yes", Micros(80), costing=Costing(basis="exact"), at=3.0))
    trade.check(*keys)
    trade.journal.commit()
    trade.journal.close()
    again = Trade(tmp_path / "l.db")
    again.check(*keys)
    assert [again.journal.paid(key) for key in keys[:6]] == [
        (200, "alder"),
        (100, "alder"),
        None,
        (300, "alder"),
        (200, "alder"),
        (100, "alder"),
    ]
    again.pay("one", 50, keeps=False)
    again.check(*keys)
    again.journal.close()


@pytest.mark.parametrize(("keep", "most"), [("none", 130), ("full", 90)])
def test_a_key_with_a_receipt_takes_few_bytes_beside_its_answer(tmp_path: Path, keep: KeepAnswers, most: int) -> None:
    trade = Trade(tmp_path / "l.db", keep)
    for number in range(2_000):
        trade.pay(f"order {number}", 200)
        if number % 200 == 0:
            trade.journal.commit()
    trade.journal.commit()
    trade.journal.close()
    file = sqlite3.connect(tmp_path / "l.db")
    (size,) = file.execute("SELECT SUM(pgsize) FROM dbstat WHERE name = 'kept'").fetchone()
    file.close()
    assert size / 2_000 < most


def test_it_names_what_a_request_was_asked_for_as_long_as_the_answer_is_there(tmp_path: Path) -> None:
    for keep in ("full", "hash"):
        trade = Trade(tmp_path / keep, keep)
        trade.pay("k", 200)
        found = trade.receipts.find("k")
        assert found is not None
        assert (found.purchase.fingerprint, found.answer) == (PRINT, b"the answer" if keep == "full" else None)
        trade.journal.commit()
        trade.journal.store.forget("")
        found = trade.receipts.find("k")
        assert found is not None
        assert (len(found.purchase.fingerprint), found.answer) == (6 if keep == "full" else len(PRINT), None)
        trade.journal.close()


def test_a_key_whose_row_is_damaged_is_not_paid_again(tmp_path: Path) -> None:
    trade = Trade(tmp_path / "l.db")
    trade.pay("k", 200)
    trade.journal.commit()
    assert isinstance(trade.journal.store, SqliteJournal)
    trade.journal.store._file.execute("UPDATE kept SET head = CAST(head || '!' AS BLOB)")
    with pytest.raises(Permanent, match=r"it is not known whether key 'k' was paid: .*is damaged"):
        trade.receipts.find("k")
    with pytest.raises(Permanent, match="restore a copy"):
        trade.journal.paid("k")
    trade.journal.close()
