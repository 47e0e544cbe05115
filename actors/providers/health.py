"""Watches the health of providers by the events of their calls, and says which ones to deprioritize, and why.

An event costs its publisher an update of one value. Its consequences are computed when they are asked for.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from actors.events import BreakerClosed, BreakerOpened, CallEnded, HealthChecked
from actors.providers import ejection, observed
from actors.providers.ejection import EjectionConfig
from actors.providers.observed import BLAMED_KINDS, UNOBSERVED, ObservedConfig
from actors.validation import check_config

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from actors.providers.observed import Observed
    from actors.providers.provider import Provider
    from runtime import EventStream, Subscription


CHECK_FAILED = "health check failed"
"""Why a provider is unhealthy that failed its last health check."""
NOT_ITS_FAULT = "Blameless"
"""Stands for the error of a call that says nothing of its provider."""


class WatchConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How observations count; durations are seconds.

    If a smaller part of a service's providers than `panic_threshold` is healthy, health is ignored: calling only the
    few would bring them down too. A failed health check is believed for `believe_check`. Observations show in
    an assessment within `renew_after`; a change of a provider's health shows at once.

    Source: 0.5 is the default of Envoy's healthy panic threshold.
    """

    observed: ObservedConfig = ObservedConfig()
    ejection: EjectionConfig = EjectionConfig()
    panic_threshold: float = 0.5
    believe_check: float = 30.0
    renew_after: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.panic_threshold <= 1:
            raise ValueError(f"panic_threshold must be from 0 to 1, got {self.panic_threshold}")
        for name, duration in (("believe_check", self.believe_check), ("renew_after", self.renew_after)):
            if not 0 < duration < math.inf:
                raise ValueError(f"{name} must be > 0 seconds and finite, got {duration}")


class Assessment(msgspec.Struct, frozen=True, kw_only=True):
    """The providers of a service as they are now, by declaration and observation; good until `until`, in loop time.

    `unhealthy` holds, by name, why a provider should be deprioritized. `panic` means that too many are unhealthy.
    """

    providers: tuple[Provider, ...]
    observed: Mapping[str, Observed]
    unhealthy: Mapping[str, str]
    panic: bool
    until: float


class ProviderHealth:
    """What is known about one provider; `observed` and `record` are immutable values, replaced at each change."""

    __slots__ = ("checked_until", "observed", "problem", "record")

    def __init__(self) -> None:
        self.observed = UNOBSERVED
        self.record = ejection.NEW_RECORD
        self.problem: str | None = None
        """Why its last health check failed, to be believed until `checked_until`."""
        self.checked_until = -math.inf


class ProviderWatch:
    """Follows the events of the providers that it is asked to watch."""

    def __init__(self, config: WatchConfig | None = None) -> None:
        self.config = WatchConfig() if config is None else config
        check_config("watch", self.config, WatchConfig)
        self.changes = 0
        """Grows whenever an assessment made before may be wrong."""
        self._health: dict[str, ProviderHealth] = {}
        self._isolated_until: dict[str, float] = {}
        """By name, also of providers not watched yet: until when the breaker is open, unless it closes before."""

    def listen(self, events: EventStream, clock: Callable[[], float]) -> tuple[Subscription, ...]:
        """Follow the events that are published from now on, until the subscriptions are cancelled."""
        return (
            events.subscribe(CallEnded, lambda event: self.call_ended(event, clock())),
            events.subscribe(BreakerOpened, lambda event: self.breaker_opened(event, clock())),
            events.subscribe(BreakerClosed, self.breaker_closed),
            events.subscribe(HealthChecked, lambda event: self.health_checked(event, clock())),
        )

    def keep(self, names: Iterable[str]) -> None:
        """Watch the providers of these names, and forget all others."""
        self._health = {name: self._health.get(name) or ProviderHealth() for name in names}
        self.changes += 1

    def call_ended(self, event: CallEnded, now: float) -> None:
        """Record a call that has ended."""
        health = self._health.get(event.provider)
        if health is None:
            return
        before, error = health.observed, NOT_ITS_FAULT if event.is_blameless else event.error
        health.observed = observed.after_call(before, event.latency, error, now, self.config.observed)
        if event.provider in self._isolated_until and self._isolated_until[event.provider] > now:
            # Its breaker is open. Calls that end only now must not eject it when it comes back.
            pass
        elif error is None:
            health.record = ejection.after_call(health.record, failed=False)
            if health.problem is not None:
                # It has answered, which outweighs its failed health check.
                health.problem = None
                self.changes += 1
        elif error in BLAMED_KINDS:
            health.record = ejection.after_call(health.record, failed=True)
            if health.record.streak >= self.config.ejection.failure_threshold:
                self.changes += 1
        if not before.calls:
            self.changes += 1

    def breaker_opened(self, event: BreakerOpened, now: float) -> None:
        """Record that a provider is isolated; when its wait is over it may be called, for a probe."""
        self._isolated_until[event.provider] = now + event.wait
        health = self._health.get(event.provider)
        if health is not None:
            # The breaker has acted on its failures so far; they must not eject it when it is due for its probe.
            health.record = ejection.EjectionRecord(times=health.record.times, until=health.record.until)
        self.changes += 1

    def breaker_closed(self, event: BreakerClosed) -> None:
        """Record that a provider is back."""
        self._isolated_until.pop(event.provider, None)
        self.changes += 1

    def health_checked(self, event: HealthChecked, now: float) -> None:
        """Record the result of a health check."""
        health = self._health.get(event.provider)
        if health is not None and (event.problem is not None or health.problem is not None):
            health.problem, health.checked_until = event.problem, now + self.config.believe_check
            self.changes += 1

    def assess(self, providers: Sequence[Provider], now: float) -> Assessment:
        """Return the providers of a service as they are at `now`, after outliers among them were ejected."""
        self._eject(providers, now)
        marks: dict[str, tuple[str, float]] = {}
        shown: list[Provider] = []
        known: dict[str, Observed] = {}
        for provider in providers:
            health = self._health.get(provider.name)
            blended = provider
            if health is not None and health.observed.calls:
                known[provider.name] = health.observed
                blended = observed.blend(provider, health.observed, now, self.config.observed)
                if provider.available and not blended.available:
                    # Observation alone must not drop a provider: it is deprioritized, and called if no other is left.
                    marks[provider.name] = ("unreachable", now + self.config.renew_after)
                    blended = msgspec.structs.replace(blended, available=True)
            shown.append(blended)
            mark = self._why_unhealthy(provider.name, health, now)
            if mark is not None:
                marks[provider.name] = mark
        healthy = len(providers) - len(marks)
        return Assessment(
            providers=tuple(shown),
            observed=known,
            unhealthy={name: why for name, (why, _) in marks.items()},
            panic=healthy < self.config.panic_threshold * len(providers),
            until=min([end for _, end in marks.values()] + [now + self.config.renew_after if known else math.inf]),
        )

    def _why_unhealthy(self, name: str, health: ProviderHealth | None, now: float) -> tuple[str, float] | None:
        """Return why a provider is unhealthy, and until when; None if it is healthy."""
        isolated_until = self._isolated_until.get(name, now)
        if isolated_until > now:
            return "breaker open", isolated_until
        if health is None:
            return None
        if health.record.until > now:
            return "ejected", health.record.until
        if health.problem is not None and health.checked_until > now:
            return CHECK_FAILED, health.checked_until
        return None

    def _eject(self, providers: Sequence[Provider], now: float) -> None:
        records = {one.name: self._health[one.name].record for one in providers if one.name in self._health}
        isolated = [name for name in records if self._isolated_until.get(name, now) > now]
        for name, record in ejection.eject(records, now=now, isolated=isolated, config=self.config.ejection).items():
            self._health[name].record = record

    def __repr__(self) -> str:
        return f"<ProviderWatch {len(self._health)} providers, {len(self._isolated_until)} isolated>"
