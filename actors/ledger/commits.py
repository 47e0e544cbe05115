"""The commits of a ledger's journal: an answer is given once its entry is on disk."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

from actors.ledger.entries import MoneyHeld, MoneyReleased, MoneySettled
from actors.ledger.errors import JournalDown, JournalFailed
from actors.ledger.saved_book import BookSaver
from runtime.persistence import GroupCommit

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.ledger.book import Book
    from actors.ledger.entries import Entry
    from actors.ledger.journal import MoneyJournal
    from runtime.persistence import JournalError

MAX_UNSAVED = 100_000
"""The entries after which a snapshot is written: half a second's reading at the next start."""
MIN_UNSAVED = 10_000
"""The entries that were read at a start and are worth a snapshot then."""
RESERVED_BYTES = 64_000_000
"""What must be left on the disk for a call to be paid, beside an answer of the largest size for each under way."""
LOOK_EVERY = 1.0
"""Seconds between two looks at what is left."""
PREPARED = 200
"""The reservations that are encoded in one turn of the loop, less than a millisecond's work."""
SAVE_LATER = 1.0
"""Seconds after which a snapshot is tried again, if too many calls were under way for it."""


class Commits:
    """The commits of one journal.

    `take_back` gets an answer that does not hold: it was refused because it could not be written, or it was written
    although its asker had given up by then. `on_failure` gets the error of a commit that failed. `read` is how many
    entries were read at the start.
    """

    def __init__(
        self,
        journal: MoneyJournal,
        book: Book,
        *,
        read: int = 0,
        take_back: Callable[[Any], None],
        on_failure: Callable[[JournalError], None],
    ) -> None:
        self.journal = journal
        self._book = book
        self._loop = asyncio.get_running_loop()
        self._looked_at = -math.inf
        self._free: int | None = None
        """The bytes that were left on the disk when they were looked at last."""
        self._saver = BookSaver(book.postings)
        self._saving: asyncio.Handle | None = None
        self._unsaved = read
        """The entries since the last snapshot."""
        self.group = GroupCommit(
            journal.store, refusal=_refusal, on_refused=take_back, on_abandoned=take_back, on_failure=on_failure
        )
        if journal.store.has_unwritten:
            self.group.schedule()
        if read >= MIN_UNSAVED:
            self._saving = self._loop.call_soon(self._save)

    @property
    def has_unwritten(self) -> bool:
        """Whether an entry is still to be written."""
        return self.group.has_unwritten

    def append(self, entry: Entry) -> None:
        """Have an entry written with the next that is waited for, or within 10 ms."""
        self.journal.append(entry, is_first=self._is_first(entry))
        self.group.schedule_late()
        self._unsaved += 1
        if self._saving is not None:
            if isinstance(entry, MoneySettled | MoneyReleased | MoneyHeld):
                self._saver.changed(entry.reservation)
        elif self._unsaved >= MAX_UNSAVED:
            self._saving = self._loop.call_soon(self._save)

    def _is_first(self, entry: Entry) -> bool:
        """Tell whether the book knows that a key was never paid before this entry, so that it need not be looked up."""
        paid_keys = self._book.paid_keys
        if paid_keys.has_forgotten or not isinstance(entry, MoneySettled) or entry.corrects:
            return False
        return paid_keys.paid(entry.key) == (entry.cost, entry.provider)

    def once_written(
        self, answer: Any, future: asyncio.Future[Any] | None = None, *, or_wait: bool = False
    ) -> asyncio.Future[Any]:
        """Return a future, the given one or a new one, that has this answer once all that was appended is written.

        If that fails, it raises `JournalFailed`; with `or_wait`, it waits until it is written after all.
        """
        self.group.schedule()
        return self.group.once_written(answer, future, or_wait=or_wait)

    def paid(self, key: str) -> tuple[int, str] | None:
        """Return what was paid under a key in all, and to which provider last, whether it is written yet or not."""
        return self.journal.paid(key)

    def refuse_if_down(self) -> None:
        """Raise `JournalDown` if nothing may be paid: a write has failed, or there might be no room for an answer."""
        if (error := self.group.error) is not None:
            raise JournalDown(error.path, error.problem)
        now = self._loop.time()
        if now >= self._looked_at + LOOK_EVERY:
            self._looked_at, self._free = now, self.journal.store.free_bytes()
        if self._free is not None and self._free < RESERVED_BYTES + self.journal.store.largest * len(
            self._book.postings.records
        ):
            raise JournalDown(self.journal.path, f"has only {self._free / 1e6:.0f} MB left on its disk")

    def abandon(self) -> list[Any]:
        """Give no answer any more, and return the answers that were still to be given."""
        if self._saving is not None:
            self._saving.cancel()
        return self.group.abandon()

    def _save(self) -> None:
        """Prepare a part of a snapshot, or have it written with the next commit once all is prepared."""
        loop = self._loop
        if not self._saver.prepare(PREPARED):
            self._saving = loop.call_soon(self._save)
        elif (content := self._saver.save()) is None:
            self._saving = loop.call_later(SAVE_LATER, self._save)
        else:
            self.journal.store.save(content)
            self.group.schedule()
            self._saving, self._unsaved = None, 0
            self._saver = BookSaver(self._book.postings)

    def __repr__(self) -> str:
        return f"<Commits of {self.journal!r}>"


def _refusal(error: JournalError) -> JournalFailed:
    return JournalFailed(error.path, error.problem)
