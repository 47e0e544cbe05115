"""Ejects outliers: leaves a provider out for a while if its calls fail far more than those of the others. Pure.

The rules are those of Envoy's outlier detection, except for the success rate: Envoy compares it with the mean by
standard deviations, which can single out none of fewer than five, and a service seldom has more providers than that.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort

import msgspec

from actors.validation import check_count

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


class Ejector:
    """The records of the providers of one service, in an order in which the outliers are found without the others.

    >>> ejector = Ejector()
    >>> for name, record in {"a": EjectionRecord(streak=5, calls=5, failures=5), "b": NEW_RECORD}.items():
    ...     ejector.update(name, record, is_out=False)
    >>> ejector.outliers(), ejector.eject(now=0.0)["a"].until
    (['a'], 30.0)
    """

    __slots__ = ("_config", "_out", "_rates", "_records", "_streaks")

    def __init__(self, config: EjectionConfig = DEFAULT_EJECTION) -> None:
        self._config = config
        self._records: dict[str, EjectionRecord] = {}
        self._out: set[str] = set()
        """The providers that are ejected, or whose breaker is open."""
        self._streaks: dict[str, EjectionRecord] = {}
        """Of the others, those with enough failures in a row."""
        self._rates: list[tuple[float, str]] = []
        """Of the others, the sorted success rates of those with enough calls."""

    def update(self, name: str, record: EjectionRecord, *, is_out: bool) -> None:
        """Take note of the record of a provider, which is out if it is ejected, or if its breaker is open."""
        config, before = self._config, self._records.get(name)
        if before is not None and before.calls >= config.min_calls and name not in self._out:
            del self._rates[bisect_left(self._rates, (before.success_rate, name))]
        self._records[name] = record
        self._streaks.pop(name, None)
        if is_out:
            self._out.add(name)
            return
        self._out.discard(name)
        if record.calls >= config.min_calls:
            insort(self._rates, (record.success_rate, name))
        if record.streak >= config.failure_threshold:
            self._streaks[name] = record

    def outliers(self) -> list[str]:
        """Return the providers to eject, worst first: by longest streak, then lowest success rate, then name."""
        found = {name: (-one.streak, one.success_rate, name) for name, one in self._streaks.items()}
        # The lower a rate, the further it is below the median of the others.
        for place, (rate, name) in enumerate(self._rates):
            if len(self._rates) == 1 or self._median_without(place) - rate <= self._config.margin:
                break
            found[name] = (-self._records[name].streak, rate, name)
        return [name for _, _, name in sorted(found.values())]

    def _median_without(self, place: int) -> float:
        """Return the median of the rates without one of at least two."""
        others = len(self._rates) - 1
        middle = (self._rates[at + (at >= place)][0] for at in ((others - 1) // 2, others // 2))
        return sum(middle) / 2

    def eject(self, now: float) -> dict[str, EjectionRecord]:
        """Eject outliers at `now`, and return the records that change, by provider."""
        config, count = self._config, len(self._records)
        room = min(int(config.max_ejected * count), count - 1) - len(self._out)
        changed: dict[str, EjectionRecord] = {}
        if room <= 0:
            return changed
        for name in self.outliers()[:room]:
            record = self._records[name]
            times = 1 if now >= record.until + config.max_eject_for else record.times + 1
            changed[name] = EjectionRecord(times=times, until=now + min(config.max_eject_for, times * config.eject_for))
        for name, record in changed.items():
            self.update(name, record, is_out=True)
        return changed

    def __repr__(self) -> str:
        return f"<Ejector {len(self._records)} providers, {len(self._out)} out>"
