"""The last minutes of one subject in equal steps: its calls, which of them failed, their costs and latencies."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from actors.dashboard.view import ChartRow
from actors.money import ZERO
from actors.monitor.histogram import Histogram, bucket_of

if TYPE_CHECKING:
    from actors.money import Micros

STEP = 5.0
"""Seconds of one point."""
POINTS = 60
"""The points that are kept: five minutes."""
MAX_LATENCIES = 256
"""The latencies that are kept one by one until they are counted in their buckets."""
GENERATION = 30.0
"""Seconds after which the quantiles forget half of what they go by."""


class Point(NamedTuple):
    """What ended within one step."""

    number: int
    calls: int = 0
    failed: int = 0
    cost: int = 0
    p50: float | None = None
    p95: float | None = None
    first_piece: float | None = None


class Series:
    """Counts into the current step, and keeps those before it as points."""

    __slots__ = (
        "_calls",
        "_cost",
        "_failed",
        "_first_pieces",
        "_generation",
        "_histogram",
        "_latencies",
        "_newer",
        "_number",
        "_older",
        "_points",
        "_streams",
        "_until",
    )

    def __init__(self) -> None:
        self._points: deque[Point] = deque(maxlen=POINTS)
        self._number: int = -1
        self._until = 0.0
        """When the current step ends."""
        self._generation: int = -1
        self._newer, self._older = Histogram(), Histogram()
        self._clear()

    def _clear(self) -> None:
        self._calls = self._failed = self._cost = self._streams = 0
        self._first_pieces = 0.0
        self._latencies: list[float] = []
        self._histogram = Histogram()

    def add(
        self,
        now: float,
        latency: float,
        cost: Micros = ZERO,
        *,
        is_failed: bool = False,
        first_piece: float | None = None,
    ) -> None:
        """Count one call, or request, that has ended."""
        if now >= self._until:
            self._advance(now)
        self._calls += 1
        if is_failed:
            self._failed += 1
        else:
            latencies = self._latencies
            latencies.append(latency)
            if len(latencies) >= MAX_LATENCIES:
                self._sort_in()
        if cost:
            self._cost += int(cost)
        if first_piece is not None:
            self._streams += 1
            self._first_pieces += first_piece

    def spend(self, now: float, cost: Micros, corrects: Micros = ZERO) -> None:
        """Count money: what something cost, less what was counted for it before."""
        if now >= self._until:
            self._advance(now)
        self._cost += int(cost) - int(corrects)

    def _sort_in(self) -> None:
        """Count the latencies in their buckets; of many at once, that costs less than of one at a time."""
        self._histogram.add_all(map(bucket_of, self._latencies))
        self._latencies.clear()

    def _advance(self, now: float) -> None:
        self._sort_in()
        number = int(now / STEP)
        if number > self._number:
            if self._calls or self._cost:
                self._points.append(self._point())
            self._newer.merge(self._histogram)
            self._clear()
            self._number, self._until = number, (number + 1) * STEP
            generation = int(now / GENERATION)
            if generation != self._generation:
                self._older = self._newer if generation == self._generation + 1 else Histogram()
                self._newer, self._generation = Histogram(), generation

    def _point(self) -> Point:
        p50, p95 = self._histogram.quantiles(0.5, 0.95) if self._histogram.count else (None, None)
        first = self._first_pieces / self._streams if self._streams else None
        return Point(self._number, self._calls, self._failed, self._cost, p50, p95, first)

    def recent(self, now: float) -> tuple[float | None, float | None]:
        """Return the median of the last latencies, and what 19 of 20 did not exceed; None if there were none."""
        self._advance(now)
        both = Histogram()
        both.merge(self._older)
        both.merge(self._newer)
        both.merge(self._histogram)
        if not both.count:
            return None, None
        p50, p95 = both.quantiles(0.5, 0.95)
        return p50, p95

    def chart(self, now: float) -> ChartRow:
        """Return the steps before the current one, those without a call included."""
        self._advance(now)
        last = self._number - 1
        by_number = {one.number: one for one in self._points}
        points = [by_number.get(number, Point(number)) for number in range(max(0, last - POINTS + 1), last + 1)]
        streams = any(one.first_piece is not None for one in points)
        return ChartRow(
            until=(last + 1) * STEP,
            step=STEP,
            calls=tuple(one.calls for one in points),
            failed=tuple(one.failed for one in points),
            cost=tuple(one.cost for one in points),
            p50=tuple(short(one.p50) for one in points),
            p95=tuple(short(one.p95) for one in points),
            first_piece=tuple(short(one.first_piece) for one in points) if streams else (),
        )


def short(value: float | None) -> float | None:
    """Return a duration without digits that nothing shows.

    >>> short(0.123456)
    0.1235
    """
    return None if value is None else float(f"{value:.4g}")
