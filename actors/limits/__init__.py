"""How much load a provider bears: rates, quotas, concurrency and timeouts, as pure values."""

from actors.limits.attempt_timeout import AttemptTimeout
from actors.limits.concurrency import ConcurrencyLimit
from actors.limits.learned import LearningConfig
from actors.limits.quota import Quota, RateLimit, per_minute, quota_of
from actors.limits.reported import ReportedLimit
from actors.limits.token_bucket import TokenBucket
from actors.limits.waiting import LearnedPace, Waiting, WaitReason

__all__ = [
    "AttemptTimeout",
    "ConcurrencyLimit",
    "LearnedPace",
    "LearningConfig",
    "Quota",
    "RateLimit",
    "ReportedLimit",
    "TokenBucket",
    "WaitReason",
    "Waiting",
    "per_minute",
    "quota_of",
]
