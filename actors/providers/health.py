"""Watches the health of providers by the events of their calls, and says which ones to deprioritize, and why.

An event costs its publisher an update of one value. Its consequences are computed when they are asked for.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol
from weakref import WeakValueDictionary, ref

import msgspec

from actors.events import BreakerClosed, BreakerOpened, CallEnded, HealthChecked
from actors.providers import ejection, observed
from actors.providers.ejection import EjectionConfig
from actors.providers.observed import BLAMED_KINDS, UNOBSERVED, ObservedConfig
from actors.validation import check_config

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from runtime import EventStream, Subscription


BREAKER_OPEN, EJECTED, CHECK_FAILED = "breaker open", "ejected", "health check failed"
"""Why a provider is unhealthy."""
NOT_ITS_FAULT = "Blameless"
"""Stands for the error of a call that says nothing of its provider."""


class WatchConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How observations count; durations are seconds.

    If a smaller part of a service's providers than `panic_threshold` is healthy, health is ignored: calling only the
    few would bring them down too. A failed health check is believed for `believe_check`. Observations show in
    the offers within `renew_after`; a change of a provider's health shows at once. How they fade shows in the same time
    for 1,000 providers of a service, and for more in as many times that.

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


class ProviderHealth:
    """What is known about one provider; `observed` and `record` are immutable values, replaced at each change."""

    __slots__ = ("__weakref__", "_followers", "checked_until", "name", "observed", "problem", "record")

    def __init__(self, name: str) -> None:
        self.name = name
        self.observed = UNOBSERVED
        self.record = ejection.NEW_RECORD
        self.problem: str | None = None
        """Why its last health check failed, to be believed until `checked_until`."""
        self.checked_until = -math.inf
        self._followers: tuple[ref[HealthFollower], ...] = ()

    def follow(self, follower: HealthFollower) -> None:
        """Let a follower know of changes, for as long as it is referred to elsewhere."""
        self._followers = (*(one for one in self._followers if one() is not None), ref(follower))

    def changed(self, *, at_once: bool) -> None:
        """Let the followers know that something changed: to be shown at once, or when observations are renewed."""
        for one in self._followers:
            follower = one()
            if follower is not None:
                follower.changed(self.name, at_once=at_once)


class HealthFollower(Protocol):
    """What shows the health of providers."""

    def changed(self, name: str, *, at_once: bool) -> None:
        """Take note that the health of a provider changed, to be shown at once or when observations are renewed."""
        ...


class ProviderWatch:
    """Follows the events of the providers whose health is referred to; what is known of others is forgotten."""

    def __init__(self, config: WatchConfig | None = None) -> None:
        self.config = WatchConfig() if config is None else config
        check_config("watch", self.config, WatchConfig)
        self._health: WeakValueDictionary[str, ProviderHealth] = WeakValueDictionary()
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

    def health_of(self, name: str) -> ProviderHealth:
        """Return the health of a provider, which is watched from now on."""
        health = self._health.get(name)
        if health is None:
            health = self._health[name] = ProviderHealth(name)
        return health

    def forget(self, names: Iterable[str]) -> None:
        """Forget what was observed of some providers: others have taken their names."""
        for name in names:
            self._isolated_until.pop(name, None)
            health = self._health.get(name)
            if health is not None:
                health.observed, health.record = UNOBSERVED, ejection.NEW_RECORD
                health.problem, health.checked_until = None, -math.inf
                health.changed(at_once=True)

    def call_ended(self, event: CallEnded, now: float) -> None:
        """Record a call that has ended."""
        health = self._health.get(event.provider)
        if health is None:
            return
        error = NOT_ITS_FAULT if event.is_blameless else event.error
        health.observed = observed.after_call(health.observed, event.latency, error, now, self.config.observed)
        at_once = False
        if self._isolated_until and self._isolated_until.get(event.provider, now) > now:
            # Its breaker is open. Calls that end only now must not eject it when it comes back.
            pass
        elif error is None:
            health.record = ejection.after_call(health.record, failed=False)
            # It has answered, which outweighs a failed health check.
            at_once, health.problem = health.problem is not None, None
        elif error in BLAMED_KINDS:
            health.record = ejection.after_call(health.record, failed=True)
            at_once = health.record.streak >= self.config.ejection.failure_threshold
        health.changed(at_once=at_once)

    def breaker_opened(self, event: BreakerOpened, now: float) -> None:
        """Record that a provider is isolated; when its wait is over it may be called, for a probe."""
        self._isolated_until[event.provider] = now + event.wait
        health = self._health.get(event.provider)
        if health is not None:
            # The breaker has acted on its failures so far; they must not eject it when it is due for its probe.
            health.record = ejection.EjectionRecord(times=health.record.times, until=health.record.until)
            health.changed(at_once=True)

    def breaker_closed(self, event: BreakerClosed) -> None:
        """Record that a provider is back."""
        self._isolated_until.pop(event.provider, None)
        health = self._health.get(event.provider)
        if health is not None:
            health.changed(at_once=True)

    def health_checked(self, event: HealthChecked, now: float) -> None:
        """Record the result of a health check."""
        health = self._health.get(event.provider)
        if health is not None and (event.problem is not None or health.problem is not None):
            health.problem, health.checked_until = event.problem, now + self.config.believe_check
            health.changed(at_once=True)

    def has_news_of(self, health: ProviderHealth) -> bool:
        """Tell whether anything is known of a provider beside what it declares."""
        return (
            health.observed.calls > 0
            or health.problem is not None
            or health.record is not ejection.NEW_RECORD
            or health.name in self._isolated_until
        )

    def why_unhealthy(self, health: ProviderHealth, now: float) -> tuple[str, float] | None:
        """Return why a provider is unhealthy, and until when; None if it is healthy."""
        isolated_until = self._isolated_until.get(health.name, now)
        if isolated_until > now:
            return BREAKER_OPEN, isolated_until
        if health.record.until > now:
            return EJECTED, health.record.until
        if health.problem is not None and health.checked_until > now:
            return CHECK_FAILED, health.checked_until
        return None

    def __repr__(self) -> str:
        return f"<ProviderWatch {len(self._health)} providers, {len(self._isolated_until)} isolated>"
