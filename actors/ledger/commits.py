"""Answers that are given when their entry is on disk: what one turn of the loop brings is written by one commit."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import TYPE_CHECKING, Any

from actors.ledger.errors import JournalError, JournalFailed
from actors.ledger.journal import Journal

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from actors.ledger.book import Book
    from actors.ledger.entries import Entry
    from actors.ledger.journal import Safety
    from actors.money import Micros


SLICE = 200
"""The entries that are read between two turns of the loop, some half a millisecond's work."""


async def recover(path: str | os.PathLike[str], book: Book, *, safety: Safety, at: float) -> Journal:
    """Open a journal, and bring a new book to where it ends; what was open then is held.

    A long one takes its time, in which others have theirs. Raises `JournalError` for one that cannot be relied on, or
    written to.
    """
    journal = Journal(path, safety=safety)
    try:
        for number, entry in enumerate(journal.read(), 1):
            book.postings.apply(entry)
            if number % SLICE == 0:
                await asyncio.sleep(0)
        if book.paid_keys.has_forgotten:
            for key in journal.paid_repeatedly():
                # Where the first payment was forgotten before the second, the book knows a part of the sum.
                if book.paid_keys.get(key) is not None and (paid := journal.paid(key)) is not None:
                    book.paid_keys.remember(key, *paid)
        for entry in book.hold_all(at=at):
            journal.append(entry)
        journal.commit()
    except ValueError as error:
        journal.close()
        raise JournalError(journal.path, f"does not add up: {error}", "restore a copy") from error
    except sqlite3.Error as error:
        journal.close()
        raise JournalError(journal.path, f"cannot be written: {error}", "make room for it") from error
    except BaseException:
        journal.close()
        raise
    return journal


class Writer:
    """Writes the entries of one ledger.

    `gone` gets an answer that was written, but whose asker had given up by then; `broke` is told once, when a commit
    has failed. After that nothing is written any more, and `append` raises.
    """

    def __init__(self, journal: Journal, *, gone: Callable[[Any], None], broke: Callable[[JournalError], None]) -> None:
        self.journal = journal
        self._gone = gone
        self._broke = broke
        self._unanswered: list[tuple[asyncio.Future[Any], Any]] = []
        self._due: asyncio.Handle | None = None

    def append(self, entry: Entry) -> None:
        """Have an entry written, soon."""
        self.journal.append(entry)
        if self._due is None:
            self._due = asyncio.get_running_loop().call_soon(self._commit)

    def once_written(self, answer: Any, future: asyncio.Future[Any] | None = None) -> asyncio.Future[Any]:
        """Return a future, the given one or a new one, that has this answer once all that was appended is written."""
        if future is None:
            future = asyncio.get_running_loop().create_future()
        self._unanswered.append((future, answer))
        return future

    def paid(self, key: str) -> tuple[Micros, str] | None:
        """Return what was paid under a key, and to whom last, whether it is written yet or not."""
        return self.journal.paid(key)

    def abandon(self) -> list[Any]:
        """Give no answer any more, and return what would have been answered."""
        if self._due is not None:
            self._due.cancel()
        abandoned, self._unanswered = self._unanswered, []
        for future, _ in abandoned:
            future.cancel()
        return [answer for _, answer in abandoned]

    def _commit(self) -> None:
        self._due = None
        unanswered, self._unanswered = self._unanswered, []
        try:
            self.journal.commit()
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody may go on as if it were written.
            path = self.journal.path
            for future, _ in unanswered:
                if not future.done():
                    future.set_exception(JournalFailed(path, str(error)))
            self._broke(JournalError(path, f"cannot be written: {error}", "make room for it"))
            return
        for future, answer in unanswered:
            if not future.done():
                future.set_result(answer)
            else:
                self._gone(answer)

    def __repr__(self) -> str:
        return f"<Writer of {self.journal!r}, {len(self._unanswered)} answers wait>"
