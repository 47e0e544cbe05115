"""Two kinds of one operation beside each other: in short turns within one loop, by the CPU that each takes.

A difference of 2 % is far below what a busy machine varies by from one second to the next. Turns of some milliseconds
meet the same spells, and the CPU of the process leaves out what others take.
"""

from __future__ import annotations

import gc
import statistics
from time import process_time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    Operation = Callable[[], Awaitable[Any]]


async def cpu_of_each(operations: Sequence[Operation], *, turns: int, calls: int) -> list[float]:
    """Return the µs of CPU of each operation: the mean of `calls` calls in a turn, and the median of the turns."""
    taken: list[list[float]] = [[] for _ in operations]
    for turn in range(turns):
        order = range(len(operations))
        for number in order if turn % 2 == 0 else reversed(order):
            operation = operations[number]
            for _ in range(1 + calls // 5):  # Those after a collection, or after another kind, meet cold caches.
                await operation()
            begun = process_time()
            for _ in range(calls):
                await operation()
            taken[number].append((process_time() - begun) / calls * 1e6)
        gc.collect()
    return [statistics.median(one) for one in taken]
