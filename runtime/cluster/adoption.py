"""A journal that was moved to another home, because its machine is gone: the home before cannot go on with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runtime.cluster.homes import ADOPTION

if TYPE_CHECKING:
    from runtime.persistence import Journal


def adopt(journal: Journal) -> int:
    """Raise the epoch of a journal beyond all that its home before can reach, and return it. Raises `JournalError`.

    The actor lives from then on where the journal is. Adopt a journal only if its home is gone, or cut off for longer
    than `TAKEOVER`.

    >>> from runtime.persistence import MemoryJournal
    >>> journal = MemoryJournal()
    >>> journal.claim(), adopt(journal), journal.claim(), adopt(journal)
    (1, 1000000000, 1000000001, 2000000000)
    """
    return journal.claim(at_least=(journal.latest_epoch // ADOPTION + 1) * ADOPTION)
