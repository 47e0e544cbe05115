"""The actor Supervisor: answers each request by a provider that can, with breaker and fallback as supervision."""

from actors.supervisor.client import check_health, discover, smart_request
from actors.supervisor.messages import (
    GetRequests,
    GetStatus,
    Isolate,
    MarketChange,
    OpenQuota,
    Release,
    ReplaceMarket,
    RequestStatus,
    RequestsUnderWay,
    SmartRequest,
    SmartResult,
    TargetStatus,
)
from actors.supervisor.options import RequestOptions
from actors.supervisor.streaming import RequestStream, smart_stream
from actors.supervisor.supervisor import Supervisor

__all__ = [
    "GetRequests",
    "GetStatus",
    "Isolate",
    "MarketChange",
    "OpenQuota",
    "Release",
    "ReplaceMarket",
    "RequestOptions",
    "RequestStatus",
    "RequestStream",
    "RequestsUnderWay",
    "SmartRequest",
    "SmartResult",
    "Supervisor",
    "TargetStatus",
    "check_health",
    "discover",
    "smart_request",
    "smart_stream",
]
