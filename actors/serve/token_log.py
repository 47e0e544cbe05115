"""Keeps the tokens that tenants have used lately over a restart of the door: two files, the older replaced in time.

A line is written before each call begins, and one when it is known what it used. They outlive the process, killed at
whatever point; not a power cut, after which a tenant may begin a new minute.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from actors.serve.line_log import LineLog

if TYPE_CHECKING:
    import os

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
        self._log = LineLog(path, kept_for=2 * KEPT_FOR)

    def open(self, *, now: float) -> list[UsedTokens]:
        """Return what still counts at `now` (seconds since 1970), the oldest first, and begin to write."""
        used = list[UsedTokens]()
        for line in self._log.lines():
            with suppress(msgspec.DecodeError):  # One may have been cut off.
                used.append(msgspec.json.decode(line, type=UsedTokens))
        used = sorted((one for one in used if now - one.at < KEPT_FOR), key=lambda one: one.at)
        self._log.begin(map(_encode, used), now=now)
        return used

    def write(self, tenant: str, at: float, tokens: int) -> None:
        """Write that a tenant has reserved tokens, or, of the same time, that it has used more or fewer."""
        with suppress(OSError):
            self._log.write(_encode(UsedTokens(tenant, at, tokens)), at=at)

    def close(self) -> None:
        """Close the file."""
        self._log.close()
