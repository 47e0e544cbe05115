"""One owner for each file: a lock file beside it, which names the process that has it.

The lock is the system's own, on the file `PATH.lock`, and ends with its process however that ends; so what is written
in the file is only to be read: a name in a file that is not locked is that of an owner which has ended. Others may read
the file beside its owner.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

import msgspec

from runtime.persistence.errors import JournalError

FAR = 1 << 30
"""Where the byte is that is locked on Windows, where a locked byte cannot be read; beyond what is written."""
LOOK = 0.002
"""Seconds in which a look at the lock of a journal that has no owner is over."""


class Owner(msgspec.Struct, frozen=True):
    """The process that has a journal: its number, and the name of its machine; 0 and "" if it has not said so yet."""

    pid: int
    host: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}" if self.pid else "another process"


UNNAMED = Owner(0, "")


def owner_of(path: str | os.PathLike[str]) -> Owner | None:
    """Return which process has a journal now; None if none has, also if the last was killed.

    It works in a folder that may only be read, too. Raises `JournalError` if its lock file may not be read.
    """
    try:
        file = os.open(_lock_path(path), os.O_RDONLY)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise JournalError(
            os.fspath(path), f"cannot be looked at: {error.strerror}", "ask as the user that owns it"
        ) from error
    try:
        if not _try_lock(file, is_shared=True):
            return _read(file) or UNNAMED
    finally:
        os.close(file)
    return None


class Ownership:
    """Has a journal from its making until `release`; raises `JournalError`, naming the owner, if another has it."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        try:
            self._file: int | None = os.open(_lock_path(path), os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise JournalError(
                self.path, f"cannot be opened: {error.strerror}", "make sure that its directory exists"
            ) from error
        if not _try_lock(self._file):
            time.sleep(LOOK)  # It may only be looked at, to see whether it is locked.
            if not _try_lock(self._file):
                owner = _read(self._file) or UNNAMED
                os.close(self._file)
                raise JournalError(self.path, f"is in use by {owner}", "end that one, or use another file")
        _write(self._file, msgspec.json.encode(Owner(os.getpid(), socket.gethostname())))

    def release(self) -> None:
        """Let others have it; the lock file stays, because removing it could remove the lock of the next owner."""
        if self._file is not None:
            file, self._file = self._file, None
            with suppress(OSError):  # The disk is full, perhaps; the lock is gone all the same.
                _write(file, b"")
            os.close(file)

    def __repr__(self) -> str:
        return f"<Ownership of {self.path!r}{'' if self._file is not None else ', released'}>"


def _lock_path(path: str | os.PathLike[str]) -> Path:
    return Path(f"{os.fspath(path)}.lock")


def _read(file: int) -> Owner | None:
    try:
        os.lseek(file, 0, os.SEEK_SET)
        return msgspec.json.decode(os.read(file, 1_000), type=Owner)
    except (OSError, msgspec.MsgspecError):
        return None  # It has only just begun, or its disk was full.


def _write(file: int, content: bytes) -> None:
    os.ftruncate(file, 0)
    os.lseek(file, 0, os.SEEK_SET)
    os.write(file, content)


if sys.platform == "win32":
    import msvcrt

    def _lock(file: int, *, is_shared: bool) -> None:  # noqa: ARG001 - there is one kind.
        os.lseek(file, FAR, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(file: int, *, is_shared: bool) -> None:
        fcntl.flock(file, (fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)


def _try_lock(file: int, *, is_shared: bool = False) -> bool:
    """Lock a file until it is closed; False if it is locked already, by another process or by this one.

    A shared lock refuses an owner, and not another that looks whether there is one.
    """
    try:
        _lock(file, is_shared=is_shared)
    except OSError:
        return False
    return True
