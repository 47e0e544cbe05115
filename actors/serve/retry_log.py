"""Keeps the tries of requests over a restart of the door: two files, of which the older one is replaced in time.

A line is written before a call begins, and one when its client has its answer. They outlive the process, killed at
whatever point; not a power cut, after which a retry is a new request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from actors.serve.line_log import LineLog
from actors.serve.retries import REMEMBERED_FOR, OpenTries, Try

if TYPE_CHECKING:
    import os


class Delivered(msgspec.Struct, frozen=True, array_like=True):
    """The client of a try has its whole answer."""

    key: str


_encode = msgspec.json.Encoder().encode


class RetryLog:
    """The files `path`, and `path` with "-old" behind it."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._log = LineLog(path, kept_for=REMEMBERED_FOR)

    def open(self, *, now: float) -> OpenTries:
        """Return the tries of the life before, and begin to write."""
        tries = OpenTries()
        for line in self._log.lines():
            try:
                fields = msgspec.json.decode(line, type=list[str | int | float | None])
                said = msgspec.convert(fields, Delivered if len(fields) == 1 else Try)
            except msgspec.DecodeError:
                continue  # It was cut off.
            if isinstance(said, Delivered):
                tries.end(said.key)
            elif now - REMEMBERED_FOR < said.at <= now + REMEMBERED_FOR:
                tries.end(said.key)
                tries.remember(said)
            else:
                tries.expired.append(said)
        self._log.begin(map(_encode, tries), now=now)
        return tries

    def begun(self, one: Try) -> None:
        """Write that a try begins. Raises OSError if the disk is full."""
        self._log.write(_encode(one), at=one.at)

    def ended(self, key: str, *, at: float) -> None:
        """Write that the client of a try has its whole answer. Raises OSError if the disk is full."""
        self._log.write(_encode(Delivered(key)), at=at)

    def close(self) -> None:
        """Close the file."""
        self._log.close()
