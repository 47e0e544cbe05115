"""Random numbers for waits that are to be spread evenly: of a few, as many are short as long."""

from __future__ import annotations

STEP = (5**0.5 - 1) / 2
"""The golden section: of all steps it leaves the smallest gaps, however many numbers there are."""


class EvenDraws:
    """Numbers from 0 up to 1, each of which falls into one of the largest gaps that those before it have left.

    Callers that draw their waits from one of these come back spread out, and wait as long as they should on average;
    numbers that are drawn independently cluster, and the average of two hundred is off by 4 % as likely as not.

    `first` is the first of them, drawn at random: without that, every process would wait for the same times.

    Source: the additive recurrence of H. Weyl; D. Knuth, "The Art of Computer Programming" 3, 6.4, for the step.

    >>> draws = EvenDraws(0.25)
    >>> [round(draws.draw(), 2) for _ in range(5)]
    [0.25, 0.87, 0.49, 0.1, 0.72]
    """

    def __init__(self, first: float) -> None:
        self._next = first

    def draw(self) -> float:
        """Return the next one."""
        drawn = self._next
        self._next = (drawn + STEP) % 1.0
        return drawn
