"""Render the figures of a run: a line of progress, the live display, and the closing report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.console import Console, Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from actors.command.bad_input import one_line
from actors.command.duration import duration_text
from actors.masking import escaped

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

    from actors.command.report import Report, RunTally

BREAKER_STYLES = {"closed": "green", "half-open": "yellow", "open": "red", "isolated": "red"}


class ErrorConsole(Console):
    """The console of standard error, whose reader may go: that ends no run, and changes no exit code."""

    def on_broken_pipe(self) -> None:
        self.quiet = True


def progress_line(tally: RunTally, *, now: float) -> str:
    """Return the state of a run as one plain line."""
    states = ", ".join(
        f"{name} {provider.breaker}" + (f" ({'; '.join(provider.waits)})" if provider.waits else "")
        for name, provider in tally.providers.items()
    )
    elapsed = now - tally.started
    return f"{elapsed:.1f} s: {_figures(tally, now)}; {states}"


def live_display(tally: RunTally, *, now: float, width: int) -> RenderableType:
    """Return the state of a run as a bar over one line for each provider."""
    bar = Table.grid(padding=(0, 1))
    bar.add_row(
        ProgressBar(total=tally.requests, completed=tally.lines, width=max(10, min(40, width - 64))),
        Text(_figures(tally, now), no_wrap=True, overflow="ellipsis"),
    )
    providers = Table.grid(padding=(0, 2))
    for name, provider in tally.providers.items():
        providers.add_row(
            Text(f"  {name}"),
            Text(provider.breaker, style=BREAKER_STYLES[provider.breaker]),
            f"{provider.calls} calls",
            f"{provider.failures} failed",
            f"{provider.trips} trips",
            str(provider.spent),
            Text("; ".join(provider.waits), no_wrap=True, overflow="ellipsis"),
        )
    return Group(bar, providers)


def _figures(tally: RunTally, now: float) -> str:
    """Return how far a run is; the pace is that of the last ten seconds."""
    tally.look(now)
    ratio, left = tally.success_ratio, tally.seconds_left
    ahead = f"about {duration_text(max(1.0, round(left)))} left, " if left and tally.lines < tally.requests else ""
    return (
        f"{tally.lines}/{tally.requests}, {tally.pace:.1f}/s, {ahead}"
        f"{'-' if ratio is None else percent(ratio)} done, {tally.spent} spent"
    )


def report_text(report: Report) -> RenderableType:
    """Return the closing report."""
    facts = Table.grid(padding=(0, 2))
    facts.add_row("requests", _requests(report))
    ratio = "-" if report.success_ratio is None else percent(report.success_ratio)
    facts.add_row("success ratio", ratio)
    facts.add_row("calls made", _calls(report))
    if report.latency_p50 is not None and report.latency_p99 is not None:
        facts.add_row("latency", f"p50 {report.latency_p50:.3f} s, p99 {report.latency_p99:.3f} s")
    doubt = f", and up to ${report.in_doubt} in doubt" if report.unknown else ""
    facts.add_row("spent", f"${report.spent}{doubt}")
    facts.add_row("time", f"{report.wall:.1f} s")
    return Group(Text(), facts, providers_table(report), *_notes(report))


def providers_table(report: Report) -> Table:
    """Return a table with a row for each provider."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("provider")
    table.add_column("breaker")
    for heading in ("calls", "failed", "trips", "spent"):
        table.add_column(heading, justify="right")
    for one in report.providers:
        state = Text(one.breaker, style=BREAKER_STYLES[one.breaker])
        table.add_row(Text(one.name), state, str(one.calls), str(one.failures), str(one.trips), f"${one.spent}")
    return table


def _notes(report: Report) -> Iterator[Text]:
    """Yield what a person should know of the providers, as text: they may say what looks like markup."""
    for one in report.providers:
        if one.dear_answers:
            many = "1 answer" if one.dear_answers == 1 else f"{one.dear_answers} answers"
            yield Text(f"{one.name}: {many} above its price, the dearest ${one.dearest}; correct its listed price")
        if one.hidden_calls:
            yield Text(f"{one.name}: its client retries by itself ({one.hidden_calls} times); switch that off")
        for why in one.left:
            yield Text(escaped(one_line(why)), style="red")
        for why in one.waits:
            yield Text(f"{one.name} was held back at the end: {escaped(why)}")
        if one.last_error is not None:
            yield Text(f"{one.name} failed last with {escaped(one_line(one.last_error))}")


def _requests(report: Report) -> str:
    parts = [f"{report.requests}: {report.done} done", f"{report.failed} failed", f"{report.unknown} unknown"]
    if report.paid:
        parts.append(f"{report.paid} paid without an answer that could be had")
    if report.budget:
        parts.append(f"{report.budget} without money left for them")
    if report.before:
        parts.append(f"{report.before} were over before")
    if report.lost:
        parts.append(f"{len(report.lost)} paid and lost ({', '.join(report.lost[:5])})")
    if report.unfinished:
        # If results could not be written, an answer may have been paid for and lost.
        paid = "" if report.ending == "failed" else ", for which nothing was paid"
        parts.append(f"{report.unfinished} not begun or cut off{paid}")
    return ", ".join(parts)


def _calls(report: Report) -> str:
    return f"{report.calls}, with {report.retries} retries, {report.reroutes} reroutes and {report.trips} breaker trips"


def percent(ratio: float) -> str:
    """Return a ratio as a percentage, rounded down so that 100 % means all.

    >>> percent(1.0), percent(0.9996), percent(0.5)
    ('100.0 %', '99.9 %', '50.0 %')
    """
    return f"{int(ratio * 1000 + 1e-9) / 10:.1f} %"
