"""What it costs to be looked at, beside the same without: traces, and the live page.

`python -m benchmarks.observing --json`
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from benchmarks.harness import Row, loop_factory_of
from benchmarks.observing.page import page
from benchmarks.observing.traces import traces

if TYPE_CHECKING:
    import argparse
    from collections.abc import Awaitable, Callable

TURNS = 20
"""The turns of one round, of each kind of operation."""
GROUPS: dict[str, Callable[[int, int], Awaitable[list[Row]]]] = {"traces": traces, "page": page}
"""The groups of rows, by how their names begin; each is given the turns, and the operations of one."""


def collect(options: argparse.Namespace, *, calls: int = 50) -> list[Row]:
    """Measure every group of rows whose name contains what `--only` says."""
    rows: list[Row] = []
    for name, group in GROUPS.items():
        if options.only in name or name in options.only:
            with asyncio.Runner(loop_factory=loop_factory_of(options)) as runner:
                rows += runner.run(as_coroutine(group(TURNS * options.rounds, calls)))
    return rows


async def as_coroutine(rows: Awaitable[list[Row]]) -> list[Row]:
    """Await rows as the main coroutine of a loop."""
    return await rows
