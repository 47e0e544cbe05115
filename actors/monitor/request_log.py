"""The request log: one line for each event that helps to find the cause of a failed request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

from actors.events import CallEnded, Hedged, Reconciled, RequestEnded, Rerouted, Retried
from actors.monitor.tallies import CANCELLED

if TYPE_CHECKING:
    from runtime import Event

Level = Literal["DEBUG", "INFO", "WARNING", "ERROR"]


class LogLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line: `text`, and the `fields` by which lines are found and joined.

    Every line has the fields request_id, provider, attempt, latency (seconds) and error; None if the event lacks one.
    """

    level: Level
    text: str
    fields: dict[str, Any]


def line_of(event: Event) -> LogLine | None:
    """Return the line of an event; None if it has none, as for a call that succeeded.

    >>> line_of(Rerouted(request_id="r1", provider="birch", away_from="alder")).text
    'request r1 goes on to birch, away from alder'
    """
    match event:
        case CallEnded(error=str()) if event.error != CANCELLED:
            return _line(
                event,
                "WARNING",
                f"attempt {event.attempt} of request {event.request_id} failed at {event.provider} "
                f"after {event.latency:.3f} s: {reason_of(event)}",
            )
        case Retried():
            return _line(
                event,
                "INFO",
                f"request {event.request_id} is tried again with {event.provider} after {event.waited:.3f} s",
            )
        case Rerouted():
            return _line(
                event, "INFO", f"request {event.request_id} goes on to {event.provider}, away from {event.away_from}"
            )
        case Hedged():
            return _line(
                event, "INFO", f"request {event.request_id} is also sent to {event.provider}: {event.beside} is late"
            )
        case Reconciled():
            return _line(
                event,
                "INFO",
                f"the outcome of request {event.request_id} at {event.provider} is known now: {event.found}, "
                f"{event.cost}",
            )
        case RequestEnded(error=str()) if event.error != CANCELLED:
            return _line(
                event,
                "ERROR",
                f"request {event.request_id} for {event.service} failed after {event.attempts} attempts "
                f"and {event.latency:.3f} s: {reason_of(event)}",
            )
        case _:
            return None


def reason_of(event: CallEnded | RequestEnded) -> str:
    """Return the kind of failure, with the text of the error if there is one."""
    return f"{event.error}: {event.detail}" if event.detail else str(event.error)


def _line(
    event: CallEnded | RequestEnded | Retried | Rerouted | Hedged | Reconciled, level: Level, text: str
) -> LogLine:
    # Only an event that ends a call or a request has an error and a latency.
    attempt = event.attempts if isinstance(event, RequestEnded) else getattr(event, "attempt", None)
    error = reason_of(event) if isinstance(event, CallEnded | RequestEnded) else None
    return LogLine(
        level=level,
        # A provider's text may have line breaks, with which parts of it could pass for log lines.
        text=" ".join(text.split()),
        fields={
            "request_id": event.request_id,
            "provider": event.provider,
            "attempt": attempt,
            "latency": getattr(event, "latency", None),
            "error": error,
        },
    )
