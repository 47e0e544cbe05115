"""How long a provider asks to wait, wherever it says so: in headers, in fields of a body, or in prose. Pure."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping
from importlib import resources
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

import msgspec

from actors.errors.families import MAX_RETRY_AFTER
from actors.limits.headers import MAX_LENGTH, limits_in, parse_reset

if TYPE_CHECKING:
    from datetime import datetime

DAY = 86_400.0
TOO_MANY = 429
MAX_READ = 65_536
"""Characters of a body that are read."""
MAX_PROSE = 4_096
"""Characters of prose that are searched; a wait stands near the beginning."""
MAX_VALUES = 500
"""Values of a body that are looked at; an error has few."""

UNITS: tuple[tuple[str, float], ...] = (
    ("ms|msecs?|milliseconds?", 0.001),
    ("s|secs?|seconds?", 1.0),
    ("m|mins?|minutes?", 60.0),
    ("h|hrs?|hours?", 3_600.0),
    ("d|days?", DAY),
)
NUMBER = r"\d{1,9}(?:\.\d{1,12})?"
UNIT = "|".join(names for names, _ in UNITS)
PART = rf"({NUMBER}\s{{0,2}}|\b(?:an?|one)\s{{1,2}})({UNIT})(?![a-z])"
PARTS = rf"{PART}(?:,?\s{{0,2}}(?:and\s{{1,2}})?{PART}){{0,4}}"
MOMENT = (
    r"(\d{4}-\d\d-\d\d)(?:(?:t|\s{1,2}(?:at\s)?)(\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?))?"
    r"\s?(z|utc|gmt|[+-]\d\d:?\d\d)?"
)
LEAD = (
    r"\b(?:try|again|come back|retry|retrying|resets?|refresh(?:es|ed)?|renew(?:s|ed)?|restored|lifted|available|access"
    r"|wait(?: time)?|cooldown|cool down|back ?off)\b[^\d.;!?\n]{0,40}?"
)
WAIT_IN_PROSE = re.compile(
    rf"(?:{LEAD}(?:\b(?:in|after|for|least|about|around|time is|time of)\b:?|[:=])|\bwait"
    rf"|\bbeen timed out for|\bretry[-_]after\W{{0,3}})"
    rf"\s{{0,3}}(?:(?:about|around|approximately|at least|another)\s)?~?({PARTS})"
)
"""Google: "retry in 36.4s", "quota will reset after 18h31m10s"; Groq and OpenAI: "try again in 1m30s"; Azure: "retry
after 45 seconds"; and others. Every repetition is bounded, so a hostile text takes no long time."""
MOMENT_IN_PROSE = re.compile(rf"{LEAD}\b(?:on|at|after|until|from):?\s{{1,3}}{MOMENT}")
"""Anthropic: "You will regain access on 2026-12-01 at 00:00 UTC"."""
CLOCK_IN_PROSE = re.compile(rf"(?:{LEAD}|\breplenished )in\s{{1,3}}(?:(\d{{1,3}})\.)?(\d\d):(\d\d):(\d\d)\b")
"""Azure API Management: "Quota will be replenished in 5.03:23:11", the days before the point."""
BARE_IN_PROSE = re.compile(rf"\bretry[-_ ]after[:= ]{{1,3}}({NUMBER})\s{{0,2}}(?:$|[.,;)\n])")
PART_IN_PROSE = re.compile(PART)

OF_A_DAY = re.compile(
    r"per[ _-]?(?:day|week|month)|/ ?(?:day|month)\b|\b(?:rpd|tpd)\b|\b(?:daily|weekly|monthly) (?:\w{1,20} )?"
    r"(?:limit|quota|allowance)|\b(?:for|of|in) the current (?:day|week|month)"
    r"|(?P<short>per[ _-]?(?:min|sec|hour)|/ ?min\b|\b(?:rpm|tpm)\b)"
)
"""Google: quotaId and quota_limit such as GenerateRequestsPerDayPerProjectPerModel; Groq and OpenAI: "requests per day
(RPD)"; OpenRouter: free-models-per-day; AWS Bedrock: "Too many tokens per day". What is not of a day is `short`."""
QUOTAS_OF_A_DAY = re.compile(
    r"""quota_?(?:id|limit)\\?["']?\s{0,2}[:=]\s{0,2}\\?["']?[^"']{0,100}per_?day""", re.IGNORECASE
)
"""Google names every quota that is used up: if one is of a day, that is the one to wait for."""

Unit = Literal["s", "ms"]


class WaitRow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A `[[header]]` or `[[field]]` table of the file."""

    name: str
    unit: Unit
    seen_at: str


class WaitTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file."""

    header: tuple[WaitRow, ...]
    field: tuple[WaitRow, ...]


class WaitNames(NamedTuple):
    """The headers and the fields that tell a wait, by their plain names, each with its unit."""

    headers: Mapping[str, Unit]
    fields: Mapping[str, Unit]
    in_text: re.Pattern[str]
    """Finds a field and its value in a text that is no JSON, such as the message of an exception."""


class BodyText(NamedTuple):
    """What a body says: the waits that its fields tell, and its prose."""

    waits: list[float]
    prose: str


def retry_after_of(
    headers: Mapping[str, str],
    body: object,
    *,
    now: datetime,
    host: str | None = None,
    status: int | None = None,
) -> float | None:
    """Return the seconds that a failed answer asks to wait before the next try; None if it does not say.

    Precise beats vague: a header that tells a wait (waits.toml) comes first, then the reset of the limit that the
    headers report as used up, then a field of the body, and at last prose: "Please try again in 4.77s". The result is
    from 0 to `MAX_RETRY_AFTER`. What is negative, infinite or unreadable is passed over, and the next place is read.

    `body` is JSON as bytes or str, another text, or a decoded object. Moments are read against `now`; raises ValueError
    if it has no time zone. `host` is that of the provider, if it is known. A reset of a limit of which the headers do
    not say what is left counts only if `status` is 429, or not known.

    >>> from datetime import UTC, datetime
    >>> retry_after_of({}, {"error": "Rate limit. Please try again in 1m30s."}, now=datetime(2030, 1, 1, tzinfo=UTC))
    90.0
    """
    if now.tzinfo is None:
        raise ValueError(f"now must have a time zone, got {now!r}")
    wait = _in_headers(headers, now=now, host=host, status=status)
    if wait is None:
        said = _read(body, now)
        wait = max(said.waits) if said.waits else _in_prose(said.prose, now)
    return None if wait is None else min(wait, MAX_RETRY_AFTER)


def is_day_spent(
    headers: Mapping[str, str],
    body: object,
    retry_after: float | None,
    *,
    now: datetime,
    host: str | None = None,
    provider: str = "",
) -> bool:
    """Tell whether a refusal for too many calls concerns a quota of a day, or longer, that no told wait brings back.

    That is so if headers report a limit of a day of which nothing is left, or if the body speaks of one. If the body
    speaks of a day and of a minute, what it names first counts. A wait that is told beside, `retry_after` in seconds,
    is that of the quota, unless Google names the quota: it tells the wait of a minute beside a quota of a day.

    >>> from datetime import UTC, datetime
    >>> now = datetime(2030, 1, 1, tzinfo=UTC)
    >>> is_day_spent({}, "tokens per day (TPD)", None, now=now), is_day_spent({}, "per min (RPM)", None, now=now)
    (True, False)
    >>> is_day_spent({}, "tokens per day (TPD)", 579.0, now=now)
    False
    """
    text = _text_of(body)[:MAX_PROSE]
    if QUOTAS_OF_A_DAY.search(text):
        return True
    if retry_after is not None:
        return False
    limits = limits_in(plain_headers(headers), now=now, host=host, provider=provider)
    if any(limit.is_used_up and limit.fields.get("window", 0.0) >= DAY for limit in limits):
        return True
    first = OF_A_DAY.search(text.lower())
    return first is not None and first["short"] is None


def _in_headers(headers: Mapping[str, str], *, now: datetime, host: str | None, status: int | None) -> float | None:
    plain = plain_headers(headers)
    for name, unit in wait_names().headers.items():
        wait = _wait(plain.get(name), unit, now)
        if wait is not None:
            return wait
    limits = limits_in(plain, now=now, host=host)
    used_up = [limit.fields.get("reset", 0.0) for limit in limits if limit.is_used_up]
    # All that is used up has to come back.
    if any(used_up):
        return max(used_up)
    if used_up or status not in {None, TOO_MANY}:
        return None
    # One of these is used up, and it is not known which.
    untold = [
        limit.fields["reset"] for limit in limits if "remaining" not in limit.fields and limit.fields.get("reset")
    ]
    return min(untold) if untold else None


def plain_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers with names in lower case; what is not text is left out."""
    given = cast("Mapping[object, object]", headers)
    return {
        name.lower(): value[:MAX_LENGTH]
        for name, value in given.items()
        if isinstance(name, str) and isinstance(value, str)
    }


def _read(body: object, now: datetime) -> BodyText:
    if isinstance(body, bytes):
        body = body[:MAX_READ].decode(errors="replace")
    if isinstance(body, str):
        text = body[:MAX_READ].removeprefix("\ufeff")
        try:
            return _walk(msgspec.json.decode(text), now)
        except (ValueError, RecursionError):  # Of a lone surrogate, that is no DecodeError.
            return BodyText(_fields_in(text, now), text)
    return _walk(body, now)


def _text_of(body: object) -> str:
    if isinstance(body, bytes):
        return body[:MAX_READ].decode(errors="replace")
    if isinstance(body, str):
        return body
    try:
        return msgspec.json.encode(body, enc_hook=lambda _: None).decode()
    except (TypeError, ValueError, OverflowError, RecursionError):
        return ""


def _walk(content: object, now: datetime) -> BodyText:
    """Read decoded JSON: the fields that tell a wait, headers that a gateway quotes, and all text."""
    waits: list[float] = []
    texts: list[str] = []
    left: list[object] = [content]
    for _ in range(MAX_VALUES):
        if not left:
            break
        value = left.pop(0)
        if isinstance(value, str):
            texts.append(value[:MAX_PROSE])
            waits += _fields_in(value[:MAX_PROSE], now)
        elif isinstance(value, list | tuple):
            left.extend(cast("list[object]", value)[:MAX_VALUES])
        elif isinstance(value, Mapping):
            for name, item in list(cast("Mapping[object, object]", value).items())[:MAX_VALUES]:
                wait = _of_field(_plain_name(name), item, now)
                if wait is not None:
                    waits.append(wait)
                else:
                    left.append(item)
    return BodyText(waits, "\n".join(texts))


def _of_field(name: str, value: object, now: datetime) -> float | None:
    """Return the wait that a field of this plain name tells."""
    if name == "headers" and isinstance(value, Mapping):
        # OpenRouter passes on the headers of the provider that it called.
        return _in_headers(cast("Mapping[str, str]", value), now=now, host=None, status=None)
    unit = wait_names().fields.get(name)
    return None if unit is None else _wait(value, unit, now)


def _fields_in(text: str, now: datetime) -> list[float]:
    """Return the waits of fields in a text that holds JSON, or looks like it: `'retryDelay': '36s'`."""
    names = wait_names()
    found = (
        _wait(match[2], names.fields[_plain_name(match[1])], now) for match in names.in_text.finditer(text[:MAX_PROSE])
    )
    return [wait for wait in found if wait is not None]


def _in_prose(prose: str, now: datetime) -> float | None:
    text = prose[:MAX_PROSE].lower()
    match = WAIT_IN_PROSE.search(text)
    if match is not None:
        return sum(
            (1.0 if number.startswith(("a", "o")) else float(number)) * _seconds_of(unit)
            for number, unit in PART_IN_PROSE.findall(match[1])
        )
    match = MOMENT_IN_PROSE.search(text)
    if match is not None:
        day, time, zone = match.groups()
        zone = "+00:00" if zone in {None, "z", "utc", "gmt"} else zone
        # A moment that has passed tells nothing of the next one.
        return parse_reset(f"{day}t{time or '00:00'}{zone}", now=now) or None
    match = CLOCK_IN_PROSE.search(text)
    if match is not None:
        days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
        return days * DAY + hours * 3_600.0 + minutes * 60.0 + seconds
    match = BARE_IN_PROSE.search(text)
    return None if match is None else float(match[1])


def _seconds_of(unit: str) -> float:
    return next(seconds for names, seconds in UNITS if re.fullmatch(names, unit))


def _wait(value: object, unit: Unit, now: datetime) -> float | None:
    """Return the seconds that the value of a header or field tells: a number, a text, or a duration of protobuf."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        if not 0 <= value < math.inf:
            return None
        value = f"{min(value, 1e17):.9f}"
    elif isinstance(value, Mapping):
        parts = cast("Mapping[str, Any]", value)
        seconds, nanos = parts.get("seconds", 0), parts.get("nanos", 0)
        if not (isinstance(seconds, int | float | str) and isinstance(nanos, int)):
            return None
        whole = _wait(seconds, "s", now)
        return None if whole is None or not 0 <= nanos < 1_000_000_000 else whole + nanos / 1e9
    if not isinstance(value, str):
        return None
    text = value[:MAX_LENGTH].strip()
    if unit == "ms" and re.fullmatch(NUMBER, text, re.ASCII):
        return float(text) / 1000
    wait = parse_reset(text, now=now)
    if wait is None and re.fullmatch(PARTS, text.lower()):
        wait = _in_prose(f"wait {text}", now)
    return wait


def _plain_name(name: object) -> str:
    return name[:100].replace("_", "").replace("-", "").lower() if isinstance(name, str) else ""


@functools.cache
def wait_names() -> WaitNames:
    """Return the names of waits.toml, which comes with the package; the file is read at the first call."""
    text = resources.files("actors.errors").joinpath("waits.toml").read_text(encoding="utf-8")
    table = msgspec.toml.decode(text, type=WaitTable)
    spelled = "|".join("[_-]?".join(re.findall("[A-Z]?[a-z]+", row.name)) for row in table.field)
    in_text = re.compile(
        rf"""\b({spelled})\\?["']?\s{{0,2}}[:=]\s{{0,2}}\\?["']?(\d[\w.:+-]{{0,39}})""", re.IGNORECASE | re.ASCII
    )
    return WaitNames(
        {row.name: row.unit for row in table.header}, {_plain_name(row.name): row.unit for row in table.field}, in_text
    )
