"""The spans of one request: one for the request, one for each call, and one for each wait."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from actors.tracing.conventions import request_attributes, response_attributes
from actors.tracing.span_api import headers_of

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

    from actors.errors.families import CallFailed
    from actors.tracing.conventions import Attributes
    from actors.tracing.span_api import SpanApi
    from actors.transports.called_model import CalledModel
    from actors.transports.transport import ProviderCall, ProviderReply

SECOND = 1_000_000_000
"""In nanoseconds, which spans are timed in."""
CANCELLED = "Cancelled"


class Span:
    """A span that has begun, at times of the event loop."""

    __slots__ = ("_request", "span")

    def __init__(self, request: TracedRequest, span: Any) -> None:
        self._request, self.span = request, span

    def set(self, attributes: Mapping[str, Any]) -> None:
        """Tell more of it."""
        self.span.set_attributes(attributes)

    def end(self, now: float, *, error: str | None = None, attributes: Mapping[str, Any] | None = None) -> None:
        """End it; `error` is the kind of failure, and what a provider said of it is not told."""
        span = self.span
        if attributes:
            span.set_attributes(attributes)
        if error is not None and error != CANCELLED:
            span.set_attribute("error.type", error)
            span.set_status(self._request.otel.api.StatusCode.ERROR)
        span.end(self._request.at(now))


class CallSpan(Span):
    """The span of one call to one provider."""

    __slots__ = ("_is_of_model",)

    def __init__(self, request: TracedRequest, span: Any, *, is_of_model: bool) -> None:
        super().__init__(request, span)
        self._is_of_model = is_of_model

    async def around(self, work: Coroutine[Any, Any, ProviderReply]) -> ProviderReply:
        """Do the work of the call with its span as the current one, for what the program traces in it."""
        otel = self._request.otel
        token = otel.attach(otel.api.set_span_in_context(self.span, self._request.outer))
        try:
            return await work
        finally:
            otel.detach(token)

    def end_call(
        self,
        now: float,
        reply: ProviderReply | None,
        error: CallFailed | None,
        *,
        first_piece: float | None,
        attributes: Attributes,
    ) -> None:
        """End it, as its call has ended: answered, failed, or cancelled, with neither a reply nor an error."""
        conventions = self._request.otel.conventions
        told = reply if reply is not None else None if error is None else error.answer
        if self._is_of_model and told is not None:
            attributes.update(response_attributes(told.output, told.usage, conventions))
        if first_piece is not None:
            attributes[conventions.first_piece or "understudy.first_piece"] = first_piece
        kind = None
        if error is not None:
            kind = error.kind
            if error.status is not None:
                attributes["http.response.status_code"] = error.status
        elif reply is None:
            attributes["understudy.outcome"] = "cancelled"
        self.end(now, error=kind, attributes=attributes)


class TracedRequest:
    """The trace of one request, from its arrival at loop time `now` on; it and all within it are part of `outer`.

    Without a `span`, the request is not recorded, and providers are told the span `passed_on`, which is not either.
    """

    __slots__ = ("_zero", "otel", "outer", "passed_on", "span")

    def __init__(self, otel: SpanApi, now: float, outer: Any) -> None:
        self.otel, self.outer = otel, outer
        self.span: Span | None = None
        self.passed_on: Any = None
        # One look at the wall clock: between two of them it may be set, and a span would end before it began.
        self._zero = time.time_ns() - int(now * SECOND)

    def at(self, now: float) -> int:
        """Return a time of the event loop in nanoseconds since 1970."""
        return self._zero + int(now * SECOND)

    def begin(self, name: str, now: float, *, kind: Any, attributes: Attributes) -> None:
        """Begin the span of the request."""
        span = self._start(name, now, kind, attributes)
        if span.is_recording():
            self.span = Span(self, span)
            self.outer = self.otel.api.set_span_in_context(span, self.outer)
            self.otel.attach(self.outer)  # For good: the handler of a request has a context of its own.
        else:
            self.passed_on = span

    def headers(self, call: CallSpan | None) -> dict[str, str]:
        """Return the headers by which a provider is told what its call is part of."""
        return headers_of(self.passed_on if call is None else call.span)

    def call(
        self, call: ProviderCall, now: float, *, called: CalledModel | None, attributes: Attributes
    ) -> CallSpan | None:
        """Begin the span of a call, of `called` if that is a model; None if the request is not recorded."""
        if self.span is None:
            return None
        name = f"call {call.provider}"
        if called is not None:
            attributes |= request_attributes(
                self.otel.conventions, called, call.input, provider=call.provider or "", streams=bool(call.stream)
            )
            name = f"{attributes['gen_ai.operation.name']} {called.model}"
        kind = self.otel.api.SpanKind.CLIENT
        return CallSpan(self, self._start(name, now, kind, attributes), is_of_model=called is not None)

    def wait(self, reason: str, now: float, attributes: Attributes) -> Span | None:
        """Begin the span of a wait; None if the request is not recorded."""
        if self.span is None:
            return None
        attributes["understudy.reason"] = reason
        kind = self.otel.api.SpanKind.INTERNAL
        return Span(self, self._start(f"wait {reason}", now, kind, attributes))

    def join(self, other: TracedRequest) -> None:
        """Note that the request has joined another one, whose calls serve it too."""
        if self.span is not None:
            self.span.set({"understudy.joined": True})
            if other.span is not None:
                self.span.span.add_link(other.span.span.get_span_context())

    def end(self, now: float, *, error: str | None, attributes: Attributes) -> None:
        """End the span of the request."""
        if self.span is not None:
            self.span.end(now, error=error, attributes=attributes)

    def _start(self, name: str, now: float, kind: Any, attributes: Attributes) -> Any:
        return self.otel.tracer.start_span(
            name, self.outer, kind, attributes, start_time=self.at(now), record_exception=False
        )
