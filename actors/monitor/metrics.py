"""The answers of a monitor: counters, latencies and rates, as frozen values ready for JSON.

A *request* comes from a caller. A *call* is one attempt at it with one provider. A *wire call* is what the attempt
really sent: there are several if a client below it retries by itself. In the figures of a provider, each call counts as
a request.
"""

from __future__ import annotations

import msgspec

from actors.events import AlertRaised  # noqa: TC001 - msgspec resolves the annotations below.
from actors.money import Micros  # noqa: TC001 - msgspec resolves the annotations below.
from runtime import Event


class AmplificationSeen(Event, frozen=True, kw_only=True):
    """Published once per provider: a client below the retries counted here retries as well, and multiplies them."""

    provider: str
    attempts: int
    wire_calls: int


class Quantiles(msgspec.Struct, frozen=True, kw_only=True):
    """Latencies in seconds that half, 9 of 10, and 99 of 100 requests did not exceed; each within 1 %."""

    p50: float
    p90: float
    p99: float


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """The requests that ended in the last `seconds`: their rate per second and how they ended; None without data."""

    seconds: float
    requests: int
    request_rate: float | None
    success_rate: float | None
    average_latency: float | None


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of one subject since counting began; latencies are in seconds.

    Requests that their caller cancelled are neither successes nor failures. `total_cost` is that of all calls,
    including those of requests under way. `amplification` is wire calls per request. None means no data yet.
    """

    request_count: int
    success_count: int
    failure_count: int
    cancelled_count: int
    retry_count: int
    reroute_count: int
    call_count: int
    wire_calls: int
    total_latency: float
    total_cost: Micros
    circuit_breaker_trips: int
    errors: dict[str, int]
    """The failures by kind."""
    success_rate: float | None
    average_latency: float | None
    amplification: float | None
    latency: Quantiles | None
    recent: Rates
    first_piece: Quantiles | None = None
    """The seconds until the first piece of streams."""
    piece_interval: Quantiles | None = None
    """The mean seconds between two pieces of a stream."""


class Metrics(msgspec.Struct, frozen=True, kw_only=True):
    """All figures and alerts of a monitor at `now`; counting began at `since`. Both are loop times in seconds.

    `missed_events` counts events that came too fast, or made no sense; they are missing from some or all figures.
    `callback_failures` counts the alerts for which `on_alert` raised an exception. An account has the figures of the
    calls that drew on it, and no requests. `savings` are by tenant: what the calls of its requests would have cost more
    if no prompt had been cached at a provider.
    """

    since: float
    now: float
    total: Figures
    providers: dict[str, Figures]
    services: dict[str, Figures]
    accounts: dict[str, Figures]
    savings: dict[str, Micros] = {}
    alerts: tuple[AlertRaised, ...] = ()
    missed_events: int = 0
    callback_failures: int = 0

    def to_json(self) -> bytes:
        """Return all of it as JSON."""
        return msgspec.json.encode(self)


class Durations(msgspec.Struct, frozen=True, kw_only=True):
    """How many durations did not exceed each bound, all of them, and their sum in seconds, within 1 %."""

    below: tuple[int, ...]
    count: int
    total: float


class Histograms(msgspec.Struct, frozen=True, kw_only=True):
    """The durations that were counted since counting began: of requests by service, and of calls by provider.

    `first_piece` is the time until the first piece of a stream, by provider; a provider without a stream is left out.
    """

    services: dict[str, Durations]
    providers: dict[str, Durations]
    first_piece: dict[str, Durations]
