"""The commits of a ledger's journal: an answer is given once its entry is on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actors.ledger.errors import JournalDown, JournalFailed
from runtime.persistence import GroupCommit

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from actors.ledger.entries import Entry
    from actors.ledger.journal import MoneyJournal
    from runtime.persistence import JournalError


class Commits:
    """The commits of one journal.

    `take_back` gets an answer that does not hold: it was refused because it could not be written, or it was written
    although its asker had given up by then. `on_failure` gets the error of each commit that failed.
    """

    def __init__(
        self, journal: MoneyJournal, *, take_back: Callable[[Any], None], on_failure: Callable[[JournalError], None]
    ) -> None:
        self.journal = journal
        self.group = GroupCommit(
            journal.store, refusal=_refusal, on_refused=take_back, on_abandoned=take_back, on_failure=on_failure
        )
        if journal.store.has_unwritten:
            self.group.schedule()

    @property
    def has_unwritten(self) -> bool:
        """Whether an entry is still to be written."""
        return self.group.has_unwritten

    def append(self, entry: Entry) -> None:
        """Have an entry written in this turn of the loop."""
        self.journal.append(entry)
        self.group.schedule()

    def once_written(
        self, answer: Any, future: asyncio.Future[Any] | None = None, *, or_wait: bool = False
    ) -> asyncio.Future[Any]:
        """Return a future, the given one or a new one, that has this answer once all that was appended is written.

        If that fails, it raises `JournalFailed`; with `or_wait`, it waits until it is written after all.
        """
        return self.group.once_written(answer, future, or_wait=or_wait)

    def paid(self, key: str) -> tuple[int, str] | None:
        """Return what was paid under a key in all, and to which provider last, whether it is written yet or not."""
        return self.journal.paid(key)

    def refuse_if_down(self) -> None:
        """Raise `JournalDown` if nothing may be paid, because it could not be written."""
        if (error := self.group.error) is not None:
            raise JournalDown(error.path, error.problem)

    def __repr__(self) -> str:
        return f"<Commits of {self.journal!r}>"


def _refusal(error: JournalError) -> JournalFailed:
    return JournalFailed(error.path, error.problem)
