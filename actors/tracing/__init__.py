"""Where the time and the money of each request went: a trace of it by OpenTelemetry."""

from actors.tracing.conventions import LATEST, OLD
from actors.tracing.tracing import Tracing

__all__ = ["LATEST", "OLD", "Tracing"]
