"""An option by another name, and a configuration of the wrong kind, are refused with what to write instead."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from actors import (
    BreakerConfig,
    Bulkhead,
    CircuitBreaker,
    Discovery,
    Hedge,
    Ledger,
    Limiter,
    Market,
    Monitor,
    Policy,
    ProviderFilter,
    RateLimiter,
    RequestOptions,
    Retry,
    Transient,
    batch_process,
    concurrent,
    discover,
    robust_batch,
    smart_request,
    with_retry,
)
from actors.discovery.discovery import registry_of
from actors.policies import RetryBudget, SharedRetryBudget
from actors.policies.retry import RetryOptions
from tests.actors.seed_stage import listed

if TYPE_CHECKING:
    from collections.abc import Callable

SEED_BREAKER = {"failureThreshold": 5, "resetTimeMs": 30000}
ANY: Any = None
MARKET = Market(providers=[listed("alder")])


class Failing:
    """Raises the same error a number of times, and then answers."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.calls = 0

    async def __call__(self) -> str:
        self.calls += 1
        if self.calls <= self.failures:
            raise Transient("503")
        return "answer"


async def test_the_fields_of_a_retry_may_be_given_one_by_one():
    call = Failing(2)
    assert await with_retry(call, max_retries=3, base=0.5, cap=2.0, jitter="none") == "answer"
    call = Failing(9)
    with pytest.raises(Transient):
        await with_retry(call, policy=Retry(max_retries=7, base=0.0), max_retries=1)
    assert call.calls == 2
    with pytest.raises(ValueError, match="max_retries must be >= 0"):
        await with_retry(Failing(0), max_retries=-1)


def test_the_fields_of_a_retry_are_all_options_of_with_retry():
    assert tuple(RetryOptions.__annotations__) == Retry.__struct_fields__


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("maxRetries", "is max_retries"),
        ("base_delay_ms", "is base, in seconds"),
        ("baseDelayMs", "is base, in seconds"),
        ("max_delay_ms", "is cap, in seconds"),
        ("jitter_factor", 'is proportion, from 0 to 1, with jitter="proportional"'),
        ("max_retrys", "may be max_retries"),
        ("colour", "is none of max_retries, base, cap, jitter, proportion"),
    ],
)
async def test_a_retry_says_which_option_is_meant(name: str, instead: str):
    call = Failing(0)
    options: dict[str, Any] = {name: 3}
    with pytest.raises(TypeError, match=re.escape(f"with_retry has no option {name!r}: it {instead}")):
        await with_retry(call, **options)
    assert call.calls == 0
    with pytest.raises(TypeError, match=re.escape(f"Retry has no option {name!r}: it {instead}")):
        Retry(**options)


@pytest.mark.parametrize(
    ("door", "arguments", "name", "instead"),
    [
        (BreakerConfig, (), "failureThreshold", "failure_threshold"),
        (BreakerConfig, (), "reset_time_ms", "open_for, in seconds"),
        (ProviderFilter, (), "minReputation", "min_reputation"),
        (RequestOptions, (), "fallbackStrategies", "fallback_strategies"),
        (concurrent, ([1], ANY), "maxConcurrency", "max_concurrency"),
        (batch_process, ([1], ANY), "rateLimit", "rate_limit"),
        (robust_batch, (ANY, [1]), "onProgress", "on_progress"),
        (smart_request, (ANY,), "healthCheck", "health_check"),
        (discover, (ANY,), "requiredCapabilities", "required_capabilities"),
    ],
)
def test_every_door_of_the_seed_says_which_option_is_meant(door: Any, arguments: Any, name: str, instead: str):
    with pytest.raises(TypeError, match=f"{door.__name__} has no option '{name}': it is {instead}"):
        door(*arguments, **{name: 1})


WRONG_CONFIGS: dict[str, tuple[Callable[[Any], object], str]] = {
    "breaker": (lambda wrong: CircuitBreaker("x", wrong), "config must be a BreakerConfig"),
    "hedge": (lambda wrong: Hedge(wrong, idempotent=True, paid=False), "config must be a HedgeConfig"),
    "bulkhead": (lambda wrong: Bulkhead("x", wrong), "max_concurrency must be a whole number"),
    "limiter": (lambda wrong: Limiter(wrong, rate=1.0), "name of a limiter must be a str"),
    "shared budget": (SharedRetryBudget, "budget must be a RetryBudget"),
    "policy: retry": (lambda wrong: Policy(retry=wrong), "retry must be a Retry"),
    "policy: breaker": (lambda wrong: Policy(breaker=wrong), "breaker must be a CircuitBreaker"),
    "policy: limiter": (lambda wrong: Policy(limiter=wrong), "limiter must be a Limiter"),
    "policy: bulkhead": (lambda wrong: Policy(bulkhead=wrong), "bulkhead must be a Bulkhead"),
    "policy: hedge": (lambda wrong: Policy(hedge=wrong), "hedge must be a Hedge"),
    "policy: budget": (lambda wrong: Policy(budget=wrong), "budget must be a RetryBudget"),
    "rate limiter": (lambda wrong: RateLimiter("x", rate=1.0, learning=wrong), "learning must be a LearningConfig"),
    "discovery": (lambda wrong: Discovery(registry_of(MARKET), wrong), "config must be a DiscoveryConfig"),
    "watch": (lambda wrong: Discovery(registry_of(MARKET), watch=wrong), "watch must be a WatchConfig"),
    "ledger": (Ledger, "config must be a LedgerConfig"),
    "monitor": (Monitor, "config must be a MonitorConfig"),
    "market: retry": (lambda wrong: Market(providers=MARKET.providers, retry=wrong), "retry must be a Retry"),
    "market: breaker": (lambda wrong: Market(providers=MARKET.providers, breaker=wrong), "must be a BreakerConfig"),
    "market: hedge": (lambda wrong: Market(providers=MARKET.providers, hedge=wrong), "hedge must be a HedgeConfig"),
}


@pytest.mark.parametrize("wrong", [{}, {"failureThreshold": 5}, BreakerConfig, RetryBudget, 7.5, [1]], ids=repr)
@pytest.mark.parametrize("where", WRONG_CONFIGS)
def test_a_configuration_of_the_wrong_kind_is_refused_at_once(where: str, wrong: object):
    make, said = WRONG_CONFIGS[where]
    with pytest.raises(TypeError, match=said):
        make(wrong)


@pytest.mark.parametrize("wrong", [{"maxRetries": 3}, {}, 3, Retry], ids=repr)
async def test_a_retry_policy_of_the_wrong_kind_is_refused_before_any_call(wrong: Any):
    call = Failing(0)
    with pytest.raises(TypeError, match="policy must be a Retry"):
        await with_retry(call, policy=wrong)
    assert call.calls == 0


async def test_a_call_that_was_made_already_cannot_be_retried():
    made: Any = Failing(0)()
    with pytest.raises(TypeError, match="call must be a function that calls anew each time"):
        await with_retry(made)
    made.close()


def test_the_options_of_the_seed_in_a_dict_are_translated():
    with pytest.raises(TypeError) as refused:
        CircuitBreaker("my-service", SEED_BREAKER)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert str(refused.value) == (
        "config must be a BreakerConfig, got {'failureThreshold': 5, 'resetTimeMs': 30000}; write BreakerConfig(...): "
        "'failureThreshold' is failure_threshold, 'resetTimeMs' is open_for, in seconds"
    )


def test_a_configuration_from_a_file_is_read_as_before():
    assert msgspec.convert({"max_retries": 1}, Retry) == Retry(max_retries=1)
