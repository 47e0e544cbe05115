"""The actors that hold a quota for all who draw on it, in one program or on several nodes."""

from actors.rate_limiter.lease_owner import LeaseOwner
from actors.rate_limiter.leased_limiter import LeasedLimiter
from actors.rate_limiter.messages import Acquire, ReportThrottled, Settle
from actors.rate_limiter.rate_limiter import RateLimiter

__all__ = ["Acquire", "LeaseOwner", "LeasedLimiter", "RateLimiter", "ReportThrottled", "Settle"]
