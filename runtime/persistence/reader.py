"""Read a journal while another process may own it, as it was at one moment, without leaving a trace.

Nothing is written, no file is made, and no lock is taken that its owner could meet; so it works in a folder that may
only be read, too. SQLite offers that in three ways (https://www.sqlite.org/wal.html#read_only_databases), by what is
beside the file:

1. Its log and the index of that, as long as it is owned, or after a kill: the index is only looked at (`readonly_shm`),
   and SQLite makes one in memory if it cannot rely on that.
2. Its log alone, in a copy: the index is made in memory, as it is for a connection without locks.
3. Neither, after its owner has ended: the file alone is read (`immutable`).

In the last two nothing keeps an owner that begins meanwhile from changing the file; that is seen, and told.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.persistence.disk_log import DiskLog
from runtime.persistence.errors import JournalError
from runtime.persistence.journal import Journal, SnapshotRow, scope_digest
from runtime.persistence.sqlite import APPLICATION_ID, RESTORE, VERSION, SqliteJournal

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from runtime.persistence.journal import KeptRow

INDEXED = "mode=ro&readonly_shm=1"
"""1. The log and its index are there."""
UNLOCKED = f"mode=ro&vfs={'win32' if os.name == 'nt' else 'unix'}-none"
"""2. The log is there, and no index."""
ALONE = "mode=ro&immutable=1"
"""3. There is no log."""
PATIENCE, PAUSE = 1.0, 0.01
"""Seconds to wait for an owner that has just begun, and puts the log in order; and between two tries."""


class ReadOnlyJournal(SqliteJournal):
    """A journal in a file that is only read; what is appended to it can never be written."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        Journal.__init__(self, os.fspath(path))
        file = Path(self.path)
        if not file.is_file() or not os.access(file, os.R_OK):
            problem = "may not be read" if file.is_file() else "does not exist"
            raise JournalError(self.path, problem, "give the path of a journal that you may read")
        self._log = DiskLog(self.path)
        self._refuse_if_emptied()
        self._in_log = self._size = self._round = 0
        self._begin()

    def _begin(self) -> None:
        """Begin the one transaction in which all is read, and check that the file is a journal.

        If its owner ends or begins at that moment, it is tried again.
        """
        until = time.monotonic() + PATIENCE
        while True:
            how, self._before = _how_to_read(Path(self.path)), self._stamp()
            self._is_guarded = how == INDEXED
            try:
                self._reader = self._file = self._connect_to_read(how)
                break
            except sqlite3.Error as error:
                if time.monotonic() >= until or not (_is_passing(error) or _how_to_read(Path(self.path)) != how):
                    raise JournalError(self.path, f"cannot be read: {error}", RESTORE) from error
            time.sleep(PAUSE)
        try:
            self._check_format()
        except BaseException:
            self.close()
            raise

    def _connect_to_read(self, how: str) -> sqlite3.Connection:
        address = f"{Path(self.path).absolute().as_uri()}?{how}"
        reader = sqlite3.connect(address, uri=True, isolation_level=None, timeout=0)
        try:
            if how == UNLOCKED:
                if sys.version_info >= (3, 12):  # Before, what is tried to be written at the end fails.
                    reader.setconfig(sqlite3.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE)
                reader.execute("PRAGMA locking_mode = EXCLUSIVE")
            reader.execute("BEGIN")
            reader.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
        except BaseException:
            reader.close()
            raise
        return reader

    def _check_format(self) -> None:
        with self._reading():
            mark, version = (
                self._reader.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
            )
            if mark != APPLICATION_ID:
                what = "is a database of something else" if mark else "has nothing in it yet"
                raise JournalError(self.path, what, "give the path of a journal")
            if version != VERSION:
                raise JournalError(self.path, f"is of format {version}", "open it with the program that keeps it first")
            row = self._reader.execute("SELECT value FROM about WHERE name = 'secret'").fetchone()
        if row is None or not isinstance(row[0], bytes):
            raise JournalError(self.path, "is damaged: it has lost its secret", RESTORE)
        (self.secret,) = row

    def replay(self, *, after: SnapshotRow | None = None) -> Iterator[bytes]:
        """Yield the entries in order, after a snapshot, or from the first that is left.

        The first may be gone, as a snapshot stands for it; the chain is checked from the one on that is left.
        """
        if after is None and (snapshot := self.snapshot()) is not None:
            with self._reading():
                row = self._reader.execute("SELECT * FROM entries ORDER BY number LIMIT 1").fetchone()
            if row is not None and 1 < row[0] <= snapshot.number + 1 and isinstance(row[1], bytes):
                number, content, checksum = row
                self.number, after = number, SnapshotRow(number, b"", checksum)
                yield content
        yield from super().replay(after=after)

    def kept(self, scope: str) -> Iterator[KeptRow]:
        """Yield what is kept in a scope, in the order of the digests of its keys."""
        begin = scope_digest(scope)
        with self._reading():
            for row in self._reader.execute(
                "SELECT kept.digest, number, kept.at, head, kept.checksum, body, bodies.checksum"
                " FROM kept LEFT JOIN bodies USING (digest)"
                " WHERE kept.digest >= ? AND kept.digest <= ? ORDER BY kept.digest",
                (begin, begin + b"\xff" * 18),
            ):
                yield self._kept_row(row)

    def check_unchanged(self) -> None:
        """Raise `JournalError` if what was read may be of two moments, because an owner has begun meanwhile."""
        if not self._is_guarded and self._stamp() != self._before:
            raise JournalError(self.path, "was changed while it was read", "read it again")

    def _stamp(self) -> tuple[int, int, int]:
        state = Path(self.path).stat()
        return state.st_ino, state.st_size, state.st_mtime_ns

    def _unwritable(self, error: sqlite3.Error) -> JournalError:
        return JournalError(self.path, "is open to be read only", "write to it as its owner does")

    def close(self) -> None:
        self._reader.close()


@contextmanager
def reading(path: str | os.PathLike[str]) -> Generator[ReadOnlyJournal]:
    """Open a journal to be read within the block, as it is at one moment, also one that another process owns.

    Raises `JournalError` if it cannot be read, and at the end of the block if what was read may be of two moments.
    If its owner ends meanwhile, its log stays beside the file until it is opened again.
    """
    journal = ReadOnlyJournal(path)
    try:
        try:
            yield journal
        except JournalError:
            journal.check_unchanged()  # That would be why.
            raise
        journal.check_unchanged()
    finally:
        journal.close()


def _how_to_read(path: Path) -> str:
    log, index = Path(f"{path}-wal"), Path(f"{path}-shm")
    if not log.exists():
        return ALONE
    if index.exists():
        return INDEXED
    return UNLOCKED if log.stat().st_size else ALONE


def _is_passing(error: sqlite3.Error) -> bool:
    """Tell whether an error is one of the moments in which an owner begins or ends."""
    names = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_PROTOCOL", "SQLITE_READONLY")
    return getattr(error, "sqlite_errorname", "").startswith(names)
