"""The calls that were under way when the program was killed: booked at the next start, before anything else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.ledger.answers import encode
from actors.ledger.entries import MoneySettled
from actors.ledger.keys import purchase_of
from actors.ledger.receipt import PaidAnswer, Purchase
from actors.ledger.receipts import JournalReceipts

if TYPE_CHECKING:
    from actors.ledger.book import Book
    from actors.ledger.journal import MoneyJournal
    from actors.ledger.receipt import KeepAnswers

KILLED = encode((None, None, "the program was killed while it came"))
"""What is kept of a stream that was under way: nothing of it, and why."""


def book_killed(book: Book, journal: MoneyJournal, *, at: float, keep: KeepAnswers) -> None:
    """Hold what was open, or settle it as its calls declared; a stream under a caller's key leaves a receipt."""
    receipts = JournalReceipts(journal)
    prints = {record.number: record.fingerprint for record in book.postings.records.values()}
    for entry in book.hold_all(at=at):
        fingerprint = prints[entry.reservation]
        if isinstance(entry, MoneySettled) and fingerprint is not None:
            key, number = purchase_of(entry.key)
            killed = PaidAnswer(Purchase(key, fingerprint, number), "cut", KILLED)
            receipts.keep(killed, cost=entry.cost, provider=entry.provider, at=at, keep=keep)
        journal.append(entry)
