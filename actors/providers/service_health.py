"""The providers of one service as they are now: renewed for those of which there is news, a slice at a time."""

from __future__ import annotations

import math
from collections import deque
from heapq import heappop, heappush
from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING

import msgspec

from actors.providers import observed
from actors.providers.ejection import Ejector
from actors.providers.health import BREAKER_OPEN, EJECTED

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from actors.providers.health import ProviderHealth, ProviderWatch
    from actors.providers.observed import Observed
    from actors.providers.provider import Provider

SLICE = 100
"""The providers that are looked at in one turn of the loop, which takes about a millisecond."""
SLICES_A_RENEWAL = 10
"""The slices of providers whose observations fade that are looked at in each `renew_after`, spread over it."""
UNREACHABLE = "unreachable"
"""Why a provider is unhealthy that too few calls reach."""


class ServiceHealth:
    """The providers of one service, by declaration and observation, and the outliers that were ejected among them.

    An event costs its publisher a note of the provider's name. `renew` looks at the providers noted, and at some of
    which observations fade: at 100 at most, the others with the next question. Marks of health show at once; what
    providers are by their calls shows when all news of these has been looked at, and each is as of that time or before.
    """

    __slots__ = (
        "__weakref__",
        "_at_once",
        "_ejector",
        "_ends",
        "_fading",
        "_has_new_facts",
        "_has_new_health",
        "_healths",
        "_index",
        "_later",
        "_observed",
        "_renewed_at",
        "_shown",
        "_unhealthy",
        "_until",
        "_watch",
        "declared",
        "observed",
        "providers",
        "unhealthy",
        "valid_until",
    )

    def __init__(self, watch: ProviderWatch) -> None:
        self._watch = watch
        self._index: dict[str, int] = {}
        self._healths: list[ProviderHealth] = []
        self._ejector = Ejector(watch.config.ejection)
        self.declared: list[Provider] = []
        self._shown: list[Provider] = []
        self._observed: dict[str, Observed] = {}
        self._unhealthy: dict[str, str] = {}
        self._until: dict[str, float] = {}
        """Until when the unhealthy ones are, and the same as a heap, in which there may be times of old."""
        self._ends: list[tuple[float, str]] = []
        self._at_once: dict[str, None] = {}
        self._later: dict[str, None] = {}
        """The providers of which there is news, to be shown at once, or when observations are renewed."""
        self._fading: deque[str] = deque()
        """The providers that were called, the one longest not looked at in front."""
        self._renewed_at = -math.inf
        self._has_new_facts = self._has_new_health = True
        self.valid_until = -math.inf
        """Until then, in loop time, there is nothing to renew."""
        self.providers: tuple[Provider, ...] = ()
        self.observed: Mapping[str, Observed] = MappingProxyType(self._observed)
        """It shows more when more was looked at."""
        self.unhealthy: dict[str, str] = {}

    def add(self, providers: Iterable[Provider], now: float) -> None:
        """Add providers, as they are known to be; they show with the next renewal."""
        for provider in providers:
            self._index[provider.name] = len(self.declared)
            self.declared.append(provider)
            self._shown.append(provider)
            health = self._watch.health_of(provider.name)
            self._healths.append(health)
            health.follow(self)
            self._ejector.update(provider.name, health.record, is_out=False)
            if self._watch.has_news_of(health):
                self._look_at(provider.name, now)

    def changed(self, name: str, *, at_once: bool) -> None:
        """Take note that there is news of a provider."""
        if at_once:
            self._at_once[name] = None
            self.valid_until = -math.inf
        elif name not in self._later:
            self._later[name] = None
            self.valid_until = min(self.valid_until, self._renewed_at + self._pause)

    @property
    def panic(self) -> bool:
        """Whether so many are unhealthy that health is to be ignored."""
        count = len(self.declared)
        return count - len(self._unhealthy) < self._watch.config.panic_threshold * count

    def renew(self, now: float) -> bool:
        """Bring up to date what is shown, for a slice of the providers; return whether anything changed."""
        while self._ends and self._ends[0][0] <= now:
            end, name = heappop(self._ends)
            if self._until.get(name) == end:
                self._at_once[name] = None
        room = SLICE - self._look_at_some(self._at_once, SLICE, now)
        if now >= self._renewed_at + self._pause and (self._later or self._fading):
            room -= self._look_at_some(self._later, room, now)
            if not self._later:
                self._renewed_at = now
            for _ in range(min(room, len(self._fading))):
                self._look_at(self._fading[0], now)
                self._fading.rotate(-1)
        self._eject(now)
        if self._at_once or (self._later and now >= self._renewed_at + self._pause):
            self.valid_until = -math.inf
        else:
            renewal = self._renewed_at + self._pause if self._later or self._fading else math.inf
            self.valid_until = min(renewal, self._ends[0][0] if self._ends else math.inf)
        return self._show()

    def _show(self) -> bool:
        """Show what is known now; return whether anything of it is new."""
        # A renewal that is under way shows no facts before it is complete, except for the first one.
        has_new_facts = self._has_new_facts and not (self._has_more_news and self.providers)
        has_new_health = self._has_new_health
        if has_new_facts:
            self.providers, self._has_new_facts = tuple(self._shown), False
        if has_new_health:
            self.unhealthy, self._has_new_health = self._unhealthy.copy(), False
        return has_new_facts or has_new_health

    @property
    def _has_more_news(self) -> bool:
        """Whether a renewal is under way."""
        return self.valid_until == -math.inf

    @property
    def _pause(self) -> float:
        """The seconds between two renewals of what calls have shown: shorter if observations of many fade."""
        slices = min(SLICES_A_RENEWAL, math.ceil(len(self._fading) / SLICE))
        return self._watch.config.renew_after / max(1, slices)

    def _look_at_some(self, names: dict[str, None], most: int, now: float) -> int:
        some = tuple(islice(names, most))
        for name in some:
            del names[name]
            self._look_at(name, now)
        return len(some)

    def _look_at(self, name: str, now: float) -> None:
        index = self._index[name]
        provider, health = self.declared[index], self._healths[index]
        shown, seen = provider, health.observed
        mark: tuple[str, float] | None = None
        if seen.calls:
            if name not in self._observed:
                self._fading.append(name)
            self._observed[name] = seen
            shown = observed.blend(provider, seen, now, self._watch.config.observed)
            if provider.available and not shown.available:
                # Observation alone must not drop a provider: it is deprioritized, and called if no other is left.
                shown, mark = msgspec.structs.replace(shown, available=True), (UNREACHABLE, math.inf)
        if shown is not self._shown[index] and shown != self._shown[index]:
            self._shown[index], self._has_new_facts = shown, True
        mark = self._watch.why_unhealthy(health, now) or mark
        self._mark(name, mark)
        self._ejector.update(name, health.record, is_out=mark is not None and mark[0] in {BREAKER_OPEN, EJECTED})

    def _mark(self, name: str, mark: tuple[str, float] | None) -> None:
        """Take note of why a provider is unhealthy, and until when; None if it is healthy."""
        why, until = mark or (None, None)
        if self._unhealthy.get(name) != why:
            self._has_new_health = True
            if why is None:
                del self._unhealthy[name]
            else:
                self._unhealthy[name] = why
        if until is None:
            self._until.pop(name, None)
        elif self._until.get(name) != until:
            self._until[name] = until
            heappush(self._ends, (until, name))

    def _eject(self, now: float) -> None:
        for name, record in self._ejector.eject(now).items():
            health = self._healths[self._index[name]]
            health.record = record
            health.changed(at_once=True)
            del self._at_once[name]
            self._look_at(name, now)

    def __repr__(self) -> str:
        return f"<ServiceHealth of {len(self.declared)} providers, {len(self._at_once) + len(self._later)} with news>"
