"""What becomes of the providers that discovery lists, as told by the event stream, and who is to stand back for it.

An event costs its publisher an update of one value. What follows from it is worked out when somebody asks.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from actors.events import BreakerClosed, BreakerOpened, CallEnded, HealthChecked
from actors.providers import ejection, observed
from actors.providers.ejection import EjectionConfig
from actors.providers.observed import BLAMED_KINDS, NOTHING, ObservedConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from actors.providers.observed import Observed
    from actors.providers.provider import Provider
    from runtime import EventStream, Subscription


CHECK_FAILED = "health check failed"
"""Why a provider should stand back whose last health check it failed."""


class WatchConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What is made of observations; durations are seconds.

    Where the healthy providers of a service are a smaller part than `panic_threshold`, health is ignored: asking the
    few would only bring them down too. A failed health check is believed for `believe_check`. What was observed shows
    in what is found within `renew_after`; what changes somebody's health shows at once.

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

    `unhealthy` says by name why somebody is to stand back, and `panic` that too many are.
    """

    providers: tuple[Provider, ...]
    observed: Mapping[str, Observed]
    unhealthy: Mapping[str, str]
    panic: bool
    until: float


class ProviderHealth:
    """What is known of one provider; both values are immutable, and replaced."""

    __slots__ = ("checked_until", "observed", "problem", "record")

    def __init__(self) -> None:
        self.observed = NOTHING
        self.record = ejection.NEW
        self.problem: str | None = None
        """Why its last health check failed, to be believed until `checked_until`."""
        self.checked_until = -math.inf


class ProviderWatch:
    """Listens to what happens to the providers it is told of."""

    def __init__(self, config: WatchConfig | None = None) -> None:
        self.config = config or WatchConfig()
        self.changes = 0
        """Grows whenever an assessment made before may be wrong."""
        self._seen: dict[str, ProviderHealth] = {}
        self._isolated_until: dict[str, float] = {}
        """By name, also of those not listed yet: the breaker is open until then, or until it closes."""

    def listen(self, events: EventStream, clock: Callable[[], float]) -> tuple[Subscription, ...]:
        """Follow the events that are published from now on, until the subscriptions are cancelled."""
        return (
            events.subscribe(CallEnded, lambda event: self.call_ended(event, clock())),
            events.subscribe(BreakerOpened, lambda event: self.breaker_opened(event, clock())),
            events.subscribe(BreakerClosed, self.breaker_closed),
            events.subscribe(HealthChecked, lambda event: self.health_checked(event, clock())),
        )

    def keep(self, names: Iterable[str]) -> None:
        """Watch these providers, and forget the others."""
        self._seen = {name: self._seen.get(name) or ProviderHealth() for name in names}
        self.changes += 1

    def call_ended(self, event: CallEnded, now: float) -> None:
        """Take note of a call."""
        seen = self._seen.get(event.provider)
        if seen is None:
            return
        before, error = seen.observed, event.error
        seen.observed = observed.after_call(before, event.latency, error, now, self.config.observed)
        if event.provider in self._isolated_until and self._isolated_until[event.provider] > now:
            # Its breaker sees to it; those of its calls that end only now must not eject it when it comes back.
            pass
        elif error is None:
            seen.record = ejection.after_call(seen.record, failed=False)
            if seen.problem is not None:
                # It has answered, whatever its check said.
                seen.problem = None
                self.changes += 1
        elif error in BLAMED_KINDS:
            seen.record = ejection.after_call(seen.record, failed=True)
            if seen.record.streak >= self.config.ejection.failure_threshold:
                self.changes += 1
        if not before.calls:
            self.changes += 1

    def breaker_opened(self, event: BreakerOpened, now: float) -> None:
        """Take note that a provider is isolated; when its wait is over it may be asked, for a probe."""
        self._isolated_until[event.provider] = now + event.wait
        seen = self._seen.get(event.provider)
        if seen is not None:
            # Its failures so far are answered for, and must not eject it when it is due for its probe.
            seen.record = ejection.EjectionRecord(times=seen.record.times, until=seen.record.until)
        self.changes += 1

    def breaker_closed(self, event: BreakerClosed) -> None:
        """Take note that a provider is back."""
        self._isolated_until.pop(event.provider, None)
        self.changes += 1

    def health_checked(self, event: HealthChecked, now: float) -> None:
        """Take note of a health check."""
        seen = self._seen.get(event.provider)
        if seen is not None and (event.problem is not None or seen.problem is not None):
            seen.problem, seen.checked_until = event.problem, now + self.config.believe_check
            self.changes += 1

    def assess(self, providers: Sequence[Provider], now: float) -> Assessment:
        """Return the providers of a service as they are now; whoever fails as the others do not is ejected."""
        self._eject(providers, now)
        marks: dict[str, tuple[str, float]] = {}
        shown: list[Provider] = []
        known: dict[str, Observed] = {}
        for provider in providers:
            seen = self._seen.get(provider.name)
            blended = provider
            if seen is not None and seen.observed.calls:
                known[provider.name] = seen.observed
                blended = observed.blend(provider, seen.observed, now, self.config.observed)
                if provider.available and not blended.available:
                    # By observation alone nobody is lost: it stands back, and is asked where there is nobody else.
                    marks[provider.name] = ("unreachable", now + self.config.renew_after)
                    blended = msgspec.structs.replace(blended, available=True)
            shown.append(blended)
            mark = self._mark(provider.name, seen, now)
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

    def _mark(self, name: str, seen: ProviderHealth | None, now: float) -> tuple[str, float] | None:
        """Return why a provider is to stand back, and until when."""
        isolated_until = self._isolated_until.get(name, now)
        if isolated_until > now:
            return "breaker open", isolated_until
        if seen is None:
            return None
        if seen.record.until > now:
            return "ejected", seen.record.until
        if seen.problem is not None and seen.checked_until > now:
            return CHECK_FAILED, seen.checked_until
        return None

    def _eject(self, providers: Sequence[Provider], now: float) -> None:
        records = {one.name: self._seen[one.name].record for one in providers if one.name in self._seen}
        isolated = [name for name in records if self._isolated_until.get(name, now) > now]
        for name, record in ejection.eject(records, now=now, isolated=isolated, config=self.config.ejection).items():
            self._seen[name].record = record

    def __repr__(self) -> str:
        return f"<ProviderWatch {len(self._seen)} providers, {len(self._isolated_until)} isolated>"
