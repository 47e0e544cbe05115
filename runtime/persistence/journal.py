"""A journal: entries in one order, each with its number, and values under keys beside them.

What is appended waits for a commit, which writes all of it or nothing. Entries form a chain: each carries a checksum
over itself and all before it, so that what is read back is what was written, without a gap, or is refused. What is kept
under a key is found by that key, and is replaced and forgotten without the chain's knowing.
"""

from __future__ import annotations

import functools
import zlib
from abc import ABC, abstractmethod
from hashlib import blake2b
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from runtime.persistence.errors import JournalError, JournalFenced
from runtime.persistence.packing import Packing, UnreadableValue
from runtime.persistence.retention import KeptClock, Retention, after_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Safety: TypeAlias = Literal["process", "power"]
"""What a commit outlives: the process, killed at whatever point; or a power cut too."""

NEVER_OLD = 2**40
"""A time of which nothing is too old."""
MAX_MISSING = 1_000
"""The keys of which it is remembered that nothing is kept under them."""
MAX_UNTENDED = 1_000_000
"""The bytes after which a journal needs its upkeep."""
SCOPE_BYTES, KEY_BYTES = 6, 12
"""The bytes of a digest that stand for a scope, and for a key in it.

Among 10^7 keys two agree in 12 bytes with a chance of n^2 / 2^97 < 10^-15 (the birthday bound).
"""


class EntryRow(NamedTuple):
    """An entry as it is written."""

    number: int
    content: bytes
    checksum: int


class KeptRow(NamedTuple):
    """What is kept under a key: a short `head`, and a `body` that may be large, and may be dropped before it.

    `at` is in seconds since 1970; `number` is that of the entry with which it was written. `problem` tells why a body
    that was written cannot be read; then it is None.
    """

    digest: bytes
    number: int
    at: int
    head: bytes
    body: bytes | None
    problem: str = ""


class SnapshotRow(NamedTuple):
    """The state after the entry of this number, with the checksum of the chain there."""

    number: int
    content: bytes
    checksum: int


class JournalBatch:
    """What was appended together, and is written as one."""

    def __init__(self) -> None:
        self.entries: list[EntryRow] = []
        self.kept: dict[bytes, KeptRow] = {}
        self.snapshot: SnapshotRow | None = None
        self.size = 0
        """In bytes."""
        self.follows: tuple[int, int] = (0, 0)
        """The number and checksum of the entry before its first."""

    def __bool__(self) -> bool:
        return bool(self.entries or self.kept or self.snapshot)

    def __repr__(self) -> str:
        return f"<JournalBatch {len(self.entries)} entries, {len(self.kept)} kept, {self.size} bytes>"


class Journal(ABC):
    """What every journal does; `MemoryJournal` and `SqliteJournal` say where it is written.

    It belongs to one owner from its making until `close`. All of it is used by one thread, but `write`, `sync`, `tend`,
    `compact` and `forget`, which may be called in another, one at a time and not beside `write_early`.
    """

    def __init__(self, path: str, retention: Retention | None = None, packing: Packing | None = None) -> None:
        self.path = path
        self.retention = retention or Retention()
        self.packing = packing or Packing()
        self.clock = KeptClock()
        """By which the ages of what is kept are counted."""
        self.largest = 0
        """The bytes of the largest value that was put under a key, as it was written."""
        self.untended = MAX_UNTENDED
        """The bytes that were written since `tend` was called last."""
        self.number = 0
        """The number of the last entry."""
        self.checksum = 0
        self.epoch = 0
        """The epoch under which it is written, if its owner has claimed it; 0 if it has not."""
        self.commits = 0
        self.waits_for_disk = False
        """Whether a commit takes as long as the disk does."""
        self.can_sync_later = False
        """Whether `write_early` and `sync` do apart what `write` does, so that only `sync` waits for the disk."""
        self.is_unsynced = False
        """Whether the disk may not have yet what `write_early` has written."""
        self.secret = b""
        """32 bytes that only this journal has, for digests that are of no use without it."""
        self._pending = JournalBatch()
        self._unwritten: dict[bytes, KeptRow] = {}
        self._missing: set[bytes] = set()
        """Keys under which nothing is kept, as was looked up: a new one is looked for several times."""
        self._spared: set[bytes] = set()
        """The digests of the keys that are not dropped, however old they are."""

    # Whose it is, if several machines may take it for theirs.

    @property
    @abstractmethod
    def latest_epoch(self) -> int:
        """The epoch that stands in the journal: that of the last owner which has claimed it; 0 if none has."""

    def claim(self, *, at_least: int = 0) -> int:
        """Write a new epoch, higher than any before, under which this owner writes from now on; return it.

        From then on nothing is written any more by an owner before, which gets `JournalFenced`. Raises `JournalError`.
        """
        epoch = self._raise_epoch(at_least)
        self.epoch = epoch
        return epoch

    def keep_to(self, epoch: int) -> None:
        """Write under an epoch that was claimed before; raises `JournalFenced` if there is a later one."""
        self._check_epoch(epoch, self.latest_epoch)
        self.epoch = epoch

    def _check_epoch(self, epoch: int, latest: int) -> None:
        if epoch != latest:
            raise JournalFenced(self.path, epoch=epoch, latest=latest)

    # What is read at the start.

    def replay(self, *, after: SnapshotRow | None = None) -> Iterator[bytes]:
        """Yield the entries in order, from the first or after a snapshot; to be called before any is appended.

        Raises `JournalError` if one is damaged or missing.
        """
        last, crc = (after.number, after.checksum) if after is not None else (0, 0)
        self.number, self.checksum = last, crc
        crc32 = zlib.crc32
        for number, content, checksum in self._rows(last):
            last += 1
            self.number = last
            is_whole = number == last and type(content) is bytes
            if not is_whole or checksum != (crc := crc32(content, crc)):
                raise JournalError(self.path, f"is damaged at entry {last}", "move it away and restore a copy")
            self.checksum = crc
            yield content

    @abstractmethod
    def snapshot(self) -> SnapshotRow | None:
        """Return the newest snapshot that is whole; None if there is none."""

    # What is appended.

    def append(self, content: bytes) -> int:
        """Note an entry, to be written by the next commit, and return its number."""
        if not self._pending.entries:
            self._pending.follows = (self.number, self.checksum)
        self.number += 1
        self.checksum = zlib.crc32(content, self.checksum)
        self._pending.entries.append(EntryRow(self.number, content, self.checksum))
        self._pending.size += len(content)
        return self.number

    def put(self, scope: str, key: str, head: bytes, body: bytes | None = None, *, at: float | None) -> None:
        """Keep this under a key, in place of what was kept there; written by the next commit, as the entries are.

        `at` is in seconds since 1970, by which it will be too old at some time; None if it never is.
        """
        digest = key_digest(scope, key)
        row = KeptRow(digest, self.number, NEVER_OLD if at is None else int(at), head, body)
        if at is not None and at != self.clock.last:
            self.clock = after_time(self.clock, at)
        self._pending.kept[digest] = self._unwritten[digest] = row
        self._missing.discard(digest)
        size = len(head) + len(body or b"")
        self._pending.size += size
        self.largest = max(size, self.largest)

    def drop_body(self, scope: str, key: str) -> None:
        """Have the next commit remove the body that is kept under a key; its head stays. Raises `JournalError`."""
        digest, row = key_digest(scope, key), self.find(scope, key)
        if row is not None and row.body is not None:
            self._pending.kept[digest] = self._unwritten[digest] = row._replace(body=None)
            self._pending.size += len(row.head)

    def save(self, content: bytes) -> None:
        """Keep this as the state after all entries so far, in place of the last snapshot; the next commit writes it."""
        self._pending.snapshot = SnapshotRow(self.number, content, self.checksum)
        self._pending.size += len(content)

    def spare(self, scope: str, key: str, *, is_spared: bool = True) -> None:
        """Let the head under a key not be dropped for its age, because it is still needed; or let it be again.

        This is not written: the next owner says so anew.
        """
        digest = key_digest(scope, key)
        if is_spared:
            self._spared.add(digest)
        else:
            self._spared.discard(digest)

    def find(self, scope: str, key: str) -> KeptRow | None:
        """Return what is kept under a key, whether it is written yet or not; None if nothing is."""
        digest = key_digest(scope, key)
        row = self._unwritten.get(digest)
        if row is None and digest not in self._missing:
            row = self._find(digest)
            if row is None:
                if len(self._missing) >= MAX_MISSING:
                    self._missing.clear()
                self._missing.add(digest)
        return row

    def heads(self, scope: str) -> dict[bytes, bytes]:
        """Return the heads of all that is kept in a scope, by the digests of their keys (see `key_digest`)."""
        heads, _ = self.slice_of_heads(scope, limit=2**62)
        return heads

    def slice_of_heads(
        self, scope: str, *, after: bytes | None = None, limit: int
    ) -> tuple[dict[bytes, bytes], bytes | None]:
        """Return some of the heads of a scope: about `limit`, those `after` a digest, or the first.

        With them comes the digest after which the next slice begins; None if there is none.
        """
        begin = scope_digest(scope)
        first = begin if after is None else after
        heads = dict(self._heads(begin, after=first, limit=limit))
        last = next(reversed(heads)) if len(heads) == limit else None
        heads.update(
            (digest, row.head)
            for digest, row in self._unwritten.items()
            if digest.startswith(begin) and digest > first and (last is None or digest <= last)
        )
        return heads, last

    def free_bytes(self) -> int | None:
        """Return how many bytes the disk still takes; None if that is not known."""
        return None

    @property
    def has_unwritten(self) -> bool:
        """Whether anything was appended since the last commit."""
        return bool(self._pending)

    @property
    def unwritten_size(self) -> int:
        """The bytes that were appended since the last commit."""
        return self._pending.size

    # How it is written.

    def commit(self) -> None:
        """Write what was appended, all of it or nothing; raises `JournalError`, after which it can be tried again."""
        self._commit_by(self.write)

    def commit_early(self) -> None:
        """Write what was appended as `commit` does, but so that it outlives only the process, until `sync` has ended.

        Raises `JournalError`, after which it can be tried again.
        """
        self._commit_by(self.write_early)

    def _commit_by(self, write: Callable[[JournalBatch], None]) -> None:
        batch = self.take()
        if batch:
            try:
                write(batch)
            except BaseException:
                self.put_back(batch)
                raise
            self.confirm(batch)

    def take(self) -> JournalBatch:
        """Return what was appended, to be given to `write`, and then to `confirm`, `put_back` or `discard`."""
        batch, self._pending = self._pending, JournalBatch()
        return batch

    @abstractmethod
    def write(self, batch: JournalBatch) -> None:
        """Write a batch in one transaction; raises `JournalError` if nothing of it was written."""

    def write_early(self, batch: JournalBatch) -> None:
        """Write a batch as `write` does, without waiting for the disk if `can_sync_later`."""
        self.write(batch)

    def sync(self) -> None:
        """Wait until the disk has what `write_early` has written; raises `JournalError`, and can be tried again."""
        self.is_unsynced = False

    def confirm(self, batch: JournalBatch) -> None:
        """Note that a batch is written."""
        self.commits += 1
        self.untended += batch.size
        unwritten = self._unwritten
        for digest, row in batch.kept.items():
            if unwritten.get(digest) is row:
                del unwritten[digest]

    def put_back(self, batch: JournalBatch) -> None:
        """Note that a batch could not be written: it goes before what was appended since, so that nothing is lost."""
        batch.entries += self._pending.entries
        batch.kept.update(self._pending.kept)
        batch.snapshot = self._pending.snapshot or batch.snapshot
        batch.size += self._pending.size
        self._pending = batch

    def discard(self, batch: JournalBatch) -> None:
        """Forget a batch that could not be written: the next entry takes the place of its first.

        Nothing may have been appended since it was taken.
        """
        if self.has_unwritten:
            raise RuntimeError("a batch after which more was appended cannot be discarded")
        if batch.entries:
            self.number, self.checksum = batch.follows
        for digest in batch.kept:
            self._unwritten.pop(digest, None)

    @property
    def arrears(self) -> float:
        """How much upkeep is due: from 1 on, `tend` is to be called; the more, the less should it wait for commits."""
        return self.untended / MAX_UNTENDED

    @abstractmethod
    def compact(self, before: int, *, limit: int) -> int:
        """Remove at most `limit` entries with numbers below `before`; return how many were removed.

        Those after the newest snapshot are never removed. Raises `JournalError`.
        """

    def tend(self) -> bool:
        """Do some milliseconds of upkeep, and tell whether there is more to do: drop what is too old, and compact.

        To be called now and then, when it is in `arrears`. Raises `JournalError`.
        """
        self.untended = 0
        return False

    @abstractmethod
    def forget(self, scope: str, key: str | None = None) -> int:
        """Remove the bodies that are kept under a key, or in a whole scope, beyond recovery; return how many.

        Their heads stay. Raises `JournalError`.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of it; what was appended and not committed is lost."""

    def _packed(self, body: bytes) -> bytes:
        """Return a body as it is written."""
        try:
            packed = self.packing.pack(body)
        except Exception as error:
            raise JournalError(
                self.path, f"cannot be written: its cipher has failed ({error!r})", "give it one that encrypts"
            ) from error
        self.largest = max(self.largest, len(packed))
        return packed

    def _unpacked(self, row: KeptRow) -> KeptRow:
        """Return a row that was found with its body as it was put."""
        if row.body is None:
            return row
        try:
            return row._replace(body=self.packing.unpack(row.body))
        except UnreadableValue as error:
            return row._replace(body=None, problem=str(error))

    # Where it is written.

    @abstractmethod
    def _raise_epoch(self, at_least: int) -> int: ...

    @abstractmethod
    def _rows(self, after: int) -> Iterator[EntryRow | tuple[int, bytes, int]]: ...

    @abstractmethod
    def _find(self, digest: bytes) -> KeptRow | None: ...

    @abstractmethod
    def _heads(self, scope: bytes, *, after: bytes, limit: int) -> Iterable[tuple[bytes, bytes]]: ...

    def __repr__(self) -> str:
        unwritten = f"{len(self._pending.entries)} unwritten"
        return f"<{type(self).__name__} {self.path!r} {self.number} entries, {unwritten}>"


@functools.lru_cache(maxsize=256)
def scope_digest(scope: str) -> bytes:
    """Return the bytes with which every digest of a scope begins."""
    return blake2b(scope.encode(), digest_size=SCOPE_BYTES).digest()


def key_digest(scope: str, key: str) -> bytes:
    """Return the 18 bytes that stand for a key: the same text in two scopes has two digests."""
    begin = scope_digest(scope)
    return begin + blake2b(key.encode(), digest_size=KEY_BYTES, key=begin).digest()
