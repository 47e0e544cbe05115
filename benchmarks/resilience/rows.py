"""The policies, the limiter, the breaker and the batch beside peers, where these are installed (extra `bench`).

`python -m benchmarks.resilience --json`
"""

from __future__ import annotations

import gc
import statistics
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from benchmarks.harness import (
    Row,
    loop_factory_of,
    measured,
    medians,
    peer_row,
    ratio_row,
    significant,
    value_row,
)
from benchmarks.resilience import batch as batches
from benchmarks.resilience import breaker as breakers
from benchmarks.resilience import limiter as limiters
from benchmarks.resilience import robust as robust
from benchmarks.resilience.calls import Guard, many_callers, one_caller, ours, smart_requests
from benchmarks.resilience.peers import COMPOSED, guards, is_installed, note_missing
from benchmarks.scenarios.hand_stack import PACKAGES

if TYPE_CHECKING:
    import argparse
    from collections.abc import Awaitable, Callable

    from benchmarks.harness import Measure


@dataclass(frozen=True)
class Scale:
    """How much is measured; a test of this module measures less."""

    calls: int = 5_000
    llm_calls: int = 200
    waiting: float = 2.0
    """Seconds that the waiters stand before each limiter."""
    waiters: int = limiters.WAITERS
    batch: int = batches.ITEMS
    robust: int = robust.ITEMS
    peers: bool = True


@dataclass(frozen=True)
class Run:
    """One run of this benchmark."""

    options: argparse.Namespace
    scale: Scale

    def medians(self, measures: dict[str, Measure]) -> dict[str, float]:
        return medians(measures, rounds=self.options.rounds, loop_factory=loop_factory_of(self.options))

    def facts(
        self, measures: dict[str, Callable[[int], Awaitable[Any]]], *, rounds: int
    ) -> dict[str, dict[str, float]]:
        """Take the facts of each measure in turns, with the number of the round; return the median of every one."""
        found: dict[str, list[dict[str, float]]] = {name: [] for name in measures}
        for turn in range(rounds):
            for name, measure in measures.items():
                gc.collect()
                facts = msgspec.to_builtins(self.once(partial(measure, turn)))
                found[name].append({fact: value for fact, value in facts.items() if value is not None})
        return {
            name: {fact: statistics.median(facts[fact] for facts in all_facts) for fact in all_facts[0]}
            for name, all_facts in found.items()
        }

    def once(self, measure: Callable[[], Awaitable[Any]]) -> Any:
        return measured(measure, loop_factory_of(self.options))

    def peers(self, *names: str) -> dict[str, Callable[[], Guard]]:
        return guards(only=names) if self.scale.peers else {}


def against(found: dict[str, float]) -> str:
    """Name the peers and their figures."""
    return ", ".join(f"{name}: {significant(figure):g}" for name, figure in found.items() if name != "ours")


def target_row(row: str, found: dict[str, float], peer: str, unit: str, target: str) -> Row:
    """Compare with a peer; where it is not installed, nothing can be said."""
    if peer in found:
        return ratio_row(row, found["ours"], found[peer], unit, peer, target)
    return Row(row, significant(found["ours"]), unit, f"{peer}: not installed", None, f"{target} x", None)


def exact_row(row: str, value: float, wanted: float, unit: str, others: str) -> Row:
    """State a figure that has to be exactly `wanted`."""
    return Row(row, value, unit, others, None, f"= {wanted:g} {unit}".strip(), value == wanted)


def policies(run: Run) -> list[Row]:
    """Measure retry, breaker, limiter and timeout around a call that does nothing."""
    rows: list[Row] = []
    makers = {"ours": ours} | run.peers("hyx", "pyresilience", COMPOSED)
    for callers, measure in CALLERS.items():

        async def taken(make: Callable[[], Guard], measure: Any = measure) -> float:
            return await measure(make(), run.scale.calls)

        found = run.medians({name: partial(taken, make) for name, make in makers.items()})
        name = f"policies alone, {callers}"
        rows.append(target_row(name, found, "hyx", "us", "<= 0.9"))
        rows.extend(
            peer_row(f"{name} beside {peer}", found["ours"], found[peer], "us", peer)
            for peer in found
            if peer not in {"ours", "hyx"}
        )
    return rows


def smart(run: Run) -> list[Row]:
    """Measure the whole request through the actors, beside the policies put together by hand."""
    return [
        target_row(f"smart request, {callers}", beside(run, measure, COMPOSED), COMPOSED, "us", "<= 1.3")
        for callers, measure in CALLERS.items()
    ]


def smart_beside_router(run: Run) -> list[Row]:
    """Measure the same beside a router of language models that answers out of its own memory."""
    rows: list[Row] = []
    for callers, measure in CALLERS.items():
        rates = {name: 1e6 / figure for name, figure in beside(run, measure, "litellm").items()}
        rows.append(target_row(f"smart request beside a router, {callers}", rates, "litellm", "1/s", ">= 100"))
    return rows


def beside(run: Run, measure: Any, peer: str) -> dict[str, float]:
    """Return the us per smart request, and per call of a peer, if it is installed."""

    async def taken(make: Callable[[], Guard]) -> float:
        return await measure(make(), run.scale.llm_calls if peer == "litellm" else run.scale.calls)

    measures: dict[str, Measure] = {"ours": partial(smart_requests, measure, run.scale.calls // 2)}
    return run.medians(measures | {name: partial(taken, make) for name, make in run.peers(peer).items()})


def limiter(run: Run) -> list[Row]:
    """Measure 1,000 waiters at 100 a second."""
    kinds: dict[str, Any] = {"ours": limiters.our_limiter}
    if run.scale.peers and is_installed("aiolimiter"):
        kinds["aiolimiter"] = limiters.aiolimiter
    rows: list[Row] = []
    for burst in (1, 100):

        def line(kind: Any, cancelled: float, _turn: int, burst: int = burst) -> Awaitable[Any]:
            scale = run.scale
            return limiters.line(kind, burst=burst, lasts=scale.waiting, waiters=scale.waiters, cancelled=cancelled)

        rounds = min(3, run.options.rounds)
        timed = kinds | {"bare timers": limiters.bare_timers}
        calm = run.facts({name: partial(line, kind, 0.0) for name, kind in timed.items()}, rounds=rounds)
        disturbed = run.facts({name: partial(line, kind, 0.1) for name, kind in kinds.items()}, rounds=rounds)
        most = f"<= {limiters.RATE + burst:g}"
        for what, fact, facts, unit, target in (
            ("rate reached", "rate_reached", calm, "%", ">= 99.5"),
            ("most in a second", "most_in_a_second", calm, "grants", most),
            ("overtakes, 10 % cancelled", "overtakes", disturbed, "grants", "<= 0"),
            ("most in a second, 10 % cancelled", "most_in_a_second", disturbed, "grants", most),
        ):
            values = {name: one[fact] for name, one in facts.items()}
            rows.append(value_row(f"limiter, burst {burst}: {what}", values["ours"], unit, target, against(values)))
        cpu = {name: one["cpu"] for name, one in calm.items()}
        # A share of the processor says more of the machine than of a limiter.
        rows.append(
            ratio_row(f"limiter, burst {burst}: CPU", cpu["ours"], cpu["bare timers"], "%", "bare timers", "<= 1.3")
        )
    return rows


def breaker(run: Run) -> list[Row]:
    """Look at what breakers do."""
    makers = {"ours": breakers.ours} | (breakers.installed() if run.scale.peers else {})
    crowd = min(breakers.CROWD, run.scale.calls)
    probes = {name: run.once(partial(breakers.probes, make, crowd=crowd)) for name, make in makers.items()}
    cancelled = {name: run.once(partial(breakers.after_cancelled_probe, make)) for name, make in makers.items()}
    stale = {name: run.once(partial(breakers.moved_by_stale_results, make)) for name, make in makers.items()}
    opened = {name: run.once(partial(breakers.opens_at_half, make)) for name, make in makers.items()}

    def row(what: str, wanted: float, figures: dict[str, float], said: dict[str, Any]) -> Row:
        others = ", ".join(f"{name}: {answer}" for name, answer in said.items() if name != "ours")
        return exact_row(f"breaker: {what}", figures["ours"], wanted, "", others)

    moved = {name: " and ".join(results) or "none" for name, results in stale.items()}
    return [
        row(f"probes let through of {crowd:,} callers", 1, probes, probes),
        row(
            "as it was after a cancelled probe",
            1,
            {name: float(after == "as it was") for name, after in cancelled.items()},
            cancelled,
        ),
        row(
            "stale results that overrule its probe, of 2",
            0,
            {name: float(len(one)) for name, one in stale.items()},
            moved,
        ),
        row("opens where every other call fails", 1, {name: float(one) for name, one in opened.items()}, opened),
    ]


def fan_out(run: Run) -> list[Row]:
    """Measure many items that need no work."""
    count = run.scale.batch
    kinds = batches.installed() if run.scale.peers else batches.BATCHES
    rates = run.medians({name: partial(batches.rate, batch, count) for name, batch in kinds.items()})
    first = run.medians({name: partial(batches.first_result, batch, count) for name, batch in kinds.items()})
    grown = {name: batches.growth(name, count) for name in kinds}
    pulled = run.once(partial(batches.pulled_ahead, batches.ours, count))
    is_closed = run.once(partial(batches.closed_on_early_stop, batches.ours, count))
    rows = [value_row("fan-out: items", rates["ours"], "1/s", ">= 150000", against(rates))]
    rows.append(target_row("fan-out: items beside a worker pool", rates, "worker pool", "1/s", ">= 2.0"))
    rows.extend(
        peer_row(f"fan-out: items beside {peer}", rates["ours"], rates[peer], "1/s", peer)
        for peer in rates
        if peer not in {"ours", "worker pool"}
    )
    rows.append(value_row("fan-out: growth of memory", grown["ours"], "MB", "<= 5", against(grown)))
    rows.append(value_row("fan-out: first result", first["ours"], "ms", "<= 5", against(first)))
    rows.append(value_row("fan-out: pulled ahead", pulled, "items", f"<= {2 * batches.LIMIT}"))
    rows.append(exact_row("fan-out: source closed on early stop", float(is_closed), 1, "", ""))
    return rows


def robust_batch(run: Run) -> list[Row]:
    """Measure a batch over three providers that fail."""
    stacks: dict[str, Any] = {"ours": robust.ours, "the seed": robust.as_the_seed}
    if run.scale.peers and is_installed(*PACKAGES):
        stacks["by hand"] = robust.by_hand

    def batch(stack: Any, turn: int) -> Awaitable[Any]:
        return stack(turn, run.scale.robust)

    found = run.facts({name: partial(batch, stack) for name, stack in stacks.items()}, rounds=run.options.rounds)
    rows: list[Row] = []
    for what, fact, unit, target in (
        ("answered", "real", "%", ">= 100"),
        ("reported beyond that", "overstated", "%", "<= 0"),
        ("calls", "calls", "", "<= 2300"),
        ("time", "seconds", "s", "<= 1.5"),
        ("p99 of an item", "p99", "ms", "<= 40"),
        ("paid twice", "paid_twice", "items", "<= 0"),
    ):
        values = {name: facts[fact] for name, facts in found.items() if fact in facts}
        rows.append(value_row(f"robust batch: {what}", values["ours"], unit, target, against(values)))
    rates: dict[str, Measure] = {"ours": partial(robust.items_at_once, run.scale.robust)}
    if "by hand" in stacks:
        rates["by hand"] = partial(robust.items_at_once_by_hand, run.scale.robust)
    rows.append(target_row("robust batch: items, 100 at once", run.medians(rates), "by hand", "1/s", ">= 0.8"))
    return rows


CALLERS = {"1 caller": one_caller, "1,000 callers": many_callers}
GROUPS: dict[str, Callable[[Run], list[Row]]] = {
    "policies alone": policies,
    "smart request": smart,
    "limiter": limiter,
    "breaker": breaker,
    "fan-out": fan_out,
    "robust batch": robust_batch,
    # Last, because what it imports slows down all that comes after it in the same process.
    "smart request beside a router": smart_beside_router,
}


def collect(options: argparse.Namespace, scale: Scale | None = None) -> list[Row]:
    """Measure what the command line asks for."""
    run = Run(options, scale or Scale())
    if run.scale.peers:
        note_missing()
    named = [group for group in GROUPS if options.only in group or group in options.only]
    rows = [row for group in named or GROUPS for row in GROUPS[group](run)]
    return [row for row in rows if options.only in row.row]
