"""What became of a batch in figures to print: how many were answered, by which provider, at what cost, how fast."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from actors.batch.outcomes import Done, Failed, RequestOutcome
from actors.errors.families import CallFailed
from actors.money import ZERO, Micros, micros_of
from actors.monitor.histogram import Histogram, bucket_of

if TYPE_CHECKING:
    from actors.ledger.account import Account


class BatchSummary(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of a batch so far; `str()` is a text of a few lines to print.

    `done`, `failed` and `unknown` count items, of `total` (None if the source has no length). `attempts` are the calls
    that the answers took. `cost` and `held` are money: until the block of the batch is left, what the outcomes tell;
    afterwards what the ledger settled for the batch, and what it holds because it may have been paid. `elapsed` is the
    seconds from the first item to the last. Latencies are those of answers, in seconds (None without answers): the
    mean, the median, the 95th percentile (both within 1 %) and the longest. `providers` counts answers by provider, and
    `errors` the other items by the class of their error.
    """

    total: int | None
    done: int = 0
    failed: int = 0
    unknown: int = 0
    attempts: int = 0
    cost: Micros = ZERO
    held: Micros = ZERO
    elapsed: float = 0.0
    latency_mean: float | None = None
    latency_p50: float | None = None
    latency_p95: float | None = None
    latency_max: float | None = None
    providers: dict[str, int] = {}
    errors: dict[str, int] = {}

    @property
    def finished(self) -> int:
        """The items that have an outcome."""
        return self.done + self.failed + self.unknown

    def __str__(self) -> str:
        of_total = "" if self.total is None else f" of {self.total}"
        held = f", {self.held} held because it may have been paid" if self.held else ""
        counts = f"{self.done} done, {self.failed} failed, {self.unknown} unknown"
        lines = [f"{self.finished}{of_total} items in {self.elapsed:.3g} s: {counts}", f"cost: {self.cost}{held}"]
        if self.latency_mean is not None:
            quantiles = f"{self.latency_p50:.3g} s median, {self.latency_p95:.3g} s at 95 %"
            lines.append(
                f"latency: {self.latency_mean:.3g} s on average, {quantiles}, {self.latency_max:.3g} s at most"
            )
            lines.append(f"calls: {self.attempts} for {self.done} answers, by {_listed(self.providers)}")
        if self.errors:
            lines.append(f"errors: {_listed(self.errors)}")
        return "\n".join(lines)


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} ({count})" for name, count in counts.items())


class SummaryTally:
    """Counts outcomes as they come, in memory that stays flat."""

    def __init__(self) -> None:
        self._counts = {"done": 0, "failed": 0, "unknown": 0}
        self._attempts = 0
        # Plain whole numbers: a sum of `Micros` is checked in Python, for each item.
        self._cost = self._held = 0
        self._latency_sum = self._latency_max = 0.0
        self._latencies = Histogram()
        self._providers: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()

    def add(self, outcome: RequestOutcome) -> None:
        """Count the outcome of one item."""
        if isinstance(outcome, Done):
            result = outcome.result
            self._counts["done"] += 1
            self._providers[result.provider] += 1
            self._attempts += result.attempts
            self._cost += int(result.cost)
            self._held += int(result.at_risk)
            self._latency_sum += result.latency
            self._latency_max = max(self._latency_max, result.latency)
            self._latencies.add(bucket_of(result.latency))
            return
        error = outcome.error
        self._counts["failed" if isinstance(outcome, Failed) else "unknown"] += 1
        self._errors[type(error).__name__] += 1
        if isinstance(error, CallFailed):
            self._held += sum(int(one.amount) for one in error.held)
            self._cost += int(error.spent)

    def summary(self, *, total: int | None, elapsed: float, closed: Account | None) -> BatchSummary:
        """Return the figures; those of money are the ledger's, if it has closed the account of the batch."""
        answered = self._latencies.count
        p50, p95 = self._latencies.quantiles(0.5, 0.95) if answered else (None, None)
        return BatchSummary(
            total=total,
            attempts=self._attempts,
            cost=micros_of(self._cost) if closed is None else closed.settled,
            held=micros_of(self._held) if closed is None else closed.held,
            elapsed=elapsed,
            latency_mean=self._latency_sum / answered if answered else None,
            latency_p50=p50,
            latency_p95=p95,
            latency_max=self._latency_max if answered else None,
            providers=dict(self._providers.most_common()),
            errors=dict(self._errors.most_common()),
            **self._counts,
        )
