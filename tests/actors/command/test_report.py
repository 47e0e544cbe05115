"""The report: counted from events and outcomes."""

from __future__ import annotations

import functools
import io
from typing import TYPE_CHECKING

import msgspec
import pytest
from rich.console import Console

from actors import FunctionTransport, Listing, Market, Provider, to_micros
from actors.command.display import live_display, progress_line, report_text
from actors.command.providers import tolerances
from actors.command.report import Report, RunTally, percentile
from actors.events import (
    BreakerClosed,
    BreakerHalfOpened,
    BreakerOpened,
    CallEnded,
    DearAnswer,
    ProviderBack,
    ProviderLeft,
    RequestEnded,
    Rerouted,
    Retried,
)
from actors.limits.waiting import LearnedPace, Waiting
from actors.money import ZERO, Micros
from actors.supervisor import TargetStatus

if TYPE_CHECKING:
    from actors import ProviderCall


def call(request_id: str, provider: str, *, cost: int = 0, error: str | None = None) -> CallEnded:
    return CallEnded(
        request_id=request_id, provider=provider, service="s", attempt=1, latency=0.1, cost=Micros(cost), error=error
    )


def ended(
    request_id: str, *, provider: str | None = None, latency: float = 0.1, error: str | None = None
) -> RequestEnded:
    return RequestEnded(
        request_id=request_id, service="s", provider=provider, attempts=1, latency=latency, cost=Micros(0), error=error
    )


@pytest.fixture
def tally() -> RunTally:
    return RunTally(requests=4, prices={"alder": 1_000, "birch": 2_000, "free": 0}, started=100.0)


@pytest.fixture
def full(tally: RunTally) -> RunTally:
    """A run of two answers, a failure and an unknown."""
    for event in (
        call("a", "alder", error="Transient"),
        Rerouted(request_id="a", provider="birch", away_from="alder"),
        call("a", "birch", cost=2_000),
        ended("a", provider="birch", latency=3.0),
        BreakerOpened(provider="alder", wait=1.0),
        BreakerHalfOpened(provider="alder"),
        Retried(request_id="b", provider="alder", waited=0.1),
        call("b", "alder", cost=1_000),
        BreakerClosed(provider="alder"),
        ended("b", provider="alder", latency=1.0),
        ended("c", error="NoProvider"),
        call("d", "alder", error="OutcomeUnknown"),
        ended("d", error="OutcomeUnknown"),
    ):
        tally.receive(event)
    for request_id, status in (("a", "done"), ("b", "done"), ("c", "failed"), ("d", "unknown")):
        found = tally.take(request_id)
        assert found is not None
        tally.count(status, doubt=found.doubt)
    return tally


def test_a_run_comes_to_these_figures(full):
    report = full.report(now=110.0, ending="finished", budget_exhausted=False)
    assert (report.requests, report.done, report.failed, report.unknown, report.unfinished) == (4, 2, 1, 1, 0)
    assert report.success_ratio == 0.5
    assert (report.calls, report.retries, report.reroutes, report.trips) == (4, 1, 1, 1)
    assert (report.latency_p50, report.latency_p99) == (1.0, 3.0)
    assert (report.spent, report.in_doubt, report.wall) == ("0.003", "0.001", 10.0)
    alder, birch, free = report.providers
    assert (alder.breaker, alder.calls, alder.failures, alder.trips, alder.spent) == ("closed", 3, 2, 1, "0.001")
    assert (birch.calls, birch.spent, free.calls, free.spent) == (1, "0.002", 0, "0.00")


def test_dear_answers_and_what_a_provider_is_left_alone_for_are_reported_with_how_it_ends(tally):
    for charged in (1_500, 1_200):
        tally.receive(DearAnswer(request_id="a", provider="alder", listed=1_000, charged=charged))
    for provider, what in (("birch", "the key"), ("free", "its price"), ("free", "the account")):
        cause = f"{provider!r} refuses {what}:\n[red]bad; release it"
        tally.receive(ProviderLeft(provider=provider, concerns="key", what=what, cause=cause, wait=10.0))
    tally.receive(ProviderBack(provider="free", what="its price"))
    report = tally.report(now=110.0, ending="finished", budget_exhausted=False)
    alder, birch, free = report.providers
    assert (alder.dear_answers, alder.dearest, alder.left) == (2, "0.0015", ())
    assert birch.left == ("'birch' refuses the key: [red]bad; release it",)
    assert free.left == ("'free' refuses the account: [red]bad; release it",)
    out = io.StringIO()
    Console(file=out, width=200).print(report_text(report))
    assert "alder: 2 answers above its price, the dearest $0.0015; correct its listed price" in out.getvalue()
    assert "'birch' refuses the key: [red]bad; release it" in out.getvalue()


def test_a_report_is_json_that_reads_back(full):
    report = full.report(now=110.0, ending="finished", budget_exhausted=True)
    assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report


def test_before_the_first_line_there_is_no_ratio_and_no_latency(tally):
    report = tally.report(now=100.0, ending="interrupted", budget_exhausted=False)
    assert (report.success_ratio, report.latency_p50, report.unfinished, report.wall) == (None, None, 4, 0.0)


@pytest.mark.parametrize(
    ("events", "doubt"),
    [
        ([call("a", "alder", error="Cancelled")], "alder"),
        ([call("a", "alder", error="Transient")], "alder"),
        ([call("a", "free", error="Cancelled")], None),
        ([call("a", "alder", error="Throttled")], None),
        ([call("a", "alder", error="ConnectionFailed")], None),
        # What came after a held call was a repetition of it.
        ([call("a", "alder", error="Transient"), call("a", "alder", error="Throttled")], "alder"),
        ([call("a", "alder", error="Transient"), call("a", "alder", cost=1_000)], None),
        ([], None),
    ],
)
def test_a_request_that_was_cut_off_may_have_paid_whom_it_called_in_vain(tally, events, doubt):
    for event in events:
        tally.receive(event)
    tally.receive(ended("a", error="Cancelled"))
    assert {name: one.doubt for name, one in tally.take_all().items()} == {"a": doubt}
    assert tally.take("a") is None


def test_nearest_rank():
    values = [float(value) for value in range(1, 101)]
    assert [percentile(values, percent) for percent in (50, 99, 100, 0.5)] == [50.0, 99.0, 100.0, 1.0]


def test_a_line_of_progress_says_it_all(full):
    assert progress_line(full, now=110.0) == (
        "10.0 s: 4/4, 0.4/s, 50.0 % done, $0.003 spent; alder closed, birch closed, free closed"
    )


def shown(what: object, *, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(what)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [20, 60, 100, 200])
def test_the_live_display_has_a_line_for_each_provider_whatever_the_width(full, width):
    lines = shown(live_display(full, now=110.0, width=width), width=width).splitlines()
    assert max(map(len, lines)) <= width
    assert [line.split()[0] for line in lines if line.startswith("  ") and line.strip()] != []
    if width >= 60:
        assert len(lines) == 4
        assert "3 calls" in lines[1]


def test_the_text_of_a_report_names_what_matters(full):
    text = shown(report_text(full.report(now=110.0, ending="finished", budget_exhausted=False)))
    for fact in (
        "4: 2 done, 1 failed, 1 unknown",
        "50.0 %",
        "4, with 1 retries, 1 reroutes and 1 breaker trips",
        "p50 1.000 s, p99 3.000 s",
        "$0.003, and up to $0.001 in doubt",
        "10.0 s",
    ):
        assert fact in text


def test_the_text_of_an_interrupted_run_says_what_is_left(tally):
    text = shown(report_text(tally.report(now=101.0, ending="interrupted", budget_exhausted=False)))
    assert "4 not begun or cut off, for which nothing was paid" in text
    text = shown(report_text(tally.report(now=101.0, ending="failed", budget_exhausted=False)))
    assert "nothing was paid" not in text


def test_the_table_of_providers_is_followed_by_what_a_dear_answer_does():
    async def shout(call: ProviderCall) -> str:
        return call.input.upper()

    def listing(name: str, tolerance: float | None) -> Listing:
        provider = Provider(name=name, services={"s"}, price=to_micros("0.001"))
        transport = functools.partial(FunctionTransport, shout, paid=True, idempotent="no")
        return Listing(provider=provider, transport=transport, price_tolerance=tolerance)

    market = Market(providers=[listing("alder", None), listing("birch", 1.5)])
    assert tolerances(market) == (
        "A provider is left alone after an answer above 2 times its price (birch 1.5), or three above it in 10 "
        "minutes; list another price to end that."
    )


def test_retries_of_a_client_below_are_told_in_one_line(tally):
    for wire_calls in (3, 1, 2):
        tally.receive(msgspec.structs.replace(call("a", "alder"), wire_calls=wire_calls))
    report = tally.report(now=101.0, ending="finished", budget_exhausted=False)
    assert [one.hidden_calls for one in report.providers] == [3, 0, 0]
    told = [line for line in shown(report_text(report)).splitlines() if "retries by itself" in line]
    assert [line.strip() for line in told] == ["alder: its client retries by itself (3 times); switch that off"]


def test_what_holds_requests_back_is_shown_in_progress_and_report(tally):
    pace = LearnedPace(rate=80.0, refusals=2, last_at=88.0)
    waiting = (
        Waiting(reason="learned limit", evidence=pace),
        Waiting(reason="left alone", evidence="told as what it is left alone for"),
    )
    status = TargetStatus(
        provider=Provider(name="alder", services={"s"}),
        breaker="closed",
        under_way=0,
        calls=0,
        failures=0,
        trips=0,
        spent=ZERO,
        waiting=waiting,
        now=100.0,
    )
    tally.note_waits([status])
    said = "limited to 80/s since two 429s, 12 s ago"
    assert f"alder closed ({said})" in progress_line(tally, now=101.0)
    report = tally.report(now=101.0, ending="finished", budget_exhausted=False)
    assert {one.name: one.waits for one in report.providers}["alder"] == (said,)
    assert f"alder was held back at the end: {said}" in shown(report_text(report))
