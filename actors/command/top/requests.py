"""The requests of the terminal: what each waits for and until when, those that failed, and the way of one. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from actors.command.top.formats import dollars, latency, plain, row, span
from actors.command.top.lines import Moment, ScreenLine, ScreenSubject, empty, heading, wait_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actors.dashboard.view import RequestRow, StepRow, TraceRow

MOST = 200
"""The requests that are listed of each kind."""
LANE = 40
"""The cells of a whole request in its timeline."""


def requests(moment: Moment, looked_at: str | None) -> list[ScreenLine]:
    """Return the lines of the requests; the way of one stands above them, if it is looked at."""
    lines: list[ScreenLine] = []
    if looked_at is not None:
        lines += [*timeline(moment, looked_at), ScreenLine(Text(""))]
    return [*lines, *under_way(moment), ScreenLine(Text("")), *ended(moment)]


def under_way(moment: Moment) -> list[ScreenLine]:
    """Return the requests under way, the oldest first, and what they wait for."""
    total = moment.view.totals.get("")
    waits = sorted((total.waits if total else {}).items(), key=lambda one: -one[1])
    said = ", ".join(f"{many:,} for {reason}" for reason, many in waits)
    count = total.under_way if total else 0
    lines = [
        ScreenLine(plain(f"{count:,} under way; {f'waiting: {said}' if said else 'none waits'}", "bold")),
        _heads(("request", 24), ("service", 14), ("account", 14), ("since", -8), ("left", -8), ("waits for", 0)),
    ]
    rows = sorted(moment.view.requests.items(), key=lambda one: one[1].since)[:MOST]
    lines += [ScreenLine(_under_way(one, moment.now), ScreenSubject("request", one.request_id)) for _, one in rows]
    return lines if rows else [*lines, empty("No request is under way.")]


def _heads(*columns: tuple[str, int]) -> ScreenLine:
    cells = [(name, width or len(name), "bold underline") for name, width in columns]
    return ScreenLine(row(*cells))


def _under_way(one: RequestRow, now: float) -> Text:
    if one.waiting:
        waits = wait_text(one.waiting[0], now)
        waits = f"{one.waiting[0].provider}: {waits}" if one.waiting[0].provider else waits
    else:
        waits = f"the answer of {one.provider}" if one.provider else "-"
    return row(
        (one.request_id, 24),
        (one.service, 14),
        (one.account or "-", 14),
        (span(now - one.since), -8),
        ("-" if one.deadline is None else span(one.deadline - now), -8),
        plain(waits, "yellow" if one.waiting else ""),
    )


def ended(moment: Moment) -> list[ScreenLine]:
    """Return the requests that failed or took more than one call, the last first."""
    columns = (("request", 24), ("service", 14), ("steps", -5), ("took", -8), ("cost", -10), ("outcome", 0))
    lines = [ScreenLine(plain("failed, or took more than one call", "bold")), _heads(*columns)]
    rows = sorted(moment.view.traces.values(), key=lambda one: -(one.ended or 0.0))[:MOST]
    for one in rows:
        told = row(
            (one.request_id, 24),
            (one.service, 14),
            (str(len(one.steps)), -5),
            (latency((one.ended or moment.now) - one.began), -8),
            (dollars(one.cost), -10),
            plain(_outcome(one), "red" if one.error else ""),
        )
        lines.append(ScreenLine(told, ScreenSubject("request", one.request_id)))
    return lines if rows else [*lines, empty("None so far.")]


def _outcome(one: TraceRow) -> str:
    if one.error:
        return f"{one.error}{f': {one.words}' if one.words else ''}"
    if one.ended is None:
        return "under way"
    return f"answered by {one.provider}"


def timeline(moment: Moment, request_id: str) -> list[ScreenLine]:
    """Return the way of one request, attempt by attempt."""
    trace = moment.view.trace
    lines = [heading(f"the way of {request_id}")]
    if trace is None or trace.request_id != request_id:
        return [*lines, empty("Nothing is known yet of its steps.")]
    end = trace.ended if trace.ended is not None else moment.now
    took = f"{_outcome(trace)}, after {latency(max(0.0, end - trace.began))}, {dollars(trace.cost)}"
    lines.append(ScreenLine(row((trace.service, 16), plain(took, "red" if trace.error else "bold"))))
    lines += [ScreenLine(text) for text in _steps(trace, end)]
    return lines


def _steps(trace: TraceRow, end: float) -> Iterator[Text]:
    length = max(end - trace.began, 0.001)
    for step in trace.steps:
        said = f"{step.error}{f': {step.words}' if step.words else ''}" if step.error else step.words or ""
        yield row(
            (latency(max(0.0, step.at - trace.began)), -8),
            (step.kind, 10),
            (step.provider, 16),
            _lane(step, trace.began, length),
            (dollars(step.cost) if step.cost else "", -10),
            plain(said, "red" if step.error else "dim"),
        )


def _lane(step: StepRow, began: float, length: float) -> Text:
    last = _place(step.at - began, length)
    first = _place(step.at - step.latency - began, length)
    mark = "█" if step.kind == "call" else "·"
    made = Text("─" * first, style="dim", end="")
    made.append(mark * (last - first + 1), style="red" if step.error else "green")
    return made.append("─" * (LANE - last - 1), style="dim")


def _place(seconds: float, length: float) -> int:
    """Return the cell of a time since the beginning; clocks and roundings lead to no cell outside."""
    return max(0, min(LANE - 1, int(seconds / length * LANE)))
