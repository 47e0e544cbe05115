"""The observed latency, success and availability of a provider, which fade with time and correct what it declares.

Pure: an immutable value, its successor after each call, and what can be read from it at a time `now`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from actors.errors.families import ConnectionFailed, OutcomeUnknown, StreamBroken, Transient, Unclassified

if TYPE_CHECKING:
    from actors.providers.provider import Provider

BLAMED_KINDS = frozenset(
    kind.__name__ for kind in (ConnectionFailed, OutcomeUnknown, StreamBroken, Transient, Unclassified)
)
"""The kinds of failure that are the provider's fault; throttling, a caller's mistake and cancellation are not."""
UNREACHABLE_KINDS = frozenset({ConnectionFailed.__name__})
"""The kinds of these failures in which the provider was not reached."""

MAX_DOUBLINGS = 10.0
"""How often, at most, failures in a row double the load score."""
MIN_SUCCESS_RATE = 0.01
MIN_LATENCY = 1e-6
"""Seconds; the least latency in a load score, so that more calls under way always give a higher score."""


class ObservedConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How fast observations are forgotten, and how much they weigh; durations are seconds.

    Latency, success and availability lose half of their weight in `half_life`, peaks of latency and failures in a row
    in `peak_half_life`. What a provider declares weighs as much as `prior_calls` calls just made. A provider
    counts as unavailable if a smaller part of its calls than `min_availability` reaches it.
    """

    half_life: float = 300.0
    peak_half_life: float = 10.0
    prior_calls: float = 10.0
    min_availability: float = 0.5

    def __post_init__(self) -> None:
        for name, value in (("half_life", self.half_life), ("peak_half_life", self.peak_half_life)):
            if not 0 < value < math.inf:
                raise ValueError(f"{name} must be > 0 seconds and finite, got {value}")
        if not 0 < self.prior_calls < math.inf:
            raise ValueError(f"prior_calls must be > 0 calls and finite, got {self.prior_calls}")
        if not 0 <= self.min_availability <= 1:
            raise ValueError(f"min_availability must be from 0 to 1, got {self.min_availability}")


DEFAULT_OBSERVED = ObservedConfig()


class Observed(msgspec.Struct, frozen=True, gc=False):
    """What the calls to a provider have shown until `at`, in loop time; the numbers are as of then.

    `successes`, `failures` and `unreached` (the failures that did not reach the provider) are counts that fade. `calls`
    is a count that does not fade, and includes calls that say nothing about the provider. `latency` is the mean of its
    successes, and `peak` the highest latency seen, which fades; both are in seconds. `streak` is the number of failures
    in a row, which fades too.
    """

    at: float = 0.0
    calls: int = 0
    successes: float = 0.0
    failures: float = 0.0
    unreached: float = 0.0
    latency: float = 0.0
    peak: float = 0.0
    streak: float = 0.0


UNOBSERVED = Observed()


def after_call(
    observed: Observed, latency: float, error: str | None, now: float, config: ObservedConfig = DEFAULT_OBSERVED
) -> Observed:
    """Return the observations after a call that took `latency` seconds; `error` is its kind of failure, or None.

    A success counts in the mean latency, and raises the peak at once if it is slower. A failure of the provider counts
    in the success rate and the streak. It never lowers a latency: it raises the peak if it took longer, as a timeout
    does, and is ignored as a latency if it was quick. Any other end, such as a cancellation, shows only that an answer
    would have taken at least as long.

    Source: the mean is a time-decayed EWMA; the peak is that of Finagle's peak EWMA, which rises at once and decays
    slowly, except that a quick call does not make it decay faster.

    >>> seen = after_call(UNOBSERVED, 2.0, None, now=0.0)
    >>> after_call(seen, 0.001, "Transient", now=0.0).latency
    2.0
    """
    age = now - observed.at
    kept, faded = 1.0, 1.0
    if age > 0:
        kept, faded = math.exp2(-age / config.half_life), math.exp2(-age / config.peak_half_life)
    mean, peak = observed.latency, observed.peak * faded
    peak = max(peak, latency)
    calls, successes, failures = observed.calls + 1, observed.successes * kept, observed.failures * kept
    unreached = observed.unreached * kept
    if error is None:
        successes += 1.0
        mean += (latency - mean) / successes
        return Observed(now, calls, successes, failures, unreached, mean, peak, 0.0)
    streak = observed.streak * faded
    if error in BLAMED_KINDS:
        failures += 1.0
        streak += 1.0
        if error in UNREACHABLE_KINDS:
            unreached += 1.0
    return Observed(now, calls, successes, failures, unreached, mean, peak, streak)


def usual_latency(
    provider: Provider, observed: Observed, now: float, config: ObservedConfig = DEFAULT_OBSERVED
) -> float:
    """Return the expected seconds of a call: the weighted mean of what is declared and what was observed."""
    weight = observed.successes * _weight_left(observed, now, config)
    return (config.prior_calls * provider.response_time + weight * observed.latency) / (config.prior_calls + weight)


def success_rate(
    provider: Provider, observed: Observed, now: float, config: ObservedConfig = DEFAULT_OBSERVED
) -> float:
    """Return the expected part of calls that succeed: the weighted mean of what is declared and what was observed."""
    kept = _weight_left(observed, now, config)
    successes, failures = observed.successes * kept, observed.failures * kept
    rate = (config.prior_calls * provider.success_rate + successes) / (config.prior_calls + successes + failures)
    return min(1.0, rate)  # The sums may round to a little more.


def availability(observed: Observed, now: float, config: ObservedConfig = DEFAULT_OBSERVED) -> float:
    """Return the expected part of calls that reach the provider; 1 if nothing was observed for long."""
    kept = _weight_left(observed, now, config)
    return 1.0 - observed.unreached * kept / (config.prior_calls + (observed.successes + observed.failures) * kept)


def blend(provider: Provider, observed: Observed, now: float, config: ObservedConfig = DEFAULT_OBSERVED) -> Provider:
    """Return the provider with what it declares corrected by what was observed.

    That is the mean of a Bayesian estimate whose prior is the declaration, with the weight of `prior_calls` calls. Once
    the observations have faded, the same provider object is returned.

    >>> from actors.providers.provider import Provider
    >>> slow = after_call(UNOBSERVED, 12.0, None, now=0.0)
    >>> blend(Provider(name="a", services={"s"}, response_time=1.0), slow, now=0.0).response_time
    2.0
    """
    if (observed.successes + observed.failures) * _weight_left(observed, now, config) < 0.01:
        return provider
    return msgspec.structs.replace(
        provider,
        response_time=usual_latency(provider, observed, now, config),
        success_rate=success_rate(provider, observed, now, config),
        available=provider.available and availability(observed, now, config) >= config.min_availability,
    )


def load(
    provider: Provider,
    observed: Observed,
    *,
    under_way: int,
    now: float,
    config: ObservedConfig = DEFAULT_OBSERVED,
) -> float:
    """Return how loaded a provider is: about the seconds until it would have done one more call well.

    That is the peak latency, or the usual one if that is greater, times the calls under way and one more, divided by
    the success rate, and doubled for each failure in a row. So with equal calls under way a failure never makes a
    provider look less loaded, however quick it was. Suppose that a part p of its calls succeeds, and the others fail at
    once and are never seen under way. The division corrects exactly that: p n calls under way score as n + 1/p would,
    more than the n + 1 of a provider that serves them all.

    Source: Finagle's load metric of peak EWMA is the peak times (pending + 1); it does not account for fast failures.
    """
    age = max(0.0, now - observed.at)
    faded = math.exp2(-age / config.peak_half_life)
    base = max(observed.peak * faded, usual_latency(provider, observed, now, config), MIN_LATENCY)
    rate = max(success_rate(provider, observed, now, config), MIN_SUCCESS_RATE)
    return base * (under_way + 1) / rate * math.exp2(min(observed.streak * faded, MAX_DOUBLINGS))


def _weight_left(observed: Observed, now: float, config: ObservedConfig) -> float:
    """Return the part of its weight that an observation still has at `now`."""
    return math.exp2(-max(0.0, now - observed.at) / config.half_life)
