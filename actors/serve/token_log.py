"""Keeps the tokens that tenants have used lately over a restart of the door: two files, the older replaced in time.

A line is written before each call begins, and one when it is known what it used. They outlive the process, killed at
whatever point; not a power cut, after which a tenant may begin a new minute.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import msgspec

KEPT_FOR = 61.0
"""Seconds for which a line counts."""


class UsedTokens(msgspec.Struct, frozen=True, array_like=True):
    """Tokens that a tenant has reserved, or a correction of them, `at` seconds since 1970."""

    tenant: str
    at: float
    tokens: int


_encode = msgspec.json.Encoder().encode


class TokenLog:
    """The files `path`, and `path` with "-old" behind it. On a full disk, lines are left out."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path, self._old = Path(path), Path(f"{os.fspath(path)}-old")
        self._file = -1
        self._begun_at = 0.0

    def open(self, *, now: float) -> list[UsedTokens]:
        """Return what still counts at `now` (seconds since 1970), the oldest first, and begin to write."""
        lines = [one for path in (self._old, self._path) for one in _lines_of(path) if now - one.at < KEPT_FOR]
        # What counts is written anew: a crash may have cut off the last line.
        fresh = Path(f"{self._path}-new")
        fresh.touch(0o600)
        fresh.write_bytes(b"".join(_encode(one) + b"\n" for one in lines))
        fresh.replace(self._path)
        self._old.unlink(missing_ok=True)
        self._append(now)
        return sorted(lines, key=lambda one: one.at)

    def _append(self, now: float) -> None:
        self.close()
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._begun_at = now

    def write(self, tenant: str, at: float, tokens: int) -> None:
        """Write that a tenant has reserved tokens, or, of the same time, that it has used more or fewer."""
        with suppress(OSError):
            if at - self._begun_at > 2 * KEPT_FOR:
                self._path.replace(self._old)
                self._append(at)
            os.write(self._file, _encode(UsedTokens(tenant, at, tokens)) + b"\n")

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _lines_of(path: Path) -> list[UsedTokens]:
    """Return the lines of a file; one that was cut off by the end of the process is left out."""
    found: list[UsedTokens] = []
    with suppress(FileNotFoundError):
        for line in path.read_bytes().splitlines():
            with suppress(msgspec.DecodeError):
                found.append(msgspec.json.decode(line, type=UsedTokens))
    return found
