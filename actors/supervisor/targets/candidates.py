"""The providers that may serve the requests that ask alike: made once, for as long as the offers stay the same."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from actors.discovery.offers import NO_OFFERS
from actors.errors.families import NoProvider
from actors.policies.breaker.states import Closed
from actors.providers.bandit import DeclaredQualities
from actors.providers.health import CHECK_FAILED
from actors.providers.lazy_ranking import Ranking
from actors.providers.requirement import NO_REQUIREMENT, fits
from actors.providers.weighted import WeightedDraw
from actors.supervisor.targets.ranked_names import RankedNames
from actors.supervisor.targets.windows import window_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from actors.discovery.offers import Offers
    from actors.market.listing import Listing
    from actors.providers.requirement import Requirement
    from actors.providers.selection import NamedStrategy
    from actors.supervisor.targets.target import Target

MAX_REMEMBERED = 100_000
"""The listings in all candidates that are remembered, beside those asked for last."""


class Candidates:
    """The providers that were found and fit, by name. The prices in `listings` hold for the requests that have them."""

    __slots__ = (
        "_declared",
        "_failed_check",
        "_names",
        "_rankings",
        "_weighted",
        "has_failed_checks",
        "has_tariffs",
        "has_windows",
        "listings",
        "may_be_warm",
        "offers",
        "targets",
        "used_at",
    )

    def __init__(self, offers: Offers, listings: Iterable[Listing], targets: Mapping[str, Target]) -> None:
        self.used_at = 0.0
        """When a request last asked for them, in loop time."""
        self.listings = {listing.provider.name: listing for listing in listings}
        self.targets = {name: targets[name] for name in self.listings}
        self.has_tariffs = any(listing.tariff is not None for listing in self.listings.values())
        """Whether what a call costs goes by its request at any of them."""
        self.may_be_warm = self.has_tariffs and len(self.listings) > 1
        """Whether one of several may be called for what it has cached of a prompt."""
        self.has_windows = any(window_of(listing) is not None for listing in self.listings.values())
        """Whether it is known of any of them how long an input may be."""
        self._rankings: dict[NamedStrategy, Ranking] = {}
        self._names: dict[NamedStrategy, RankedNames] = {}
        self._declared: DeclaredQualities | None = None
        self._weighted: WeightedDraw | None = None
        self.renew(offers)

    def renew(self, offers: Offers) -> None:
        """Take on offers of the same listings, of which something else was observed."""
        self.offers = offers
        deprioritized = offers.deprioritized
        self._failed_check = frozenset(name for name, why in deprioritized.items() if why == CHECK_FAILED)
        self.has_failed_checks = bool(self._failed_check)
        """Whether the last health check of some failed."""

    def failed_check(self, name: str) -> bool:
        """Tell whether a provider is to be called after the others, because its last health check failed.

        Breakers and limits are read from the targets themselves, and no mark must outlast them. While a breaker is not
        closed, it decides alone, whatever a check says.
        """
        return name in self._failed_check and isinstance(self.targets[name].state.breaker, Closed)

    def ranking(self, strategy: NamedStrategy) -> Ranking:
        """Return the order of a strategy by what providers declare.

        Ranked by what was observed, a provider that came last would never be called again.
        """
        ranking = self._rankings.get(strategy)
        if ranking is None:
            providers = [listing.provider for listing in self.listings.values()]
            ranking = self._rankings[strategy] = Ranking(providers, strategy)
        return ranking

    def ranked_names(self, strategy: NamedStrategy) -> RankedNames:
        """Return the names in this order."""
        names = self._names.get(strategy)
        if names is None:
            names = self._names[strategy] = RankedNames(self.ranking(strategy).names, self.targets)
        return names

    def weighted_draw(self) -> WeightedDraw:
        """Return the draw by the weights of the listings; those of weight 0 come by quality."""
        if self._weighted is None:
            listings = self.listings
            self._weighted = WeightedDraw({name: listings[name].weight for name in self.ranking("weighted").names})
        return self._weighted

    def declared_qualities(self) -> DeclaredQualities:
        """Return the declared qualities, sorted once."""
        if self._declared is None:
            self._declared = DeclaredQualities(listing.provider for listing in self.listings.values())
        return self._declared

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
