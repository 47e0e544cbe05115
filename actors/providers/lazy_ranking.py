"""Orders providers as far as the order is read: a request calls the first of thousands, and rates only a few.

What providers declare is ranked once, for as long as the same ones are listed. The load and the scores of the moment
are looked at for each request, for no more providers than it takes.
"""

from __future__ import annotations

from heapq import merge
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from actors.providers.bandit import draw_qualities
from actors.providers.selection import PriceScale, bandit_penalty, declared_key, quality_key

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from actors.providers.bandit import Bandit
    from actors.providers.provider import Provider
    from actors.providers.selection import NamedStrategy

T = TypeVar("T")

LATEST_SCORED, BEST_UNSCORED, AT_RANDOM = 64, 8, 8
"""The arms for which "bandit" draws a quality, if there are more candidates.

Those scored last, because a good one is called, and so scored, again and again; of those not scored, the best by what
is declared; and some of all. Few are not scored: the best of many draws for arms of which nothing is known beats what
is known of a good one, which would not be called again before all were tried.
"""
MAX_ARMS = LATEST_SCORED + BEST_UNSCORED + AT_RANDOM


class Remembered(Generic[T]):
    """What an iterator yields: read once, no further than needed, and as often as wanted from its beginning."""

    def __init__(self, source: Iterator[T]) -> None:
        self._source = source
        self._read: list[T] = []

    def __iter__(self) -> Iterator[T]:
        read, index = self._read, 0
        while True:
            while index < len(read):
                yield read[index]
                index += 1
            try:
                read.append(next(self._source))
            except StopIteration:
                return

    def __repr__(self) -> str:
        return f"<Remembered {len(self._read)} read>"


class Ranking:
    """Providers in the order of one strategy, by what they declare; those scored since are merged in by their scores.

    A scale, such as from the cheapest to the dearest, is that of what is declared.
    """

    __slots__ = ("_key", "names", "prices", "providers")

    def __init__(self, providers: Iterable[Provider], strategy: NamedStrategy) -> None:
        listed = tuple(providers)
        self._key = declared_key(strategy, listed)
        self.providers = {one.name: one for one in sorted(listed, key=self._key)}
        self.names = tuple(self.providers)
        self.prices = PriceScale.of(listed)

    def with_scored(self, rated: Mapping[str, Provider]) -> Iterator[str]:
        """Yield the names in order, with the `rated` providers in place of what they declare.

        >>> from actors.providers.provider import Provider
        >>> a, b, c = (Provider(name=name, services={"s"}, reputation=50) for name in "abc")
        >>> worse = Provider(name="a", services={"s"}, reputation=40)
        >>> list(Ranking([a, b, c], "best").with_scored({"a": worse}))
        ['b', 'c', 'a']
        """
        scored = sorted((one for name, one in rated.items() if name in self.providers), key=self._key)
        others = (one for name, one in self.providers.items() if name not in rated)
        return (one.name for one in merge(others, scored, key=self._key))

    def __repr__(self) -> str:
        return f"<Ranking of {len(self.names)}>"


def drawn(among: Sequence[T], rng: random.Random) -> Iterator[T]:
    """Yield each of a sequence once, at random; a draw takes the same time and memory from however many.

    Source: the shuffle of Fisher and Yates, in which only what was moved is stored.
    """
    moved: dict[int, int] = {}
    for last in range(len(among) - 1, -1, -1):
        index = int(rng.random() * (last + 1))
        yield among[moved.get(index, index)]
        moved[index] = moved.pop(last, last)


def by_two_choices(among: Sequence[T], load: Callable[[T], Any], rng: random.Random) -> Iterator[T]:
    """Yield each of a sequence once: always the less loaded of two, of which one is new and one was left over.

    Source: Mitzenmacher, "The power of two choices in randomized load balancing" (IEEE TPDS 12(10), 2001), and with the
    one left over: Mitzenmacher, Prabhakar and Shah, "Load balancing with memory" (FOCS 2002).
    """
    draws = drawn(among, rng)
    for left in draws:
        left_load = load(left)
        for other in draws:
            other_load = load(other)
            if other_load < left_load:
                yield other
            else:
                yield left
                left, left_load = other, other_load  # noqa: PLW2901 - it is the one left over.
        yield left


def by_load(
    providers: Mapping[str, Provider], names: Sequence[str], load: Callable[[str], float], rng: random.Random
) -> Iterator[str]:
    """Yield the names by two choices; of two that are loaded alike, the better one comes first."""
    return by_two_choices(names, lambda name: (load(name), quality_key(providers[name])), rng)


def by_drawn_quality(ranking: Ranking, bandit: Bandit, rng: random.Random) -> Iterator[str]:
    """Yield the names in the order of "bandit": first those for which a quality is drawn, then those left, as declared.

    Of at most 80 candidates, a quality is drawn for each. Of more, it is drawn for the 64 scored last, the best 8 of
    those not scored, and at least 8 at random, so that each is tried out in time. `ranking` is that of "bandit".
    """
    arms = {name: ranking.providers[name] for name in _arms(ranking, bandit, rng)}
    samples = draw_qualities(bandit, arms.values(), rng)
    yield from sorted(
        arms, key=lambda name: (bandit_penalty(arms[name], samples[name], ranking.prices), quality_key(arms[name]))
    )
    yield from (name for name in ranking.names if name not in arms)


def _arms(ranking: Ranking, bandit: Bandit, rng: random.Random) -> Iterable[str]:
    names = ranking.names
    if len(names) <= MAX_ARMS:
        return names
    latest = [name for name in list(bandit.arms)[-LATEST_SCORED:] if name in ranking.providers]
    arms = dict.fromkeys(latest)
    room = len(arms) + BEST_UNSCORED
    for name in names:
        if len(arms) == room:
            break
        if name not in bandit.arms:
            arms[name] = None
    for name in drawn(names, rng):
        if len(arms) == MAX_ARMS:
            break
        arms[name] = None
    return arms
