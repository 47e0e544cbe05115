"""When a cap renews: by the calendar of a time zone, or as a window of time that rolls on. Pure.

A moment is in seconds since 1970. Each belongs to one period, and the periods follow each other without a gap.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Any, Literal, NamedTuple, TypeAlias
from zoneinfo import ZoneInfo, available_timezones

import msgspec

from actors.money import Micros, take_amount, to_micros
from actors.spelling import closest, unknown_name
from actors.validation import check_text

Unit: TypeAlias = Literal["hour", "day", "week", "month"]

UNITS: tuple[Unit, ...] = ("hour", "day", "week", "month")
MEANT = {"hr": "hour", "h": "hour", "hourly": "hour", "d": "day", "daily": "day", "w": "week", "weekly": "week"}
"""What the units are called besides; "m" may be minutes, and stands for nothing."""
SECONDS = {"hour": 3_600, "day": 86_400, "week": 604_800}
"""Those of the units that are always as long in a window that rolls."""
SLICES = 60
"""The parts of a rolling window: what is spent in one counts until the window has passed since the end of that part."""
MAX_WINDOW = 366 * 86_400
LATEST = 200_000_000_000.0
"""The last moment that is told from earlier ones, in the year 8307; a date has four digits."""
HOUR = 3_600
EXAMPLES = '"5/day", "100/month in Europe/Berlin" or "5/day rolling"'

_RENEWAL = re.compile(
    r"(?P<count>\d+)?\s*(?P<unit>[^\W\d_]+)(?P<rolling>\s+rolling)?(?:\s+in\s+(?P<zone>\S+))?", re.IGNORECASE
)


class Period(NamedTuple):
    """A stretch of time, from `start` until before `end`; it is told from others by its start."""

    start: int
    end: int


class Renewal(msgspec.Struct, frozen=True):
    """How often a cap renews: each `unit` of the calendar in `zone`, or `count` units that roll on.

    Days are of 23 to 25 hours, as the zone has them, weeks begin on Mondays (ISO 8601), and hours are counted from
    midnight. A window that rolls is cut into 60 slices, and has no zone; its unit is no month, as these differ.

    >>> str(Renewal("day", zone="Europe/Berlin")), str(Renewal("day", rolling=True, count=30))
    ('day in Europe/Berlin', '30 days rolling')
    """

    unit: Unit
    zone: str = "UTC"
    rolling: bool = False
    count: int = 1

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise ValueError(f"{unknown_name('period', str(self.unit), UNITS)}; write {EXAMPLES}")
        check_text("zone", self.zone)
        if type(self.count) is not int or self.count < 1:
            raise ValueError(f"the count of {self.unit}s must be a whole number of at least 1, got {self.count!r}")
        if not self.rolling:
            if self.count != 1:
                raise ValueError(
                    f"a cap renews each {self.unit} of the calendar, not each {self.count}; "
                    f'write "{self.count} {self.unit}s rolling" for a window that rolls'
                )
            zone_named(self.zone)
        elif self.unit == "month":
            raise ValueError('months are not of one length; write "30 days rolling", or "month" for the calendar')
        elif self.zone != "UTC":
            raise ValueError(f"a window that rolls is the same in each zone; leave out {self.zone!r}")
        elif self.window > MAX_WINDOW:
            raise ValueError(f"a window that rolls has at most 366 days, got {self}")

    @property
    def window(self) -> int:
        """The seconds for which money counts that is spent now; at most, as some months and days are shorter."""
        if not self.rolling:
            return 31 * 86_400 if self.unit == "month" else SECONDS[self.unit]
        return SECONDS[self.unit] * self.count

    @property
    def slices(self) -> int:
        """How many periods before the present one count as well."""
        return SLICES if self.rolling else 0

    def period(self, at: float) -> Period:
        """Return the period of a moment: of a rolling window, the slice.

        >>> Renewal("day").period(86_400.0 * 3 + 5)
        Period(start=259200, end=345600)
        """
        at = min(max(at, 0.0), LATEST)
        if self.rolling:
            length = self.window // SLICES
            start = int(at // length) * length
            return Period(start, start + length)
        return _calendar_period(self.unit, zone_named(self.zone), at)

    def __str__(self) -> str:
        unit = self.unit if self.count == 1 else f"{self.count} {self.unit}s"
        return f"{unit} rolling" if self.rolling else unit if self.zone == "UTC" else f"{unit} in {self.zone}"


class Cap(NamedTuple):
    """What may be spent in all, or in each period if there is a renewal."""

    amount: Micros
    renewal: Renewal | None = None

    def __str__(self) -> str:
        return str(self.amount) if self.renewal is None else f"{self.amount}/{self.renewal}"


def read_cap(given: Any, *, zone: str | None = None) -> Cap:
    """Return a cap as people write it: an amount, or one for each period, in `zone` (None: UTC, or as is written).

    Raises ValueError or TypeError as `to_micros`, and for a period that there is not.

    >>> read_cap("5/day", zone="Europe/Berlin").renewal
    Renewal(unit='day', zone='Europe/Berlin', rolling=False, count=1)
    >>> str(read_cap("100/month in Asia/Tokyo")), str(read_cap("5")), str(read_cap("5 / 12 hours rolling"))
    ('$100.00/month in Asia/Tokyo', '$5.00', '$5.00/12 hours rolling')
    >>> read_cap("5/dya")
    Traceback (most recent call last):
    ValueError: the cap '5/dya': an unknown period 'dya'; did you mean 'day'?
    """
    if not isinstance(given, str) or "/" not in given:
        amount = to_micros(given)
        if zone is not None:
            raise ValueError(f"a zone is of use for a cap that renews, such as {EXAMPLES}; leave it out, got {zone!r}")
        return Cap(amount)
    amount, _, period = given.partition("/")
    micros = to_micros(amount.strip().removeprefix("$"))
    try:
        return Cap(micros, _read_renewal(period, zone=zone))
    except ValueError as error:
        raise ValueError(f"the cap {given[:100]!r}: {error}") from None


def take_cap(struct: msgspec.Struct, field: str, renewal: str, *, zone: str | None = None) -> None:
    """Convert what two fields of a new struct were given: a cap, as text with its renewal, or the two apart.

    Raises as `read_cap`, and names the field.
    """
    given: Any = getattr(struct, field)
    if zone is None and not (isinstance(given, str) and "/" in given):
        if given is not None:
            take_amount(struct, field)
        return
    try:
        cap = read_cap(given, zone=zone)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{field}: {error}") from None
    if getattr(struct, renewal) not in {None, cap.renewal}:
        raise ValueError(f"{field} renews each {cap.renewal}, and {renewal} says otherwise; give one of the two")
    msgspec.structs.force_setattr(struct, field, cap.amount)
    msgspec.structs.force_setattr(struct, renewal, cap.renewal)


def _read_renewal(text: str, *, zone: str | None = None) -> Renewal:
    """Return the renewal that is written after the slash of a cap; raises ValueError."""
    found = _RENEWAL.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"no period is understood in it; write {EXAMPLES}")
    written = found["zone"]
    if zone is not None and written is not None and zone != written:
        raise ValueError(f"its zone is {written!r}, and {zone!r} is given besides; name one")
    return Renewal(
        _unit_named(found["unit"]),
        written or zone or "UTC",
        rolling=found["rolling"] is not None,
        count=int((found["count"] or "1")[:9]),
    )


def _unit_named(name: str) -> Unit:
    plain = name.lower()
    plain = MEANT.get(plain, plain)
    for unit in UNITS:
        if plain in {unit, f"{unit}s"}:
            return unit
    raise ValueError(unknown_name("period", name, UNITS))


@lru_cache(maxsize=256)
def zone_named(name: str) -> tzinfo:
    """Return a time zone of the IANA database; raises ValueError for an unknown one."""
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        known = available_timezones()
        if not known:
            raise ValueError(
                f"the time zone {name!r} cannot be looked up, as this system has no zones; pip install tzdata"
            ) from None
    meant = closest(name, known) or closest(name, {one.rpartition("/")[2]: one for one in known})
    full = next((one for one in sorted(known) if one == meant or one.endswith(f"/{meant}")), None)
    hint = 'write one such as "Europe/Berlin" or "UTC"' if full is None else f"did you mean {full!r}?"
    raise ValueError(f"there is no time zone {name!r:.100}; {hint}")


# The calendar.


@lru_cache(maxsize=4_096)
def _first_moment(day: date, zone: tzinfo) -> int:
    """Return the first moment at which the date in a zone is this one or later.

    Midnight may come twice, and then the first counts. It may also be left out when clocks are put forward; then it
    is the moment at which they are.
    """
    midnight = datetime(day.year, day.month, day.day, tzinfo=zone)
    first, other = (round(midnight.replace(fold=fold).timestamp()) for fold in (0, 1))
    if first <= other:
        return first  # There is one midnight, or the first of two.
    before, after = other - 1, first  # It is left out somewhere between these.
    while after - before > 1:
        middle = (before + after) // 2
        if datetime.fromtimestamp(middle, zone).date() >= day:
            after = middle
        else:
            before = middle
    return after


def _first_day(unit: Unit, day: date) -> date:
    if unit == "week":
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if unit == "month" else day


def _next_day(unit: Unit, day: date) -> date:
    """Return the first day of the period after that which begins with a day."""
    if unit == "month":
        return (day + timedelta(days=31)).replace(day=1)
    return day + timedelta(days=7 if unit == "week" else 1)


def _calendar_period(unit: Unit, zone: tzinfo, at: float) -> Period:
    day = _first_day(unit, datetime.fromtimestamp(at, zone).date())
    following = _next_day(unit, day)
    while at >= _first_moment(following, zone):  # If clocks are put back over midnight, a date may come once more.
        day, following = following, _next_day(unit, following)
    start, end = _first_moment(day, zone), _first_moment(following, zone)
    if unit != "hour":
        return Period(start, end)
    start += (int(at) - start) // HOUR * HOUR
    return Period(start, min(start + HOUR, end))
