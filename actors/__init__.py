"""The cast: actors that make calls to unreliable, rate-limited, paid providers just work.

The names that most programs need; everything else is one dot deeper, such as `actors.ledger.Reserve`.
"""

from actors.batch import Done, Failed, Unknown, batch_process, concurrent, robust_batch
from actors.discovery import Discovery, Registry
from actors.errors import (
    AllProvidersFailed,
    Attempt,
    BreakerOpen,
    BudgetExceeded,
    CallFailed,
    NoProvider,
    NotAdmitted,
    OutcomeUnknown,
    Permanent,
    Throttled,
    Transient,
    Unclassified,
    is_retryable_error,
)
from actors.ledger import Ledger
from actors.limits import TokenBucket
from actors.market import Listing, Market, load_market
from actors.money import Micros, to_micros
from actors.monitor import Monitor
from actors.policies import BreakerConfig, Bulkhead, CircuitBreaker, Hedge, Limiter, Policy, Retry, with_retry
from actors.provider_gateway import ProviderGateway
from actors.providers import Provider, ProviderFilter, select_best
from actors.rate_limiter import Acquire, RateLimiter
from actors.supervisor import (
    GetStatus,
    Isolate,
    Release,
    RequestOptions,
    SmartRequest,
    SmartResult,
    Supervisor,
    TargetStatus,
    check_health,
    discover,
    smart_request,
)
from actors.transports import FunctionTransport, ProviderCall, ProviderReply, Transport

__all__ = [
    "Acquire",
    "AllProvidersFailed",
    "Attempt",
    "BreakerConfig",
    "BreakerOpen",
    "BudgetExceeded",
    "Bulkhead",
    "CallFailed",
    "CircuitBreaker",
    "Discovery",
    "Done",
    "Failed",
    "FunctionTransport",
    "GetStatus",
    "Hedge",
    "Isolate",
    "Ledger",
    "Limiter",
    "Listing",
    "Market",
    "Micros",
    "Monitor",
    "NoProvider",
    "NotAdmitted",
    "OutcomeUnknown",
    "Permanent",
    "Policy",
    "Provider",
    "ProviderCall",
    "ProviderFilter",
    "ProviderGateway",
    "ProviderReply",
    "RateLimiter",
    "Registry",
    "Release",
    "RequestOptions",
    "Retry",
    "SmartRequest",
    "SmartResult",
    "Supervisor",
    "TargetStatus",
    "Throttled",
    "TokenBucket",
    "Transient",
    "Transport",
    "Unclassified",
    "Unknown",
    "batch_process",
    "check_health",
    "concurrent",
    "discover",
    "is_retryable_error",
    "load_market",
    "robust_batch",
    "select_best",
    "smart_request",
    "to_micros",
    "with_retry",
]
