"""Where the journals under test are written: each kind can crash, fill up, and be read by a second owner."""

from __future__ import annotations

import os
import sqlite3
import zlib
from typing import TYPE_CHECKING, Any

from runtime.persistence import Journal, MemoryDisk, MemoryJournal, SqliteJournal
from runtime.persistence.sqlite import APPLICATION_ID

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def copy_as_killed(journal: Path, copy: Path) -> None:
    """Copy what is on disk of a journal in use, as a kill would leave it at this moment."""
    for suffix in ("", "-wal"):
        content = journal.with_name(journal.name + suffix)
        if content.exists():
            copy.with_name(copy.name + suffix).write_bytes(content.read_bytes())


def old_journal(path: Path, entries: Sequence[bytes], version: int) -> None:
    """Make a journal as formats 1 and 2 were, with entries in JSON."""
    file = sqlite3.connect(path, isolation_level=None)
    file.execute(
        "CREATE TABLE entries (number INTEGER PRIMARY KEY, key TEXT, paid INTEGER, entry TEXT NOT NULL,"
        " checksum INTEGER)"
    )
    file.execute("CREATE INDEX paid_keys ON entries (key) WHERE key IS NOT NULL")
    file.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    file.execute(f"PRAGMA user_version = {version}")
    checksum = 0
    for number, entry in enumerate(entries, 1):
        checksum = zlib.crc32(entry, checksum)
        paid = ("k", 200) if b"Settled" in entry else (None, None)
        file.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?)", (number, *paid, entry.decode(), checksum))
    file.close()


class MemoryPlace:
    """A disk in memory."""

    def __init__(self, directory: Path) -> None:
        self.disk = MemoryDisk()

    def open(self, **options: Any) -> Journal:
        return MemoryJournal(self.disk, **options)

    def crash(self, journal: Journal) -> None:
        self.disk.owner = None

    def break_lock(self) -> None:
        """Let a second owner open it, as if the first were on another machine."""
        self.disk.owner = None

    def fill(self, journal: Journal) -> None:
        self.disk.is_full = True

    def make_room(self, journal: Journal) -> None:
        self.disk.is_full = False

    def spoil(self, number: int) -> None:
        row = self.disk.entries[number - 1]
        self.disk.entries[number - 1] = row._replace(content=row.content + b"!")

    def lose(self, number: int) -> None:
        del self.disk.entries[number - 1]


class SqlitePlace:
    """A directory; after a crash, the files as they were go on in another."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.crashes = 0
        self.path = directory / "run.journal"

    def open(self, **options: Any) -> Journal:
        return SqliteJournal(self.path, **options)

    def crash(self, journal: Journal) -> None:
        self.crashes += 1
        before, self.path = self.path, self.directory / f"after {self.crashes}.journal"
        copy_as_killed(before, self.path)
        journal.close()

    def break_lock(self) -> None:
        """Let a second owner open it, as a file system would that knows no locks."""
        self.path.with_name(f"{self.path.name}.lock").unlink()

    def fill(self, journal: Journal) -> None:
        assert isinstance(journal, SqliteJournal)
        journal._file.execute("PRAGMA max_page_count = 1")

    def make_room(self, journal: Journal) -> None:
        assert isinstance(journal, SqliteJournal)
        journal._file.execute("PRAGMA max_page_count = 1000000")

    def change(self, statement: str, *values: Any) -> None:
        file = sqlite3.connect(self.path, isolation_level=None)
        file.execute(statement, values)
        file.close()

    def spoil(self, number: int) -> None:
        self.change("UPDATE entries SET content = CAST(content || '!' AS BLOB) WHERE number = ?", number)

    def lose(self, number: int) -> None:
        self.change("DELETE FROM entries WHERE number = ?", number)


def modes(path: Path) -> set[int]:
    """Return the permissions of a journal's files."""
    return {os.stat(one).st_mode & 0o777 for one in path.parent.iterdir()}  # noqa: PTH116 - a set of numbers.


class XorCipher:
    """Encrypts badly, and notices another key."""

    def __init__(self, key: int) -> None:
        self.key = key
        self.fails = False

    def encrypt(self, content: bytes, /) -> bytes:
        if self.fails:
            raise OSError("the key store is gone")
        return bytes(byte ^ self.key for byte in b"right" + content)

    def decrypt(self, content: bytes, /) -> bytes:
        plain = bytes(byte ^ self.key for byte in content)
        if not plain.startswith(b"right"):
            raise ValueError("wrong key")
        return plain[5:]
