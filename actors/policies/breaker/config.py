"""The configuration of a circuit breaker: when it opens, for how long, and how slowly the load comes back."""

from __future__ import annotations

import math

import msgspec

from actors.validation import SaysOptionNames, check_count

DEFAULT_LEASE = 30.0
"""Seconds that a probe has to report if it is not known how long its call may take."""
RELAPSED = 6
"""How many times `open_for` a breaker stays open from a relapse on.

With the `slow_start` after it, a provider that is well again is in full use within 40 seconds.
"""


class BreakerConfig(msgspec.Struct, frozen=True, kw_only=True, metaclass=SaysOptionNames):
    """When a breaker opens, and for how long; durations are seconds.

    It opens on `failure_threshold` failures in a row. It also opens if, of the last `min_calls` or more within
    `window`, the part `failure_rate` failed, or the part `slow_rate` took `slow_call` or longer (None: never).
    A stream takes the time until its first piece; with `slow_interval`, it is slow as well if its pieces came that many
    seconds after one another, on average.

    It stays open for `open_for`, doubled for each probe that fails, up to `max_open_for`. None stands for three times
    `open_for`. A relapse costs more than a probe: from then on it is six times that at once, or `max_open_for` if that
    is less. Each wait is spread by `jitter` to both sides. A probe that has not reported after `probe_lease` counts as
    lost, and makes room for another. None stands for as long as its call may take, or 30 seconds if that is not known.
    A good answer to a lost probe counts all the same, unless a later failure has opened the breaker again.

    For `slow_start` after a probe closed it, the provider gets a growing share of its load (0: all of it at once); see
    `share`. For `relapse_within` after a probe closed it, the provider is on probation: `failure_threshold` and
    `min_calls` grow from a tenth of themselves, the first from at least 2, and `failure_rate` from a half. So one
    failure among the first few calls is enough. A breaker that opens again on probation waits as if its probe had
    failed.
    """

    failure_threshold: int = 5
    failure_rate: float = 0.5
    min_calls: int = 20
    window: float = 30.0
    open_for: float = 5.0
    max_open_for: float | None = None
    jitter: float = 0.1
    slow_call: float | None = None
    slow_interval: float | None = None
    slow_rate: float = 0.5
    probe_lease: float | None = None
    slow_start: float = 10.0
    relapse_within: float = 60.0

    def __post_init__(self) -> None:
        self._check_counts()
        self._check_durations()

    def _check_counts(self) -> None:
        for name, count in (("failure_threshold", self.failure_threshold), ("min_calls", self.min_calls)):
            check_count(name, count, unit="call")
        for name, rate in (("failure_rate", self.failure_rate), ("slow_rate", self.slow_rate)):
            if not 0 < rate <= 1:
                raise ValueError(f"{name} must be above 0 and at most 1, got {rate}")
        if not 0 <= self.jitter < 1:
            raise ValueError(f"jitter must be from 0 to below 1, got {self.jitter}")

    def _check_durations(self) -> None:
        for name, duration in (
            ("window", self.window),
            ("open_for", self.open_for),
            ("probe_lease", DEFAULT_LEASE if self.probe_lease is None else self.probe_lease),
            ("slow_call", 1.0 if self.slow_call is None else self.slow_call),
            ("slow_interval", 1.0 if self.slow_interval is None else self.slow_interval),
        ):
            if not 0 < duration < math.inf:
                raise ValueError(f"{name} must be > 0 seconds and finite, got {duration}")
        if not self.open_for <= self.longest_wait < math.inf:
            raise ValueError(f"max_open_for must be finite and >= open_for ({self.open_for}), got {self.max_open_for}")
        for name, duration in (("slow_start", self.slow_start), ("relapse_within", self.relapse_within)):
            if not 0 <= duration < math.inf:
                raise ValueError(f"{name} must be >= 0 seconds (0: none) and finite, got {duration}")

    def lease(self, within: float) -> float:
        """Return the seconds that a probe has to report whose call may take `within` seconds.

        >>> BreakerConfig().lease(45.0), BreakerConfig().lease(math.inf), BreakerConfig(probe_lease=5.0).lease(45.0)
        (45.0, 30.0, 5.0)
        """
        if self.probe_lease is not None:
            return self.probe_lease
        return within if within < math.inf else DEFAULT_LEASE

    @property
    def longest_wait(self) -> float:
        """The most seconds that it stays open, however often the provider has relapsed."""
        return RELAPSED * self.open_for if self.max_open_for is None else self.max_open_for

    @property
    def longest_wait_for_probe(self) -> float:
        """The most seconds that it stays open while the provider has not relapsed, however many probes have failed."""
        return 3 * self.open_for if self.max_open_for is None else self.max_open_for

    @property
    def least_wait_after_relapse(self) -> float:
        """The seconds that it stays open at least once the provider has relapsed, before jitter."""
        return min(self.longest_wait, RELAPSED * self.open_for)


DEFAULT_BREAKER = BreakerConfig()
