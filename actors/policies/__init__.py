"""Policies for any async call, without an actor: retry, breaker, limiter, bulkhead, hedge, and all in one order."""

from actors.policies.breaker.circuit_breaker import CircuitBreaker
from actors.policies.breaker.config import BreakerConfig
from actors.policies.bulkhead import Bulkhead
from actors.policies.hedge import Hedge, HedgeConfig
from actors.policies.limiter import Limiter
from actors.policies.policy import Policy
from actors.policies.retry import ResultRejected, Retry, RetryStats, with_retry
from actors.policies.retry_budget import RetryBudget, SharedRetryBudget
from actors.policies.timeout import CallTimedOut

__all__ = [
    "BreakerConfig",
    "Bulkhead",
    "CallTimedOut",
    "CircuitBreaker",
    "Hedge",
    "HedgeConfig",
    "Limiter",
    "Policy",
    "ResultRejected",
    "Retry",
    "RetryBudget",
    "RetryStats",
    "SharedRetryBudget",
    "with_retry",
]
