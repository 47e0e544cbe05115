"""The offers of a service: cached answers of its registry, and one view per filter, rebuilt only on change."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping  # noqa: TC003 - msgspec resolves this annotation
from typing import Protocol

import msgspec

from actors.market.listing import Listing  # noqa: TC001 - msgspec resolves the annotations below.
from actors.providers.observed import Observed  # noqa: TC001 - msgspec resolves the annotations below.
from actors.providers.provider import Provider, ProviderFilter

ANY_PROVIDER = ProviderFilter()
MAX_VIEWS = 100
"""The number of filters per service for which views are kept."""


class Watched(Protocol):
    """What answers go by."""

    changes: int
    """Grows whenever an answer given before may be wrong."""


class Lease:
    """How long an answer holds: for as long as it does, the question need not be asked again.

    It ends at a time, or at once if what is `watched` changes, or if discovery takes it back.
    """

    __slots__ = ("_changes", "_until", "_watched", "used_at")

    def __init__(self) -> None:
        self._watched: Watched | None = None
        self._until, self._changes = -math.inf, -1
        self.used_at = -math.inf
        """When the answer was last asked for, or taken as it is, in loop time."""

    def grant(self, watched: Watched, *, until: float) -> None:
        """Let the answer hold until loop time `until`, or the next change."""
        self._watched, self._changes, self._until = watched, watched.changes, until

    def holds(self, now: float) -> bool:
        """Tell whether the answer holds at `now`."""
        return now < self._until and self._watched is not None and self._watched.changes == self._changes

    def end(self) -> None:
        """Take the answer back: it must be asked for anew."""
        self._until = -math.inf

    def __repr__(self) -> str:
        return f"<Lease until {self._until}>"


class Offers(msgspec.Struct, frozen=True, kw_only=True):
    """The providers that offer a service and pass the filter, in the registry's order.

    `listings` are as in the registry; `providers` are theirs, in the same order, corrected by observations. `observed`
    holds these observations, by name. `unhealthy` holds, by name, why a provider should be deprioritized ("breaker
    open", "ejected", "health check failed", "unreachable"); it is listed all the same, for the case that no other is
    left. `panic` means that too many are unhealthy, and that health is to be ignored.

    `dropped` counts the providers that do not pass, by reason. `stale` means that the registry could not be asked again
    in time. `lease` says for how long they are as they are, unless the filter has a function of the caller's.
    """

    listings: tuple[Listing, ...]
    providers: tuple[Provider, ...]
    dropped: dict[str, int]
    observed: Mapping[str, Observed]
    unhealthy: Mapping[str, str]
    panic: bool = False
    stale: bool = False
    lease: Lease | None = None

    @property
    def deprioritized(self) -> Mapping[str, str]:
        """The providers to be called after all others, and why; empty in a panic."""
        return {} if self.panic else self.unhealthy


NO_OFFERS = Offers(listings=(), providers=(), dropped={}, observed={}, unhealthy={})


class CachedOffers:
    """The answer of the registry for one service, its expiry `stale_at` in loop time, and the views made of it."""

    __slots__ = (
        "_all",
        "_views",
        "changes",
        "lease",
        "listings",
        "providers",
        "stale_at",
        "unfiltered",
        "valid_until",
    )

    def __init__(self, listings: tuple[Listing, ...], *, stale_at: float) -> None:
        self.listings = listings
        self.providers = tuple(listing.provider for listing in listings)
        self.stale_at = stale_at
        self.lease = Lease()
        """That of all the views."""
        self.valid_until, self.changes = -math.inf, -1
        """The views hold until then, and while the watch counts this number of changes."""
        self._all: Offers = NO_OFFERS
        self.unfiltered: Offers = NO_OFFERS
        self._views: dict[tuple[ProviderFilter, bool], Offers] = {}

    def update(self, offers: Offers) -> None:
        """Replace the unfiltered offers; if they are equal to the old ones, all views stay."""
        if offers != self._all:
            self._all = offers
            self._views.clear()
            self.unfiltered = filter_offers(offers, ANY_PROVIDER, healthy_only=False)

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
