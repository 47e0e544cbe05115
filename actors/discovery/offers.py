"""The offers of a service: cached answers of its registry, and one view per filter, rebuilt only on change."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping  # noqa: TC003 - msgspec resolves this annotation
from typing import TYPE_CHECKING

import msgspec

from actors.market.listing import Listing  # noqa: TC001 - msgspec resolves the annotations below.
from actors.providers.observed import Observed  # noqa: TC001 - msgspec resolves the annotations below.
from actors.providers.provider import Provider, ProviderFilter

if TYPE_CHECKING:
    from actors.providers.service_health import ServiceHealth

ANY_PROVIDER = ProviderFilter()
MAX_VIEWS = 100
"""The number of filters per service for which views are kept."""


class Offers(msgspec.Struct, frozen=True, kw_only=True):
    """The providers that offer a service and pass the filter, in the registry's order.

    `listings` are as in the registry; `providers` are theirs, in the same order, corrected by observations. `observed`
    holds these observations, by name. `unhealthy` holds, by name, why a provider should be deprioritized ("breaker
    open", "ejected", "health check failed", "unreachable"); it is listed all the same, for the case that no other is
    left. `panic` means that too many are unhealthy, and that health is to be ignored.

    `dropped` counts the providers that do not pass, by reason. `stale` means that the registry could not be asked again
    in time.
    """

    listings: tuple[Listing, ...]
    providers: tuple[Provider, ...]
    dropped: dict[str, int]
    observed: Mapping[str, Observed]
    unhealthy: Mapping[str, str]
    panic: bool = False
    stale: bool = False

    @property
    def deprioritized(self) -> Mapping[str, str]:
        """The providers to be called after all others, and why; empty in a panic."""
        return {} if self.panic else self.unhealthy


NO_OFFERS = Offers(listings=(), providers=(), dropped={}, observed={}, unhealthy={})


class CachedOffers:
    """The answer of the registry for one service, its expiry `stale_at` in loop time, and the views made of it."""

    __slots__ = ("_all", "_is_made", "_views", "health", "listings", "stale_at", "unfiltered", "used_at")

    def __init__(self, listings: tuple[Listing, ...], health: ServiceHealth, *, stale_at: float) -> None:
        self.listings = listings
        self.health = health
        """The health of their providers."""
        self.stale_at = stale_at
        self.used_at = -math.inf
        """When the service was last asked for, in loop time."""
        self._is_made = False
        self._all: Offers = NO_OFFERS
        self.unfiltered: Offers = NO_OFFERS
        self._views: dict[tuple[ProviderFilter, bool], Offers] = {}

    def renew(self, now: float) -> None:
        """Bring the offers up to date; if nothing has changed, they and all views stay the same objects."""
        health, is_stale = self.health, now >= self.stale_at
        is_new = now >= health.valid_until and health.renew(now)
        if not is_new and is_stale == self._all.stale and self._is_made:
            return
        self._is_made = True
        self._all = Offers(
            listings=self.listings,
            providers=health.providers,
            dropped={},
            observed=health.observed,
            unhealthy=health.unhealthy,
            panic=health.panic,
            stale=is_stale,
        )
        self._views.clear()
        self.unfiltered = filter_offers(self._all, ANY_PROVIDER, healthy_only=False)

    def is_due(self, now: float) -> bool:
        """Tell whether the offers may have to be renewed."""
        return now >= self.health.valid_until or (now >= self.stale_at) is not self._all.stale

    def view(self, where: ProviderFilter, *, healthy_only: bool) -> Offers:
        """Return the offers that pass a filter; a function of the caller's is asked anew each time."""
        if where.predicate is not None:
            return filter_offers(self._all, where, healthy_only=healthy_only)
        key = (where, healthy_only)
        offers = self._views.get(key)
        if offers is None:
            if len(self._views) >= MAX_VIEWS:
                self._views.clear()
            offers = self._views[key] = filter_offers(self._all, where, healthy_only=healthy_only)
        return offers


def filter_offers(offers: Offers, where: ProviderFilter, *, healthy_only: bool) -> Offers:
    """Return the offers that pass the filter, with their observed values; the same object if all pass."""
    kept, dropped = where.select(offers.providers)
    if healthy_only and offers.deprioritized:
        dropped = Counter(dropped)
        dropped.update(offers.unhealthy[one.name] for one in kept if one.name in offers.unhealthy)
        kept = [one for one in kept if one.name not in offers.unhealthy]
    if not dropped:
        return offers
    names = {provider.name for provider in kept}
    return msgspec.structs.replace(
        offers,
        listings=tuple(listing for listing in offers.listings if listing.provider.name in names),
        providers=tuple(kept),
        dropped=dict(dropped),
    )
