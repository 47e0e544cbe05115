"""The providers that may serve the requests that ask alike: made once, for as long as the offers stay the same."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from actors.discovery.offers import NO_OFFERS
from actors.errors.families import NoProvider
from actors.policies.breaker.states import Closed
from actors.providers.health import CHECK_FAILED
from actors.providers.requirement import NO_REQUIREMENT, fits
from actors.providers.selection import ADAPTIVE_STRATEGIES, rank

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from actors.discovery.offers import Offers
    from actors.market.listing import Listing
    from actors.providers.requirement import Requirement
    from actors.providers.selection import NamedStrategy, SelectionStrategy
    from actors.supervisor.targets.target import Target

MAX_REMEMBERED = 1_000
"""The offers whose candidates are remembered: one for each filter that requests ask by."""


class Candidates:
    """The providers that were found and fit, by name. The prices in `listings` hold for the requests that have them."""

    __slots__ = ("_failed_check", "_ranked", "has_tariffs", "listings", "offers", "targets", "used_at")

    def __init__(self, offers: Offers, listings: Iterable[Listing], targets: Mapping[str, Target]) -> None:
        self.offers = offers
        self.used_at = 0.0
        """When a request last asked for them, in loop time."""
        self.listings = {listing.provider.name: listing for listing in listings}
        self.targets = {name: targets[name] for name in self.listings}
        self._failed_check = [
            name for name, why in offers.deprioritized.items() if why == CHECK_FAILED and name in self.targets
        ]
        self._ranked: dict[NamedStrategy, tuple[str, ...]] = {}
        self.has_tariffs = any(listing.tariff is not None for listing in self.listings.values())
        """Whether what a call costs goes by its request at any of them."""

    def deprioritized(self) -> list[str]:
        """Name the providers to call after the others, because their last health check failed.

        Breakers and limits are read from the targets themselves, and no mark must outlast them. While a breaker is not
        closed, it decides alone, whatever a check says.
        """
        if not self._failed_check:
            return self._failed_check
        return [name for name in self._failed_check if isinstance(self.targets[name].state.breaker, Closed)]

    def ranked(self, strategy: SelectionStrategy) -> tuple[str, ...] | None:
        """Return all names in the order of a strategy; None if it goes by more than what providers declare."""
        if callable(strategy) or self.has_tariffs:
            return None
        names = self._ranked.get(strategy)
        if names is None and strategy not in ADAPTIVE_STRATEGIES:
            # As declared: ranked by what was observed, a provider that came last would never be called again.
            providers = [listing.provider for listing in self.listings.values()]
            names = self._ranked[strategy] = tuple(provider.name for provider in rank(providers, strategy))
        return names

    def __repr__(self) -> str:
        return f"<Candidates {', '.join(self.listings)}>"


NO_CANDIDATES = Candidates(NO_OFFERS, (), {})


def fitting(offers: Offers, requirement: Requirement, service: str) -> list[Listing]:
    """Return the listings of the providers that can take the input; raise `NoProvider` if none can."""
    if requirement is NO_REQUIREMENT:
        return list(offers.listings)
    fit: list[Listing] = []
    dropped: Counter[str] = Counter()
    for listing in offers.listings:
        why_not = fits(listing.provider, requirement)
        if why_not is None:
            fit.append(listing)
        else:
            dropped[why_not] += 1
    if not fit:
        raise NoProvider(service, offered=len(offers.listings), dropped=dropped)
    return fit
