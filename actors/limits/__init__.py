"""How much a provider bears: rates, quotas, concurrency and patience, as pure values."""

from actors.limits.attempt_timeout import AttemptTimeout
from actors.limits.concurrency import ConcurrencyLimit
from actors.limits.learned import LearningConfig
from actors.limits.quota import Quota, RateLimit, per_minute, quota_of
from actors.limits.reported import HeardLimit
from actors.limits.token_bucket import TokenBucket

__all__ = [
    "AttemptTimeout",
    "ConcurrencyLimit",
    "HeardLimit",
    "LearningConfig",
    "Quota",
    "RateLimit",
    "TokenBucket",
    "per_minute",
    "quota_of",
]
