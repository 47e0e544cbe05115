"""What is found of a service, by whichever filter, and made only once while nothing changes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping  # noqa: TC003 - msgspec resolves this annotation

import msgspec

from actors.market.listing import Listing  # noqa: TC001 - msgspec resolves the annotations below.
from actors.providers.observed import Observed  # noqa: TC001 - msgspec resolves the annotations below.
from actors.providers.provider import Provider, ProviderFilter

EVERYONE = ProviderFilter()
MAX_VIEWS = 100
"""The filters whose answers are remembered, of each service."""


class Offers(msgspec.Struct, frozen=True, kw_only=True):
    """Who offers a service and passes the filter, in the registry's order.

    `listings` are as the registry has them; `providers` are theirs, in the same order, corrected by what was observed.
    `observed` holds what that was, by name. `unhealthy` says by name why somebody should stand back ("breaker open",
    "ejected", "health check failed", "unreachable"): they are listed all the same, because somebody has to be asked.
    In `panic` too many are, and health is to be ignored.

    `dropped` counts the others by reason; `stale` is True where the registry could not be asked again in time.
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
        """Those to be asked after all others; nobody in a panic."""
        return {} if self.panic else self.unhealthy


NOBODY = Offers(listings=(), providers=(), dropped={}, observed={}, unhealthy={})


class CachedOffers:
    """What the registry said about a service, until when to believe it, in loop time, and the answers made of it."""

    __slots__ = ("_all", "_views", "changes", "everyone", "good_until", "listings", "providers", "stale_at")

    def __init__(self, listings: tuple[Listing, ...], *, stale_at: float) -> None:
        self.listings = listings
        self.providers = tuple(listing.provider for listing in listings)
        self.stale_at = stale_at
        self.good_until, self.changes = -math.inf, -1
        """The answers hold so long, and while the watch counts as many changes."""
        self._all: Offers = NOBODY
        self.everyone: Offers = NOBODY
        self._views: dict[tuple[ProviderFilter, bool], Offers] = {}

    def become(self, found: Offers) -> None:
        """Take on what there is now, without any filter; where it is what there was, all answers stay."""
        if found != self._all:
            self._all = found
            self._views.clear()
            self.everyone = filtered(found, EVERYONE, healthy_only=False)

    def view(self, where: ProviderFilter, *, healthy_only: bool) -> Offers:
        """Return what passes a filter."""
        key = (where, healthy_only)
        found = self._views.get(key)
        if found is None:
            if len(self._views) >= MAX_VIEWS:
                self._views.clear()
            found = self._views[key] = filtered(self._all, where, healthy_only=healthy_only)
        return found


def filtered(found: Offers, where: ProviderFilter, *, healthy_only: bool) -> Offers:
    """Return those of `found` who pass, by what is now known of them; `found` itself where all do."""
    kept, dropped = where.select(found.providers)
    if healthy_only and found.deprioritized:
        dropped = Counter(dropped)
        dropped.update(found.unhealthy[one.name] for one in kept if one.name in found.unhealthy)
        kept = [one for one in kept if one.name not in found.unhealthy]
    if not dropped:
        return found
    names = {provider.name for provider in kept}
    return msgspec.structs.replace(
        found,
        listings=tuple(listing for listing in found.listings if listing.provider.name in names),
        providers=tuple(kept),
        dropped=dict(dropped),
    )
