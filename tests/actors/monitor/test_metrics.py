"""Counters, quantiles and windows: what they say, held against the plain lists of what went in."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.events import BreakerOpened, CallEnded, RequestEnded, Rerouted, Retried
from actors.monitor.histogram import (
    LONGEST,
    MAX_BUCKETS,
    RELATIVE_ERROR,
    SHORTEST,
    ZERO,
    Histogram,
    bucket_of,
    value_of,
)
from actors.monitor.metrics import AmplificationSeen, Metrics
from actors.monitor.rolling_window import SUB_BUCKETS, RollingWindow, Totals
from actors.monitor.tallies import OTHERS, TallyBook
from runtime import Event

DURATIONS = st.lists(st.floats(min_value=SHORTEST, max_value=LONGEST), min_size=1, max_size=200)
ROUNDING = 1e-9
"""Powers and logarithms are inexact by so much; no more is forgiven."""


def histogram_of(durations: list[float]) -> Histogram:
    histogram = Histogram()
    for duration in durations:
        histogram.add(bucket_of(duration))
    return histogram


# Quantiles.


@given(durations=DURATIONS, part=st.floats(min_value=0, max_value=1))
def test_a_quantile_is_within_the_promised_error_of_the_value_at_its_rank(durations: list[float], part: float):
    (found,) = histogram_of(durations).quantiles(part)
    exact = sorted(durations)[math.floor(part * (len(durations) - 1))]
    assert abs(found - exact) <= (RELATIVE_ERROR + ROUNDING) * exact
    assert RELATIVE_ERROR <= 0.02


@given(left=DURATIONS, right=DURATIONS)
def test_merged_histograms_are_equal_to_one_that_has_seen_it_all(left: list[float], right: list[float]):
    merged = histogram_of(left)
    merged.merge(histogram_of(right))
    whole = histogram_of(left + right)
    assert (merged.counts, merged.count) == (whole.counts, whole.count)


@given(st.floats())
def test_whatever_is_recorded_falls_into_one_of_a_bounded_number_of_buckets(duration: float):
    assert 0 <= bucket_of(duration) - ZERO < MAX_BUCKETS
    assert math.isfinite(value_of(bucket_of(duration)))


@given(st.floats(min_value=SHORTEST, max_value=LONGEST), st.floats(min_value=SHORTEST, max_value=LONGEST))
def test_a_longer_duration_is_never_in_a_lower_bucket(one: float, other: float):
    assert bucket_of(min(one, other)) <= bucket_of(max(one, other))


@pytest.mark.parametrize("duration", [0.0, -1.0, SHORTEST / 2, math.nan])
def test_what_has_no_logarithm_counts_as_zero(duration: float):
    assert histogram_of([duration]).quantiles(0.5) == (0.0,)


def test_there_are_no_quantiles_of_nothing_and_none_beyond_the_last_rank():
    with pytest.raises(ValueError, match="an empty histogram has no quantiles"):
        Histogram().quantiles(0.5)
    with pytest.raises(ValueError, match="rank 2 is not among 2 durations"):
        histogram_of([1.0, 2.0]).quantiles(2.5)
    assert repr(histogram_of([1.0, 1.0, 9.0])) == "<Histogram 3 durations in 2 buckets>"


# Windows.


@given(
    times=st.lists(st.integers(min_value=0, max_value=10_000), max_size=100).map(sorted),
    later=st.integers(min_value=0, max_value=2_000),
)
def test_a_window_has_all_of_the_last_nine_tenths_and_nothing_that_is_older_than_its_length(
    times: list[int], later: int
):
    length, now = 1_000, max(times, default=0) + later
    window = RollingWindow(float(length), start=0.0)
    for time in times:
        window.add(float(time), successes=1, failures=2, latency=0.5, cost=3)
    totals = window.totals(float(now))
    certain = sum(time > now - length * 9 // 10 for time in times)
    possible = sum(time > now - length for time in times)
    assert certain <= totals.successes <= possible
    assert totals.failures == 2 * totals.successes
    assert totals.latency == 0.5 * totals.successes
    assert totals.cost == 3 * totals.successes
    assert totals.seconds <= length
    # What it covers is what it counts.
    assert totals.successes == sum(time >= now - totals.seconds for time in times)


def test_a_window_covers_no_more_than_has_passed_since_it_began():
    window = RollingWindow(60.0, start=100.0)
    window.add(101.0, successes=4)
    assert window.totals(102.0) == Totals(successes=4, seconds=2.0)
    assert window.totals(3700.0).seconds == pytest.approx(58.0)


def test_a_window_takes_constant_memory():
    window = RollingWindow(10.0, start=0.0)
    for time in range(1_000):
        window.add(float(time), successes=1)
    assert len(window._ring) == SUB_BUCKETS
    assert window.totals(999.0).successes == 10


def test_a_clock_that_steps_back_counts_into_the_newest_part():
    window = RollingWindow(10.0, start=0.0)
    window.add(50.0, successes=1)
    window.add(3.0, failures=1)
    assert window.totals(50.0)[:2] == window.totals(0.0)[:2] == (1, 1)


@pytest.mark.parametrize("length", [0.0, -1.0, math.inf, math.nan])
def test_a_window_has_a_length(length: float):
    with pytest.raises(ValueError, match="length must be > 0 seconds"):
        RollingWindow(length, start=0.0)


def test_nothing_has_no_rate():
    assert (Totals().requests, Totals().success_rate, Totals().average_latency) == (0, None, None)
    totals = Totals(successes=3, failures=1, latency=2.0)
    assert (totals.success_rate, totals.average_latency) == (0.75, 0.5)


# Counters.


def book(**options: Any) -> TallyBook:
    defaults = {"start": 0.0, "recent": 60.0, "windows": (), "accounts": (), "max_subjects": 10}
    return TallyBook(**defaults | options)


def call(provider: str = "alder", error: str | None = None, **fields: Any) -> CallEnded:
    defaults = {"request_id": "r", "service": "s", "attempt": 1, "latency": 0.5, "cost": 0}
    return CallEnded(provider=provider, error=error, **defaults | fields)


def request(error: str | None = None, **fields: Any) -> RequestEnded:
    defaults = {"request_id": "r", "service": "s", "provider": "alder", "attempts": 1, "latency": 1.0, "cost": 0}
    return RequestEnded(error=error, **defaults | fields)


def metrics_of(*events: Event, now: float = 1.0, **options: Any) -> Metrics:
    counted = book(**options)
    for event in events:
        counted.record(event, now=now)
    return counted.metrics(now=now)


def test_the_counters_of_one_request_that_failed_over():
    metrics = metrics_of(
        call("alder", "Transient", latency=2.0, cost=5),
        Retried(request_id="r", provider="alder", waited=0.1),
        call("alder", "Throttled", latency=1.0, attempt=2),
        Rerouted(request_id="r", provider="birch", away_from="alder"),
        call("birch", latency=0.5, cost=20, attempt=3),
        request(provider="birch", attempts=3, latency=3.6, cost=25),
        BreakerOpened(provider="alder", wait=30.0),
    )
    total, alder, birch = metrics.total, metrics.providers["alder"], metrics.providers["birch"]
    assert (total.request_count, total.success_count, total.failure_count) == (1, 1, 0)
    assert (total.call_count, total.retry_count, total.reroute_count) == (3, 1, 1)
    assert (total.total_latency, total.total_cost, total.circuit_breaker_trips) == (3.6, 25, 1)
    assert (alder.request_count, alder.success_count, alder.failure_count) == (2, 0, 2)
    assert (alder.errors, alder.total_cost, alder.total_latency) == ({"Transient": 1, "Throttled": 1}, 5, 3.0)
    assert (alder.retry_count, alder.reroute_count, alder.circuit_breaker_trips) == (1, 1, 1)
    assert (birch.request_count, birch.success_rate, birch.total_cost) == (1, 1.0, 20)
    assert birch.latency is not None
    assert birch.latency.p99 == pytest.approx(0.5, rel=RELATIVE_ERROR)
    assert metrics.services["s"].amplification == total.amplification == 3.0
    assert (total.recent.requests, total.recent.request_rate) == (1, 1.0)


def test_a_request_that_its_caller_gave_up_is_neither_success_nor_failure():
    metrics = metrics_of(call("alder", "Cancelled", cost=7), request("Cancelled"), request())
    total, alder = metrics.total, metrics.providers["alder"]
    assert (total.request_count, total.success_count, total.failure_count, total.cancelled_count) == (2, 1, 0, 1)
    assert (total.success_rate, alder.success_rate) == (1.0, None)
    assert (alder.total_cost, alder.latency, alder.errors) == (7, None, {})


@given(st.lists(st.sampled_from([None, "Transient", "Permanent", "Cancelled"])))
def test_every_request_is_counted_as_one_thing(errors: list[str | None]):
    metrics = metrics_of(*(request(error) for error in errors), *(call(error=error) for error in errors))
    for figures in (metrics.total, *metrics.providers.values(), *metrics.services.values()):
        assert figures.request_count == len(errors)
        assert figures.success_count + figures.failure_count + figures.cancelled_count == len(errors)
        assert sum(figures.errors.values()) == figures.failure_count


def test_a_provider_isolated_by_hand_is_no_trip():
    assert metrics_of(BreakerOpened(provider="alder", wait=math.inf)).total.circuit_breaker_trips == 0


def test_nothing_has_no_rates_and_no_quantiles():
    total = metrics_of(now=0.0).total
    assert (total.success_rate, total.average_latency, total.amplification, total.latency) == (None,) * 4
    assert (total.recent.request_rate, total.recent.success_rate) == (None, None)


def test_wire_calls_count_in_the_amplification_and_are_told_once_per_provider():
    counted = book()
    told = [
        counted.record(event, now=1.0)
        for event in (
            call("alder"),
            msgspec.structs.replace(call("alder"), wire_calls=4),
            msgspec.structs.replace(call("alder"), wire_calls=4),
            request(),
            request(),
        )
    ]
    assert told == [None, AmplificationSeen(provider="alder", attempts=2, wire_calls=5), None, None, None]
    metrics = counted.metrics(now=1.0)
    assert (metrics.total.call_count, metrics.total.wire_calls, metrics.total.amplification) == (3, 9, 4.5)
    assert metrics.providers["alder"].amplification == 3.0


def test_only_the_accounts_that_were_named_are_counted():
    events = [msgspec.structs.replace(call(cost=3), account=account) for account in ("run", "batch-1", None, "run")]
    metrics = metrics_of(*events, accounts=("run",))
    assert {name: figures.total_cost for name, figures in metrics.accounts.items()} == {"run": 6}
    assert metrics.total.total_cost == 12


def test_subjects_beyond_the_limit_are_counted_together():
    metrics = metrics_of(*(request(service=f"s{number}") for number in range(50)), max_subjects=2)
    assert {name: figures.request_count for name, figures in metrics.services.items()} == {"s0": 1, "s1": 1, OTHERS: 48}
    assert metrics.total.request_count == 50


def test_metrics_are_json_and_come_back_from_it():
    metrics = metrics_of(call("alder", "Transient"), request("AllProvidersFailed"), BreakerOpened(provider="b", wait=1))
    assert msgspec.json.decode(metrics.to_json(), type=Metrics) == metrics


def test_events_that_mean_nothing_here_are_passed_over():
    class Other(Event, frozen=True):
        pass

    assert metrics_of(Other()) == metrics_of()


def test_streams_have_the_time_to_their_first_piece_and_between_two():
    metrics = metrics_of(
        call(latency=0.5, first_piece=0.5, piece_interval=0.02),
        call(latency=0.5, first_piece=0.5, piece_interval=None),
        call(latency=9.0),
    )
    for figures in (metrics.providers["alder"], metrics.services["s"], metrics.total):
        assert figures.first_piece is not None
        assert figures.piece_interval is not None
        assert figures.first_piece.p99 == pytest.approx(0.5, rel=0.02)
        assert figures.piece_interval.p50 == pytest.approx(0.02, rel=0.02)
    assert metrics_of(call()).providers["alder"].first_piece is None
