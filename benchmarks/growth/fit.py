"""The exponent of a cost: how it grows with the size, whatever the machine."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def exponent(sizes: Sequence[int], costs: Sequence[float]) -> float:
    """Return k of the law `cost = c * size ** k` that fits best: the slope of the least-squares line of the logarithms.

    >>> round(exponent([100, 200, 400], [1.0, 4.0, 16.0]), 6), exponent([1, 10, 100], [3.0, 3.0, 3.0])
    (2.0, 0.0)
    """
    points = [(math.log(size), math.log(cost)) for size, cost in zip(sizes, costs, strict=True)]
    mid_x = sum(x for x, _ in points) / len(points)
    mid_y = sum(y for _, y in points) / len(points)
    return sum((x - mid_x) * (y - mid_y) for x, y in points) / sum((x - mid_x) ** 2 for x, _ in points)
