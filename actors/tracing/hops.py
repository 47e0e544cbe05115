"""A span for each request that one actor asks another, if the system lets contexts travel with requests."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from runtime import Interceptor, Request

if TYPE_CHECKING:
    from actors.tracing.span_api import SpanApi
    from runtime import ActorRef


CURRENT: ContextVar[tuple[Any, Any] | None] = ContextVar("understudy_hop", default=None)
"""The request that is handled, and its span. A request that is stashed is handled again, within a span of its own."""


class HopSpans(Interceptor):
    """Records each request between actors within the span that is current for its asker; see `Tracing.hops`.

    `askers_context` is the variable in which an actor finds the context of its asker, if it takes it along.
    """

    def __init__(self, otel: SpanApi, askers_context: ContextVar[Any]) -> None:
        self._otel, self._askers_context = otel, askers_context

    def received(self, ref: ActorRef[Any], message: Any) -> Any:
        """Begin the span of a request; what its handler asks in turn is within it."""
        if is_asked(message):
            otel, api = self._otel, self._otel.api
            if api.get_current_span().is_recording():
                attributes = {"understudy.actor": ref.path}
                name = f"ask {type(message).__name__}"
                span = otel.tracer.start_span(name, None, api.SpanKind.INTERNAL, attributes, record_exception=False)
                CURRENT.set((message, span))
                # The runtime sets back what came with the request when its handler has ended.
                context = api.set_span_in_context(span)
                otel.attach(context)
                if self._askers_context.get() is not None:
                    self._askers_context.set(context)
        return message

    def handled(self, ref: ActorRef[Any], message: Any, answer: Any) -> Any:
        """End the span of a request that was answered."""
        self._end(message, None)
        return answer

    def failed(self, ref: ActorRef[Any], message: Any, error: BaseException) -> None:
        """End the span of a request that was refused, crashed its actor, or was cancelled."""
        self._end(message, error)

    def _end(self, message: Any, error: BaseException | None) -> None:
        current = CURRENT.get()
        if current is None or current[0] is not message:
            return
        CURRENT.set(None)
        span = current[1]
        if isinstance(error, Exception):
            span.set_attribute("error.type", type(error).__name__)
            span.set_status(self._otel.api.StatusCode.ERROR)
        span.end()


def is_asked(message: object) -> bool:
    """Tell whether a message is one that is answered."""
    return isinstance(message, Request)
