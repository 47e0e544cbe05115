"""The request log: one line for each attempt, and for what is done about those that fail.

The line of the request itself is the supervisor's, which writes it without a monitor too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

from actors.events import CallEnded, Hedged, Reconciled, Rerouted, Retried
from actors.monitor.tallies import CANCELLED

if TYPE_CHECKING:
    from runtime import Event

Level = Literal["DEBUG", "INFO", "WARNING", "ERROR"]


class LogLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line: `text`, and the `fields` by which lines are found and joined.

    Every line has the fields request_id, provider, attempt, latency (seconds), cost (micro-units) and error; None if
    the event lacks one.
    """

    level: Level
    text: str
    fields: dict[str, Any]


def line_of(event: Event) -> LogLine | None:
    """Return the line of an event; None if it has none. An attempt that succeeded, or was given up, is at DEBUG.

    >>> line_of(Rerouted(request_id="r1", provider="birch", away_from="alder")).text
    'request r1 goes on to birch, away from alder'
    """
    match event:
        case CallEnded():
            return _line_of_attempt(event)
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
        case _:
            return None


def reason_of(event: CallEnded) -> str:
    """Return the kind of failure, with the text of the error if there is one."""
    return f"{event.error}: {event.detail}" if event.detail else str(event.error)


def _line_of_attempt(event: CallEnded) -> LogLine:
    attempt = f"attempt {event.attempt} of request {event.request_id}"
    taken = f"after {event.latency:.3f} s"
    if event.error is None:
        return _line(event, "DEBUG", f"{attempt} answered by {event.provider} {taken}, {event.cost}")
    if event.error == CANCELLED:
        return _line(event, "DEBUG", f"{attempt} was given up at {event.provider} {taken}")
    return _line(event, "WARNING", f"{attempt} failed at {event.provider} {taken}: {reason_of(event)}")


def _line(event: CallEnded | Retried | Rerouted | Hedged | Reconciled, level: Level, text: str) -> LogLine:
    is_attempt = isinstance(event, CallEnded)
    return LogLine(
        level=level,
        # A provider's text may have line breaks, with which parts of it could pass for log lines.
        text=" ".join(text.split()),
        fields={
            "request_id": event.request_id,
            "provider": event.provider,
            "attempt": getattr(event, "attempt", None),
            "latency": event.latency if is_attempt else None,
            "cost": getattr(event, "cost", None),
            "error": reason_of(event) if is_attempt and event.error is not None else None,
        },
    )
