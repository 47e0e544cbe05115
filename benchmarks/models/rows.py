"""Chats with models: CPU, latency, memory, success and spend, beside the bare openai SDK and litellm's Router.

`python -m benchmarks.models --json`. The peers come with the extra `bench`; without them, their rows say so.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from benchmarks.harness import Row, bare_row, peer_row, ratio_row, value_row
from benchmarks.models.clients import is_installed
from benchmarks.models.server import Books, running_servers
from benchmarks.models.worker import Found, Work, found_by

if TYPE_CHECKING:
    import argparse

AT_ONCE = 10
TROUBLED_AT_ONCE = 30
CPU_BOUNDS = {"openai": "<= 0.1667", "litellm": "<= 0.1"}
"""Our CPU for one call, as a part of each peer's."""
WAYS = {"chat": 0, "stream of 32 tokens": 10}
"""How many of ten calls are streams."""


@dataclass(frozen=True)
class Scale:
    """How many calls are made: of each way without troubles, and with them."""

    calls: int = 300
    troubled: int = 1_000
    peers: bool = True


@dataclass(frozen=True)
class Run:
    """One client's run, and what the servers saw of it."""

    found: Found
    books: Books


def collect(options: argparse.Namespace, scale: Scale | None = None) -> list[Row]:
    """Return the rows without troubles, then those with."""
    scale = scale or Scale()
    peers = [client for client in CPU_BOUNDS if scale.peers and is_installed(client)]
    rows: list[Row] = []
    for way, streams in WAYS.items():
        if options.only in way:
            rows += quiet_rows(way, streams, peers, scale, options.rounds)
    if options.only in "troubles":
        rows += troubled_rows(peers, scale)
    return rows


def run_of(work: Work, *, with_troubles: bool = False) -> Run:
    """Have a client do the work against servers of its own, which are the same for each."""
    with running_servers(with_troubles=with_troubles) as servers:
        work.urls = servers.urls if with_troubles else servers.urls[:1]
        found = found_by(work)
    return Run(found, servers.books)


def quiet_rows(way: str, streams: int, peers: list[str], scale: Scale, rounds: int) -> list[Row]:
    """Measure calls that all succeed, in turns, and take medians: CPU first, then latency and memory."""
    runs: dict[str, list[Found]] = {client: [] for client in ("understudy", *peers)}
    for _ in range(rounds):
        for client, done in runs.items():
            found = run_of(Work(client, [], scale.calls, AT_ONCE, streams)).found
            assert not found.failed, (client, found.kinds)
            done.append(found)
    cpu = {client: 1e6 * statistics.median(one.cpu for one in done) for client, done in runs.items()}
    rows = [
        ratio_row(f"{way}: CPU", cpu["understudy"], cpu[peer], "us", peer, CPU_BOUNDS[peer])
        if peer in peers
        else replace(
            value_row(f"{way}: CPU", cpu["understudy"], "us", CPU_BOUNDS[peer]), holds=None, against=missing(peer)
        )
        for peer in CPU_BOUNDS
    ]
    for name, quantity in FIGURES.items():
        figures = {client: statistics.median(map(quantity, done)) for client, done in runs.items()}
        if figures["understudy"]:
            rows += beside(f"{way}: {name}", figures, name.partition(", ")[2] or "ms")
    return rows


def beside(row: str, figures: dict[str, float], unit: str) -> list[Row]:
    """Return our figure beside that of each peer, or alone."""
    peers = [client for client in figures if client != "understudy"]
    if not peers:
        return [bare_row(row, figures["understudy"], unit)]
    return [peer_row(row, figures["understudy"], figures[peer], unit, peer) for peer in peers]


def quantile(values: list[float], part: float) -> float:
    """Return a quantile in ms; 0 without values."""
    return 1e3 * sorted(values)[min(len(values) - 1, int(part * len(values)))] if values else 0.0


FIGURES = {
    "p50": lambda found: quantile(found.latencies, 0.5),
    "p99": lambda found: quantile(found.latencies, 0.99),
    "first token p50": lambda found: quantile(found.first_tokens, 0.5),
    "first token p99": lambda found: quantile(found.first_tokens, 0.99),
    "memory, MB": lambda found: found.megabytes,
}


def missing(peer: str) -> str:
    return f"{peer} is not installed"


def troubled_rows(peers: list[str], scale: Scale) -> list[Row]:
    """Measure one run of each client through the same troubles: half of its calls are streams.

    A reply is broken if it was lost, cut, or an error with status 200: it may have been paid for, so that no other
    provider is asked unless the request allows a risk.
    """
    runs = {
        client: run_of(Work(client, [], scale.troubled, TROUBLED_AT_ONCE, streams=5), with_troubles=True)
        for client in ("understudy", "understudy that restarts", *peers)
    }
    ours, restarting = runs["understudy"], runs["understudy that restarts"]
    met = ours.books.broken
    clean = {who: kind for who, kind in ours.found.failed.items() if who not in met}
    rows = [
        value_row(
            "troubles: success of calls whose reply was not broken",
            1 - len(clean) / max(1, scale.troubled - len(met)),
            "",
            ">= 1",
            f"failed besides: {ours.found.kinds or 'none'}",
        ),
        value_row(
            "troubles: success, with a risk of one call and restarts",
            success(restarting, scale),
            "",
            ">= 0.999",
            f"failed: {restarting.found.kinds or 'none'}",
        ),
    ]
    for client, run in runs.items():
        rows.append(
            replace(bare_row(f"troubles: success of {client}", success(run, scale), ""), against=run.found.kinds)
        )
        rows.append(bare_row(f"troubles: 429s of {client}", run.books.throttled, ""))
        rows.append(bare_row(f"troubles: p99 of {client}", quantile(run.found.latencies, 0.99), "ms"))
        if run.found.spent is not None:
            part = run.found.spent / run.books.charged
            rows.append(bare_row(f"troubles: spend that {client} knows of, as a part of the charge", part, ""))
    return rows


def success(run: Run, scale: Scale) -> float:
    return 1 - len(run.found.failed) / scale.troubled
