"""Every trouble, over many seeds in virtual time: what the cast makes of it, the seed's recipe, and a stack by hand.

`python -m benchmarks.scenarios --json`; `--table` prints a Markdown table instead, `--plots troubles.svg` draws one
picture of all, `--seeds` says how many (20).
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from benchmarks.harness import Row, as_text, met, significant
from benchmarks.resilience.peers import note_missing
from benchmarks.scenarios.plots import plots
from benchmarks.scenarios.troubles import OURS, SEED, TROUBLES, all_contenders, figure
from runtime.simulation import Simulation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.scenarios.troubles import Contender, Outcome
    from benchmarks.scenarios.troubles.trouble import Trouble

SEEDS = 20
UNITS = {
    "success": "of all",
    "success_after": "of all",
    "reported": "of all",
    "cancelled": "of all",
    "rate_kept": "of before",
    "of_ceiling": "of ceiling",
    "limit_used": "of limit",
    "used_again": "of answers",
    "part_throttled": "of calls",
    "amplification": "calls/req",
    "calls_per_poison": "calls/req",
    "throttled": "calls",
    "calls_in_trouble": "calls",
    "calls_per_reopen": "calls",
    "most_in_a_second": "calls",
    "most_calls": "calls",
    "wire_calls_at_first": "calls",
    "wire_calls_later": "calls",
    "left": "calls",
    "time_to_return": "s",
    "times_the_least": "times",
    "interactive_p99": "s",
    "p50": "s",
    "p99": "s",
    "spend": "micros",
    "paid_twice": "requests",
    "unknown": "requests",
    "poison_reported": "requests",
}
"""The figures in the order of their rows, and what they are counted in."""
MORE_IS_BETTER = {
    "success",
    "success_after",
    "reported",
    "cancelled",
    "rate_kept",
    "of_ceiling",
    "limit_used",
    "used_again",
}
NEVER = 1e9
"""Stands for what never came, as JSON has no infinity."""


class Spread(msgspec.Struct, frozen=True):
    """One figure over all seeds: its mean, the worst, and in which seed that was."""

    mean: float
    worst: float
    seed: int

    def __str__(self) -> str:
        return f"mean {shown(self.mean)}, worst {shown(self.worst)} (seed {self.seed})"


def shown(value: float) -> str:
    """Return a number for a person.

    >>> shown(math.inf), shown(1.23456)
    ('never', '1.235')
    """
    return "never" if value == math.inf else f"{significant(value):g}"


def spread_of(outcomes: Sequence[Outcome], name: str) -> Spread | None:
    """Return a figure over all seeds; None where it means nothing."""
    values = [
        (value, seed) for seed, outcome in enumerate(outcomes) if (value := figure_or_none(outcome, name)) is not None
    ]
    if not values:
        return None
    worst, seed = min(values) if name in MORE_IS_BETTER else max(values, key=lambda one: (one[0], -one[1]))
    return Spread(statistics.mean(value for value, _ in values), worst, seed)


def figure_or_none(outcome: Outcome, name: str) -> float | None:
    """Return a figure, also where only other troubles count it."""
    return figure(outcome, name) if name in outcome.more or hasattr(outcome, name) else None


def run(trouble: Trouble, contender: Contender, seeds: int) -> list[Outcome]:
    """Put a contender through a trouble with so many seeds."""

    async def scenario(simulation: Simulation, contender: Contender) -> Outcome:
        return await trouble.scenario(simulation, contender)

    with_contender: Any = partial(scenario, contender=contender)
    return [Simulation(seed, logs=False).run(with_contender).result for seed in range(seeds)]


def rows_of(name: str, trouble: Trouble, found: dict[str, list[Outcome]]) -> list[Row]:
    """Return the rows of one trouble: the worst seed of ours, beside the others' figures of the same run."""
    rows: list[Row] = []
    for what, unit in UNITS.items():
        ours = spread_of(found[OURS], what)
        if ours is None:
            continue
        others = [
            f"{other}: {spread}"
            for other, outcomes in found.items()
            if other != OURS and (spread := spread_of(outcomes, what)) is not None
        ]
        target = trouble.must.get(what, "")
        rows.append(
            Row(
                f"{name}: {what}, worst of seeds",
                NEVER if ours.worst == math.inf else significant(ours.worst),
                unit,
                "; ".join([f"ours: {ours}", *others]),
                None,
                target,
                met(target, ours.worst) if target else None,
            )
        )
    return rows


def table(found: dict[str, dict[str, list[Outcome]]]) -> str:
    """Return the Markdown table: what the page promises, what its recipe does, and what ours does."""
    lines = [
        "| trouble | the seed's promise | its literal port | ours |",
        "|---|---|---|---|",
    ]
    for name, by_contender in found.items():
        cells = [said_of(by_contender[SEED], TROUBLES[name]), said_of(by_contender[OURS], TROUBLES[name])]
        lines.append(f"| {name} | {TROUBLES[name].promise} | {' | '.join(cells)} |")
    return "\n".join(lines)


def said_of(outcomes: Sequence[Outcome], trouble: Trouble) -> str:
    """Sum up what a contender made of a trouble, by the means over all seeds.

    Where its own account differs from the truth, that is said too.
    """
    success, reported = (statistics.mean(getattr(one, what) for one in outcomes) for what in ("success", "reported"))
    said = [f"{100 * success:.4g} % served"]
    if "success_after" in trouble.must:
        said = [f"{100 * statistics.mean(one.more['success_after'] for one in outcomes):.4g} % served afterwards"]
    # Poison is not to be served, so that a success for each of all requests is an overstatement too.
    if reported > success + 0.001 or any(one.more.get("poison_reported", 0) for one in outcomes):
        said.append(f"{100 * reported:.4g} % reported")
    said.append(f"{statistics.mean(one.amplification for one in outcomes):.3g} calls each")
    back = [one.time_to_return for one in outcomes if one.time_to_return is not None]
    if back:
        worst = max(back)
        said.append(
            "never back" if worst == math.inf else f"back in {statistics.mean(back):.0f} s, at worst {worst:.0f} s"
        )
    if (throttled := statistics.mean(one.throttled for one in outcomes)) >= 1:
        said.append(f"{throttled:.0f} 429s")
    if twice := sum(one.paid_twice for one in outcomes):
        said.append(f"{twice} paid twice")
    return ", ".join(said)


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON list instead of a table")
    parser.add_argument("--table", action="store_true", help="print the Markdown table of the README")
    parser.add_argument("--plots", type=Path, metavar="SVG", help="draw one picture of each trouble into this file")
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"seeds of each trouble (default {SEEDS})")
    parser.add_argument("--only", default="", help="only the troubles whose name contains one of these texts, as a;b")
    return parser.parse_args()


def main() -> int:
    """Run the command line; the exit code is 1 where a target does not hold."""
    options = read_options()
    note_missing()
    found: dict[str, dict[str, list[Outcome]]] = {}
    for name, trouble in TROUBLES.items():
        if not any(text in name for text in options.only.split(";")):
            continue
        found[name] = {who: run(trouble, contender, options.seeds) for who, contender in all_contenders().items()}
    rows = [row for name, by_contender in found.items() for row in rows_of(name, TROUBLES[name], by_contender)]
    if options.json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
    elif options.plots is not None:
        options.plots.write_text(plots(found), encoding="utf-8")
    elif options.table:
        print(table(found))
    else:
        print("\n".join(as_text(row) for row in rows))
    return int(any(row.holds is False for row in rows))
