"""Keeps the tries of requests over a restart of the door: two files, of which the older one is replaced in time.

A line is written before a call begins, and one when its client has its answer. They outlive the process, killed at
whatever point; not a power cut, after which a retry is a new request.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from actors.serve.retries import REMEMBERED_FOR, OpenTries, Try

if TYPE_CHECKING:
    from collections.abc import Iterator


class Delivered(msgspec.Struct, frozen=True, array_like=True):
    """The client of a try has its whole answer."""

    key: str


_encode = msgspec.json.Encoder().encode


class RetryLog:
    """The files `path`, and `path` with "-old" behind it."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path, self._old = Path(path), Path(f"{os.fspath(path)}-old")
        self._file = -1
        self._begun_at = 0.0

    def open(self, *, now: float) -> OpenTries:
        """Return the tries of the life before, and begin to write."""
        tries = OpenTries()
        for line in (*_lines_of(self._old), *_lines_of(self._path)):
            if isinstance(line, Delivered):
                tries.end(line.key)
            elif now - REMEMBERED_FOR < line.at <= now + REMEMBERED_FOR:
                tries.end(line.key)
                tries.remember(line)
        # What is remembered is written anew: a crash may have cut off the last line, and files do not pile up.
        fresh = Path(f"{self._path}-new")
        fresh.touch(0o600)
        fresh.write_bytes(b"".join(_encode(one) + b"\n" for one in tries))
        fresh.replace(self._path)
        self._old.unlink(missing_ok=True)
        self._append_to_last(now)
        return tries

    def _append_to_last(self, now: float) -> None:
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._begun_at = now

    def _begin(self, now: float) -> None:
        """Begin a file; what the one before the last says is too old by now."""
        self.close()
        self._path.replace(self._old)
        self._append_to_last(now)

    def begun(self, one: Try) -> None:
        """Write that a try begins. Raises OSError if the disk is full."""
        if one.at - self._begun_at > REMEMBERED_FOR:
            self._begin(one.at)
        os.write(self._file, _encode(one) + b"\n")

    def ended(self, key: str) -> None:
        """Write that the client of a try has its whole answer."""
        os.write(self._file, _encode(Delivered(key)) + b"\n")

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _lines_of(path: Path) -> Iterator[Try | Delivered]:
    """Yield the lines of a file; one that was cut off by the end of the process is left out."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return
    for line in content.splitlines():
        try:
            fields = msgspec.json.decode(line, type=list[str | int | float])
            yield msgspec.convert(fields, Delivered if len(fields) == 1 else Try)
        except msgspec.DecodeError:
            continue
