"""Who may serve the requests that ask alike: made of what discovery found, once for as long as that stays the same."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from actors.discovery.found import NOBODY
from actors.errors.families import NoProvider
from actors.policies.breaker.circuit_breaker import Closed
from actors.providers.health import CHECK_FAILED
from actors.providers.requirement import NO_REQUIREMENT, fits
from actors.providers.selection import ADAPTIVE_STRATEGIES, rank

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from actors.discovery.found import Offers
    from actors.market.listing import Listing
    from actors.providers.requirement import Requirement
    from actors.providers.selection import SelectionStrategy
    from actors.supervisor.targets.target import Target

MAX_REMEMBERED = 1_000
"""The findings whose candidates are remembered: one for each filter that requests ask by."""


class Candidates:
    """Those who were found and fit, by name; `listings` are as found, and their prices hold for whoever has them."""

    __slots__ = ("_checked_ill", "_ranked", "found", "listings", "targets", "used_at")

    def __init__(self, found: Offers, listings: Iterable[Listing], targets: Mapping[str, Target]) -> None:
        self.found = found
        self.used_at = 0.0
        """When a request last asked for them, in loop time."""
        self.listings = {listing.provider.name: listing for listing in listings}
        self.targets = {name: targets[name] for name in self.listings}
        self._checked_ill = [
            name for name, why in found.deprioritized.items() if why == CHECK_FAILED and name in self.targets
        ]
        self._ranked: dict[SelectionStrategy, tuple[str, ...]] = {}

    def deprioritized(self) -> list[str]:
        """Name those who are to be asked after the others.

        What breakers and limits say is seen first hand, and no mark must outlast it. Of who is not in use now a check
        says nothing that its breaker does not decide.
        """
        if not self._checked_ill:
            return self._checked_ill
        return [name for name in self._checked_ill if isinstance(self.targets[name].state.breaker, Closed)]

    def ranked(self, strategy: SelectionStrategy) -> tuple[str, ...] | None:
        """Return all of them in the order of a strategy; None for one that goes by more than the providers."""
        names = self._ranked.get(strategy)
        if names is None and strategy not in ADAPTIVE_STRATEGIES:
            # As declared: a provider that was ranked by what was observed last would never be asked again.
            providers = [listing.provider for listing in self.listings.values()]
            names = self._ranked[strategy] = tuple(provider.name for provider in rank(providers, strategy))
        return names

    def __repr__(self) -> str:
        return f"<Candidates {', '.join(self.listings)}>"


NO_CANDIDATES = Candidates(NOBODY, (), {})


def fitting(found: Offers, requirement: Requirement, service: str) -> list[Listing]:
    """Return the listings of those who can take the input; raise `NoProvider` where nobody can."""
    if requirement is NO_REQUIREMENT:
        return list(found.listings)
    fit: list[Listing] = []
    dropped: Counter[str] = Counter()
    for listing in found.listings:
        why_not = fits(listing.provider, requirement)
        if why_not is None:
            fit.append(listing)
        else:
            dropped[why_not] += 1
    if not fit:
        raise NoProvider(service, offered=len(found.listings), dropped=dropped)
    return fit
