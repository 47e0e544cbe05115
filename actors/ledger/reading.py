"""What a ledger's journal says, also while a ledger in another process writes it: its accounts, and what is held.

Nothing is written, and nothing waits for the ledger; what is read is of one moment.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from actors.ledger.aging import expires_at
from actors.ledger.book import Book
from actors.ledger.journal import MoneyJournal
from actors.ledger.keys import provider_key
from actors.ledger.saved_book import restore
from actors.ledger.statement import Statement  # noqa: TC001 - msgspec resolves the annotations below.
from actors.money import Micros, micros_of
from runtime.persistence import JournalError, Owner, owner_of, reading

if TYPE_CHECKING:
    import os
    from collections.abc import Generator, Iterator

    from actors.ledger.entries import Entry
    from actors.ledger.record import KeyRecord
    from runtime.persistence import ReadOnlyJournal


class UnsettledCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call that may have been paid: at most `amount`, drawn on `accounts`, reserved or held at `since`.

    Times are in seconds since 1970. `told_key` is the idempotency key that its provider was told. It counts as charged
    at `until`; None if it was reserved without a time of its own, so that its ledger's `held_for` decides. It
    `is_under_way` if its provider has said so, and `is_passed_over` if another provider was paid besides.
    """

    reservation: int
    provider: str
    amount: Micros
    accounts: tuple[str, ...]
    told_key: str
    since: float
    until: float | None = None
    is_under_way: bool = False
    is_passed_over: bool = False
    has_handle: bool = False
    """Whether its provider has given a handle, by which the next start takes it up."""


class BookView(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of a journal at one moment: of all together, of each open account, and the calls that are held.

    `under_way` counts the calls of its `owner` that have not ended. Without an owner there are none: what it left open
    may have been paid, and is held by the next.
    """

    path: str
    owner: Owner | None
    total: Statement
    accounts: tuple[Statement, ...]
    held: tuple[UnsettledCall, ...]
    under_way: int


def read_book(path: str | os.PathLike[str]) -> BookView:
    """Return the figures of a ledger's journal; raises `JournalError` if it cannot be read."""
    owner = owner_of(path)
    with reading(path) as store:
        return view(store, owner=owner)


def view(store: ReadOnlyJournal, *, owner: Owner | None) -> BookView:
    """Return the figures of a ledger's journal that is open to be read."""
    book = Book()
    for _ in read_into(book, MoneyJournal(store.path, store=store)):
        pass
    records = book.postings.records.values()
    held = tuple(_held_call(one) for one in records if one.is_held or (owner is None and one.amount))
    if owner is None:
        book.hold_all(at=0.0)  # As the next owner does.
    return BookView(
        path=store.path,
        owner=owner,
        total=book.statement(),
        accounts=tuple(book.statement(name) for name in book.open_accounts()),
        held=held,
        under_way=sum(1 for one in records if not one.is_held),
    )


def read_into(book: Book, journal: MoneyJournal) -> Iterator[Entry]:
    """Bring a new book to where its journal ends, and yield the entries that are read for it.

    Raises `JournalError` if they do not add up.
    """
    snapshot = journal.store.snapshot()
    try:
        if snapshot is not None:
            for _ in restore(book.postings, snapshot.content):
                pass
        for entry in journal.read(after=snapshot):
            book.postings.apply(entry)
            yield entry
    except (ValueError, msgspec.MsgspecError) as error:
        raise JournalError(journal.path, f"does not add up: {error}", "restore a copy") from error


@contextmanager
def reading_entries(path: str | os.PathLike[str]) -> Generator[Iterator[tuple[int, Entry]]]:
    """Give the numbered entries of a ledger's journal within the block, as far as they are left, the oldest first.

    Raises `JournalError` if they cannot be read.
    """
    with reading(path) as store:
        yield _numbered(store)


def _numbered(store: ReadOnlyJournal) -> Iterator[tuple[int, Entry]]:
    journal = MoneyJournal(store.path, store=store)
    for entry in journal.read():
        yield store.number, entry


def _held_call(record: KeyRecord) -> UnsettledCall:
    return UnsettledCall(
        reservation=record.number,
        provider=record.provider,
        amount=micros_of(record.amount),
        accounts=record.accounts,
        told_key=provider_key(record.key),
        since=record.since,
        until=expires_at(record, None),
        is_under_way=record.is_under_way,
        is_passed_over=record.is_passed_over,
        has_handle=record.handle is not None,
    )
