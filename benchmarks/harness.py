"""How a figure is taken: everything in one process, in turns, medians of five; a ratio and never a bare time."""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import operator
import statistics
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Any

Measure = Callable[[], Awaitable[float]] | Callable[[], float]
"""Measures once and returns the figure; one that is async does so in a loop of its own."""

HOLDS = {">=": operator.ge, "<=": operator.le}


@dataclass(frozen=True)
class Row:
    """One line of a report. `target` bounds the ratio, or the value where there is nothing to compare with."""

    row: str
    value: float
    unit: str
    against: str
    ratio: float | None
    target: str
    holds: bool | None


def medians(
    measures: dict[str, Measure], *, rounds: int, loop_factory: Callable[[], Any] | None = None
) -> dict[str, float]:
    """Run every measure once in each round, so that a slow spell of the machine meets them all; return the medians.

    Every other round goes backwards, so that none always finds the memory that another has left warm.
    """
    figures: dict[str, list[float]] = {name: [] for name in measures}
    forwards = list(measures.items())
    for turn in range(rounds):
        for name, measure in forwards if turn % 2 == 0 else reversed(forwards):
            gc.collect()
            figures[name].append(measured(measure, loop_factory))
    return {name: statistics.median(found) for name, found in figures.items()}


def measured(measure: Measure, loop_factory: Callable[[], Any] | None) -> float:
    """Measure once."""
    figure = measure()
    if isinstance(figure, int | float):
        return figure
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(as_coroutine(figure))


async def as_coroutine(figure: Awaitable[float]) -> float:
    """Await a measure as the main coroutine of a loop."""
    return await figure


def ratio_row(row: str, ours: float, floor: float, unit: str, against: str, target: str) -> Row:
    """Compare a figure with the floor or peer of the same run."""
    ratio = ours / floor
    return Row(
        row,
        significant(ours),
        unit,
        f"{against}: {significant(floor):g}",
        round(ratio, 3),
        f"{target} x",
        met(target, ratio),
    )


def value_row(row: str, value: float, unit: str, target: str, against: str = "") -> Row:
    """State a figure that has a bound of its own."""
    return Row(row, significant(value), unit, against, None, f"{target} {unit}".strip(), met(target, value))


def bare_row(row: str, value: float, unit: str) -> Row:
    """State a figure that depends on the machine alone, with nothing to compare it with and no bound."""
    return Row(row, significant(value), unit, "", None, "", None)


def peer_row(row: str, ours: float, peer: float, unit: str, against: str) -> Row:
    """State a figure beside a peer's, with no bound."""
    return Row(row, significant(ours), unit, f"{against}: {significant(peer):g}", round(ours / peer, 2), "", None)


def met(target: str, figure: float) -> bool:
    """Tell whether a figure meets a target such as `>= 0.6`."""
    sign, bound = target.split()
    return bool(HOLDS[sign](figure, float(bound)))


def significant(figure: float) -> float:
    """Round to four significant digits."""
    return float(f"{figure:.4g}")


def report(collect: Callable[[argparse.Namespace], list[Row]], description: str) -> None:
    """Run a benchmark from its command line; the exit code is 1 where a target does not hold."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", action="store_true", help="print one JSON list instead of a table")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of which the median is taken (default 5)")
    parser.add_argument("--only", default="", help="only the rows whose name contains this text")
    parser.add_argument("--uvloop", action="store_true", help="run on uvloop, which must be installed")
    rows = collect(parser.parse_args())
    if "--json" in sys.argv:
        print(json.dumps([asdict(row) for row in rows], indent=1))
    else:
        print("\n".join(as_text(row) for row in rows))
    sys.exit(any(row.holds is False for row in rows))


def as_text(row: Row) -> str:
    """Format one row for a person."""
    ratio = "" if row.ratio is None else f"{row.ratio:.2f} x"
    verdict = {True: "holds", False: "MISSED", None: ""}[row.holds]
    return f"{row.row:<44} {row.value:>12,.6g} {row.unit:<10} {ratio:>9}  {row.target:<12} {verdict:<7} {row.against}"


def loop_factory_of(options: argparse.Namespace) -> Callable[[], Any] | None:
    """Return the event loop that the command line asks for."""
    if not options.uvloop:
        return None
    import uvloop  # noqa: PLC0415 - an extra.

    return uvloop.new_event_loop
