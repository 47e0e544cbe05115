"""Lines in a file that does not grow for ever: after a while another is begun, and the one before is kept beside it."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class LineLog:
    """The files `path`, and `path` with "-old" behind it, in which each line is kept for `kept_for` seconds at least.

    If another file cannot be begun, the one before is written on, and that is tried again with the next line.
    """

    def __init__(self, path: str | os.PathLike[str], *, kept_for: float) -> None:
        self._path, self._old = Path(path), Path(f"{os.fspath(path)}-old")
        self._kept_for = kept_for
        self._file = -1
        self._begun_at = 0.0
        self._is_renamed = False
        """Whether the open file is the older one by now."""
        self._ends_in_line = False
        """Whether the last line was cut off, by a disk that is full."""

    def lines(self) -> Iterator[bytes]:
        """Yield all lines, the oldest first."""
        for path in (self._old, self._path):
            with suppress(FileNotFoundError):
                yield from path.read_bytes().splitlines()

    def begin(self, lines: Iterable[bytes], *, now: float) -> None:
        """Have these lines take the place of all, and begin to write; raises OSError.

        So files do not pile up, and a line that a crash cut off is gone.
        """
        fresh = Path(f"{self._path}-new")
        fresh.touch(0o600)
        fresh.write_bytes(b"".join(one + b"\n" for one in lines))
        fresh.replace(self._path)
        self._old.unlink(missing_ok=True)
        self._open(now)

    def write(self, line: bytes, *, at: float) -> None:
        """Write a line, `at` seconds since 1970; raises OSError if the disk is full."""
        with suppress(OSError):
            self._turn(at)
        content = b"\n" + line + b"\n" if self._ends_in_line else line + b"\n"
        written = os.write(self._file, content)
        self._ends_in_line = written < len(content)
        if self._ends_in_line:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))

    def _turn(self, now: float) -> None:
        """Begin another file if it is time, or if that failed before."""
        if not self._is_renamed and now - self._begun_at > self._kept_for:
            self._path.replace(self._old)
            self._is_renamed = True
        if self._is_renamed:
            self._open(now)

    def _open(self, now: float) -> None:
        file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self.close()
        self._file, self._begun_at = file, now

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
        self._file, self._is_renamed, self._ends_in_line = -1, False, False

    def __repr__(self) -> str:
        return f"<LineLog {str(self._path)!r}>"
