"""Periods of caps follow each other without a gap, in every zone, over changes of clocks; and are read as written."""

from __future__ import annotations

from datetime import UTC, datetime
from random import Random
from zoneinfo import ZoneInfo, available_timezones

import pytest

from actors.ledger.periods import SLICES, Cap, Period, Renewal, read_cap
from actors.money import Micros
from tests.proofs import repeated

DAY = 86_400
ODD_ZONES = (
    "Europe/Berlin",
    "America/St_Johns",  # Clocks were put back at 00:01, so that a date came again for most of an hour.
    "America/Sao_Paulo",  # Clocks were put forward at midnight.
    "America/Havana",  # Midnight came twice.
    "Australia/Lord_Howe",  # By half an hour.
    "Pacific/Apia",  # One day was left out.
    "America/Toronto",
    "Asia/Kathmandu",
)


def moment(text: str, zone: str = "UTC") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


@pytest.mark.parametrize(
    ("text", "cap"),
    [
        ("5/day", Cap(Micros(5_000_000), Renewal("day"))),
        ("$0.50/hour", Cap(Micros(500_000), Renewal("hour"))),
        (" 100 / Month in Europe/Berlin", Cap(Micros(100_000_000), Renewal("month", "Europe/Berlin"))),
        ("7/weekly", Cap(Micros(7_000_000), Renewal("week"))),
        ("5/day rolling", Cap(Micros(5_000_000), Renewal("day", rolling=True))),
        ("5/30 days rolling", Cap(Micros(5_000_000), Renewal("day", rolling=True, count=30))),
        ("5", Cap(Micros(5_000_000))),
    ],
)
def test_a_cap_is_read_as_people_write_it(text: str, cap: Cap):
    assert read_cap(text) == cap
    if cap.renewal is not None:
        assert read_cap(str(cap)) == cap


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("5/dya", "the cap '5/dya': an unknown period 'dya'; did you mean 'day'?"),
        ("5/fortnight", "known are day, hour, month, week"),
        ("5/", "no period is understood"),
        ("x/day", "'x' is not a decimal number"),
        ("-1/day", "is negative"),
        ("5/day in Berlin", "there is no time zone 'Berlin'; did you mean 'Europe/Berlin'?"),
        ("5/day in Europe/Berln", "did you mean 'Europe/Berlin'?"),
        ("5/day in ../../etc/passwd", "there is no time zone"),
        ("5/2 days", '"2 days rolling"'),
        ("5/month rolling", "30 days rolling"),
        ("5/400 days rolling", "at most 366 days"),
        ("5/day rolling in Europe/Berlin", "the same in each zone"),
        ("5/0 days rolling", "at least 1"),
    ],
)
def test_a_cap_that_is_none_is_refused_with_what_was_probably_meant(text: str, words: str):
    with pytest.raises(ValueError, match=r".") as refused:
        read_cap(text)
    assert words in str(refused.value)


def test_a_zone_is_named_once_and_only_for_a_cap_that_renews():
    assert read_cap("5/day", zone="Asia/Tokyo") == read_cap("5/day in Asia/Tokyo")
    with pytest.raises(ValueError, match="leave it out"):
        read_cap("5", zone="Asia/Tokyo")
    with pytest.raises(ValueError, match="name one"):
        read_cap("5/day in Asia/Tokyo", zone="UTC")


@pytest.mark.parametrize(
    ("renewal", "at", "hours"),
    [
        (Renewal("day", "Europe/Berlin"), moment("2026-03-29T12:00", "Europe/Berlin"), 23),
        (Renewal("day", "Europe/Berlin"), moment("2026-10-25T12:00", "Europe/Berlin"), 25),
        (Renewal("day", "Europe/Berlin"), moment("2026-10-26T12:00", "Europe/Berlin"), 24),
        (Renewal("week", "Europe/Berlin"), moment("2026-10-25T12:00", "Europe/Berlin"), 7 * 24 + 1),
        (Renewal("month"), moment("2028-02-10T12:00"), 29 * 24),
        (Renewal("month", "Europe/Berlin"), moment("2026-03-10T12:00", "Europe/Berlin"), 31 * 24 - 1),
        (Renewal("day", "Australia/Lord_Howe"), moment("2026-10-04T12:00", "Australia/Lord_Howe"), 23.5),
        (Renewal("day", "Pacific/Apia"), moment("2011-12-29T12:00", "Pacific/Apia"), 24),
        (Renewal("hour"), moment("2026-10-25T12:34"), 1),
    ],
)
def test_a_period_is_as_long_as_its_zone_has_it(renewal: Renewal, at: float, hours: float):
    period = renewal.period(at)
    assert period.end - period.start == hours * 3_600


def test_a_day_begins_at_its_midnight_and_a_week_on_monday():
    assert Renewal("day", "Europe/Berlin").period(moment("2026-07-01T00:00", "Europe/Berlin")) == Period(
        round(moment("2026-07-01T00:00", "Europe/Berlin")), round(moment("2026-07-02T00:00", "Europe/Berlin"))
    )
    week = Renewal("week").period(moment("2026-07-05T23:59:59"))
    assert datetime.fromtimestamp(week.start, UTC).isoformat() == "2026-06-29T00:00:00+00:00"


@pytest.mark.parametrize("seed", range(repeated(300)))
def test_periods_follow_each_other_without_a_gap_in_every_zone(seed: int):
    rng = Random(seed)
    zone = rng.choice([*ODD_ZONES, *ODD_ZONES, rng.choice(sorted(available_timezones()))])
    unit = rng.choice(["hour", "day", "day", "week", "month"])
    renewal = Renewal("day", rolling=True) if rng.random() < 0.1 else Renewal(unit, zone)
    at = rng.uniform(0, 2_500_000_000)
    period = renewal.period(at)
    for _ in range(800):
        assert period.start < period.end
        for inside in (period.start, period.end - 1, period.end - 1e-3, rng.uniform(period.start, period.end - 1e-3)):
            assert renewal.period(inside) == period, (renewal, inside)
        following = renewal.period(period.end)
        assert following.start == period.end
        period = following


def test_of_a_rolling_window_money_counts_for_the_whole_window_and_at_most_a_slice_longer():
    renewal, rng = Renewal("day", rolling=True), Random(1)
    length = renewal.window // SLICES
    for _ in range(1_000):
        spent = rng.uniform(0, 2e9)
        until = renewal.period(spent).start + (renewal.slices + 1) * length
        assert renewal.window <= until - spent <= renewal.window + length


@pytest.mark.parametrize("at", [-1e18, -1.0, 0.0, 1e11, 1e300])
@pytest.mark.parametrize("unit", ["hour", "day", "week", "month"])
def test_a_clock_that_is_far_off_has_a_period_all_the_same(at: float, unit: str):
    period = read_cap(f"5/{unit} in Asia/Tokyo").renewal
    assert period is not None
    assert period.period(at).start < period.period(at).end
