"""Ejects outliers: leaves a provider out for a while if its calls fail far more than those of the others. Pure.

The rules are those of Envoy's outlier detection, except for the success rate: Envoy compares it with the mean by
standard deviations, which can single out none of fewer than five, and a service seldom has more providers than that.
"""

from __future__ import annotations

import math
from statistics import median
from typing import TYPE_CHECKING

import msgspec

from actors.validation import check_count

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

MAX_RECENT = 100
"""When a success rate counts this many calls, its counts are halved, so that recent calls weigh more."""


class EjectionConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Which providers to eject, and for how long; durations are seconds.

    A provider is ejected after `failure_threshold` failures in a row, or if its success rate over at least `min_calls`
    calls is below the median of the others by more than `margin`. It is ejected for `eject_for` times the number of its
    ejections, at most for `max_eject_for`; after `max_eject_for` without one, its ejections are forgotten. At most the
    part `max_ejected` of the providers of a service is ejected at the same time, and never the only one.

    Source: `failure_threshold`, `eject_for` and `max_eject_for` are the defaults of Envoy (consecutive_5xx 5,
    base_ejection_time 30 s, max_ejection_time 300 s); its max_ejection_percent 10 % is for clusters of many hosts.
    """

    failure_threshold: int = 5
    min_calls: int = 20
    margin: float = 0.3
    eject_for: float = 30.0
    max_eject_for: float = 300.0
    max_ejected: float = 0.5

    def __post_init__(self) -> None:
        for name, count in (("failure_threshold", self.failure_threshold), ("min_calls", self.min_calls)):
            check_count(name, count, unit="call")
        for name, part in (("margin", self.margin), ("max_ejected", self.max_ejected)):
            if not 0 <= part <= 1:
                raise ValueError(f"{name} must be from 0 to 1, got {part}")
        if not 0 < self.eject_for <= self.max_eject_for < math.inf:
            raise ValueError(
                "need 0 < eject_for <= max_eject_for, and both finite, "
                f"got {self.eject_for} and {self.max_eject_for} (seconds)"
            )


DEFAULT_EJECTION = EjectionConfig()


class EjectionRecord(msgspec.Struct, frozen=True, gc=False):
    """The calls of one provider since its last ejection, and its ejections.

    `streak` counts the failures in a row; `calls` and `failures` count the recent ones. It has been ejected `times`
    times, the last time until `until`, in loop time.
    """

    streak: int = 0
    calls: float = 0.0
    failures: float = 0.0
    times: int = 0
    until: float = -math.inf

    @property
    def success_rate(self) -> float:
        """The part of its recent calls that succeeded; 1 if there were none."""
        return 1.0 - self.failures / self.calls if self.calls else 1.0


NEW_RECORD = EjectionRecord()


def after_call(record: EjectionRecord, *, failed: bool) -> EjectionRecord:
    """Return the record after a call that succeeded, or that failed by the provider's fault."""
    calls, failures = record.calls + 1, record.failures + failed
    if calls >= MAX_RECENT:
        calls, failures = calls / 2, failures / 2
    return EjectionRecord(record.streak + 1 if failed else 0, calls, failures, record.times, record.until)


def outliers(records: Mapping[str, EjectionRecord], config: EjectionConfig = DEFAULT_EJECTION) -> list[str]:
    """Return the providers to eject, worst first: by longest streak, then lowest success rate, then name.

    >>> outliers({"a": EjectionRecord(streak=5, calls=5, failures=5), "b": EjectionRecord(calls=5)})
    ['a']
    """
    rates = {name: record.success_rate for name, record in records.items() if record.calls >= config.min_calls}
    found: list[tuple[int, float, str]] = []
    for name, record in records.items():
        others = [rate for other, rate in rates.items() if other != name]
        is_far_below = name in rates and others and median(others) - rates[name] > config.margin
        if record.streak >= config.failure_threshold or is_far_below:
            found.append((-record.streak, record.success_rate, name))
    return [name for _, _, name in sorted(found)]


def eject(
    records: Mapping[str, EjectionRecord],
    *,
    now: float,
    isolated: Collection[str] = (),
    config: EjectionConfig = DEFAULT_EJECTION,
) -> dict[str, EjectionRecord]:
    """Eject outliers at `now`, and return the records that change, by provider.

    `records` holds one record for each provider of a service. Providers in `isolated` have an open breaker; they count
    as ejected already.
    """
    out = {name for name, record in records.items() if record.until > now} | set(isolated).intersection(records)
    room = min(int(config.max_ejected * len(records)), len(records) - 1) - len(out)
    changed: dict[str, EjectionRecord] = {}
    if room <= 0:
        return changed
    candidates = {name: record for name, record in records.items() if name not in out}
    for name in outliers(candidates, config)[:room]:
        record = records[name]
        times = 1 if now >= record.until + config.max_eject_for else record.times + 1
        changed[name] = EjectionRecord(times=times, until=now + min(config.max_eject_for, times * config.eject_for))
    return changed
