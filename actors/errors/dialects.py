"""The meanings that providers give to HTTP statuses in their own words: the table dialects.toml, read at first use."""

from __future__ import annotations

import functools
import re
from fnmatch import fnmatchcase
from importlib import resources
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from actors.errors.families import CallFailed, Permanent, QuotaExhausted, Throttled, Transient

if TYPE_CHECKING:
    from collections.abc import Mapping

FAMILIES: dict[str, type[CallFailed]] = {
    family.__name__: family for family in (Permanent, QuotaExhausted, Throttled, Transient)
}


class Dialect(NamedTuple):
    """A status that means another family if the body holds `marker` (in lower case).

    `only` holds patterns of the names and hosts of the providers it applies to; if it is empty, it applies to all.
    `refused` means that such a call never began, so that even a paid call may be repeated. `by_proxy` means that these
    are the words of a proxy, or of a time limit that ran out while the call was at work.
    """

    status: int
    marker: str
    means: type[CallFailed]
    only: tuple[str, ...] = ()
    refused: bool = False
    by_proxy: bool = False

    def applies_to(self, provider: str, host: str | None = None) -> bool:
        """Tell whether this row applies to a provider of this name, or at this host if that is known.

        >>> row = Dialect(429, "quota", Throttled, only=("*google*",))
        >>> row.applies_to("gemini-eu"), row.applies_to("gemini-eu", "generativelanguage.googleapis.com")
        (False, True)
        """
        names = (provider.lower(), (host or "").lower())
        return not self.only or any(fnmatchcase(name, pattern) for pattern in self.only for name in names)


class Row(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A `[[dialect]]` table of the file."""

    status: int
    marker: str
    means: str
    only: tuple[str, ...] = ()
    refused: bool = False
    by_proxy: bool = False
    seen_at: str = ""

    def __post_init__(self) -> None:
        if not 300 <= self.status <= 999:
            raise ValueError(f"status must be the status of a failure, from 300 to 999, got {self.status}")
        if not self.marker:
            raise ValueError(f"marker must not be empty: every answer of {self.status} would have it")
        if self.means not in FAMILIES:
            raise ValueError(f"means must be one of {', '.join(FAMILIES)}, got {self.means!r}")


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    dialect: tuple[Row, ...]
    statuses: dict[str, int]


class Dialects(NamedTuple):
    """All rows in the order in which they are tried, and the statuses that words stand for."""

    rows: tuple[Dialect, ...]
    statuses: Mapping[str, int]

    def find(self, status: int, body: str, *, provider: str, host: str | None = None) -> Dialect | None:
        """Return the first row that an answer matches; None if it means what its status says."""
        marked = body.lower()
        return next(
            (
                row
                for row in self.rows
                if row.status == status and row.marker in marked and row.applies_to(provider, host)
            ),
            None,
        )

    def status_of(self, word: str) -> int | None:
        """Return the status that a code or type of an error stands for: `RESOURCE_EXHAUSTED`, `overloaded_error`."""
        # AWS writes "com.amazon.coral.service#ThrottlingException", and others "Rate-Limit Exceeded".
        plain = re.sub(r"[\s-]+", "_", word.rpartition("#")[2].strip().lower())
        return self.statuses.get(plain)


def read_dialects(toml: str) -> Dialects:
    """Return the dialects of a file with this text; raises `msgspec.ValidationError` if it is invalid.

    Rows that apply to certain providers come before rows that apply to all; otherwise the order of the file is kept.
    """
    table = msgspec.toml.decode(toml, type=Table)
    rows = [
        Dialect(row.status, row.marker.lower(), FAMILIES[row.means], row.only, row.refused, row.by_proxy)
        for row in table.dialect
    ]
    rows.sort(key=lambda row: not row.only)
    return Dialects(tuple(rows), {word.lower(): status for word, status in table.statuses.items()})


@functools.cache
def dialects() -> Dialects:
    """Return the dialects of dialects.toml, which comes with the package; the file is read at the first call."""
    return read_dialects(resources.files("actors.errors").joinpath("dialects.toml").read_text(encoding="utf-8"))
