"""The troubles that the cast must survive: tests put ours through them, the benchmark puts others through them too.

A trouble is an async function of a simulation and a contender, which returns the figures of the run. What is drawn is
drawn from the seed before the contender begins, so that one seed is the same trouble for every contender.
"""

from __future__ import annotations

from benchmarks.scenarios.troubles import crowds, health, inputs, lasting, later, limits, rates
from benchmarks.scenarios.troubles.contenders import BY_HAND as BY_HAND
from benchmarks.scenarios.troubles.contenders import OURS as OURS
from benchmarks.scenarios.troubles.contenders import SEED as SEED
from benchmarks.scenarios.troubles.contenders import Contender as Contender
from benchmarks.scenarios.troubles.contenders import all_contenders as all_contenders
from benchmarks.scenarios.troubles.contenders import ours as ours
from benchmarks.scenarios.troubles.outcome import Outcome as Outcome  # noqa: TC001 - it is exported.
from benchmarks.scenarios.troubles.trouble import Trouble, without

RETRY = "3 retries with backoff and jitter"
BREAKER = "5 failures open the circuit for 30-60 s"
FALLBACK = "primary fails: try alternative strategies"
LIMITS = "respect rate limits"

TROUBLES: dict[str, Trouble] = {
    "outage": Trouble(promise=FALLBACK, scenario=health.outage),
    "brown-out": Trouble(
        promise=RETRY,
        scenario=health.brown_out,
        # A probe may succeed, so that it is called more than once in each wait.
        must=without("calls_per_reopen"),
    ),
    "correlated outage": Trouble(promise=FALLBACK, scenario=health.correlated_outage),
    "flapping": Trouble(
        promise=BREAKER,
        scenario=health.flapping,
        # Whoever comes back after each probe fails anew: it is no dead provider, and twice as much is lost on it.
        must={**without("calls_per_reopen"), "amplification": "<= 1.07"},
    ),
    "slow loris": Trouble(promise=BREAKER, scenario=health.slow_loris),
    "slow loris, little time": Trouble(promise=BREAKER, scenario=health.impatient_slow_loris),
    "slow loris, paid": Trouble(
        promise="none: no timeout, no idempotency key",
        scenario=health.paid_slow_loris,
        must=without("success"),
    ),
    "half-open stampede": Trouble(promise=BREAKER, scenario=health.half_open_stampede),
    "fails fast": Trouble(
        promise="filter and select strategy",
        scenario=health.fails_fast,
        must=without("calls_per_reopen", "time_to_return"),
    ),
    "429, limit known": Trouble(
        promise=LIMITS,
        scenario=limits.known_limit,
        must={**without("calls_per_reopen", "time_to_return"), "throttled": "<= 0"},
    ),
    "429, limit unknown": Trouble(
        promise=LIMITS,
        scenario=limits.unknown_limit,
        must=without("calls_per_reopen", "time_to_return"),
    ),
    "429 storm": Trouble(
        promise=LIMITS,
        scenario=limits.throttle_storm,
        must=without("calls_per_reopen"),
    ),
    "quota exhausted": Trouble(
        promise="non-retryable: insufficient funds",
        scenario=limits.quota_exhausted,
        must=without("calls_per_reopen"),
    ),
    "herd at recovery": Trouble(promise="jitter prevents a thundering herd", scenario=crowds.herd),
    "metastable overload": Trouble(
        promise="limit concurrency based on capacity",
        scenario=crowds.metastable,
        # Nobody can serve while the only provider is too slow: what counts is that it ends with its cause.
        must={"success_after": ">= 0.999", "time_to_return": "<= 40", "amplification": "<= 1.05"},
    ),
    "mass cancellation": Trouble(
        promise="none",
        scenario=crowds.mass_cancellation,
        must={**without("calls_per_reopen"), "left": "<= 0"},
    ),
    "poison, 400": Trouble(
        promise="fail fast: invalid input",
        scenario=inputs.poison_refused,
        must={**without("calls_per_reopen", "time_to_return"), "poison_reported": "<= 0"},
    ),
    "poison, crash": Trouble(
        promise="none",
        scenario=inputs.poison_crashes,
        must={"success": ">= 0.999", "paid_twice": "<= 0", "poison_reported": "<= 0"},
    ),
    "poison, 500": Trouble(
        promise=RETRY,
        scenario=inputs.poison_fails,
        must={"success": ">= 0.999", "paid_twice": "<= 0", "poison_reported": "<= 0", "calls_per_poison": "<= 4"},
    ),
    "poison, hangs": Trouble(
        promise="none",
        scenario=inputs.poison_hangs,
        must={"success": ">= 0.999", "paid_twice": "<= 0", "poison_reported": "<= 0", "calls_per_poison": "<= 4"},
    ),
    "registry down": Trouble(
        promise="cache for 5-15 minutes",
        scenario=inputs.registry_down,
        must=without("calls_per_reopen", "time_to_return"),
    ),
    "tokens and requests": Trouble(
        promise=LIMITS,
        scenario=later.tokens_and_requests,
        must={**without("calls_per_reopen", "time_to_return"), "throttled": "<= 0"},
    ),
    "bulk against interactive": Trouble(
        promise="none",
        scenario=later.bulk_against_interactive,
        must={"success": ">= 0.999", "interactive_p99": "<= 2"},
    ),
    "global slowness": Trouble(promise="none", scenario=later.global_slowness, must=without("calls_per_reopen")),
    "slow answers": Trouble(
        promise=BREAKER,
        scenario=lasting.slow_answers,
        # Of 300 requests fifteen are 1.05, and as many probes fail before it is found that the provider is back.
        must={**without("calls_per_reopen", "time_to_return"), "amplification": "<= 1.15", "used_again": ">= 0.3"},
    ),
    "still at work": Trouble(
        promise="none",
        scenario=lasting.still_at_work,
        must={"success": ">= 0.999", "paid_twice": "<= 0", "most_calls": "<= 12"},
    ),
    "a layer below repeats": Trouble(
        promise=RETRY,
        scenario=lasting.repeating_layer,
        must={
            "success": ">= 0.999",
            "paid_twice": "<= 0",
            "wire_calls_at_first": "<= 6",
            "wire_calls_later": "<= 3",
        },
    ),
    "quota exhausted for an hour": Trouble(
        promise="non-retryable: insufficient funds",
        scenario=lasting.unpaid_hour,
        must={**without("calls_per_reopen", "time_to_return"), "calls_in_trouble": "<= 8"},
    ),
    "stray 429s, 0.1 %": Trouble(
        promise=LIMITS, scenario=rates.few_strays, must={"success": ">= 0.999", "rate_kept": ">= 0.9"}
    ),
    "stray 429s, 1 %": Trouble(
        promise=LIMITS, scenario=rates.some_strays, must={"success": ">= 0.999", "rate_kept": ">= 0.7"}
    ),
    "stray 429s, 5 %": Trouble(
        promise=LIMITS, scenario=rates.many_strays, must={"success": ">= 0.999", "rate_kept": ">= 0.4"}
    ),
    "stray 429s, long waits": Trouble(
        promise=LIMITS,
        scenario=rates.strays_with_long_waits,
        must={"success": ">= 0.999", "of_ceiling": ">= 0.9"},
    ),
    "tokens known roughly": Trouble(
        promise=LIMITS,
        scenario=rates.rough_tokens,
        must={"success": ">= 0.999", "limit_used": ">= 0.79", "part_throttled": "<= 0.001"},
    ),
    "shared quota": Trouble(
        promise="none",
        scenario=rates.shared_quota,
        must={**without("calls_per_reopen", "time_to_return"), "throttled": "<= 0"},
    ),
    "warm start": Trouble(
        promise=LIMITS,
        scenario=rates.warm_start,
        must={"success": ">= 0.999", "throttled": "<= 0", "times_the_least": "<= 1.7"},
    ),
    "changes in mid-run": Trouble(
        promise="cache for 5-15 minutes",
        scenario=rates.changes,
        must=without("calls_per_reopen", "time_to_return"),
    ),
    "silent quality drop": Trouble(
        promise="none",
        scenario=later.silent_quality_drop,
        # Nobody can know of a wrong answer before it was given.
        must={"success": ">= 0.9", "amplification": "<= 1.05"},
    ),
}
"""Every trouble by its name."""


def figure(outcome: Outcome, name: str) -> float | None:
    """Return a figure of a run by its name, also one that its trouble alone counts; None where it means nothing."""
    if name in outcome.more:
        return outcome.more[name]
    value: float | None = getattr(outcome, name)
    return value
