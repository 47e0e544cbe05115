"""The order in which one request goes to its candidates, by each of its strategies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.providers.lazy_ranking import Ranking, Remembered, by_drawn_quality, by_load
from actors.providers.observed import UNOBSERVED, load
from actors.providers.selection import rank
from actors.supervisor.pipeline.scores import UNSCORED
from actors.supervisor.targets.candidates import NO_CANDIDATES

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Container, Iterable, Mapping

    from actors.providers.bandit import Bandit
    from actors.providers.observed import Observed
    from actors.providers.provider import Provider
    from actors.providers.selection import NamedStrategy, OwnStrategy, SelectionStrategy
    from actors.supervisor.targets.candidates import Candidates

DRAWN = frozenset({"least_loaded", "weighted", "bandit"})
"""The strategies whose order is drawn for each request."""


class CandidateOrder:
    """Orders the candidates of one request: worked out as far as it is read, and then kept for the request.

    `rated` holds the providers whose answers were scored, as good as their scores have shown them to be. Loads are as
    of `now`, in loop time. `priced` returns all providers at what the request will presumably cost there, if that goes
    by the request.
    """

    __slots__ = ("_bandit", "_candidates", "_now", "_observed", "_priced", "_rated", "_read", "_rng")

    def __init__(
        self,
        candidates: Candidates,
        rng: random.Random | None = None,
        *,
        rated: Mapping[str, Provider] | None = None,
        bandit: Bandit | None = None,
        observed: Mapping[str, Observed] | None = None,
        now: float = 0.0,
        priced: Callable[[], list[Provider]] | None = None,
    ) -> None:
        self._candidates = candidates
        self._rng = rng
        self._rated = rated or {}
        self._bandit = bandit or UNSCORED
        self._observed = observed or {}
        self._now = now
        self._priced = priced
        self._read: dict[NamedStrategy, Iterable[str]] = {}

    def by(self, strategy: SelectionStrategy, tried: Container[str]) -> Iterable[str]:
        """Return the names in the order of a strategy; those `tried` need not be among them."""
        if callable(strategy):
            return self._by_function(strategy, tried)
        names = self._read.get(strategy)
        if names is None:
            names = self._read[strategy] = self._by_name(strategy)
        return names

    def _by_name(self, strategy: NamedStrategy) -> Iterable[str]:
        if self._priced is None and not self._rated and strategy not in DRAWN:
            return self._candidates.ranked_names(strategy)  # The same for all requests.
        if strategy == "weighted":
            assert self._rng is not None  # noqa: S101 - a request that has candidates has it.
            return Remembered(self._candidates.weighted_draw().order(self._rng))
        priced = None if self._priced is None else self._priced()
        ranking = self._candidates.ranking(strategy) if priced is None else Ranking(priced, strategy)
        if strategy == "least_loaded":
            assert self._rng is not None  # noqa: S101 - as above.
            return Remembered(by_load(ranking.providers, ranking.names, self._load, self._rng))
        if strategy == "bandit":
            assert self._rng is not None  # noqa: S101 - as above.
            return Remembered(by_drawn_quality(ranking, self._bandit, self._rng))
        return ranking.names if priced is not None else Remembered(ranking.with_scored(self._rated))

    def _by_function(self, strategy: OwnStrategy, tried: Container[str]) -> list[str]:
        listings, rated = self._candidates.listings, self._rated
        all_of_them = (
            [rated.get(name) or listing.provider for name, listing in listings.items()]
            if self._priced is None
            else self._priced()
        )
        untried = [one for one in all_of_them if one.name not in tried]
        return [one.name for one in rank(untried, strategy)]

    def _load(self, name: str) -> float:
        candidates = self._candidates
        return load(
            candidates.listings[name].provider,
            self._observed.get(name, UNOBSERVED),
            under_way=candidates.targets[name].state.under_way,
            now=self._now,
        )

    def __repr__(self) -> str:
        return f"<CandidateOrder of {self._candidates}>"


NO_ORDER = CandidateOrder(NO_CANDIDATES)
