"""Reads a provider's rate limits from its response headers.

Known are `X-RateLimit-Limit-Requests` and its relatives, `RateLimit` and `RateLimit-Policy` (IETF draft
"RateLimit header fields for HTTP", in its forms since version 3), and names with the dimension in the middle. What the
words of the names mean is data: headers.toml.
"""

from __future__ import annotations

import email.utils
import math
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from actors.limits.header_names import dimension_of, header_name, usual_window
from actors.limits.quota import REQUESTS
from actors.limits.reported import Field, ReportedLimit

if TYPE_CHECKING:
    from collections.abc import Mapping

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

DURATION_UNITS: Mapping[str, float] = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "ms": 0.001,
    "s": 1.0,
    "m": 60.0,
    "h": 3_600.0,
    "d": 86_400.0,
}
NUMBER = re.compile(r"\d{1,18}(?:\.\d{1,18})?", re.ASCII)
PART_OF_DURATION = re.compile(r"(\d{1,18}(?:\.\d{1,18})?)(ns|us|µs|ms|s|m|h|d)", re.ASCII)
DURATION = re.compile(rf"(?:{PART_OF_DURATION.pattern})+", re.ASCII)
TIMESTAMP_FROM = 1e9
"""A reset of at least this many seconds is a moment (Unix time), and not a duration of 31 years."""
MILLISECONDS_FROM, MICROSECONDS_FROM = 1e12, 1e15
MAX_LENGTH = 1_000
"""The characters of a value that are read; no limit needs more."""
MAX_NAME = 100


class HeaderLimit:
    """One limit as headers tell it, by its own name; `dimension` is None if it counts something that we do not."""

    __slots__ = ("dimension", "fields", "is_void")

    def __init__(self, dimension: str | None) -> None:
        self.dimension = dimension
        self.fields: dict[Field, float] = {}
        self.is_void = False
        """Whether it is no limit: Azure OpenAI sends -1 for a limit that it does not keep."""

    @property
    def is_used_up(self) -> bool:
        """Whether the headers say that nothing is left of it."""
        return self.fields.get("remaining", math.inf) < 1

    @property
    def tightness(self) -> tuple[int, float]:
        """The key by which limits of one dimension are compared: the least is the tightest.

        That is the one with the least remaining, or else the shortest window: a call meets it first, and the quota of a
        day makes no sensible pace.
        """
        remaining = self.fields.get("remaining")
        return (1, self.fields.get("window", math.inf)) if remaining is None else (0, remaining)


def parse_limits(
    headers: Mapping[str, str], *, now: datetime, host: str | None = None, provider: str = ""
) -> tuple[ReportedLimit, ...]:
    """Return the limits that headers report, one entry for each dimension; what makes no sense is left out.

    Of several limits of one dimension the tightest is returned: that of a project beside that of its organization, or
    of a month beside that of a minute. A limit of something else, such as images, is left out. The window of a limit
    is what its name states, or else what the documents of the provider say, which is known by `host` or by name.
    Moments are read against `now`, which needs a time zone. Names may be in any case.

    >>> headers = {"X-RateLimit-Remaining-Tokens": "900", "X-RateLimit-Reset-Tokens": "6m0s"}
    >>> parse_limits(headers, now=datetime(2030, 1, 1, tzinfo=UTC))
    (ReportedLimit(dimension='tokens', limit=None, remaining=900.0, reset=360.0, window=None),)
    """
    tightest: dict[str, HeaderLimit] = {}
    for limit in limits_in(headers, now=now, host=host, provider=provider):
        dimension = limit.dimension
        if dimension is not None and (dimension not in tightest or limit.tightness < tightest[dimension].tightness):
            tightest[dimension] = limit
    return tuple(
        ReportedLimit(
            dimension=dimension,
            limit=limit.fields.get("limit"),
            remaining=limit.fields.get("remaining"),
            reset=limit.fields.get("reset"),
            window=limit.fields.get("window"),
        )
        for dimension, limit in tightest.items()
    )


def limits_in(
    headers: Mapping[str, str], *, now: datetime, host: str | None = None, provider: str = ""
) -> list[HeaderLimit]:
    """Return every limit that headers tell, those of unknown dimensions included; arguments as for `parse_limits`."""
    # Most answers have no such header, and every answer is looked at.
    if "limit" not in "\n".join(headers).lower():
        return []
    found: dict[str, HeaderLimit] = {}
    for name, text in headers.items():
        key, value = name.lower(), text[:MAX_LENGTH].strip()
        if key in LIST_HEADERS:
            _read_list(value, found)
        elif "limit" in key and len(key) <= MAX_NAME:
            _read_single(key, value, found, now)
    told = [limit for limit in found.values() if not limit.is_void and limit.fields.keys() - {"window"}]
    for limit in told:
        if limit.dimension is not None and "window" not in limit.fields:
            window = usual_window(limit.dimension, host=host, provider=provider)
            if window is not None:
                limit.fields["window"] = window
    return told


def parse_reset(value: str, *, now: datetime) -> float | None:
    """Return the seconds until a reset, None if `value` tells none.

    It may be seconds, a duration as Go writes it, Unix time in seconds, milliseconds or microseconds, or a moment as in
    RFC 3339 or as an HTTP date. A moment that has passed is 0.0.

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
    moment = _moment(value)
    return None if moment is None else max(0.0, (moment - now).total_seconds())


def _moment(value: str) -> datetime | None:
    """Return the moment that RFC 3339 or an HTTP date tells; one without a zone is in UTC."""
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        try:
            moment = email.utils.parsedate_to_datetime(value)
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _read_single(name: str, value: str, found: dict[str, HeaderLimit], now: datetime) -> None:
    """Read a header that carries one number, after which a policy may follow: `100, 100;w=60`."""
    meaning = header_name(name)
    if meaning is None:
        return
    limit = found.setdefault(meaning.limit, HeaderLimit(meaning.dimension))
    if meaning.window is not None:
        limit.fields.setdefault("window", meaning.window)
    field = meaning.field
    first, _, policy = value.partition(",")
    number = parse_reset(value, now=now) if field == "reset" else _number(first.partition(";")[0])
    if number is not None:
        limit.fields[field] = number
    elif field != "reset" and value.startswith("-"):
        limit.is_void = True
    window = _parameters(policy or first).get("window") if field == "limit" else None
    if window is not None:
        limit.fields["window"] = window


def _read_list(value: str, found: dict[str, HeaderLimit]) -> None:
    """Read a list: `"default";q=100;w=60, "day";q=1000;w=86400`, `limit=100, remaining=50, reset=5`, `100;w=60`.

    An entry belongs to the policy that it names, which the other header may tell more of. A policy counts requests
    unless its name or its unit says something else.
    """
    if value.partition("=")[0].strip() in {"limit", "remaining", "reset"}:
        found.setdefault("", HeaderLimit(REQUESTS)).fields.update(_parameters(value.replace(",", ";")))
        return
    for entry in value.split(","):
        head = entry.partition(";")[0].strip()
        parameters = _parameters(entry)
        amount = _number(head)
        if amount is not None:
            parameters["limit"] = amount
        if not parameters:
            continue
        name = "" if amount is not None else head.strip('"').lower()
        unit = re.search(r'qu="([a-z-]+)"', entry)
        key = f'"{name}"' if name else ""
        if key not in found:
            found[key] = HeaderLimit(dimension_of(name) or REQUESTS)
        if unit is not None:
            found[key].dimension = dimension_of(unit[1])
        found[key].fields.update(parameters)


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
