"""The calls under way that later calls have overtaken: they hang by themselves, while their provider is at work.

A provider that is overloaded answers in turn, or nearly so, and has none.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Stragglers:
    """When the calls under way began, the first one in front."""

    __slots__ = ("_begun", "_overtaken_before")

    def __init__(self) -> None:
        self._begun: dict[float, int] = {}
        self._overtaken_before = -math.inf

    def begin(self, at: float) -> None:
        """Note a call that begins, at a time that is not before that of any other."""
        self._begun[at] = self._begun.get(at, 0) + 1

    def end(self, begun: float, *, is_answered: bool) -> None:
        """Note the end of a call that had begun at this time."""
        left = self._begun.get(begun, 1) - 1
        if left:
            self._begun[begun] = left
        else:
            self._begun.pop(begun, None)
        if is_answered and begun > self._overtaken_before:
            self._overtaken_before = begun

    def has_overtaken(self, begun: float) -> bool:
        """Tell whether a call that began later than at `begun` was answered."""
        return begun < self._overtaken_before

    def begun(self) -> Iterator[float]:
        """Return when each call under way began, the first one in front."""
        return itertools.chain.from_iterable(itertools.repeat(at, calls) for at, calls in self._begun.items())

    def count(self, usual_latency: float) -> int:
        """Return how many calls are under way that began so long before one that was answered."""
        count = 0
        for begun, calls in self._begun.items():
            if begun + usual_latency >= self._overtaken_before:
                break
            count += calls
        return count

    def __repr__(self) -> str:
        return f"<Stragglers among {sum(self._begun.values())} calls>"
