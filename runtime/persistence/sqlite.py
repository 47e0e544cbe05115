"""A journal in a file of SQLite, which stays whole if the program is killed at whatever point.

It is in WAL mode, where a commit is appended to a log beside the file. With the safety "process" a commit is left to
the operating system, and takes some ten microseconds. With "power" it waits until the disk has it (`synchronous`, see
https://www.sqlite.org/pragma.html#pragma_synchronous). The log is moved into the file by `checkpoint` alone, because
that waits for the disk, and no commit should (https://www.sqlite.org/wal.html).

With "power" there is a second way, in two steps: a commit that is left to the operating system, and one wait for the
log beside the file, which is all that SQLite adds to make it safe. A thread that does both would have to get the
interpreter's lock back after each statement; one that only waits needs it once.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import zlib
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from runtime.persistence.disk_log import MAKE_ROOM, DiskLog
from runtime.persistence.errors import JournalError
from runtime.persistence.journal import KEY_BYTES, MAX_UNTENDED, Journal, KeptRow, SnapshotRow, key_digest, scope_digest
from runtime.persistence.ownership import Ownership
from runtime.persistence.retention import KeptClock, horizon

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from runtime.persistence.journal import JournalBatch, Safety
    from runtime.persistence.packing import Packing
    from runtime.persistence.retention import Retention

APPLICATION_ID = 0x756C6564
"""The mark of our journals among SQLite's files."""
VERSION = 4
READ = (1, 2, VERSION)
"""The formats that are read."""
TABLES = """
CREATE TABLE entries (number INTEGER PRIMARY KEY, content BLOB NOT NULL, checksum INTEGER NOT NULL);
CREATE TABLE kept (digest BLOB PRIMARY KEY, number INTEGER NOT NULL, at INTEGER NOT NULL, head BLOB NOT NULL,
 checksum INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE bodies (digest BLOB PRIMARY KEY, at INTEGER NOT NULL, checksum INTEGER NOT NULL, body BLOB NOT NULL);
CREATE TABLE snapshot (number INTEGER NOT NULL, chain INTEGER NOT NULL, checksum INTEGER NOT NULL,
 content BLOB NOT NULL);
CREATE TABLE about (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID
"""
MAX_LOG_BYTES = 4_000_000
"""What the log may have before it is moved into the file, as SQLite does by default after 1,000 pages."""
PAGE = 4096
"""The bytes of a page, SQLite's default: each that a commit changes is in the log as a whole."""
STEP = 500
"""The rows of one step of the upkeep, about a millisecond's work."""
ROUNDS = 20
"""The steps of one upkeep at most: it looks at more rows than were added since the last."""
ENTRY_OVERHEAD = 16
"""The bytes that SQLite adds to an entry: its number, the sizes, the checksum."""
RESTORE = "move it away and restore a copy"


class SqliteJournal(Journal):
    """A journal in one file, which belongs to one owner for as long as it is open; others may read it meanwhile.

    Its directory must exist. Raises `JournalError` if it cannot be used: it names the owner if there is one. A file of
    an earlier format is brought to this one by `migrate`, which is given the entries of old, with the format that they
    are of, and returns them as they are to be written; without it, such a file is refused.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        safety: Safety = "process",
        retention: Retention | None = None,
        packing: Packing | None = None,
        migrate: Callable[[int, str], bytes] | None = None,
    ) -> None:
        super().__init__(os.fspath(path), retention, packing)
        self.safety: Safety = safety
        self.waits_for_disk = self.can_sync_later = safety == "power"
        self._ownership = Ownership(path)
        self._connections: list[sqlite3.Connection] = []
        self._log = DiskLog(self.path)
        self._in_log = self._size = 0
        """About how many bytes are in the log, and in the file with it."""
        self._seen_key, self._seen_body = b"", 0
        """Up to where what is kept has been looked through for what is too old."""
        self._round = 0
        try:
            self._refuse_if_emptied()
            with suppress(FileExistsError):
                os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
            self._log.take_over(waits=self.waits_for_disk)
            self._file = self._connect()
            self._take_possession(migrate)
            self._size = Path(self.path).stat().st_size
            self._reader = self._early = self._connect()
            if self.can_sync_later:
                self._early = self._connect()
                self._early.execute("PRAGMA synchronous = NORMAL")
                self._early.execute("PRAGMA wal_autocheckpoint = 0")
                self._early.execute("PRAGMA secure_delete = ON")
        except sqlite3.Error as error:
            self.close()
            if _is_busy(error):
                raise JournalError(self.path, "is written by another program", "end that one") from error
            raise JournalError(self.path, f"cannot be read: {error}", RESTORE) from error
        except OSError as error:
            self.close()
            raise JournalError(self.path, f"cannot be opened: {error.strerror}", "use another file") from error
        except BaseException:
            self.close()
            raise

    def _connect(self) -> sqlite3.Connection:
        # There is no point in waiting for another program that writes it: that will not be over in a moment.
        file = sqlite3.connect(self.path, isolation_level=None, timeout=0, check_same_thread=False)
        self._connections.append(file)
        return file

    def _refuse_if_emptied(self) -> None:
        """Refuse an empty file that entries were written to; SQLite would start anew, and delete its log of them."""
        file, log = Path(self.path), Path(f"{self.path}-wal")
        if file.exists() and not file.stat().st_size and log.exists() and log.stat().st_size:
            raise JournalError(self.path, "is empty, though entries were written to it", RESTORE)

    def _take_possession(self, migrate: Callable[[int, str], bytes] | None) -> None:
        """Check that the file is a journal, or make it one if it is new."""
        execute = self._file.execute
        execute("PRAGMA journal_mode = WAL")
        execute(f"PRAGMA synchronous = {'FULL' if self.safety == 'power' else 'NORMAL'}")
        execute("PRAGMA wal_autocheckpoint = 0")
        execute("PRAGMA secure_delete = ON")
        execute("BEGIN IMMEDIATE")
        tables = [name for (name,) in execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        (mark,), (version,) = execute("PRAGMA application_id").fetchone(), execute("PRAGMA user_version").fetchone()
        if not tables and not mark:
            self._make_tables()
        elif mark != APPLICATION_ID:
            raise JournalError(self.path, "is a database of something else", "use another file")
        elif version not in READ:
            raise JournalError(
                self.path, f"is of format {version}, and this program reads {VERSION}", "use the program that wrote it"
            )
        elif version < VERSION:
            self._migrate(version, migrate)
        execute("COMMIT")
        row = execute("SELECT value FROM about WHERE name = 'secret'").fetchone()
        if row is None or not isinstance(row[0], bytes):
            raise JournalError(self.path, "is damaged: it has lost its secret", RESTORE)
        (self.secret,) = row
        clock = execute("SELECT value FROM about WHERE name = 'clock'").fetchone()
        if clock is not None:
            self.clock = msgspec.msgpack.decode(clock[0], type=KeptClock)

    def _make_tables(self) -> None:
        for statement in TABLES.split(";"):
            self._file.execute(statement)
        self._file.execute("INSERT INTO about VALUES ('secret', ?)", (os.urandom(32),))
        self._file.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        self._file.execute(f"PRAGMA user_version = {VERSION}")

    def _migrate(self, version: int, migrate: Callable[[int, str], bytes] | None) -> None:
        """Write the entries of a format before 3, which are texts in JSON, as they are written now: all or none."""
        if migrate is None:
            raise JournalError(self.path, f"is of format {version}", "open it with the program that keeps it first")
        self._file.execute("DROP INDEX IF EXISTS paid_keys")
        self._file.execute("ALTER TABLE entries RENAME TO entries_of_old")
        self._make_tables()
        old = checksum = last = 0
        rows = self._file.execute("SELECT number, entry, checksum FROM entries_of_old ORDER BY number")
        for number, text, written in rows:
            old, last = zlib.crc32(str(text).encode(), old), last + 1
            if (number, written) != (last, old):
                raise JournalError(self.path, f"is damaged at entry {last}", RESTORE)
            content = migrate(version, text)
            checksum = zlib.crc32(content, checksum)
            self._file.execute("INSERT INTO entries VALUES (?, ?, ?)", (number, content, checksum))
        self._file.execute("DROP TABLE entries_of_old")

    # Whose it is.

    @property
    def latest_epoch(self) -> int:
        with self._reading():
            return epoch_in(self._reader)

    def _raise_epoch(self, at_least: int) -> int:
        self.epoch = 0  # A later owner may take over what it has lost.
        with self._writing():
            epoch = max(epoch_in(self._file) + 1, at_least)
            self._file.execute("INSERT OR REPLACE INTO about VALUES ('epoch', ?)", (epoch,))
        return epoch

    # Reading.

    def snapshot(self) -> SnapshotRow | None:
        with self._reading():
            row = self._reader.execute("SELECT number, content, chain, checksum FROM snapshot").fetchone()
        if row is None or not is_whole(row[1], row[3]):
            return None
        return SnapshotRow(*row[:3])

    def _rows(self, after: int) -> Iterator[tuple[int, bytes, int]]:
        with self._reading():
            yield from self._reader.execute(
                "SELECT number, content, checksum FROM entries WHERE number > ? ORDER BY number", (after,)
            )

    def _find(self, digest: bytes) -> KeptRow | None:
        with self._reading():
            row = self._reader.execute(
                "SELECT number, kept.at, head, kept.checksum, body, bodies.checksum"
                " FROM kept LEFT JOIN bodies USING (digest) WHERE kept.digest = ?",
                (digest,),
            ).fetchone()
        if row is None:
            return None
        return self._kept_row((digest, *row))

    def _kept_row(self, row: tuple[bytes, int, int, bytes, int, bytes | None, int | None]) -> KeptRow:
        """Return what was read of a key; raises `JournalError` if its head is damaged."""
        digest, number, at, head, head_checksum, body, checksum = row
        self._check_head(digest, head, head_checksum)
        if body is not None and not is_whole(body, checksum):
            return KeptRow(digest, number, at, head, None, "it is damaged")
        return self._unpacked(KeptRow(digest, number, at, head, body))

    def _check_head(self, digest: bytes, head: object, checksum: object) -> None:
        if type(head) is not bytes or checksum != zlib.crc32(head, zlib.crc32(digest)):
            raise JournalError(self.path, "is damaged in what it keeps under a key", RESTORE)

    def _heads(self, scope: bytes, *, after: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        with self._reading():
            rows = self._reader.execute(
                "SELECT digest, head, checksum FROM kept WHERE digest > ? AND digest <= ? ORDER BY digest LIMIT ?",
                (after, scope + b"\xff" * KEY_BYTES, limit),
            ).fetchall()
        for digest, head, checksum in rows:
            self._check_head(digest, head, checksum)
        return [row[:2] for row in rows]

    @contextmanager
    def _reading(self) -> Generator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise JournalError(self.path, f"is damaged after entry {self.number}: {error}", RESTORE) from error

    # Writing.

    def write(self, batch: JournalBatch) -> None:
        self._write(batch, self._file)

    def write_early(self, batch: JournalBatch) -> None:
        if not self.can_sync_later:
            self._write(batch, self._file)
            return
        self._write(batch, self._early)
        self.is_unsynced = True

    def sync(self) -> None:
        self._log.sync()
        self.is_unsynced = False

    def _write(self, batch: JournalBatch, file: sqlite3.Connection) -> None:
        self._in_log += log_bytes(batch, file_bytes=self._size)
        self._size += batch.size
        with self._writing(file):
            if batch.entries:
                file.executemany("INSERT INTO entries VALUES (?, ?, ?)", batch.entries)
            if batch.kept:
                self._write_kept(batch.kept, file)
            if batch.snapshot is not None:
                number, content, chain = batch.snapshot
                file.execute("DELETE FROM snapshot")
                file.execute("INSERT INTO snapshot VALUES (?, ?, ?, ?)", (number, chain, zlib.crc32(content), content))

    def _write_kept(self, kept: dict[bytes, KeptRow], file: sqlite3.Connection) -> None:
        write = file.executemany
        crc32 = zlib.crc32
        write(
            "INSERT OR REPLACE INTO kept VALUES (?, ?, ?, ?, ?)",
            [(*row[:4], crc32(row.head, crc32(row.digest))) for row in kept.values()],
        )
        bodiless = [row[:1] for row in kept.values() if row.body is None]
        if bodiless:
            write("DELETE FROM bodies WHERE digest = ?", bodiless)
        packed = [(row.digest, row.at, self._packed(row.body)) for row in kept.values() if row.body is not None]
        if packed:
            rows = [(*row[:2], crc32(row[2]), row[2]) for row in packed]
            write("INSERT OR REPLACE INTO bodies VALUES (?, ?, ?, ?)", rows)

    def compact(self, before: int, *, limit: int) -> int:
        with self._writing():
            return self._file.execute(
                "DELETE FROM entries WHERE number < MIN(?, (SELECT number + 1 FROM snapshot),"
                " (SELECT number + ? FROM entries ORDER BY number LIMIT 1))",
                (before, limit),
            ).rowcount

    @property
    def arrears(self) -> float:
        return max(super().arrears, self._in_log / MAX_LOG_BYTES)

    def tend(self) -> bool:
        """Do one step of the upkeep, and tell whether there is more to do. There are four, in turn.

        1. The log is moved into the file once it is large.
        2. Entries that a snapshot stands for are removed.
        3. A part of what is kept is looked through for bodies and heads that are too old.
        4. The time by which ages go is noted.
        """
        if self._in_log > MAX_LOG_BYTES:
            self._in_log = 0
            self.checkpoint()  # 1.
            self._size = Path(self.path).stat().st_size
            return self.untended >= MAX_UNTENDED
        if not self._round:
            self._round = ROUNDS
            self.untended = 0
        self._round -= 1
        removed = self._compact_to_size()  # 2.
        looked = self._drop_old()  # 3.
        if not (removed or looked):
            self._round = 0
        if not self._round:
            with self._writing():  # 4.
                clock = msgspec.msgpack.encode(self.clock)
                self._file.execute("INSERT OR REPLACE INTO about VALUES ('clock', ?)", (clock,))
        return self._round > 0

    def _compact_to_size(self) -> int:
        """Remove some of the entries that a snapshot stands for, if they are more than are to be kept."""
        row = self._file.execute("SELECT number FROM snapshot").fetchone()
        if row is None:
            return 0
        first, last, size = self._file.execute(
            "SELECT MIN(number), MAX(number), (SELECT AVG(LENGTH(content)) FROM"
            " (SELECT content FROM entries ORDER BY number DESC LIMIT 100)) FROM entries"
        ).fetchone()
        if first is None:
            return 0
        keep = int(self.retention.entries_bytes / (size + ENTRY_OVERHEAD))
        return self.compact(last - keep, limit=STEP) if first < last - keep else 0

    def _drop_old(self) -> int:
        """Look through a part of what is kept, and drop what is too old; return how many were looked at."""
        before = horizon(self.clock, self.retention.heads_for), horizon(self.clock, self.retention.bodies_for)
        if not any(before):
            return 0
        fetch = self._file.execute
        heads = fetch("SELECT digest, at FROM kept WHERE digest > ? LIMIT ?", (self._seen_key, STEP)).fetchall()
        bodies = fetch("SELECT rowid, at FROM bodies WHERE rowid > ? LIMIT ?", (self._seen_body, STEP)).fetchall()
        self._seen_key = heads[-1][0] if heads else b""
        self._seen_body = bodies[-1][0] if bodies else 0
        old_heads = [(digest,) for digest, at in heads if at < before[0] and digest not in self._spared]
        old_bodies = [(rowid,) for rowid, at in bodies if at < before[1]]
        if old_heads or old_bodies:
            with self._writing():
                self._file.executemany("DELETE FROM kept WHERE digest = ?", old_heads)
                self._file.executemany("DELETE FROM bodies WHERE digest = ?", old_heads)
                self._file.executemany("DELETE FROM bodies WHERE rowid = ?", old_bodies)
        return len(heads) + len(bodies)

    def forget(self, scope: str, key: str | None = None) -> int:
        begin = scope_digest(scope) if key is None else key_digest(scope, key)
        with self._writing():
            count = self._file.execute(
                "DELETE FROM bodies WHERE digest >= ? AND digest <= ?", (begin, begin + b"\xff" * 18)
            ).rowcount
        if self.checkpoint(is_whole=True):  # What was removed is in the log too.
            raise JournalError(
                self.path,
                "is being read by another program, so that what is forgotten is still in its log",
                "forget it again when that program has ended",
            )
        return count

    def checkpoint(self, *, is_whole: bool = False) -> int:
        """Move what is in the log into the file, and wait until the disk has it; return how many pages are left in it.

        With `is_whole`, the log is emptied. Raises `JournalError`.
        """
        self._rely_on_log()
        try:
            mode = "TRUNCATE" if is_whole else "PASSIVE"
            is_busy, pages, moved = self._file.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        except sqlite3.Error as error:
            raise self._unwritable(error) from error
        return int(pages) - int(moved) if not is_busy or not is_whole else max(1, int(pages))

    def free_bytes(self) -> int | None:
        try:
            return shutil.disk_usage(Path(self.path).parent).free
        except OSError:
            return None

    @contextmanager
    def _writing(self, by: sqlite3.Connection | None = None) -> Generator[None]:
        """Make what is done within the block one transaction, which is undone if any of it fails."""
        file = self._file if by is None else by
        self._rely_on_log()
        try:
            file.execute("BEGIN IMMEDIATE")
            try:
                if self.epoch:  # In the same transaction, so that no owner can come between.
                    self._check_epoch(self.epoch, epoch_in(file))
                yield
                file.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    file.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise self._unwritable(error) from error

    def _rely_on_log(self) -> None:
        """Write the log anew if the disk has failed, before anything rests on it; raises `JournalError`."""
        if self._log.is_doubtful:
            self.sync()

    def _unwritable(self, error: sqlite3.Error) -> JournalError:
        if getattr(error, "sqlite_errorname", "").startswith("SQLITE_IOERR"):
            self._log.is_doubtful = True
        return JournalError(self.path, f"cannot be written: {error}", MAKE_ROOM)

    def close(self) -> None:
        with suppress(JournalError):
            self._rely_on_log()
        keeper = self._keeper_of_log() if self._log.is_doubtful else None
        for file in reversed(self._connections):
            file.close()
        if keeper is not None:
            keeper.close()
        self._log.close()
        self._ownership.release()

    def _keeper_of_log(self) -> sqlite3.Connection | None:
        """Return a connection to be closed last, so that SQLite does not move a doubtful log into the file then.

        It may only read, and so leaves the log as it is.
        """
        with suppress(sqlite3.Error):
            keeper = sqlite3.connect(f"{Path(self.path).absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
            keeper.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
            return keeper
        return None


def log_bytes(batch: JournalBatch, *, file_bytes: int) -> int:
    """Return about how many bytes a batch takes in the log: those of every page that it changes.

    These are the last page of the entries and what they fill besides, and for each key, which are spread evenly over
    the file, one page of heads, and if it has a body one more of bodies and one of their index.
    """
    keys = sum(1 if row.body is None else 3 for row in batch.kept.values())
    return PAGE + min(PAGE * keys, PAGE + file_bytes + batch.size) + batch.size


def epoch_in(file: sqlite3.Connection) -> int:
    """Return the epoch that stands in an open journal; 0 if it was never claimed."""
    row = file.execute("SELECT value FROM about WHERE name = 'epoch'").fetchone()
    return 0 if row is None else int(row[0])


def is_whole(content: object, checksum: object) -> bool:
    """Tell whether content is what its checksum was made of."""
    return isinstance(content, bytes) and zlib.crc32(content) == checksum


def _is_busy(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorname", "").startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))
