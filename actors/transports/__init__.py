"""Transports: how a provider is reached. `actors.transports.http` needs the extra `http`."""

from actors.transports.function import FunctionTransport
from actors.transports.reconciliation import (
    NOT_KEPT,
    Answered,
    Cancels,
    Finding,
    LooksUp,
    Lost,
    NeverRan,
    Resumes,
    UnderWay,
)
from actors.transports.streaming import CallStream, Restarted, WholeAnswer
from actors.transports.transport import ProviderCall, ProviderReply, Transport
from actors.transports.wire_calls import count_wire_calls

__all__ = [
    "NOT_KEPT",
    "Answered",
    "CallStream",
    "Cancels",
    "Finding",
    "FunctionTransport",
    "LooksUp",
    "Lost",
    "NeverRan",
    "ProviderCall",
    "ProviderReply",
    "Restarted",
    "Resumes",
    "Transport",
    "UnderWay",
    "WholeAnswer",
    "count_wire_calls",
]
