"""The cast: actors that make calls to unreliable, rate-limited, paid providers just work.

The names that most programs need; everything else is one dot deeper, such as `actors.ledger.Reserve`. A name is loaded
when it is first used, so that `import actors` by itself costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
    from actors.market import (
        Listing,
        Market,
        load_market,
        provider,
    )
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
    "provider",
    "robust_batch",
    "select_best",
    "smart_request",
    "to_micros",
    "with_retry",
]

HOMES = {
    "actors.batch": ("Done", "Failed", "Unknown", "batch_process", "concurrent", "robust_batch"),
    "actors.discovery": ("Discovery", "Registry"),
    "actors.errors": (
        "AllProvidersFailed",
        "Attempt",
        "BreakerOpen",
        "BudgetExceeded",
        "CallFailed",
        "NoProvider",
        "NotAdmitted",
        "OutcomeUnknown",
        "Permanent",
        "Throttled",
        "Transient",
        "Unclassified",
        "is_retryable_error",
    ),
    "actors.ledger": ("Ledger",),
    "actors.limits": ("TokenBucket",),
    "actors.market": ("Listing", "Market", "load_market", "provider"),
    "actors.money": ("Micros", "to_micros"),
    "actors.monitor": ("Monitor",),
    "actors.policies": (
        "BreakerConfig",
        "Bulkhead",
        "CircuitBreaker",
        "Hedge",
        "Limiter",
        "Policy",
        "Retry",
        "with_retry",
    ),
    "actors.provider_gateway": ("ProviderGateway",),
    "actors.providers": ("Provider", "ProviderFilter", "select_best"),
    "actors.rate_limiter": ("Acquire", "RateLimiter"),
    "actors.supervisor": (
        "GetStatus",
        "Isolate",
        "Release",
        "RequestOptions",
        "SmartRequest",
        "SmartResult",
        "Supervisor",
        "TargetStatus",
        "check_health",
        "discover",
        "smart_request",
    ),
    "actors.transports": ("FunctionTransport", "ProviderCall", "ProviderReply", "Transport"),
}
"""The package that each of the names above comes from."""
if not TYPE_CHECKING:  # A type checker would take every name for one that exists.

    def __getattr__(name: str) -> object:
        """Load a name, or a package, of the cast when it is first used."""
        for home, names in HOMES.items():
            if name in names:
                return globals().setdefault(name, getattr(import_module(home), name))
        if not name.startswith("_") and find_spec(f"{__name__}.{name}") is not None:
            return import_module(f"{__name__}.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
