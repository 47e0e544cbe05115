"""The offers of a service: cached answers of its registry, and one view per filter, rebuilt only on change."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping  # noqa: TC003 - msgspec resolves this annotation
from itertools import compress
from typing import TYPE_CHECKING, Protocol, TypeAlias

import msgspec

from actors.market.listing import Listing  # noqa: TC001 - msgspec resolves the annotations below.
from actors.providers.observed import Observed  # noqa: TC001 - msgspec resolves the annotations below.
from actors.providers.provider import Provider, ProviderFilter

if TYPE_CHECKING:
    from actors.providers.service_health import ServiceHealth

ANY_PROVIDER = ProviderFilter()
View: TypeAlias = tuple[ProviderFilter, bool]
"""A filter, and whether unhealthy providers are left out."""
UNFILTERED: View = (ANY_PROVIDER, False)
MAX_VIEWS = 100
"""The number of filters per service for which views are kept."""


class OfferSource(Protocol):
    """What offers were made from."""

    health: ServiceHealth
    stale_at: float
    used_at: float


class Lease:
    """How long offers hold: for as long as they do, discovery need not be asked again.

    They end with the news of a provider, when they are to be renewed or looked up again, or when discovery takes them
    back.
    """

    __slots__ = ("_source",)

    def __init__(self, source: OfferSource) -> None:
        self._source: OfferSource | None = source

    def holds(self, now: float) -> bool:
        """Tell whether the offers hold at `now`, in loop time."""
        source = self._source
        return source is not None and now < source.health.valid_until and now < source.stale_at

    def take(self, now: float) -> bool:
        """Tell whether the offers hold, and take note that they are used if they do."""
        source = self._source
        if source is None or now >= source.health.valid_until or now >= source.stale_at:
            return False
        source.used_at = now
        return True

    def end(self) -> None:
        """Take the offers back: they must be asked for anew."""
        self._source = None

    def __repr__(self) -> str:
        return f"<Lease {'ended' if self._source is None else 'of offers'}>"


class Offers(msgspec.Struct, frozen=True, kw_only=True):
    """The providers that offer a service and pass the filter, in the registry's order.

    `listings` are as in the registry; `providers` are theirs, in the same order, corrected by observations. `observed`
    holds these observations, by name, and those made since. `unhealthy` holds, by name, why a provider should be
    deprioritized ("breaker open", "ejected", "health check failed", "unreachable"); it is listed all the same, for the
    case that no other is left. `panic` means that too many are unhealthy, and that health is to be ignored.

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


class Filtering:
    """Offers that are filtered a part at a time, with the state of the moment when that began."""

    __slots__ = ("_dropped", "_passes", "_unhealthy", "_where", "offers")

    def __init__(self, offers: Offers, where: ProviderFilter, *, healthy_only: bool) -> None:
        self.offers = offers
        self._where = where
        self._unhealthy: Mapping[str, str] = offers.deprioritized if healthy_only else {}
        self._passes: list[bool] = []
        self._dropped: Counter[str] = Counter()

    def look_at(self, most: int | None = None) -> bool:
        """Look at the next providers, `most` of them or all; return whether any are left."""
        begin, matches, unhealthy = len(self._passes), self._where.matches, self._unhealthy
        end = None if most is None else begin + most
        for provider, listing in zip(self.offers.providers[begin:end], self.offers.listings[begin:end], strict=True):
            price = None if listing.tariff is None else listing.typical_price
            why = matches(provider, price=price) or unhealthy.get(provider.name)
            self._passes.append(why is None)
            if why is not None:
                self._dropped[why] += 1
        return len(self._passes) < len(self.offers.providers)

    def result(self, before: tuple[Listing, ...] = ()) -> Offers:
        """Return the offers that pass: the same object if all do; and `before` as their listings if these are equal."""
        offers = self.offers
        if not self._dropped:
            return offers
        listings = tuple(compress(offers.listings, self._passes))
        return msgspec.structs.replace(
            offers,
            listings=before if listings == before else listings,
            providers=tuple(compress(offers.providers, self._passes)),
            dropped=dict(self._dropped),
        )


class CachedOffers:
    """The answer of the registry for one service, its expiry `stale_at` in loop time, and the views made of it."""

    __slots__ = (
        "_all",
        "_available",
        "_is_made",
        "_lease",
        "_listings",
        "_unavailable",
        "_views",
        "health",
        "listings",
        "stale_at",
        "used_at",
    )

    def __init__(self, listings: tuple[Listing, ...], health: ServiceHealth, *, stale_at: float) -> None:
        self.listings = listings
        self.health = health
        """The health of their providers."""
        self.stale_at = stale_at
        self.used_at = -math.inf
        """When the service was last asked for, in loop time."""
        self._is_made = False
        self._lease: Lease | None = None
        self._all: Offers = NO_OFFERS
        self._available: list[bool] = [one.available for one in health.declared]
        """Observation changes nothing of it."""
        self._unavailable = self._available.count(False)
        self._views: dict[View, Offers] = {}
        self._listings: dict[View, tuple[Listing, ...]] = {}
        """Those of each view before: while they stay the same, they are the same object."""

    @property
    def offers(self) -> Offers:
        """All of them, as of the last renewal; also those that are unavailable."""
        return self._all

    def end_lease(self) -> None:
        """Have the offers asked for again, by all to which they were given."""
        if self._lease is not None:
            self._lease.end()

    def is_due(self, now: float) -> bool:
        """Tell whether the offers may have to be renewed."""
        return now >= self.health.valid_until or (now >= self.stale_at) is not self._all.stale

    def renew(self, now: float) -> None:
        """Bring the offers up to date; if nothing has changed, they and all views stay the same objects."""
        health, is_stale = self.health, now >= self.stale_at
        is_new = now >= health.valid_until and health.renew(now)
        if not is_new and is_stale == self._all.stale and self._is_made:
            return
        self._is_made = True
        self.end_lease()
        self._lease = Lease(self)
        self._all = everything = Offers(
            listings=self.listings,
            providers=health.providers,
            dropped={},
            observed=health.observed,
            unhealthy=health.unhealthy,
            panic=health.panic,
            stale=is_stale,
            lease=self._lease,
        )
        self._listings = {view: offers.listings for view, offers in self._views.items()}
        if self._unavailable:
            before = self._listings.get(UNFILTERED)
            everything = msgspec.structs.replace(
                everything,
                listings=before or tuple(compress(self.listings, self._available)),
                providers=tuple(compress(health.providers, self._available)),
                dropped={"unavailable": self._unavailable},
            )
        self._views = {UNFILTERED: everything}

    @property
    def unfiltered(self) -> Offers:
        """The offers that are available."""
        return self._views[UNFILTERED]

    def view(self, where: ProviderFilter, *, healthy_only: bool) -> Offers | None:
        """Return the offers that pass a filter, if they are known; a function of the caller's is asked anew."""
        return self._views.get((where, healthy_only))

    def filtered(self, where: ProviderFilter, filtering: Filtering, *, healthy_only: bool) -> Offers:
        """Return the offers that passed a filter, and remember them unless they changed meanwhile."""
        view = (where, healthy_only)
        offers = filtering.result(self._listings.get(view, ()))
        if where.predicate is None and filtering.offers is self._all:
            if len(self._views) >= MAX_VIEWS:
                self._views = {UNFILTERED: self.unfiltered}
            self._views[view] = offers
        return offers
