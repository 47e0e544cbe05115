"""The actor RateLimiter: one quota, shared by all callers that take from it."""

from actors.rate_limiter.messages import Acquire, ReportThrottled, Settle
from actors.rate_limiter.rate_limiter import RateLimiter

__all__ = ["Acquire", "RateLimiter", "ReportThrottled", "Settle"]
