"""Traces by OpenTelemetry's API: which requests are recorded, what they are part of, and who is told of it."""

from __future__ import annotations

import random
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from actors.tracing.conventions import Conventions, conventions_of
from actors.tracing.hops import HopSpans
from actors.tracing.span_api import SpanApi
from actors.tracing.spans import TracedRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

ASKERS_CONTEXT: ContextVar[Any] = ContextVar("understudy_askers_context", default=None)
"""OpenTelemetry's context at the asker of the request that is handled; None if it has no current span."""
NOTHING: tuple[tuple[ContextVar[Any], Any], ...] = ()
SAMPLED = 0x01
"""The flag of a span that is recorded (W3C Trace Context, section 3.2.2.5.1)."""


class Tracing:
    """Records requests as traces, by the tracer that the program has set up; give it to `Supervisor(tracing=)`.

    A request is one trace, or part of that which it came with: a `traceparent` at the front door, the `trace` of its
    options, or the span that is current for its asker. Then it is recorded if that is. Of the others, a share of
    `sample` (1.0 for all, 0.01 for one in a hundred) is recorded; to let the program's own sampler decide, leave it at
    1.0, which costs a request more. `provider` is the tracer provider (None: the program's global one), and
    `conventions` are `OLD` or `LATEST` names for calls of models (None: as OTEL_SEMCONV_STABILITY_OPT_IN says).

    A span never has a prompt, an answer, a key, or what a provider said. Raises ImportError without the extra `otel`.

    >>> tracing = Tracing(sample=0.01, conventions=LATEST)  # doctest: +SKIP
    >>> supervisor = system.spawn(lambda: Supervisor(market, tracing=tracing))  # doctest: +SKIP
    """

    def __init__(self, *, sample: float = 1.0, provider: Any = None, conventions: Conventions | None = None) -> None:
        if not isinstance(sample, int | float) or not 0 <= sample <= 1:
            raise ValueError(f"sample must be a share of the requests from 0 to 1, got {sample!r:.100}")
        self.sample = sample
        self._otel = SpanApi(provider, conventions_of() if conventions is None else conventions)

    def take_along(self) -> tuple[tuple[ContextVar[Any], Any], ...]:
        """Return what a request takes along of its asker's context (see `Actor.take_along`)."""
        current = self._otel.contexts.get_current()
        return ((ASKERS_CONTEXT, current),) if current else NOTHING

    def begin(
        self, service: str, now: float, *, trace: Mapping[str, str] | None, request_id: str, account: str | None
    ) -> TracedRequest | None:
        """Begin the trace of a request that came with the headers `trace`; None if nothing is to be told of it.

        There are three cases: 1. It is part of no trace. 2. It is part of one that is not recorded. 3. Of one that is.
        """
        otel = self._otel
        outer = ASKERS_CONTEXT.get() if trace is None else otel.extract(trace, otel.contexts.Context())
        around: Any = None if outer is None else otel.api.get_current_span(outer)
        parent = None if around is None else around.get_span_context()
        if parent is None or not parent.is_valid:
            if self.sample < 1 and random.random() >= self.sample:
                return None  # 1.
            outer = otel.contexts.Context() if outer is None else outer
        request = TracedRequest(otel, now, outer)
        if parent is not None and parent.is_valid and not parent.trace_flags & SAMPLED:
            request.passed_on = around  # 2.
            return request
        kinds = otel.api.SpanKind
        kind = kinds.INTERNAL if trace is None else kinds.SERVER
        attributes = {"understudy.request_id": request_id, "understudy.service": service}
        if account is not None:
            attributes["understudy.account"] = account
        request.begin(f"request {service}", now, kind=kind, attributes=attributes)  # 3.
        return request

    def hops(self) -> HopSpans:
        """Return an interceptor by which each request that an actor asks another has a span too.

        Give it to `ActorSystem(propagate=True, interceptors=[tracing.hops()])`: without `propagate`, no actor knows
        what it is asked within, and there are none.
        """
        return HopSpans(self._otel, ASKERS_CONTEXT)

    def __repr__(self) -> str:
        return f"<Tracing of {self.sample:.3g} of the requests, {self._otel}>"
