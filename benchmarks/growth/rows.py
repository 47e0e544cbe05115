"""How the cost of each thing grows with its size: the exponent that fits the medians of four sizes.

`python -m benchmarks.growth --json`. A cost for all may grow as they do (1), and a cost for each not at all (0).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.growth import engine, market
from benchmarks.growth.fit import exponent
from benchmarks.harness import Row, loop_factory_of, medians, value_row

if TYPE_CHECKING:
    import argparse
    from collections.abc import Awaitable, Callable

LINEAR, FLAT = "<= 1.1", "<= 0.1"


class Growth(NamedTuple):
    """What is measured: `cost` at a size, the smallest of the sizes, and the bound of the exponent."""

    cost: Callable[[int], Awaitable[float]]
    least: int
    bound: str


GROWTHS: dict[str, Growth] = {
    "restart of a group": Growth(engine.restart_of_group, 250, LINEAR),
    "end of registered actors, each under a key": Growth(engine.ends_of_registered, 500, LINEAR),
    "end of an actor beside keys": Growth(engine.end_beside_keys, 250, FLAT),
    "end of subscriptions": Growth(engine.ends_of_subscriptions, 1_000, LINEAR),
    "find_one of a key's actors": Growth(engine.finds_of_one, 250, FLAT),
    "request among candidates, best": Growth(partial(market.requests_among, strategy="best"), 250, FLAT),
    "request among candidates, least_loaded": Growth(
        partial(market.requests_among, strategy="least_loaded"), 250, FLAT
    ),
    "request among candidates, bandit": Growth(partial(market.requests_among, strategy="bandit"), 250, FLAT),
    "first calls, a service each": Growth(market.first_calls, 50, LINEAR),
    "first calls, of one service": Growth(market.first_calls_of_one_service, 50, LINEAR),
    "memory of what was found": Growth(partial(market.first_calls_of_one_service, gauge=market.blocks), 50, LINEAR),
    "request in a line": Growth(market.line, 500, FLAT),
    "request refused because too many wait": Growth(market.refused_beside_line, 250, FLAT),
    "item of a batch": Growth(market.items_of_batch, 1_000, FLAT),
    "memory of a batch": Growth(market.blocks_of_batch, 12_000, FLAT),
}
STEPS = (1, 2, 4, 8)
"""The sizes, as multiples of the least."""


def collect(options: argparse.Namespace, *, scale: float = 1.0) -> list[Row]:
    """Measure the growths that were asked for."""
    return [grown(name, growth, options, scale=scale) for name, growth in GROWTHS.items() if options.only in name]


def grown(name: str, growth: Growth, options: argparse.Namespace, *, scale: float) -> Row:
    """Measure one thing at all sizes in turns, and fit its exponent."""
    sizes = [max(1, int(growth.least * scale)) * step for step in STEPS]
    costs = medians(
        {str(size): partial(growth.cost, size) for size in sizes},
        rounds=options.rounds,
        loop_factory=loop_factory_of(options),
    )
    found = [costs[str(size)] for size in sizes]
    shown = ", ".join(f"{size}: {cost:.3g}" for size, cost in zip(sizes, found, strict=True))
    return value_row(name, exponent(sizes, found), "", growth.bound, shown)
