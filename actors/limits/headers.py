"""Reads a provider's rate limits from its response headers. Each dialect of header names is a row in a table.

Known are `X-RateLimit-Limit-Requests` and its relatives, `RateLimit` and `RateLimit-Policy` (IETF draft
"RateLimit header fields for HTTP", in its forms since version 3), and names with the dimension in the middle.
"""

from __future__ import annotations

import math
import re
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from actors.limits.quota import REQUESTS
from actors.limits.reported import Field, ReportedLimit

if TYPE_CHECKING:
    from collections.abc import Mapping

FieldsByDimension: TypeAlias = "dict[str, dict[Field, float]]"


class HeaderDialect(NamedTuple):
    """Names of headers: `pattern` matches a whole name in lower case; `dimension` is meant if the name has none."""

    pattern: re.Pattern[str]
    dimension: str = REQUESTS


DIALECTS: tuple[HeaderDialect, ...] = (
    HeaderDialect(re.compile(r"x-ratelimit-(?P<field>limit|remaining|reset)-(?P<dimension>[a-z][a-z0-9-]*)")),
    HeaderDialect(re.compile(r"(?:x-)?rate-?limit-(?P<field>limit|remaining|reset)")),
    HeaderDialect(re.compile(r"[a-z]+-ratelimit-(?P<dimension>[a-z][a-z0-9-]*)-(?P<field>limit|remaining|reset)")),
)
"""The headers that carry one number each; the first pattern that matches counts."""

LIST_HEADERS = frozenset({"ratelimit", "ratelimit-policy"})
"""The headers that carry a list of limits, each with its parameters."""

PARAMETERS: Mapping[str, Field] = {
    "limit": "limit",
    "q": "limit",
    "remaining": "remaining",
    "r": "remaining",
    "reset": "reset",
    "t": "reset",
    "w": "window",
}

UNITS: Mapping[str, str] = {
    "request": REQUESTS,
    "requests": REQUESTS,
    "token": "tokens",
    "tokens": "tokens",
    "input-tokens": "input_tokens",
    "output-tokens": "output_tokens",
    "cost": "cost",
}
"""What providers call each dimension; any other name, such as that of a policy, counts requests."""

DURATION_UNITS: Mapping[str, float] = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
NUMBER = re.compile(r"\d{1,18}(?:\.\d{1,18})?", re.ASCII)
PART_OF_DURATION = re.compile(r"(\d{1,18}(?:\.\d{1,18})?)(ms|s|m|h|d)", re.ASCII)
DURATION = re.compile(rf"(?:{PART_OF_DURATION.pattern})+", re.ASCII)
TIMESTAMP_FROM = 1e9
"""A reset of at least this many seconds is a moment (Unix time), and not a duration of 31 years."""
MILLISECONDS_FROM, MICROSECONDS_FROM = 1e12, 1e15
MAX_LENGTH = 1_000
"""The characters of a value that are read; no limit needs more."""


def parse_limits(headers: Mapping[str, str], *, now: datetime) -> tuple[ReportedLimit, ...]:
    """Return the limits that headers report, one entry for each dimension; what makes no sense is left out.

    Moments are read against `now`, which needs a time zone. Names may be in any case.

    >>> headers = {"X-RateLimit-Remaining-Tokens": "900", "X-RateLimit-Reset-Tokens": "6m0s"}
    >>> parse_limits(headers, now=datetime(2030, 1, 1, tzinfo=UTC))
    (ReportedLimit(dimension='tokens', limit=None, remaining=900.0, reset=360.0, window=None),)
    """
    found: FieldsByDimension = {}
    for name, text in headers.items():
        value = text[:MAX_LENGTH].strip()
        key = name.lower()
        if key in LIST_HEADERS:
            _read_list(value, found)
            continue
        for dialect in DIALECTS:
            match = dialect.pattern.fullmatch(key)
            if match is not None:
                dimension = UNITS.get(match.groupdict().get("dimension") or "", dialect.dimension)
                _read_number(match["field"], value, found.setdefault(dimension, {}), now)
                break
    return tuple(
        ReportedLimit(
            dimension=dimension,
            limit=fields.get("limit"),
            remaining=fields.get("remaining"),
            reset=fields.get("reset"),
            window=fields.get("window"),
        )
        for dimension, fields in found.items()
        if fields
    )


def parse_reset(value: str, *, now: datetime) -> float | None:
    """Return the seconds until a reset, which is given as seconds, a duration, Unix time or a moment as in RFC 3339.

    None if `value` is none of these.

    >>> [parse_reset(text, now=datetime(2030, 1, 1, tzinfo=UTC)) for text in ("1.5", "1s", "6m0s", "20ms", "soon")]
    [1.5, 1.0, 360.0, 0.02, None]
    """
    value = value.strip()
    if NUMBER.fullmatch(value):
        number = float(value)
        if number >= MICROSECONDS_FROM:
            number /= 1_000_000
        elif number >= MILLISECONDS_FROM:
            number /= 1000
        return number if number < TIMESTAMP_FROM else max(0.0, number - now.timestamp())
    if DURATION.fullmatch(value):
        return sum(float(number) * DURATION_UNITS[unit] for number, unit in PART_OF_DURATION.findall(value))
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())


def _read_number(field: str, value: str, fields: dict[Field, float], now: datetime) -> None:
    """Read a header that carries one number, after which a policy may follow: `100, 100;w=60`."""
    first, _, policy = value.partition(",")
    number = parse_reset(value, now=now) if field == "reset" else _number(first.partition(";")[0])
    if number is not None:
        match field:
            case "limit":
                fields["limit"] = number
            case "remaining":
                fields["remaining"] = number
            case _:
                fields["reset"] = number
    window = _parameters(policy or first).get("window")
    if field == "limit" and window is not None:
        fields["window"] = window


def _read_list(value: str, found: FieldsByDimension) -> None:
    """Read a list: `"default";q=100;w=60, "day";q=1000;w=86400`, `limit=100, remaining=50, reset=5`, `100;w=60`.

    Of several limits of one dimension, the one with the least remaining, or else the shortest window, counts: a call
    meets it first, and the quota of a day makes no sensible pace.
    """
    whole = _parameters(value.replace(",", ";"))
    if value.partition("=")[0].strip() in {"limit", "remaining", "reset"}:
        found.setdefault(REQUESTS, {}).update(whole)
        return
    tightest: FieldsByDimension = {}
    for entry in value.split(","):
        head = entry.partition(";")[0].strip()
        parameters = _parameters(entry)
        amount = _number(head)
        if amount is not None:
            parameters["limit"] = amount
        unit = re.search(r'qu="([a-z-]+)"', entry)
        name = unit[1] if unit else head.strip('"').lower()
        dimension = UNITS.get(name, REQUESTS)
        if parameters and _tightness(parameters) < _tightness(tightest.get(dimension, {})):
            tightest[dimension] = parameters
    for dimension, parameters in tightest.items():
        found.setdefault(dimension, {}).update(parameters)


def _tightness(fields: Mapping[Field, float]) -> float:
    """Return the key that compares the entries of one header: the least is the tightest, infinity is no entry."""
    # An entry without remaining and window is still better than none.
    return fields.get("remaining", fields.get("window", sys.float_info.max if fields else math.inf))


def _parameters(entry: str) -> dict[Field, float]:
    found: dict[Field, float] = {}
    for part in entry.split(";"):
        name, _, text = part.partition("=")
        number = _number(text)
        field = PARAMETERS.get(name.strip().lower())
        if field is not None and number is not None:
            found[field] = number
    return found


def _number(text: str) -> float | None:
    return float(text) if NUMBER.fullmatch(text := text.strip()) else None
