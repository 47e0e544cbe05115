"""A circuit breaker: its configuration, its states, the transitions between them, and a breaker for any async call."""

from actors.policies.breaker.circuit_breaker import CircuitBreaker
from actors.policies.breaker.config import BreakerConfig

__all__ = ["BreakerConfig", "CircuitBreaker"]
