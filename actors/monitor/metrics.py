"""What a monitor answers: counters, latencies and rates, as frozen values that go into JSON as they are.

A *request* is what a caller asked for, a *call* one attempt at it with one provider, and a *wire call* what that
attempt really sent: more than one where a client below it retries by itself. For a provider, each call counts as a
request that it was given.
"""

from __future__ import annotations

import msgspec

from actors.events import AlertRaised  # noqa: TC001 - msgspec resolves the annotations below.
from actors.money import Micros  # noqa: TC001 - msgspec resolves the annotations below.
from runtime import Event


class AmplificationSeen(Event, frozen=True, kw_only=True):
    """Published once per provider: something below the retries seen here retries as well, and multiplies them."""

    provider: str
    attempts: int
    wire_calls: int


class Quantiles(msgspec.Struct, frozen=True, kw_only=True):
    """Latencies in seconds that half, 9 of 10, and 99 of 100 requests did not exceed; each within 1 %."""

    p50: float
    p90: float
    p99: float


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """The last `seconds`: requests that ended per second, and how; None where there were none."""

    seconds: float
    requests: int
    request_rate: float | None
    success_rate: float | None
    average_latency: float | None


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What one subject amounts to since counting began; latencies are in seconds, costs in micro-units.

    Requests that their caller gave up are neither successes nor failures. `total_cost` counts calls, so that what a
    request under way has spent is in it. `amplification` is wire calls per request. What is None has no data yet.
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


class Metrics(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a monitor knows, at `now`; it began at `since`, both in seconds of the loop's time.

    `missed_events` came too fast to be counted, or made no sense, and are in no figure or not in all;
    `callback_failures` counts the alerts that `on_alert` raised an exception for. An account has the figures of the
    calls that drew on it, and no requests.
    """

    since: float
    now: float
    total: Figures
    providers: dict[str, Figures]
    services: dict[str, Figures]
    accounts: dict[str, Figures]
    alerts: tuple[AlertRaised, ...] = ()
    missed_events: int = 0
    callback_failures: int = 0

    def to_json(self) -> bytes:
        """Return all of it as JSON."""
        return msgspec.json.encode(self)
