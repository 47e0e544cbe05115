"""What the name of a rate-limit header says: which field of which limit, what it counts, and in which window."""

from __future__ import annotations

import functools
import re
from fnmatch import fnmatchcase
from importlib import resources
from typing import Literal, NamedTuple, TypeAlias, cast

import msgspec

from actors.limits.quota import REQUESTS

NameField: TypeAlias = Literal["limit", "remaining", "reset"]

PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"x-rate-?limit-(?P<field>limit|remaining|reset)-(?P<words>[a-z][a-z0-9_-]*)"), ""),
    (re.compile(r"(?:x-)?rate-?limit-(?P<field>limit|remaining|reset)"), ""),
    (re.compile(r"[a-z]+-rate-?limit-(?P<words>[a-z][a-z0-9_-]*)-(?P<field>limit|remaining|reset)"), ""),
    (re.compile(r"x-tokenlimit-(?P<field>limit|remaining|reset)(?:-(?P<words>[a-z][a-z0-9_-]*))?"), "tokens"),
)
"""The headers that carry one number each, in lower case, and the word that is meant if the name has none."""
RESET_AFTER = "after"
"""`X-RateLimit-Reset-After` (Discord) is the reset of the limit that has no name of its own."""


class HeaderName(NamedTuple):
    """The meaning of a header's name.

    `limit` is the name of the limit: fields of the same limit belong together. `dimension` is what it counts, None if
    that is none of ours. `window` is in seconds, None if the name does not state it.
    """

    field: NameField
    limit: str
    dimension: str | None
    window: float | None


class WindowRow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A `[[window]]` table of the file: the window, in seconds, of the limits of one dimension of some providers."""

    only: tuple[str, ...]
    dimension: str
    window: float
    seen_at: str


class HeaderWords(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    dimensions: dict[str, str]
    windows: dict[str, float]
    qualifiers: dict[str, str]
    window: tuple[WindowRow, ...]


@functools.cache
def header_words() -> HeaderWords:
    """Return what headers.toml says, which comes with the package; the file is read at the first call."""
    text = resources.files("actors.limits").joinpath("headers.toml").read_text(encoding="utf-8")
    return msgspec.toml.decode(text, type=HeaderWords)


@functools.lru_cache(maxsize=256)
def header_name(name: str) -> HeaderName | None:
    """Return what a header's name, in lower case, says of a limit; None if it says nothing.

    >>> header_name("x-ratelimit-remaining-requests-day")
    HeaderName(field='remaining', limit='requests-day', dimension='requests', window=86400.0)
    >>> header_name("x-ratelimit-remaining-images")
    HeaderName(field='remaining', limit='images', dimension=None, window=None)
    """
    matches = ((pattern.fullmatch(name), default) for pattern, default in PATTERNS)
    match, default = next(((match, default) for match, default in matches if match), (None, ""))
    if match is None:
        return None
    words = match.groupdict().get("words") or ""
    if words == RESET_AFTER:
        words = ""
    known, window, counted = header_words(), None, list[str]()
    for word in re.split(r"[_-]", words):
        if word in known.windows:
            window = known.windows[word]
        elif word and word not in known.qualifiers:
            counted.append(word)
    field = cast("NameField", match["field"])
    limit = f"{default}-{words}" if default and words else words or default
    return HeaderName(field, limit, dimension_of("-".join(counted) or default or REQUESTS), window)


def dimension_of(words: str) -> str | None:
    """Return our name of what these words of a header count; None if it is none of ours."""
    return header_words().dimensions.get(words)


@functools.lru_cache(maxsize=256)
def usual_window(dimension: str, *, host: str | None = None, provider: str = "") -> float | None:
    """Return the window, in seconds, of a limit that states none, by the documents of the provider; None if unknown.

    >>> usual_window("requests", host="api.groq.com"), usual_window("requests", host="api.openai.com")
    (86400.0, None)
    """
    names = (provider.lower(), (host or "").lower())
    for row in header_words().window:
        if row.dimension == dimension and any(fnmatchcase(name, pattern) for pattern in row.only for name in names):
            return row.window
    return None
