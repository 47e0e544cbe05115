"""The journals of the keyed actors of one node: a folder on a disk of its own machine, or of a test in memory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from runtime.persistence import JournalError, MemoryDisk, MemoryJournal, ReadOnlyJournal, SqliteJournal

if TYPE_CHECKING:
    import os

    from runtime.persistence import Journal

SHARED = frozenset(
    ("nfs", "nfs4", "cifs", "smb3", "smbfs", "ceph", "lustre", "gpfs", "beegfs", "afs", "gfs2", "ocfs2", "glusterfs")
)
"""File systems that several machines mount, by the names that Linux has for them."""
MOUNTS = Path("/proc/self/mounts")


class Journals(Protocol):
    """Where a node keeps journals, by name."""

    def open(self, name: str, **options: Any) -> Journal:
        """Open one; a new one is made if there is none. Raises `JournalError`."""
        ...

    def epoch(self, name: str) -> int | None:
        """Return the epoch of one, whether it is open or not; None if there is none. Raises `JournalError`."""
        ...


class JournalFolder:
    """Files in a folder, which is made if there is none. Raises `JournalError` if several machines may share it."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).absolute()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise JournalError(str(self.path), f"cannot be made: {error.strerror}", "state another folder") from error
        refuse_shared(self.path)

    def open(self, name: str, **options: Any) -> Journal:
        return SqliteJournal(self.path / name, **options)

    def epoch(self, name: str) -> int | None:
        if not (self.path / name).exists():
            return None
        journal = ReadOnlyJournal(self.path / name)
        try:
            return journal.latest_epoch
        finally:
            journal.close()

    def __repr__(self) -> str:
        return f"<JournalFolder {str(self.path)!r}>"


class MemoryFolder:
    """Journals in memory, which outlive the lives of a node that is given the same folder."""

    def __init__(self) -> None:
        self.disks: dict[str, MemoryDisk] = {}

    def open(self, name: str, **options: Any) -> Journal:
        options = {option: value for option, value in options.items() if option in {"retention", "packing"}}
        return MemoryJournal(self.disks.setdefault(name, MemoryDisk()), **options)

    def epoch(self, name: str) -> int | None:
        disk = self.disks.get(name)
        return None if disk is None else disk.epoch

    def __repr__(self) -> str:
        return f"<MemoryFolder of {len(self.disks)}>"


def refuse_shared(path: Path) -> None:
    """Raise `JournalError` if a folder is on a file system that several machines may mount, as far as Linux tells."""
    if not MOUNTS.exists():
        return
    kind = file_system_of(path.resolve(), MOUNTS.read_text(encoding="utf-8", errors="replace"))
    if kind in SHARED or kind.endswith((".sshfs", ".glusterfs", ".s3fs")):
        raise JournalError(
            str(path), f"is on a file system that machines share ({kind})", "state a folder on a disk of this machine"
        )


def file_system_of(path: Path, mounts: str) -> str:
    r"""Return the kind of file system that a path is on, by the lines of `/proc/self/mounts`; "" if none tells.

    >>> file_system_of(Path("/shared/runs"), "/dev/sda1 / ext4 rw 0 0\nstore:/h /shared nfs4 rw 0 0")
    'nfs4'
    """
    best, kind = -1, ""
    for line in mounts.splitlines():
        fields = line.split()
        if len(fields) < 3:
            continue
        place = Path(fields[1].replace("\\040", " "))
        if path.is_relative_to(place) and len(place.parts) >= best:
            best, kind = len(place.parts), fields[2]
    return kind
