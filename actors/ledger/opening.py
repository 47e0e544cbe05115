"""How a ledger begins: a book is brought to where its journal ends, and accounts are opened or taken over."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, TypeAlias

from actors.errors.families import Permanent
from actors.ledger.journal import MoneyJournal, migrated
from actors.ledger.keys import UNNAMED_ACCOUNT
from actors.ledger.killed_calls import book_killed
from actors.ledger.saved_book import restore
from actors.money import ZERO
from runtime.persistence import JournalError, Packing, Retention, has_threads

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable

    from actors.ledger.allocator import Allocator
    from actors.ledger.book import Book
    from actors.ledger.bookkeeper import Bookkeeper
    from actors.ledger.config import LedgerConfig
    from actors.ledger.messages import OpenAccount
    from actors.ledger.periods import Cap, Renewal
    from actors.money import Micros
    from runtime.persistence import Journal

    OpenJournal: TypeAlias = Callable[..., Journal]

SLICE = 200
"""The entries that are read between two turns of the loop, some half a millisecond's work."""


async def recover(
    opened: str | os.PathLike[str] | OpenJournal, book: Book, *, config: LedgerConfig, at: float
) -> tuple[MoneyJournal, int]:
    """Open a journal, by its path or what opens it, and bring a new book to where it ends.

    What was open then is held, and is still to be written.

    Return the journal, and how many entries were read after its snapshot. While a long one is read, other tasks have
    their turns. Raises `JournalError` for one that cannot be relied on.
    """
    # In virtual time there is no disk to wait for, and no power to fail.
    safety = config.safety if has_threads(asyncio.get_running_loop()) else "process"
    retention = Retention(bodies_for=config.answers_for, heads_for=config.keys_for)
    packing = Packing(compresses=config.compress_answers, cipher=config.answer_cipher)
    if callable(opened):
        store = opened(safety=safety, retention=retention, packing=packing, migrate=migrated)
        journal = MoneyJournal(store.path, store=store)
    else:
        journal = MoneyJournal(opened, safety=safety, retention=retention, packing=packing)
    read = 0
    try:
        snapshot = journal.store.snapshot()
        if snapshot is not None:
            for number, _ in enumerate(restore(book.postings, snapshot.content), 1):
                if number % SLICE == 0:
                    await asyncio.sleep(0)
        for read, entry in enumerate(journal.read(after=snapshot), 1):
            book.postings.apply(entry)
            if read % SLICE == 0:
                await asyncio.sleep(0)
        if book.paid_keys.has_forgotten:
            book.paid_keys.clear()  # Some of the sums lack what was forgotten; the journal has them all.
        book_killed(book, journal, at=at, keep=config.keep_answers)
        journal.hold_keys((record.key, record.number) for record in book.postings.records.values())
    except ValueError as error:
        journal.close()
        raise JournalError(journal.path, f"does not add up: {error}", "restore a copy") from error
    except BaseException:
        journal.close()
        raise
    return journal, read


class AccountOpener:
    """Opens the accounts of a run of the program, or takes them over from an earlier one.

    `opened` are the accounts that were opened in this run, also before a restart of the actor if the book outlives it.
    """

    def __init__(self, bookkeeper: Bookkeeper, allocator: Allocator, *, opened: set[str]) -> None:
        self._bookkeeper = bookkeeper
        self._book = bookkeeper.book
        self._allocator = allocator
        self._opened = opened
        self._recovered: set[str] = set()
        """The accounts that an earlier run has left open, and that were not taken over yet."""
        self._named = 0

    def note_recovered(self, names: Iterable[str]) -> None:
        """Note the accounts that are open after a recovery; one that is not of this run may be taken over."""
        self._recovered = set(names) - self._opened

    def open(self, asked: OpenAccount) -> str | asyncio.Future[str]:
        """Open an account, or take it over, and return its name; without one, a name is made up.

        One that is taken over stays below the parent that it has, and is refused with `Permanent` for another.
        """
        name = self._new_name() if asked.name is None else asked.name
        if name in self._recovered:
            if (before := self._book.statement(name).parent) != asked.parent:
                stands = "has no parent" if before is None else f"is below {before!r}"
                raise Permanent(f"account {name!r} {stands} since an earlier run; say so, or take another name")
            self._recovered.discard(name)
            self._open_with_cap(name, asked.cap, asked.renewal, overdraft=asked.overdraft)
        else:
            opened = self._book.open(
                name,
                cap=asked.cap,
                overdraft=asked.overdraft,
                parent=asked.parent,
                renewal=asked.renewal,
                at=time.time(),
            )
            self._bookkeeper.record(opened)
        return self._note_opened(name)

    def open_by_config(self, name: str, cap: Cap | None) -> None:
        """Open an account that the program's configuration names, or give it this cap if it is of an earlier run.

        One that cannot be opened, because it was closed while money was left in it, is logged and left as it is.
        """
        if name in self._opened or (self._book.is_open(name) and name not in self._recovered):
            return  # What became of it in this run is newer, also that it was closed.
        self._recovered.discard(name)
        try:
            amount, renewal = (None, None) if cap is None else cap
            self._open_with_cap(name, amount, renewal)
        except Permanent as refusal:
            self._bookkeeper.reporter.log_not_opened(refusal)
            return
        self._note_opened(name)

    def forget(self, name: str) -> None:
        """Let an account not be taken over, because it was closed."""
        self._recovered.discard(name)

    def give_up(self, name: str) -> None:
        """Undo that an account was taken over, so that it can be again."""
        self._opened.discard(name)
        self._recovered.add(name)

    def _new_name(self) -> str:
        while True:
            self._named += 1
            name = f"{UNNAMED_ACCOUNT}{self._named}"
            if not self._book.accounts.is_known(name):
                return name

    def _open_with_cap(
        self, name: str, cap: Micros | None, renewal: Renewal | None, *, overdraft: Micros = ZERO
    ) -> None:
        """Open an account, or give one that is open this cap."""
        at = time.time()
        if not self._book.is_open(name):
            opened = self._book.open(name, cap=cap, overdraft=overdraft, renewal=renewal, at=at)
            self._bookkeeper.record(opened)
            return
        before = self._book.accounts.opened(name)
        if (before.cap_for_good, before.overdraft, before.renewal) != (cap, overdraft, renewal):
            self._allocator.set_cap(name, cap, renewal, overdraft=overdraft)

    def _note_opened(self, name: str) -> str | asyncio.Future[str]:
        """Note, once it is written, that an account is of this run; return its name, now or then."""

        def note(written: asyncio.Future[str]) -> None:
            if not written.cancelled() and written.exception() is None:
                self._opened.add(name)

        answer = self._bookkeeper.once_written(name)
        if isinstance(answer, str):
            self._opened.add(name)
        else:
            answer.add_done_callback(note)
        return answer

    def __repr__(self) -> str:
        return f"<AccountOpener {len(self._opened)} opened, {len(self._recovered)} of an earlier run>"
