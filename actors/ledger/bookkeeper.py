"""Keeps a book: each step of it is written to the journal, if there is one, and published, before it is answered."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from actors.ledger.entries import MoneyHeld, MoneyReleased, MoneySettled
from actors.ledger.errors import JournalUnreadable
from actors.ledger.messages import Reservation
from runtime.persistence import JournalError

if TYPE_CHECKING:
    import asyncio

    from actors.ledger.book import Book
    from actors.ledger.commits import Commits
    from actors.ledger.entries import Booked, Entry
    from actors.ledger.reporting import Reporter

T = TypeVar("T")
KNOWN_OUTCOMES = (MoneySettled, MoneyReleased)
"""As a tuple: a union would be made anew for each entry."""


class Bookkeeper:
    """Keeps one book."""

    def __init__(self, book: Book, reporter: Reporter) -> None:
        self.book = book
        self.reporter = reporter
        self._accounts = book.accounts
        self._publish = reporter.publish
        self.commits: Commits | None = None
        """The commits of the journal; without one, everything counts as written at once."""

    def record(self, entry: Entry) -> None:
        """Have a step of the book written, and publish it, with the alerts that it raises or clears."""
        if self.commits is not None:
            self.commits.append(entry)
        self._publish(entry)
        if self._accounts.crossed:
            self.reporter.report_alerts()
        if isinstance(entry, MoneyHeld):
            self.reporter.report_held(entry.provider, entry.reservation, entry.held)
        elif isinstance(entry, KNOWN_OUTCOMES):
            self.reporter.report_resolved(entry.provider, entry.reservation)

    def record_outcome(self, entry: Booked) -> None:
        """Record what became of a call, and publish a charge that was too high or came late."""
        self.record(entry)
        if isinstance(entry, MoneySettled):
            if self.book.paid_keys.has_forgotten:
                with suppress(JournalUnreadable):  # The money is in the book, and the rest has to follow.
                    self.restore_paid_key(entry.key)  # What was paid under it before is part of the sum.
            if entry.overcharged > entry.overdrawn or entry.is_late:
                self.reporter.report_overcharge(entry)

    def once_written(
        self, answer: T, future: asyncio.Future[T] | None = None, *, or_wait: bool = False
    ) -> T | asyncio.Future[T]:
        """Return an answer, or a future that has it once everything that was recorded is on disk.

        With a `future` that waits already, this one gets the answer, now or then. If it cannot be written, the future
        raises `JournalFailed`; with `or_wait`, it waits until it can be.
        """
        if self.commits is not None and self.commits.has_unwritten:
            return self.commits.once_written(answer, future, or_wait=or_wait)
        if future is not None:
            future.set_result(answer)
        return answer

    def schedule_commit(self) -> None:
        """Have what was kept beside the entries written."""
        if self.commits is not None:
            self.commits.group.schedule()

    def restore_paid_key(self, key: str) -> None:
        """Look up in the journal what was paid under a key in all; the book may have forgotten it, or a part of it."""
        if self.commits is not None:
            paid = self.commits.paid(key)
            if paid is not None:
                self.book.paid_keys.restore(key, *paid)

    def remember_key_of(self, number: int) -> None:
        """Look up what was paid under the key of a reservation, if the book may have forgotten that."""
        paid_keys, record = self.book.paid_keys, self.book.postings.ended_or_not(number)
        if paid_keys.has_forgotten and record is not None and record.key not in paid_keys:
            self.restore_paid_key(record.key)

    async def close(self) -> None:
        """Write what is left, and let go of the journal.

        A reservation that its asker has not been given yet is undone first, because no call was made.
        """
        commits, self.commits = self.commits, None
        if commits is None:
            return
        for answer in commits.abandon():
            if isinstance(answer, Reservation) and (entry := self.book.take_back(answer, at=time.time())):
                commits.journal.append(entry)
                self.reporter.publish(entry)
        try:
            await commits.group.close()
        except JournalError as error:
            self.reporter.log_journal_failed(error)

    def __repr__(self) -> str:
        return f"<Bookkeeper of {self.book!r}>"
