"""A run as one page: whole, small, without scripts, and nothing that came from outside acts in it."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import pytest

from actors.command.app import run_app
from actors.events import BreakerClosed, BreakerHalfOpened, BreakerOpened, CallEnded, RequestEnded
from actors.money import micros_of
from actors.report import Recording, html_page
from actors.report.recording import BINS, MAX_CALLS, MAX_PROVIDERS, TimeBins
from actors.report.svg import TimeAxis

HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(1)</script>",
    "<!--",
    '" onload="alert(1)',
    "' onmouseover='x",
    "&lt;b&gt;",
    "</svg><iframe src=//evil>",
    "javascript:alert(1)",
    "\x1b[31m\x00",
    "\u202egnp",
    "\u2028\u2029",
    "]]>",
    "x" * 100_000,
]


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def call(
    request: str = "r1", provider: str = "alder", *, error: str | None = None, attempt: int = 1, latency: float = 0.1
) -> CallEnded:
    return CallEnded(
        request_id=request, provider=provider, service="s", attempt=attempt, latency=latency,
        cost=micros_of(2_000), error=error,
    )  # fmt: skip


def ended(
    request: str = "r1", *, error: str | None = None, attempts: int = 1, latency: float = 0.1, service: str = "s"
) -> RequestEnded:
    return RequestEnded(
        request_id=request, service=service, provider="alder", attempts=attempts, latency=latency,
        cost=micros_of(2_000), error=error,
    )  # fmt: skip


class Elements(HTMLParser):
    """Collects the tags, the attributes and the texts of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs


def data_in(page: str) -> dict:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_calls_breakers_limits_and_the_worst_requests_are_on_the_page():
    clock = Clock()
    recording = Recording(clock)
    for number in range(30):
        clock.now += 1.0
        recording.receive(call(f"r{number}", error="Transient" if number % 3 == 0 else None))
        if number % 3 == 0:
            recording.receive(call(f"r{number}", "birch", attempt=2, error="Throttled" if number == 6 else None))
        recording.receive(ended(f"r{number}", attempts=2 if number % 3 == 0 else 1, latency=number / 10))
    for event in (BreakerOpened(provider="alder", wait=5.0), BreakerHalfOpened(provider="alder")):
        clock.now += 5.0
        recording.receive(event)
    clock.now += 5.0
    recording.receive(BreakerClosed(provider="alder"))
    recording.note_limit("birch", 80.0)
    recording.receive(ended("lost", error="AllProvidersFailed", latency=0.01))
    page = html_page(recording, title="A run")
    data = data_in(page)
    assert (data["requests"], data["failures"], data["call_count"]) == (31, 1, 40)
    assert data["attempts"] == {"1": 21, "2": 10}
    assert data["providers"]["alder"]["breaker"] == [[35.0, "open"], [40.0, "half-open"], [45.0, "closed"]]
    assert data["providers"]["birch"]["limit"] == [[45.0, 80.0]]
    assert data["providers"]["alder"]["latency"]["p50"] == pytest.approx(0.1, rel=0.02)
    assert [one["request"] for one in data["worst"]] == ["lost", *(f"r{number}" for number in range(29, 20, -1))]
    assert "30 of 31 requests answered, 40 calls, $0.08" in page
    assert 'class="open"' in page
    assert 'class="half-open"' in page
    assert "at most 80/s" in page
    pictures = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(pictures) == 5
    for one in pictures:
        ET.fromstring(one)  # noqa: S314 - of our own making, and well-formed is what it has to be.
    ticks = [one.get("class") for one in ET.fromstring(pictures[0]) if one.get("width") == "1.5"]  # noqa: S314
    assert sorted(set(ticks)) == ["failed", "ok", "throttled"]
    assert len(ticks) == 40


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_text_is_text_everywhere(text: str):
    clock = Clock()
    recording, plain = Recording(clock), Recording(clock)
    for one, words in ((recording, text), (plain, "plain")):
        one.receive(BreakerOpened(provider=words, wait=1.0))
        one.receive(call(words, words, error=words))
        one.receive(ended(words, error=words, service=words))
        one.note_limit(words, 5.0)
    page = html_page(recording, title=text)
    found, expected = Elements(page), Elements(html_page(plain, title="plain"))
    assert found.tags == expected.tags
    assert [name for name, _ in found.attributes] == [name for name, _ in expected.attributes]
    assert len(page) < 1_500_000
    assert page.replace("\n", "").isprintable() or "\x00" not in page
    assert list(data_in(page)["providers"]) == [text]


def test_of_very_many_calls_only_sums_are_shown_and_the_page_stays_small():
    clock = Clock()
    recording = Recording(clock)
    for number in range(30_000):
        clock.now += 0.7
        recording.receive(call(f"r{number}", f"p{number % 300}", error="Transient" if number % 7 == 0 else None))
        recording.receive(ended(f"r{number}", error="AllProvidersFailed" if number % 11 == 0 else None))
    assert len(recording.calls) == MAX_CALLS
    assert len(recording.lanes) == MAX_PROVIDERS
    page = html_page(recording, title="Many")
    assert len(page.encode()) < 3_000_000
    data = data_in(page)
    assert data["calls"] == []
    assert sum(data["all"]["sums"]["done"]) + sum(data["all"]["sums"]["failed"]) == 30_000
    assert sum(data["all"]["sums"]["cost"]) == 30_000 * 2_000
    assert 'title="' not in page


def test_5000_calls_are_ticks_and_the_page_stays_small():
    clock = Clock()
    recording = Recording(clock)
    for number in range(MAX_CALLS):
        clock.now += 0.01
        recording.receive(call(f"request-{number:032}", f"provider-{number % 100}"))
    page = html_page(recording, title="5,000")
    assert page.count('width="1.5"') == MAX_CALLS
    assert len(page.encode()) < 3_000_000


def test_an_empty_run_has_a_page_too():
    page = html_page(Recording(Clock()), title="Nothing")
    assert "0 of 0 requests answered" in page
    assert data_in(page)["worst"] == []


def test_the_page_has_no_script_and_loads_nothing():
    recording = Recording(Clock())
    recording.receive(call())
    page = html_page(recording, title="x")
    assert re.findall(r"<script([^>]*)>", page) == [' type="application/json" id="data"']
    assert "default-src 'none'" in page
    assert not re.search(r"\b(?:src|href|action|url)\b\s*[=(]", page)


def test_bins_become_wider_and_lose_nothing():
    bins = TimeBins()
    for second in range(10_000):
        bins.add("x", float(second))
    assert sum(bins.of("x")) == 10_000
    assert len(bins.of("x")) == BINS
    assert bins.width * BINS > 9_999


@pytest.mark.parametrize("seconds", [0.0, 0.004, 1.0, 59.9, 86_400.0, 1e9])
def test_an_axis_of_any_length_has_few_round_ticks(seconds: float):
    axis = TimeAxis(seconds)
    assert 1 <= len(axis.ticks()) <= 10
    assert axis.x(-5.0) == axis.x(0.0) <= axis.x(seconds)


SCENARIO = """
from actors import Market, Supervisor, smart_request
from actors.simulation import BrownOut, SimulatedProvider
from runtime import ActorSystem

async def browns_out(simulation):
    simulation.inject(BrownOut(provider="alder", at=0.0, lasts=60.0, rate=0.5))
    providers = [SimulatedProvider(simulation, name, services={"s"}) for name in ("alder", "birch")]
    async with ActorSystem("s", log=False) as system:
        supervisor = system.spawn(lambda: Supervisor(Market(providers=[one.listing() for one in providers])))
        for number in range(20):
            await smart_request(supervisor, service="s", input="x")
"""


def test_a_simulation_has_a_page_and_the_same_digest_as_without(tmp_path: Path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("it.py").write_text(SCENARIO)
    assert run_app(["simulate", "it.py::browns_out", "--seed", "3", "--events", "0"]) == 0
    without = capsys.readouterr().out
    assert run_app(["simulate", "it.py::browns_out", "--seed", "3", "--events", "0", "--html", "page.html"]) == 0
    assert capsys.readouterr().out == without
    data = data_in(Path("page.html").read_text())
    assert data["requests"] == 20
    assert set(data["providers"]) <= {"alder", "birch"}
    assert run_app(["simulate", "it.py::browns_out", "--html", "page.html"]) == 2
    assert "--html" in capsys.readouterr().err
