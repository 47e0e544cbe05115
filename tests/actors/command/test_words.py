"""What a provider says is shown by the command as text: in its report, its results and its table of providers."""

from __future__ import annotations

import io
import json

import msgspec
from loguru import logger
from rich.console import Console

from actors.batch import Failed, Unknown
from actors.command.display import live_display, report_text
from actors.command.progress import PlainProgress, logging_to
from actors.command.providers import CheckResult, providers_table
from actors.command.report import RunTally
from actors.command.results_file import result_line
from actors.errors import AllProvidersFailed, Attempt, OutcomeUnknown, Permanent
from actors.events import CallEnded
from actors.market import Listing
from actors.monitor.request_log import line_of
from actors.providers import Provider
from actors.transports import FunctionTransport
from runtime import logger_for

SAID = r"[red]maximum[/red] {0} {message} <b>context</b> \x1b[31m"
NAME = "al[bold]der"


def failed_call() -> CallEnded:
    error = Permanent(f"{NAME!r} answered 400 Bad Request", provider=NAME, said=SAID)
    return CallEnded(
        request_id="r1",
        provider=NAME,
        service="read",
        attempt=1,
        latency=0.1,
        cost=0,
        error=error.kind,
        detail=str(error),
    )


def printed(*shown: object) -> str:
    console = Console(file=io.StringIO(), width=300, force_terminal=True, color_system=None)
    console.print(*shown)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_report_shows_the_last_failure_of_each_provider_as_text():
    tally = RunTally(requests=1, prices={NAME: 0, "birch": 0}, started=0.0)
    tally.receive(failed_call())
    report = tally.report(now=1.0, ending="finished", budget_exhausted=False)
    words = f"Permanent: '{NAME}' answered 400 Bad Request: {SAID}"
    assert [one.last_error for one in report.providers] == [words, None]
    assert f"{NAME} failed last with {words}" in printed(report_text(report))
    assert NAME in printed(live_display(tally, now=1.0, width=100))
    assert json.loads(msgspec.json.encode(report))["providers"][0]["last_error"] == words


def test_a_line_of_results_has_the_words_of_each_failure():
    attempt = Attempt(provider="alder", error=f"no: {SAID}", kind="Transient", started=0, latency=1, said=SAID)
    for outcome in (
        Failed(0, 1, Permanent("no", said=SAID)),
        Failed(0, 1, AllProvidersFailed("read", attempts=[attempt])),
        Unknown(0, 1, OutcomeUnknown("no", said=SAID)),
    ):
        line = result_line(1, outcome, cost=0, attempts=1)
        assert line.error is not None
        assert line.error.endswith(f"no: {SAID}")


def test_the_table_of_providers_shows_a_problem_and_names_as_text():
    async def never(_call: object) -> None: ...

    listing = Listing(
        provider=Provider(name=NAME, services={"re[blink]ad"}),
        transport=lambda: FunctionTransport(never, paid=False, idempotent="no"),
    )
    text = printed(providers_table([listing], [CheckResult(0.1, SAID)]))
    for words in (SAID, NAME, "re[blink]ad"):
        assert words in text


def test_a_log_line_is_no_format_string_and_no_markup():
    written: list[str] = []
    sink = logger.add(written.append, level=0, colorize=True, format="{message}")
    line = line_of(failed_call())
    assert line is not None
    logger_for("monitor").bind(**line.fields).log(line.level, "{}", line.text)
    logger.remove(sink)
    assert SAID in written[0]


def test_a_log_line_of_the_command_acts_on_no_terminal():
    lines: list[str] = []
    with logging_to(PlainProgress(lines.append), is_stopping=lambda: False):
        logger_for("a").opt(exception=OSError("two\nlines \x1b[2J")).error("it failed: {}", "\x1b[31m")
    assert lines == ["error: it failed: \\x1b[31m: OSError: two; lines \\x1b[2J\n"]
