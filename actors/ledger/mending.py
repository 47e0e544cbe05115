"""Mend the journal of a ledger that does not run: enter what was found out about a call that may have been paid.

What is entered is what the ledger itself would enter, when it is asked `Resolve`.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from actors.errors.families import Permanent
from actors.ledger.book import Book
from actors.ledger.entries import MoneyHeld, MoneyReleased, MoneySettled
from actors.ledger.journal import MoneyJournal
from actors.ledger.killed_calls import book_killed
from actors.ledger.reading import read_into
from runtime.persistence import reading

if TYPE_CHECKING:
    import os
    from collections.abc import Generator, Iterable
    from typing import Literal

    from actors.ledger.entries import Booked, Entry
    from actors.money import Micros


class Resolution(NamedTuple):
    """What became of a call, as its entry says it, and whether that was entered just now."""

    entry: MoneySettled | MoneyReleased
    is_new: bool


@contextmanager
def owning(path: str | os.PathLike[str]) -> Generator[MoneyJournal]:
    """Own a journal that exists within the block; raises `JournalError`, naming the owner, if another has it.

    What is written outlives a power cut.
    """
    with reading(path):
        pass  # A file that is no journal is refused, and not made one.
    journal = MoneyJournal(path, safety="power")
    try:
        yield journal
    finally:
        journal.close()


def resolve(
    path: str | os.PathLike[str],
    reservation: int,
    charged: Literal["yes", "no"],
    cost: Micros | None = None,
    *,
    at: float,
) -> Resolution:
    """Enter what was found out about a held call: paid, and how much (None: what is held), or not paid.

    If the same was entered before, nothing is written. Raises `Permanent` if it is not held, or if something else was
    entered, and `JournalError` if the journal cannot be owned. What a killed program has left open is held first, as it
    is at every start.
    """
    with owning(path) as journal:
        book = Book()
        before = _last_booked(read_into(book, journal), reservation)
        book_killed(book, journal, at=at, keep="full")
        try:
            entry = book.resolve(reservation, charged, cost, at=at)
        except Permanent as refusal:
            if before is None or isinstance(before, MoneyHeld):
                raise Permanent(f"reservation {reservation} is not held, or no more") from refusal
            if not _is_same(before, charged, cost):
                raise Permanent(f"reservation {reservation} was entered as {outcome_text(before)} before") from refusal
            return Resolution(before, is_new=False)
        journal.append(entry)
        journal.commit()
        return Resolution(entry, is_new=True)


def outcome_text(entry: MoneySettled | MoneyReleased) -> str:
    """Say what became of a call.

    >>> from actors.money import Micros
    >>> outcome_text(MoneySettled(reservation=1, key="k", provider="alder", accounts=(), cost=Micros(20_000), at=0.0))
    "paid to 'alder', $0.02"
    """
    if isinstance(entry, MoneySettled):
        return f"paid to {entry.provider!r}, {entry.cost}"
    return f"not paid to {entry.provider!r}"


def _last_booked(entries: Iterable[Entry], reservation: int) -> Booked | None:
    last: Booked | None = None
    for entry in entries:
        if isinstance(entry, MoneySettled | MoneyReleased | MoneyHeld) and entry.reservation == reservation:
            last = entry
    return last


def _is_same(before: MoneySettled | MoneyReleased, charged: Literal["yes", "no"], cost: Micros | None) -> bool:
    if isinstance(before, MoneySettled):
        return charged == "yes" and cost in {None, before.cost}
    return charged == "no"
