"""The entries of a book on disk, and what was paid under each key beside them."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import msgspec

from actors.ledger.entries import Entry, MoneyReleased, MoneySettled
from runtime.persistence import Codec, JournalError, MemoryJournal, SqliteJournal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runtime.persistence import Journal, Retention, Safety, SnapshotRow

IN_MEMORY = ":memory:"
PAID = "\0paid"
"""The scope of what was paid under keys; that of no caller begins so."""
COUNTED = ""
"""The key there that stands once all entries are counted in it, as they are not in a file of an earlier format."""


class MoneyJournal:
    """The journal of one ledger; raises `JournalError` if it cannot be used.

    Its directory must exist. With the path ":memory:" nothing is kept beyond the life of this object.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, safety: Safety = "process", retention: Retention | None = None
    ) -> None:
        self.path = os.fspath(path)
        self.store: Journal = (
            MemoryJournal(retention=retention)
            if self.path == IN_MEMORY
            else SqliteJournal(path, safety=safety, retention=retention, migrate=migrated)
        )
        self._codec = Codec[Entry](Entry)
        self._paid = msgspec.msgpack.Decoder(tuple[int, str])
        self._is_counted = self.store.find(PAID, COUNTED) is not None

    def read(self, *, after: SnapshotRow | None = None) -> Iterator[Entry]:
        """Yield every entry, from the first on or after a snapshot; to be called before any is appended.

        Raises `JournalError` for a damaged one.
        """
        decode, is_counted = self._codec.decode, self._is_counted
        for content in self.store.replay(after=after):
            try:
                entry = decode(content)
            except msgspec.MsgspecError as error:
                raise JournalError(
                    self.path, f"is damaged at entry {self.store.number}: {error}", "move it away and restore a copy"
                ) from error
            if not is_counted:
                self._count(entry)
            yield entry
        if not is_counted:
            self.store.put(PAID, COUNTED, b"", at=None)
            self._is_counted = True

    def append(self, entry: Entry) -> None:
        """Note an entry, to be written by the next commit."""
        self.store.append(self._codec.encode(entry))
        self._count(entry)

    def commit(self) -> None:
        """Write what was appended, all of it or nothing; raises `JournalError`, after which it can be tried again."""
        self.store.commit()

    def paid(self, key: str) -> tuple[int, str] | None:
        """Return what was paid under a key in all, in micro-units, and to which provider last; None if nothing was."""
        row = self.store.find(PAID, key)
        paid = None if row is None else self._paid.decode(row.head)
        return paid if paid is not None and paid[0] else None

    def _count(self, entry: Entry) -> None:
        """Note what was paid under a key; what an entry corrects was counted before."""
        if not isinstance(entry, MoneySettled | MoneyReleased):
            return
        change = (int(entry.cost) if isinstance(entry, MoneySettled) else 0) - int(entry.corrects)
        if change:
            paid, provider = self.paid(entry.key) or (0, entry.provider)
            paid_to = entry.provider if change > 0 else provider
            self.store.put(PAID, entry.key, msgspec.msgpack.encode((paid + change, paid_to)), at=entry.at)

    def close(self) -> None:
        """Let go of the file; what was appended and not committed is lost."""
        self.store.close()

    def __repr__(self) -> str:
        return f"<MoneyJournal on {self.store!r}>"


def migrated(version: int, text: str) -> bytes:  # noqa: ARG001 - 1 and 2 differ in fields that have defaults.
    """Return an entry of format 1 or 2, a text in JSON, as it is written now."""
    fields: dict[str, Any] = json.loads(text)
    fields["type"] = f"actors.ledger.{fields['type']}"
    return msgspec.msgpack.encode(msgspec.convert(fields, Entry))
