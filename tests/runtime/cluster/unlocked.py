"""A disk that keeps no locks, as one that a machine has which counts as gone: only epochs keep a second owner out."""

from __future__ import annotations

from typing import Any

from runtime.persistence import Journal, MemoryDisk, MemoryJournal


class UnlockedJournal(MemoryJournal):
    """A journal that can be written whatever others have opened it."""

    def _writable(self) -> MemoryDisk:
        self._disk.owner = self
        return super()._writable()


class UnlockedFolder:
    """The journals on the disk of one machine."""

    def __init__(self) -> None:
        self.disks: dict[str, MemoryDisk] = {}

    def open(self, name: str, **options: Any) -> Journal:
        options = {option: value for option, value in options.items() if option in {"retention", "packing"}}
        disk = self.disks.setdefault(name, MemoryDisk())
        disk.owner = None
        return UnlockedJournal(disk, **options)

    def epoch(self, name: str) -> int | None:
        disk = self.disks.get(name)
        return None if disk is None else disk.epoch
