"""The names of ranked targets, and how many of those in front have no place left, known without asking each again."""

from __future__ import annotations

from functools import partial
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence


class HasPlaces(Protocol):
    """What has room for so many calls."""

    @property
    def is_full(self) -> bool:
        """Whether all of its places are taken."""
        ...

    def when_free(self, call: Callable[[], None]) -> None:
        """Call a function once, when it is no longer full."""
        ...


class RankedNames:
    """The names of targets in the order of one strategy, the one to call first in front.

    A request that comes when a thousand targets are busy must not look at each: those in front that were found full are
    left out until they have a place again.
    """

    __slots__ = ("_may_be_free", "_targets", "names")

    def __init__(self, names: Sequence[str], targets: Mapping[str, HasPlaces]) -> None:
        self.names = names
        self._targets = targets
        self._may_be_free = list(range(len(names)))
        """A heap of the places in the order."""

    def full_ahead(self) -> int:
        """Return how many in front are full, for as long as the loop does not go on."""
        heap = self._may_be_free
        while heap:
            target = self._targets[self.names[heap[0]]]
            if not target.is_full:
                return heap[0]
            target.when_free(partial(heappush, heap, heappop(heap)))
        return len(self.names)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __repr__(self) -> str:
        return f"<RankedNames {len(self.names)}>"
