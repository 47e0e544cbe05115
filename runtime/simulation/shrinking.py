"""Reduce a failing run to the faults and the deviations from FIFO order without which it does not fail.

Deviations are not left out at random. What precedes a choice is untouched if all that follows it is left out, so the
shortest beginning that still fails is found by bisection, and its last deviation is needed. The same is done with what
stands before that one, until those that are needed fail alone. Then each moved task overtakes as few others as can be.
With one culprit among n deviations, which overtakes m tasks, this takes about 5 + log2(n) + log2(m) runs, and
2 + log2(n) + log2(m) more for each further culprit; ddmin takes up to n² (A. Zeller and R. Hildebrandt,
"Simplifying and Isolating Failure-Inducing Input", 2002). The division by needed parts is that of U. Junker,
"QuickXplain", 2004.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from runtime.simulation.schedule import RecordedSchedule, write_deviations

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runtime.simulation.schedule import Deviation
    from runtime.simulation.search import Search, SeedRun

MAX_ATTEMPTS = 300
"""So many runs at most are spent on the order of one failure."""


class Shrinking:
    """The reduction of one seed that failed, `first`."""

    def __init__(self, search: Search, seed: int, first: SeedRun) -> None:
        self.keep = list(range(len(first.simulation.faults)))
        """The numbers of the faults that are left."""
        self.last = first
        """The last run that failed with what is left."""
        self.deviations: tuple[Deviation, ...] | None = None
        """The deviations that are left; None for the whole order of the seed."""
        self.runs = 0
        """The runs that the reduction of the order took."""
        self._search = search
        self._seed = seed
        self._kind = type(first.error)

    def shrink(self) -> None:
        """Leave out what the failure does not need: faults first, then deviations, then faults again."""
        self._shrink_faults()
        if self._search.order != "seeded" or self._fails(()):
            return  # It needs no deviation, and stays the run of the seed.
        recorded = self._search.attempt(self._seed, keep=self.keep, is_recorded=True)
        self.runs += 1
        whole = recorded.simulation.deviations
        if not self._fails(whole):
            return  # The failure depends on what is no deviation, so that only the seed repeats it.
        self._take(self._shortest(whole))
        self._take(self._without_single_ones(self._left()))
        self._take(self._narrowed(self._left()))
        if self.keep:
            self._shrink_faults()

    def _take(self, deviations: Sequence[Deviation]) -> None:
        """Keep those of these deviations that the run makes, which fails with them."""
        last = self._fails(deviations)
        if last is not None:
            self.last, self.deviations = last, last.simulation.deviations

    def _left(self) -> tuple[Deviation, ...]:
        return self.deviations or ()

    def _fails(self, deviations: Sequence[Deviation]) -> SeedRun | None:
        """Return the run with these deviations alone if it fails in the same way; None if it does not."""
        self.runs += 1
        attempt = self._search.attempt(self._seed, keep=self.keep, order=tuple(deviations))
        return attempt if self._is_same(attempt) else None

    def _is_same(self, attempt: SeedRun) -> bool:
        return attempt.error is not None and type(attempt.error) is self._kind

    def _shortest(self, deviations: Sequence[Deviation]) -> Sequence[Deviation]:
        """Return a small part of these deviations that fails; the order of production passes."""
        needed: list[Deviation] = []
        rest = list(deviations)
        while rest and self.runs < MAX_ATTEMPTS:
            passes, fails = 0, len(rest)  # So many of the rest, with those that are needed.
            while fails - passes > 1 and self.runs < MAX_ATTEMPTS:
                middle = (passes + fails) // 2
                if self._fails([*rest[:middle], *needed]):
                    fails = middle
                else:
                    passes = middle
            needed.insert(0, rest[fails - 1])
            rest = rest[: fails - 1]
            if not rest or self._fails(needed):
                return needed
        return [*rest, *needed]

    def _without_single_ones(self, deviations: Sequence[Deviation]) -> Sequence[Deviation]:
        """Leave out one deviation after the other as long as the run fails."""
        left = list(deviations)
        for one in tuple(reversed(left)) if len(left) > 1 else ():
            fewer = [other for other in left if other is not one]
            if self.runs < MAX_ATTEMPTS and self._fails(fewer):
                left = fewer
        return left

    def _narrowed(self, deviations: Sequence[Deviation]) -> Sequence[Deviation]:
        """Let each moved task overtake as few others as the failure allows, so that the last of them is its rival."""
        left = list(deviations)
        schedule = self.last.simulation.choices
        overtaken = schedule.overtaken if isinstance(schedule, RecordedSchedule) else {}
        for place, one in enumerate(deviations):
            rivals = overtaken.get(one.key, ())
            fails, passes = 0, len(rivals)  # From so many rivals on, it is moved before the rest.
            while passes - fails > 1 and self.runs < MAX_ATTEMPTS:
                middle = (passes + fails) // 2
                left[place] = msgspec.structs.replace(one, before=rivals[middle])
                if self._fails(left):
                    fails = middle
                else:
                    passes = middle
            left[place] = msgspec.structs.replace(one, before=rivals[fails]) if rivals else one
        return left

    def _shrink_faults(self) -> None:
        """Leave out one fault after the other as long as the run fails with the same type of error."""
        again = True
        while again:
            again = False
            for number in tuple(reversed(self.keep)):
                fewer = [one for one in self.keep if one != number]
                attempt = self._search.attempt(self._seed, keep=fewer, order=self.deviations)
                if self._is_same(attempt):
                    self.keep, self.last, again = fewer, attempt, True

    def __repr__(self) -> str:
        return f"<Shrinking of seed {self._seed}: {write_deviations(self._left())} after {self.runs} runs>"
