"""What is gathered from a system at one moment, as samples of metrics. Pure, but for the asking."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from actors.ledger.messages import GetStatement
from actors.ledger.statement import Statement  # noqa: TC001 - msgspec resolves the annotations below.
from actors.money import MICROS_PER_DOLLAR
from actors.monitor.metrics import Durations, Figures, Histograms, Metrics
from actors.monitor.monitor import GetHistograms, GetMetrics
from actors.monitor.tallies import OTHERS
from actors.observing.metric_table import BOUNDS, MAX_SERIES, METRICS, OTHER, Metric
from actors.supervisor.messages import GetRequests, GetStatus, RequestsUnderWay, TargetStatus

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from runtime import ActorRef

Value: TypeAlias = "float | Durations"
Sample: TypeAlias = "tuple[str, tuple[str, ...], Value]"
"""The name of a metric, the values of its labels, and its own value."""

BREAKER_STATES = ("closed", "open", "half-open", "isolated")


class SystemView(msgspec.Struct, frozen=True, kw_only=True):
    """A system at one moment: what its monitor counted, its providers and requests, and some of its accounts."""

    metrics: Metrics
    histograms: Histograms
    providers: tuple[TargetStatus, ...] = ()
    requests: RequestsUnderWay | None = None
    accounts: tuple[Statement, ...] = ()


async def observe(
    monitor: ActorRef[GetMetrics | GetHistograms],
    supervisor: ActorRef[GetStatus | GetRequests | GetStatement] | None,
    accounts: Sequence[str],
    *,
    within: float,
) -> SystemView:
    """Ask a system for its state, for `within` seconds at most; raises `RuntimeFault` if it does not answer."""
    metrics = await monitor.ask(GetMetrics(), timeout=within)
    histograms = await monitor.ask(GetHistograms(BOUNDS), timeout=within)
    if supervisor is None:
        return SystemView(metrics=metrics, histograms=histograms)
    providers = await supervisor.ask(GetStatus(), timeout=within)
    requests = await supervisor.ask(GetRequests(most=0), timeout=within)
    asked = (supervisor.ask(GetStatement(name), timeout=within) for name in accounts[:MAX_SERIES])
    found = await asyncio.gather(*asked, return_exceptions=True)
    # An account may not be open yet, and nothing has been spent of it then.
    statements = tuple(one for one in found if not isinstance(one, BaseException))
    return SystemView(
        metrics=metrics, histograms=histograms, providers=providers, requests=requests, accounts=statements
    )


def samples_of(observed: SystemView) -> Iterator[Sample]:
    """Yield every sample.

    Services are told by name only if a provider offers them: a client may ask for whatever it likes.
    """
    metrics, offered = observed.metrics, {name for one in observed.providers for name in one.provider.services}
    for service, figures in metrics.services.items():
        name = service if service in offered or not observed.providers else OTHER
        yield from (("understudy_requests", (name, outcome), count) for outcome, count in _outcomes(figures))
        yield "understudy_request_duration_seconds", (name,), observed.histograms.services[service]
    yield from _of_calls(observed)
    for one in observed.providers:
        name = one.provider.name
        for state in BREAKER_STATES:
            yield "understudy_breaker_state", (name, state), float(one.breaker == state)
        yield "understudy_calls_under_way", (name,), one.under_way
        yield "understudy_requests_queued", (name,), one.queued
    if observed.requests is not None:
        yield "understudy_requests_under_way", (), observed.requests.count
        for reason, count in observed.requests.waiting.items():
            yield "understudy_requests_waiting", (reason,), count
    yield from _of_money(observed)
    for alert in metrics.alerts:
        yield "understudy_alerts", (alert.rule,), 1.0
    yield "understudy_events_missed", (), metrics.missed_events


def _of_money(observed: SystemView) -> Iterator[Sample]:
    for account in observed.accounts:
        for what in ("settled", "reserved", "held", "cap"):
            amount = getattr(account, what)
            if amount is not None:
                yield f"understudy_account_{what}_dollars", (account.name,), amount / MICROS_PER_DOLLAR
    for tenant, saved in observed.metrics.savings.items():
        yield "understudy_cache_saved_dollars", (OTHER if tenant == OTHERS else tenant,), saved / MICROS_PER_DOLLAR


def _of_calls(observed: SystemView) -> Iterator[Sample]:
    for provider, figures in observed.metrics.providers.items():
        name = OTHER if provider == OTHERS else provider
        yield from (("understudy_calls", (name, outcome), count) for outcome, count in _outcomes(figures))
        yield from (("understudy_call_failures", (name, kind), count) for kind, count in figures.errors.items())
        yield "understudy_call_duration_seconds", (name,), observed.histograms.providers[provider]
        yield "understudy_wire_calls", (name,), figures.wire_calls
        yield "understudy_retries", (name,), figures.retry_count
        yield "understudy_reroutes", (name,), figures.reroute_count
        yield "understudy_breaker_trips", (name,), figures.circuit_breaker_trips
        yield "understudy_cost_dollars", (name,), figures.total_cost / MICROS_PER_DOLLAR
    for provider, durations in observed.histograms.first_piece.items():
        yield "understudy_first_piece_seconds", (OTHER if provider == OTHERS else provider,), durations


def _outcomes(figures: Figures) -> tuple[tuple[str, int], ...]:
    counts = figures.success_count, figures.failure_count, figures.cancelled_count
    return tuple(zip(("done", "failed", "cancelled"), counts, strict=True))


class Bounded:
    """Keeps the series of each metric few: the first that come are told by name for good, and the others together.

    A series must not move from the one to the other: its counter would seem to have begun anew.
    """

    def __init__(self, max_series: int = MAX_SERIES) -> None:
        self._max_series = max_series
        self._named: dict[str, set[tuple[str, ...]]] = {}

    def of(self, samples: Iterable[Sample]) -> dict[str, dict[tuple[str, ...], Value]]:
        """Return the values of each metric, by its labels."""
        values: dict[str, dict[tuple[str, ...], Value]] = {}
        for name, labels, value in samples:
            kept = labels if self._is_named(METRICS[name], labels) else (OTHER,) * len(labels)
            of_metric = values.setdefault(name, {})
            before = of_metric.get(kept)
            of_metric[kept] = value if before is None else _sum(before, value)
        return values

    def _is_named(self, metric: Metric, labels: tuple[str, ...]) -> bool:
        named = self._named.setdefault(metric.name, set())
        if labels in named or OTHER in labels:
            return True
        if len(named) >= self._max_series // metric.series - 1:
            return False
        named.add(labels)
        return True


def _sum(one: Value, other: Value) -> Value:
    if isinstance(one, Durations) and isinstance(other, Durations):
        below = tuple(a + b for a, b in zip(one.below, other.below, strict=True))
        return Durations(below=below, count=one.count + other.count, total=one.total + other.total)
    assert not isinstance(one, Durations)  # noqa: S101 - a metric has values of one kind.
    assert not isinstance(other, Durations)  # noqa: S101
    return one + other
