"""What is told of a request by its spans, if it is traced: its calls, its waits and its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from actors.money import ZERO
from actors.supervisor.pipeline.under_way import Look

if TYPE_CHECKING:
    from actors.supervisor.messages import SmartResult
    from actors.supervisor.pipeline.deps import Deps
    from actors.supervisor.pipeline.job import Job
    from actors.supervisor.targets.target import Target
    from actors.tracing.spans import CallSpan, Span, TracedRequest
    from actors.transports.transport import ProviderCall


def begin_call(
    trace: TracedRequest, job: Job, target: Target, call: ProviderCall, *, started: float, reserved: int
) -> tuple[CallSpan | None, ProviderCall]:
    """Begin the span of a call, and return it with the call, which tells its provider of it."""
    attributes: dict[str, Any] = {
        "understudy.provider": target.name,
        "understudy.attempt": job.calls,
        "understudy.reserved": reserved,
    }
    span = trace.call(call, started, called=target.called, attributes=attributes)
    return span, msgspec.structs.replace(call, trace=trace.headers(span))


def begin_wait(deps: Deps, job: Job, *, reason: str | None = None) -> Span | None:
    """Begin the span of a wait, by its reason or what the request waits for first; None if it is not recorded."""
    if job.trace is None or job.trace.span is None:
        return None
    if reason is not None:
        return job.trace.wait(reason, deps.context.now(), {})
    found = Look(deps, {}).waits(job)
    if not found:
        return None
    first = found[0]
    attributes = {} if first.provider is None else {"understudy.provider": first.provider}
    return job.trace.wait(first.reason, deps.context.now(), {**attributes, "understudy.before": first.before})


def end_request(trace: TracedRequest, job: Job, result: SmartResult | None, error: str | None, now: float) -> None:
    """End the span of a request, with what has come of it: by its result, or with the kind of its error."""
    served = job if job.served is None else job.served
    charges = served.possible_charges()
    held = sum((one.amount for one in charges), ZERO) if charges else ZERO
    attributes: dict[str, Any] = {"understudy.attempts": job.calls, "understudy.held": held}
    if job.message.idempotency_key is not None:
        attributes["understudy.key"] = served.provider_key
    if result is not None:
        attributes |= {
            "understudy.outcome": "done",
            "understudy.provider": result.provider,
            "understudy.cost": result.cost,
        }
        if result.replayed:
            attributes |= {"understudy.replayed": True, "understudy.paid": result.paid}
    else:
        outcome = "unknown" if held else "cancelled" if error == "Cancelled" else "failed"
        attributes |= {"understudy.outcome": outcome, "understudy.cost": job.cost}
    trace.end(now, error=error, attributes=attributes)
