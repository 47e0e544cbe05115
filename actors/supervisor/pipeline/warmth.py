"""Whether a conversation stays at the provider that has its beginning cached: what that saves decides. Pure."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

from actors.policies.breaker.states import Closed
from actors.policies.breaker.transitions import share

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actors.policies.breaker.config import BreakerConfig
    from actors.policies.breaker.states import BreakerState

MAX_PREFIXES = 10_000
"""The beginnings of prompts that are remembered; of more, those used longest ago are forgotten."""
PROVIDERS_EACH = 2
"""The providers of each that are remembered: the last one, and the one before, to which a conversation may return."""
PLACE_WITHIN = 2.0
"""Seconds within which a place must come at the provider that a conversation stays at."""


class WarmPrefix(NamedTuple):
    """A provider has so many tokens of a prompt cached, as its last usage said, and used them last at `used_at`."""

    provider: str
    cached: int
    used_at: float


class PrefixLog:
    """The providers that have beginnings of prompts cached, by what tells these apart.

    >>> log = PrefixLog()
    >>> log.note(b"a", WarmPrefix("alder", 1_024, used_at=0.0))
    >>> log.note(b"a", WarmPrefix("birch", 1_024, used_at=5.0))
    >>> [prefix.provider for prefix in log.of(b"a")]
    ['birch', 'alder']
    >>> log.note(b"a", WarmPrefix("birch", 0, used_at=9.0))
    >>> [prefix.provider for prefix in log.of(b"a")]
    ['alder']
    """

    __slots__ = ("_by_digest",)

    def __init__(self) -> None:
        self._by_digest: OrderedDict[bytes, tuple[WarmPrefix, ...]] = OrderedDict()

    def of(self, digest: bytes) -> Sequence[WarmPrefix]:
        """Return where a beginning is cached, the last one first."""
        return self._by_digest.get(digest, ())

    def note(self, digest: bytes, prefix: WarmPrefix) -> None:
        """Note what the usage of a call said; one that cached nothing tells that its provider has nothing."""
        others = tuple(one for one in self._by_digest.pop(digest, ()) if one.provider != prefix.provider)
        known = (prefix, *others)[:PROVIDERS_EACH] if prefix.cached else others
        if known:
            self._by_digest[digest] = known
            if len(self._by_digest) > MAX_PREFIXES:
                self._by_digest.popitem(last=False)

    def __len__(self) -> int:
        return len(self._by_digest)

    def __repr__(self) -> str:
        return f"<PrefixLog of {len(self)} beginnings>"


class WarmOffer(NamedTuple):
    """What a call costs at a provider without a cache, and what it costs less because of one, in micro-units."""

    provider: str
    estimate: int
    saving: int

    @property
    def net(self) -> int:
        """What the call presumably costs."""
        return self.estimate - self.saving


def may_stay(prefix: WarmPrefix, breaker: BreakerState, *, window: float, now: float, config: BreakerConfig) -> bool:
    """Tell whether a provider may be chosen for what it has cached: `window` is the seconds for which it keeps that.

    Not if its breaker is open or half-open: probes are never chosen so. Nor in its slow start, when others decide which
    part of the load it gets.
    """
    return now - prefix.used_at < window and isinstance(breaker, Closed) and share(breaker, now, config) == 1


def where_to_stay(warm: Sequence[WarmOffer], other: int | None) -> str | None:
    """Return the provider to stay at; None if the strategy decides.

    `warm` are those that have something cached, the last one first, and `other` is what the call costs at the first
    that has not, in the order of the strategy (None: there is none). It is worth staying while the cached tokens save
    more than the difference in price.

    >>> where_to_stay([WarmOffer("alder", estimate=900, saving=500)], 600)
    'alder'
    >>> where_to_stay([WarmOffer("alder", estimate=1_200, saving=500)], 600)
    """
    saving = [offer for offer in warm if offer.saving > 0]
    best = min(saving, key=lambda offer: offer.net, default=None)  # Of equal ones the last one, which has most of it.
    if best is None or (other is not None and best.net >= other):
        return None
    return best.provider
