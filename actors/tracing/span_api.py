"""OpenTelemetry's API as spans use it: imported when it is asked for, because it is an extra."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actors.tracing.conventions import Conventions


class SpanApi:
    """A tracer, and what carries the context of its spans in and out. Raises ImportError without the extra `otel`."""

    def __init__(self, provider: Any, conventions: Conventions) -> None:
        self.conventions = conventions
        self.api: Any = imported("opentelemetry.trace")
        self.contexts: Any = imported("opentelemetry.context")
        propagator: Any = imported("opentelemetry.trace.propagation.tracecontext").TraceContextTextMapPropagator()
        self.extract = propagator.extract
        self.attach, self.detach = self.contexts.attach, self.contexts.detach
        self.tracer: Any = self.api.get_tracer("understudy", tracer_provider=provider)

    def __repr__(self) -> str:
        return f"<SpanApi by conventions {self.conventions.version}>"


def headers_of(span: Any) -> dict[str, str]:
    """Return the headers by which others are told that they are called within a span.

    They are those of W3C Trace Context (www.w3.org/TR/trace-context, version 00). OpenTelemetry's propagator writes the
    same at several times the cost, as it looks for the span in a context first.
    """
    context = span.get_span_context()
    headers = {"traceparent": f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"}
    if context.trace_state:
        headers["tracestate"] = context.trace_state.to_header()
    return headers


def imported(name: str) -> Any:
    """Return a module of OpenTelemetry's API; raises ImportError that says how to have it."""
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError("traces need an extra: pip install 'understudy[otel]'") from error
