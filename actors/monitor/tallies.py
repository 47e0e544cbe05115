"""The running sums behind the metrics, by provider, service and account; counted from events in bounded memory."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from actors.events import BreakerOpened, CallEnded, RequestEnded, Rerouted, Retried
from actors.money import micros_of
from actors.monitor.histogram import Histogram, bucket_of
from actors.monitor.metrics import AmplificationSeen, Durations, Figures, Histograms, Metrics, Quantiles, Rates
from actors.monitor.rolling_window import RollingWindow, Totals

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from actors.money import Micros
    from runtime import Event

CANCELLED = "Cancelled"
"""The kind of error that does not count as a failure, because the caller gave up."""
OTHERS = "(others)"
"""The subject under which all subjects after the first `max_subjects` are counted together."""


class Tally:
    """The running sums of one subject."""

    def __init__(self, windows: Collection[float], *, start: float) -> None:
        self.successes = self.failures = self.cancelled = 0
        self.retries = self.reroutes = self.calls = self.wire_calls = self.trips = 0
        self.latency = 0.0
        self.cost = 0
        self.errors: dict[str, int] = {}
        self.histogram = Histogram()
        self.first_pieces, self.intervals = Histogram(), Histogram()
        self.windows = {length: RollingWindow(length, start=start) for length in windows}
        self.is_amplified = False

    def end(self, error: str | None, latency: float, bucket: int, now: float) -> None:
        """Count the end of a request; `bucket` is that of its latency."""
        if error == CANCELLED:
            self.cancelled += 1
            return
        if error is None:
            self.successes += 1
        else:
            self.failures += 1
            self.errors[error] = self.errors.get(error, 0) + 1
        self.latency += latency
        self.histogram.add(bucket)
        is_done = error is None
        for window in self.windows.values():
            window.add(now, successes=is_done, failures=not is_done, latency=latency)

    def call(self, wire_calls: int, cost: Micros, now: float) -> None:
        """Count a call and its cost, whatever its outcome."""
        self.calls += 1
        self.wire_calls += wire_calls
        if cost:
            self.cost += int(cost)
            for window in self.windows.values():
                window.add(now, cost=int(cost))

    def stream(self, first_piece: float, piece_interval: float | None) -> None:
        """Count how a stream came."""
        self.first_pieces.add(bucket_of(first_piece))
        if piece_interval is not None:
            self.intervals.add(bucket_of(piece_interval))

    def figures(self, now: float, *, recent: float) -> Figures:
        """Return the sums as figures, with the rates of the last `recent` seconds, which is one of its windows."""
        ended = self.successes + self.failures
        requests = ended + self.cancelled
        return Figures(
            request_count=requests,
            success_count=self.successes,
            failure_count=self.failures,
            cancelled_count=self.cancelled,
            retry_count=self.retries,
            reroute_count=self.reroutes,
            call_count=self.calls,
            wire_calls=self.wire_calls,
            total_latency=self.latency,
            total_cost=micros_of(self.cost),
            circuit_breaker_trips=self.trips,
            errors=dict(self.errors),
            success_rate=self.successes / ended if ended else None,
            average_latency=self.latency / ended if ended else None,
            amplification=self.wire_calls / requests if requests else None,
            latency=quantiles_of(self.histogram),
            recent=rates_of(self.windows[recent].totals(now)),
            first_piece=quantiles_of(self.first_pieces),
            piece_interval=quantiles_of(self.intervals),
        )


def quantiles_of(histogram: Histogram) -> Quantiles | None:
    """Return the quantiles of what was counted; None if nothing was."""
    if not histogram.count:
        return None
    p50, p90, p99 = histogram.quantiles(0.5, 0.9, 0.99)
    return Quantiles(p50=p50, p90=p90, p99=p99)


def durations_of(histogram: Histogram, bounds: Sequence[float]) -> Durations:
    """Return what was counted, by these bounds."""
    return Durations(below=histogram.below(bounds), count=histogram.count, total=histogram.total)


def rates_of(totals: Totals) -> Rates:
    """Return a window as rates."""
    return Rates(
        seconds=totals.seconds,
        requests=totals.requests,
        request_rate=totals.requests / totals.seconds if totals.seconds else None,
        success_rate=totals.success_rate,
        average_latency=totals.average_latency,
    )


class TalliesBySubject(dict[str, Tally]):
    """The tallies of the providers or services, by subject; beyond `max_subjects`, new subjects share one."""

    def __init__(self, windows: Collection[float], *, start: float, max_subjects: int) -> None:
        super().__init__()
        self.windows = windows
        self.start = start
        self.max_subjects = max_subjects

    def __missing__(self, subject: str) -> Tally:
        if len(self) >= self.max_subjects and subject != OTHERS:
            return self[OTHERS]
        tally = self[subject] = Tally(self.windows, start=self.start)
        return tally


class TallyBook:
    """All tallies of recorded events: in total, and by provider, service and account.

    Only the accounts named in `accounts` are counted, because an application may open any number of them. The first
    `max_subjects` providers and as many services have tallies of their own.
    """

    def __init__(
        self, *, start: float, recent: float, windows: Collection[float], accounts: Collection[str], max_subjects: int
    ) -> None:
        lengths = {recent, *windows}
        self.start = start
        self.recent = recent
        self.total = Tally(lengths, start=start)
        self.providers = TalliesBySubject(lengths, start=start, max_subjects=max_subjects)
        self.services = TalliesBySubject(lengths, start=start, max_subjects=max_subjects)
        self.accounts = {name: Tally(lengths, start=start) for name in accounts}
        self.savings: dict[str, int] = {}
        """What caches at providers have saved, by tenant; that of requests without one is not counted."""

    def record(self, event: Event, *, now: float) -> AmplificationSeen | None:
        """Count one event; return the amplification that it shows for the first time, if any. Others are ignored."""
        if isinstance(event, CallEnded):
            return self._call_ended(event, now)
        if isinstance(event, RequestEnded):
            bucket = bucket_of(event.latency)
            for tally in (self.total, self.services[event.service]):
                tally.end(event.error, event.latency, bucket, now)
            if event.saved and event.tenant is not None:
                is_full = len(self.savings) >= self.services.max_subjects and event.tenant not in self.savings
                name = OTHERS if is_full else event.tenant
                self.savings[name] = self.savings.get(name, 0) + event.saved
        elif isinstance(event, Retried):
            self.total.retries += 1
            self.providers[event.provider].retries += 1
        elif isinstance(event, Rerouted):
            self.total.reroutes += 1
            self.providers[event.away_from].reroutes += 1
        elif isinstance(event, BreakerOpened) and event.wait < math.inf:
            # A breaker that waits for ever was isolated by hand, which is no trip.
            self.total.trips += 1
            self.providers[event.provider].trips += 1
        return None

    def metrics(self, *, now: float) -> Metrics:
        """Return the figures of all subjects as of `now`."""
        return Metrics(
            since=self.start,
            now=now,
            total=self.total.figures(now, recent=self.recent),
            providers=self._figures(self.providers, now),
            services=self._figures(self.services, now),
            accounts=self._figures(self.accounts, now),
            savings={tenant: micros_of(saved) for tenant, saved in self.savings.items()},
        )

    def histograms(self, bounds: Sequence[float]) -> Histograms:
        """Return how many durations did not exceed each of these bounds."""
        services = {name: durations_of(one.histogram, bounds) for name, one in self.services.items()}
        providers = {name: durations_of(one.histogram, bounds) for name, one in self.providers.items()}
        streamed = ((name, one.first_pieces) for name, one in self.providers.items() if one.first_pieces.count)
        first = {name: durations_of(histogram, bounds) for name, histogram in streamed}
        return Histograms(services=services, providers=providers, first_piece=first)

    def _figures(self, tallies: dict[str, Tally], now: float) -> dict[str, Figures]:
        return {subject: tally.figures(now, recent=self.recent) for subject, tally in sorted(tallies.items())}

    def _call_ended(self, event: CallEnded, now: float) -> AmplificationSeen | None:
        wire_calls = event.wire_calls
        provider = self.providers[event.provider]
        provider.end(event.error, event.latency, bucket_of(event.latency), now)
        for tally in (self.total, provider, self.services[event.service]):
            tally.call(wire_calls, event.cost, now)
        if event.first_piece is not None:
            for tally in (self.total, provider, self.services[event.service]):
                tally.stream(event.first_piece, event.piece_interval)
        account = self.accounts.get(event.account or "")
        if account is not None:
            account.call(wire_calls, event.cost, now)
        if provider.is_amplified or wire_calls <= 1:
            return None
        provider.is_amplified = True
        return AmplificationSeen(provider=event.provider, attempts=provider.calls, wire_calls=provider.wire_calls)
