"""The metrics for machines: their names, what they count, and their labels. Data.

Names follow the conventions of Prometheus: base units (seconds; amounts in dollars), `_total` for counters, and no ids
as labels. Source: "Metric and label naming", prometheus.io/docs/practices/naming.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

Kind: TypeAlias = Literal["counter", "gauge", "histogram"]

BOUNDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 163.84, 327.68)
"""Seconds up to which histograms count: those of OpenTelemetry's `gen_ai.client.operation.duration`, doubled twice."""
MAX_SERIES = 1_000
"""The series of one metric at most; what is beyond them is told together, with the label values `OTHER`."""
OTHER = "other"


class Metric(msgspec.Struct, frozen=True):
    """One metric; a counter's name is without its `_total`, as libraries add that."""

    name: str
    kind: Kind
    text: str
    labels: tuple[str, ...] = ()

    @property
    def series(self) -> int:
        """The series that each of its label sets has: a histogram has one for each bound, and three more."""
        return len(BOUNDS) + 3 if self.kind == "histogram" else 1


METRICS = {
    one.name: one
    for one in (
        Metric("understudy_requests", "counter", "Requests that have ended.", ("service", "outcome")),
        Metric("understudy_request_duration_seconds", "histogram", "How long requests took.", ("service",)),
        Metric("understudy_calls", "counter", "Calls of providers that have ended.", ("provider", "outcome")),
        Metric("understudy_call_failures", "counter", "Calls that failed, by kind of error.", ("provider", "error")),
        Metric("understudy_call_duration_seconds", "histogram", "How long calls took.", ("provider",)),
        Metric("understudy_first_piece_seconds", "histogram", "Time to the first piece of streams.", ("provider",)),
        Metric("understudy_wire_calls", "counter", "HTTP requests that calls have sent.", ("provider",)),
        Metric("understudy_retries", "counter", "Calls that tried a provider again.", ("provider",)),
        Metric("understudy_reroutes", "counter", "Requests that went on elsewhere, away from it.", ("provider",)),
        Metric("understudy_breaker_trips", "counter", "How often a breaker opened.", ("provider",)),
        Metric("understudy_cost_dollars", "counter", "What calls have cost.", ("provider",)),
        Metric("understudy_cache_saved_dollars", "counter", "What cached prompts have saved.", ("tenant",)),
        Metric("understudy_breaker_state", "gauge", "1 for the state that a breaker is in.", ("provider", "state")),
        Metric("understudy_calls_under_way", "gauge", "Calls under way.", ("provider",)),
        Metric("understudy_requests_queued", "gauge", "Requests in a provider's wait queue.", ("provider",)),
        Metric("understudy_requests_under_way", "gauge", "Requests under way."),
        Metric("understudy_requests_waiting", "gauge", "Requests that wait, by what for.", ("reason",)),
        Metric("understudy_account_settled_dollars", "gauge", "What an account has spent.", ("account",)),
        Metric("understudy_account_reserved_dollars", "gauge", "Reserved for calls under way.", ("account",)),
        Metric("understudy_account_held_dollars", "gauge", "Held for calls of unknown outcome.", ("account",)),
        Metric("understudy_account_cap_dollars", "gauge", "The cap of an account that has one.", ("account",)),
        Metric("understudy_alerts", "gauge", "Alerts that are raised.", ("rule",)),
        Metric("understudy_events_missed", "counter", "Events that came too fast to be counted."),
    )
}
"""Every metric, by its name."""
