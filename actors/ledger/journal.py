"""The entries of a book on disk, in a file of SQLite that stays whole if the program is killed.

What is appended waits for `commit`, so that many entries share one transaction. With "normal" safety one takes about
ten microseconds, and outlives the process. With "full" it outlives a power cut too, and takes as long as the disk does.
Each entry carries a checksum over itself and all before it: what is read back is what was written, from the first entry
on without a gap, or it is refused.
"""

from __future__ import annotations

import os
import sqlite3
import zlib
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec

from actors.ledger.entries import Entry, MoneyReleased, MoneySettled
from runtime.persistence import JournalError

if TYPE_CHECKING:
    from collections.abc import Iterator

Safety: TypeAlias = Literal["normal", "full"]

APPLICATION_ID = 0x756C6564
"""The mark of our journals among SQLite's files."""
VERSION = 2
"""2 has tariffs, how costs are known, and overdrafts."""
IN_MEMORY = ":memory:"
TABLES = (
    "CREATE TABLE entries (number INTEGER PRIMARY KEY, key TEXT, paid INTEGER, entry TEXT NOT NULL, checksum INTEGER)",
    "CREATE INDEX paid_keys ON entries (key) WHERE key IS NOT NULL",
)
RESTORE = "move it away and restore a copy"


class MoneyJournal:
    """One file, which belongs to one ledger for as long as it is open; raises `JournalError` if it cannot be used.

    Its directory must exist. With the path ":memory:" nothing is kept beyond the life of this object.
    """

    def __init__(self, path: str | os.PathLike[str], *, safety: Safety = "normal") -> None:
        self.path = os.fspath(path)
        self.commits = 0
        self._buffer: list[tuple[int, str | None, int | None, str, int]] = []
        self._decoder = msgspec.json.Decoder(Entry)
        self._encoder = msgspec.json.Encoder()
        self._number = self._checksum = 0
        self.is_broken = False
        """Whether a commit has failed, after which nothing is written any more."""
        self._refuse_if_emptied()
        try:
            # There is no point in waiting for another ledger that has it open: that will not be over in a moment.
            self._file = sqlite3.connect(self.path, isolation_level=None, timeout=0)
        except sqlite3.Error as error:
            raise JournalError(
                self.path, f"cannot be opened: {error}", "make sure that its directory exists"
            ) from error
        try:
            self._take_possession(safety)
        except sqlite3.Error as error:
            self._file.close()
            if getattr(error, "sqlite_errorname", "").startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
                raise JournalError(
                    self.path, "is in use by another ledger", "end that one, or use another file"
                ) from error
            raise JournalError(self.path, f"cannot be read: {error}", RESTORE) from error
        except BaseException:
            self._file.close()
            raise

    def _refuse_if_emptied(self) -> None:
        """Refuse an empty file that entries were written to; SQLite would start anew, and delete its log of them."""
        file, log = Path(self.path), Path(f"{self.path}-wal")
        if self.path != IN_MEMORY and file.exists() and not file.stat().st_size and log.exists() and log.stat().st_size:
            raise JournalError(self.path, "is empty, though entries were written to it", RESTORE)

    def _take_possession(self, safety: Safety) -> None:
        """Lock the file until it is closed, and check that it is a journal, or make it one if it is new."""
        execute = self._file.execute
        execute("PRAGMA locking_mode = EXCLUSIVE")
        execute("PRAGMA journal_mode = WAL")
        execute(f"PRAGMA synchronous = {'FULL' if safety == 'full' else 'NORMAL'}")
        execute("BEGIN EXCLUSIVE")
        tables = [name for (name,) in execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        (mark,), (version,) = execute("PRAGMA application_id").fetchone(), execute("PRAGMA user_version").fetchone()
        if not tables and not mark:
            for statement in TABLES:
                execute(statement)
            execute(f"PRAGMA application_id = {APPLICATION_ID}")
            execute(f"PRAGMA user_version = {VERSION}")
        elif mark != APPLICATION_ID:
            raise JournalError(self.path, "is a database of something else", "use another file")
        elif not 1 <= version <= VERSION:
            raise JournalError(
                self.path, f"is of format {version}, and this program reads {VERSION}", "use the program that wrote it"
            )
        elif version != VERSION:
            execute(f"PRAGMA user_version = {VERSION}")  # What is added to it now, older programs cannot read.
        execute("COMMIT")

    def read(self) -> Iterator[Entry]:
        """Yield every entry, from the first on; to be called before any is appended.

        Raises `JournalError` for a damaged one.
        """
        try:
            for number, text, checksum in self._file.execute(
                "SELECT number, entry, checksum FROM entries ORDER BY number"
            ):
                content = str(text).encode()
                self._checksum = zlib.crc32(content, self._checksum)
                self._number += 1
                if (number, checksum) != (self._number, self._checksum):
                    raise JournalError(self.path, f"is damaged at entry {self._number}", RESTORE)
                yield self._decoder.decode(content)
        except (sqlite3.Error, msgspec.MsgspecError) as error:
            raise JournalError(self.path, f"is damaged after entry {self._number}: {error}", RESTORE) from error

    def append(self, entry: Entry) -> None:
        """Note an entry, to be written by the next `commit`; raises `JournalError` after a commit has failed."""
        if self.is_broken:
            raise JournalError(self.path, "could not be written before", "make room for it, and open it again")
        content = self._encoder.encode(entry)
        self._checksum = zlib.crc32(content, self._checksum)
        self._number += 1
        key: str | None = None
        paid: int | None = None
        if isinstance(entry, MoneySettled | MoneyReleased):
            # What an entry corrects was written as paid before.
            change = (int(entry.cost) if isinstance(entry, MoneySettled) else 0) - int(entry.corrects)
            key, paid = (entry.key, change) if change else (None, None)
        self._buffer.append((self._number, key, paid, content.decode(), self._checksum))

    @property
    def has_unwritten(self) -> bool:
        """Whether an entry was appended since the last commit."""
        return bool(self._buffer)

    def commit(self) -> None:
        """Write what was appended, all of it or nothing; raises `sqlite3.Error`, after which nothing is written."""
        if not self._buffer or self.is_broken:
            return
        try:
            self._file.execute("BEGIN")
            self._file.executemany("INSERT INTO entries VALUES (?, ?, ?, ?, ?)", self._buffer)
            self._file.execute("COMMIT")
        except BaseException:
            # What was not written must not be followed by anything that is.
            self.is_broken = True
            with suppress(sqlite3.Error):
                self._file.execute("ROLLBACK")
            raise
        self._buffer.clear()
        self.commits += 1

    def paid(self, key: str) -> tuple[int, str] | None:
        """Return what was paid under a key in all, in micro-units, and to which provider last; None if nothing was."""
        rows: list[Any] = self._file.execute(
            "SELECT paid, entry FROM entries WHERE key = ? ORDER BY number", (key,)
        ).fetchall()
        rows += [(paid, entry) for _, unwritten, paid, entry, _ in self._buffer if unwritten == key]
        total = sum(paid for paid, _ in rows)
        if not total:
            return None
        last = self._decoder.decode(next(entry for paid, entry in reversed(rows) if paid > 0))
        assert isinstance(last, MoneySettled)  # noqa: S101 - no other entry was paid.
        return total, last.provider

    def paid_repeatedly(self) -> list[str]:
        """Return the keys under which more than one payment is written."""
        rows = self._file.execute("SELECT key FROM entries WHERE key IS NOT NULL GROUP BY key HAVING COUNT(*) > 1")
        return [key for (key,) in rows]

    def close(self) -> None:
        """Let go of the file; what was appended and not committed is lost."""
        self._file.close()

    def __repr__(self) -> str:
        return f"<MoneyJournal {self.path!r} {self._number} entries, {len(self._buffer)} unwritten>"
