"""What providers mean by their own codes and words, whatever the status: the table dialects.toml, read at first use."""

from __future__ import annotations

import functools
import re
from fnmatch import fnmatchcase
from importlib import resources
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from actors.errors.families import (
    CallFailed,
    Charged,
    Permanent,
    QuotaExhausted,
    Scope,
    Throttled,
    Transient,
)
from actors.errors.wording import Wording, plain_code

if TYPE_CHECKING:
    from collections.abc import Mapping

FAMILIES: dict[str, type[CallFailed]] = {
    family.__name__: family for family in (Permanent, QuotaExhausted, Throttled, Transient)
}
CONCERNS = {
    "key": "the key is refused",
    "account": "the account is refused",
    "region": "the region is not served",
    "name": "a name is not known",
    "content": "the content is refused",
    "window": "too long for the window of its model",
}
AMBIGUOUS = frozenset({302, 303, 408, 409, 424, 425, 499})
"""Statuses below 500 that do not tell whether the call ran. 302 and 303 answer a POST that was accepted (RFC 9110
15.4); 408 and 425 may come from a proxy after it passed the request on; 409 is said while a call under the same key is
still at work; 424 by providers whose model failed at work (Bedrock, text-generation-inference); 499 is a proxy's word
for a caller that hung up (nginx)."""
SAID_BY_PROXIES = AMBIGUOUS - {424} | {502, 504, *range(520, 528)}
"""Ambiguous statuses that a proxy may say, 520 to 527 being Cloudflare's: whatever the provider declares, such a call
may have been charged."""
OVERLOADED = frozenset({503, 529})
"""Of the statuses from 500 up, these are said by providers that turn calls away."""


class Dialect(NamedTuple):
    """What answers with one of these `codes` (as `plain_code` spells them), or with `words`, mean.

    `only` holds patterns of the names and hosts of the providers it applies to; if it is empty, it applies to all.
    Without `statuses`, codes hold for every status that no proxy says, and words for 4xx alone. `scope` and `concerns`
    are those of a `Permanent`. `refused` means that such a call never began, so that even a paid call may be repeated.
    `by_proxy` means that these are the words of a proxy, or of a time limit that ran out while the call was at work.
    `charged` is what is known of the money, if that differs from what the family says.
    """

    means: type[CallFailed]
    codes: frozenset[str] = frozenset()
    words: re.Pattern[str] | None = None
    statuses: frozenset[int] = frozenset()
    only: tuple[str, ...] = ()
    header: str = ""
    scope: Scope = "request"
    concerns: str | None = None
    charged: Charged | None = None
    refused: bool = False
    by_proxy: bool = False

    @property
    def says(self) -> str:
        """What it says, for a message of an error; nothing of the answer itself."""
        if self.by_proxy:
            return "a proxy says so, or a time limit ran out"
        if self.refused:
            return "it was turned away"
        if self.means is Permanent:
            return CONCERNS.get(self.concerns or "", "too large for this provider")
        if self.means is QuotaExhausted:
            return "no money or quota is left"
        return "too many calls" if self.means is Throttled else "it failed at work"

    def applies_to(self, provider: str, host: str | None = None) -> bool:
        """Tell whether this row applies to a provider of this name, or at this host if that is known.

        >>> row = Dialect(Throttled, frozenset({"quota"}), only=("*google*",))
        >>> row.applies_to("gemini-eu"), row.applies_to("gemini-eu", "generativelanguage.googleapis.com")
        (False, True)
        """
        return not self.only or is_among(self.only, provider.lower(), (host or "").lower())

    def matches(self, status: int, wording: Wording) -> bool:
        """Tell whether an answer with this status says it; 0 stands for an error without a status."""
        if (self.statuses and status not in self.statuses) or (self.header and self.header not in wording.headers):
            return False
        if not self.statuses and status in SAID_BY_PROXIES:
            return False
        # What a 5xx says in words may be quoted from the request, and so may what looks like a code in a text.
        has_codes = status < 500 or wording.form == "fields" or (status in self.statuses and status in OVERLOADED)
        if has_codes and not self.codes.isdisjoint(wording.codes):
            return True
        has_words = bool(self.statuses) or status < 500
        return has_words and self.words is not None and self.words.search(wording.text) is not None


@functools.lru_cache(maxsize=10_000)
def is_among(patterns: tuple[str, ...], *names: str) -> bool:
    """Tell whether one of these names matches a pattern; asked for every row at every error, with few names."""
    return any(fnmatchcase(name, pattern) for pattern in patterns for name in names)


class Row(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A `[[dialect]]` table of the file."""

    means: str
    codes: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    status: tuple[int, ...] = ()
    only: tuple[str, ...] = ()
    header: str = ""
    scope: Scope = "request"
    concerns: str | None = None
    charged: Charged | None = None
    refused: bool = False
    by_proxy: bool = False
    seen_at: str

    def __post_init__(self) -> None:
        for status in self.status:
            if not 300 <= status <= 999:
                raise ValueError(f"status must be the status of a failure, from 300 to 999, got {status}")
        if not all([*self.codes, *self.words]) or not (self.codes or self.words):
            raise ValueError("give codes or words, none of them empty: every answer would have them")
        if self.means not in FAMILIES:
            raise ValueError(f"means must be one of {', '.join(FAMILIES)}, got {self.means!r}")
        if self.concerns is not None and self.concerns not in CONCERNS:
            raise ValueError(f"concerns must be one of {', '.join(CONCERNS)}, got {self.concerns!r}")

    def dialect(self) -> Dialect:
        return Dialect(
            means=FAMILIES[self.means],
            codes=frozenset(map(plain_code, self.codes)),
            words=re.compile("|".join(f"(?:{words})" for words in self.words)) if self.words else None,
            statuses=frozenset(self.status),
            only=self.only,
            header=self.header,
            scope=self.scope,
            concerns=self.concerns,
            charged=self.charged,
            refused=self.refused,
            by_proxy=self.by_proxy,
        )


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    dialect: tuple[Row, ...]
    statuses: dict[str, int]


class Dialects(NamedTuple):
    """All rows in the order in which they are tried, and the statuses that words stand for."""

    rows: tuple[Dialect, ...]
    statuses: Mapping[str, int]

    def find(self, status: int, wording: Wording, *, provider: str, host: str | None = None) -> Dialect | None:
        """Return the first row that an answer matches; None if it means what its status says.

        A `status` of 0 stands for an error that came without one.
        """
        return next(
            (row for row in self.rows if row.applies_to(provider, host) and row.matches(status, wording)),
            None,
        )

    def status_of(self, code: str) -> int | None:
        """Return the status that a code or type of an error stands for: `RESOURCE_EXHAUSTED`, `overloaded_error`."""
        return self.statuses.get(plain_code(code))


def read_dialects(toml: str) -> Dialects:
    """Return the dialects of a file with this text; raises `msgspec.ValidationError` if it is invalid.

    Rows that apply to certain providers come before rows that apply to all; otherwise the order of the file is kept.
    """
    table = msgspec.toml.decode(toml, type=Table)
    rows = [row.dialect() for row in table.dialect]
    rows.sort(key=lambda row: not row.only)
    return Dialects(tuple(rows), {plain_code(code): status for code, status in table.statuses.items()})


@functools.cache
def dialects() -> Dialects:
    """Return the dialects of dialects.toml, which comes with the package; the file is read at the first call."""
    return read_dialects(resources.files("actors.errors").joinpath("dialects.toml").read_text(encoding="utf-8"))
