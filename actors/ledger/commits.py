"""Answers that are given once their entry is on disk: all entries of one turn of the loop share one commit."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from actors.ledger.errors import JournalFailed
from runtime.persistence import JournalError

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.ledger.entries import Entry
    from actors.ledger.journal import MoneyJournal


class Commits:
    """The commits of one journal.

    `on_abandoned` gets an answer that was written although its asker had given up by then. `on_failure` is called once,
    when a commit has failed; nothing is written after that, and `append` raises.
    """

    def __init__(
        self, journal: MoneyJournal, *, on_abandoned: Callable[[Any], None], on_failure: Callable[[JournalError], None]
    ) -> None:
        self.journal = journal
        self._on_abandoned = on_abandoned
        self._on_failure = on_failure
        self._unanswered: list[tuple[asyncio.Future[Any], Any]] = []
        self._due: asyncio.Handle | None = None

    def append(self, entry: Entry) -> None:
        """Have an entry written in this turn of the loop."""
        self.journal.append(entry)
        if self._due is None:
            self._due = asyncio.get_running_loop().call_soon(self._commit)

    def once_written(self, answer: Any, future: asyncio.Future[Any] | None = None) -> asyncio.Future[Any]:
        """Return a future, the given one or a new one, that has this answer once all that was appended is written."""
        if future is None:
            future = asyncio.get_running_loop().create_future()
        self._unanswered.append((future, answer))
        return future

    def paid(self, key: str) -> tuple[int, str] | None:
        """Return what was paid under a key in all, and to which provider last, whether it is written yet or not."""
        return self.journal.paid(key)

    def abandon(self) -> list[Any]:
        """Give no answer any more, and return the answers that were still to be given."""
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
        except Exception as error:  # noqa: BLE001 - whatever it is, no asker may go on as if it were written.
            path = self.journal.path
            for future, _ in unanswered:
                if not future.done():
                    future.set_exception(JournalFailed(path, str(error)))
            self._on_failure(JournalError(path, f"cannot be written: {error}", "make room for it"))
            return
        for future, answer in unanswered:
            if not future.done():
                future.set_result(answer)
            else:
                self._on_abandoned(answer)

    def __repr__(self) -> str:
        return f"<Commits of {self.journal!r}, {len(self._unanswered)} answers wait>"
