"""The log beside a file of SQLite: waited for until the disk has it, and written anew if the disk has failed.

A failed wait leaves open which pages the disk has, and the system may count those that it lost as written: a later wait
that succeeds proves nothing about them (https://wiki.postgresql.org/wiki/Fsync_Errors). So the log is doubtful until
all of it was written once more, and waited for. The system may also have dropped from memory what the disk has not got,
so that older content is read back (Rebello et al., "Can Applications Recover from fsync Failures?", USENIX ATC 2020):
before that, the log is checked against the index that SQLite keeps of it in memory.
"""

from __future__ import annotations

import os
import struct
import sys
from pathlib import Path
from typing import NamedTuple

from runtime.persistence.errors import JournalError

CHUNK = 1 << 20
LOG_HEADER, FRAME_HEADER = 32, 24
"""Bytes of the log's header, and of the one of each frame (https://www.sqlite.org/fileformat2.html#walformat)."""
BIG_ENDIAN_SUMS = 0x377F0683
"""The mark of a log whose checksums are made of big-endian words."""
INDEX_HEADER = struct.Struct("=16x I 4x 2I 8s")
"""Of the index: frames, the checksum of the last, the log's salt (https://www.sqlite.org/walformat.html)."""
MAKE_ROOM = "make room for it"


class DiskLog:
    """The log of one file. Nothing is opened before it is needed.

    Close it after the connections to the file: locks of SQLite on the index end when a program closes that.
    """

    def __init__(self, path: str) -> None:
        self.is_doubtful = False
        """Whether the disk may lack something that it was waited for."""
        self._path = path
        self._log = self._index = -1

    def take_over(self, *, waits: bool) -> None:
        """Write anew what an ended program has left in it, for which it may have waited in vain; raises OSError."""
        log = Path(f"{self._path}-wal")
        if not log.exists() or not log.stat().st_size:
            return
        file = os.open(log, os.O_RDWR)
        try:
            rewrite(file)
            if waits:
                synced(file)
        finally:
            os.close(file)

    def sync(self) -> None:
        """Wait until the disk has the log; raises `JournalError`, and can be tried again."""
        try:
            if self._log < 0:
                self._log = os.open(f"{self._path}-wal", os.O_RDWR)
            if self.is_doubtful:
                self._check_whole()
                rewrite(self._log)
            synced(self._log)
        except OSError as error:
            self.is_doubtful = True
            raise JournalError(self._path, f"cannot be written: {error.strerror}", MAKE_ROOM) from error
        self.is_doubtful = False

    def _check_whole(self) -> None:
        if self._index < 0:
            self._index = os.open(f"{self._path}-shm", os.O_RDONLY)
        if not is_log_whole(self._log, end_of_log(self._index)):
            raise JournalError(
                self._path,
                "cannot be written: its disk has failed, and lost what was not told yet",
                "restart the program",
            )

    def close(self) -> None:
        for file in (self._log, self._index):
            if file >= 0:
                os.close(file)
        self._log = self._index = -1


class LogEnd(NamedTuple):
    """Where a log ends by its index."""

    frames: int
    checksum: tuple[int, int]
    salt: bytes


def rewrite(file: int) -> None:
    """Write all bytes of an open file in their place, so that the next wait for the disk is about all of them."""
    at = 0
    while chunk := os.pread(file, CHUNK, at):
        at += os.pwrite(file, chunk, at)


def synced(file: int) -> None:
    """Wait until the disk has an open file, as SQLite does: with no more of its properties than it has to."""
    if sys.platform == "linux":
        os.fdatasync(file)
    else:
        os.fsync(file)


def end_of_log(index: int) -> LogEnd:
    """Read from the open index of a log where that ends."""
    frames, first, second, salt = INDEX_HEADER.unpack(os.pread(index, INDEX_HEADER.size, 0))
    return LogEnd(frames, (first, second), salt)


def is_log_whole(log: int, end: LogEnd) -> bool:
    """Tell whether an open log has all frames up to its end, by their checksums: each is made of all before."""
    if not end.frames:
        return True
    header = os.pread(log, LOG_HEADER, 0)
    if len(header) < LOG_HEADER or header[16:24] != end.salt:
        return False
    mark, _, page = struct.unpack(">3I", header[:12])
    order = "big" if mark == BIG_ENDIAN_SUMS else "little"
    size = FRAME_HEADER + page
    sums = checksum(header[:24], (0, 0), order=order)
    for number in range(end.frames):
        frame = os.pread(log, size, LOG_HEADER + number * size)
        if len(frame) < size or frame[8:16] != end.salt:
            return False
        sums = checksum(frame[FRAME_HEADER:], checksum(frame[:8], sums, order=order), order=order)
        if struct.pack(">2I", *sums) != frame[16:24]:
            return False
    return sums == end.checksum


def checksum(content: bytes, sums: tuple[int, int], *, order: str) -> tuple[int, int]:
    """Go on with a checksum of SQLite's log (https://www.sqlite.org/fileformat2.html#checksum_algorithm).

    >>> checksum(bytes([1, 0, 0, 0, 2, 0, 0, 0]), (0, 0), order="little")
    (1, 3)
    """
    first, second = sums
    words = struct.unpack(f"{'>' if order == 'big' else '<'}{len(content) // 4}I", content)
    for even, odd in zip(words[::2], words[1::2], strict=True):
        first = (first + even + second) & 0xFFFFFFFF
        second = (second + odd + first) & 0xFFFFFFFF
    return first, second
