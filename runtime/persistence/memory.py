"""A journal in memory: it has its own disk, which outlives it as long as the program runs, and may be full."""

from __future__ import annotations

import os
from bisect import bisect_right
from typing import TYPE_CHECKING

from runtime.persistence.errors import JournalError
from runtime.persistence.journal import EntryRow, Journal, JournalBatch, KeptRow, SnapshotRow, key_digest, scope_digest
from runtime.persistence.retention import horizon

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runtime.persistence.packing import Packing
    from runtime.persistence.retention import Retention

IN_MEMORY = ":memory:"


class MemoryDisk:
    """What is written: give it to the next `MemoryJournal`, and that one goes on where the last ended."""

    def __init__(self) -> None:
        self.entries: list[EntryRow] = []
        self.kept: dict[bytes, KeptRow] = {}
        self.snapshot: SnapshotRow | None = None
        self.secret = os.urandom(32)
        self.is_full = False
        """While it is, nothing can be written."""
        self.owner: MemoryJournal | None = None
        self.epoch = 0
        """That of the last owner which has claimed it."""

    def __repr__(self) -> str:
        return f"<MemoryDisk {len(self.entries)} entries, {len(self.kept)} kept{', full' if self.is_full else ''}>"


class MemoryJournal(Journal):
    """A journal on a `MemoryDisk`, a new one if none is given.

    >>> disk = MemoryDisk()
    >>> journal = MemoryJournal(disk)
    >>> journal.append(b"first")
    1
    >>> journal.commit()
    >>> journal.append(b"lost")
    2
    >>> journal.close()
    >>> list(MemoryJournal(disk).replay())
    [b'first']
    """

    def __init__(
        self,
        disk: MemoryDisk | None = None,
        *,
        retention: Retention | None = None,
        packing: Packing | None = None,
    ) -> None:
        super().__init__(IN_MEMORY, retention, packing)
        self._disk = disk = disk or MemoryDisk()
        if disk.owner is not None:
            raise JournalError(self.path, f"is in use by {disk.owner!r}", "close that one")
        disk.owner = self
        self.secret = disk.secret

    @property
    def latest_epoch(self) -> int:
        return self._disk.epoch

    def _raise_epoch(self, at_least: int) -> int:
        self.epoch = 0
        disk = self._writable()
        disk.epoch = max(disk.epoch + 1, at_least)
        return disk.epoch

    def snapshot(self) -> SnapshotRow | None:
        return self._disk.snapshot

    def write(self, batch: JournalBatch) -> None:
        disk = self._writable()
        packed = {
            digest: row if row.body is None else row._replace(body=self._packed(row.body))
            for digest, row in batch.kept.items()
        }
        disk.entries += batch.entries
        disk.kept.update(packed)
        disk.snapshot = batch.snapshot or disk.snapshot

    def compact(self, before: int, *, limit: int) -> int:
        disk = self._writable()
        last = min(before - 1, disk.snapshot.number if disk.snapshot is not None else 0)
        count = min(limit, bisect_right(disk.entries, last, key=lambda row: row.number))
        del disk.entries[:count]
        return count

    def tend(self) -> bool:
        super().tend()
        kept = self._disk.kept
        heads, bodies = (horizon(self.clock, age) for age in (self.retention.heads_for, self.retention.bodies_for))
        for digest, row in tuple(kept.items()):
            if row.at < heads and digest not in self._spared:
                del kept[digest]
            elif row.at < bodies:
                kept[digest] = row._replace(body=None)
        return False

    def forget(self, scope: str, key: str | None = None) -> int:
        disk = self._writable()
        begin = scope_digest(scope) if key is None else key_digest(scope, key)
        found = [row for row in disk.kept.values() if row.body is not None and row.digest.startswith(begin)]
        disk.kept.update({row.digest: row._replace(body=None) for row in found})
        return len(found)

    def close(self) -> None:
        if self._disk.owner is self:
            self._disk.owner = None

    def _rows(self, after: int) -> Iterator[EntryRow]:
        return iter(self._disk.entries[bisect_right(self._disk.entries, after, key=lambda row: row.number) :])

    def _find(self, digest: bytes) -> KeptRow | None:
        row = self._disk.kept.get(digest)
        return None if row is None else self._unpacked(row)

    def _heads(self, scope: bytes, *, after: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        found = [one for one in self._disk.kept.items() if one[0].startswith(scope) and one[0] > after]
        return [(digest, row.head) for digest, row in sorted(found)[:limit]]

    def _writable(self) -> MemoryDisk:
        if self.epoch:
            self._check_epoch(self.epoch, self._disk.epoch)
        if self._disk.is_full or self._disk.owner is not self:
            problem = "its disk is full" if self._disk.is_full else "it is closed"
            raise JournalError(self.path, f"cannot be written: {problem}", "make room for it")
        return self._disk
