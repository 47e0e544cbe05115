"""The demo: what it checks, and the whole as people see it."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from actors.command.demo.backend import DemoSettings, Stats
from actors.command.demo.demo import ProviderBooks, shortcomings
from actors.command.demo.market import demo_listings, market_file
from actors.command.demo.processes import read_port, run_providers
from actors.command.demo.tasks import SENTENCES, make_tasks
from actors.command.report import Report
from actors.command.results_file import ResultLine
from actors.market.file import parse_market

TASKS = make_tasks(100, seed=1)
RESULTS = [ResultLine(id=task.id, status="done", output=task.expected) for task in TASKS]
REPORT = Report(
    ending="finished",
    budget_exhausted=False,
    requests=100,
    done=100,
    failed=0,
    unknown=0,
    unfinished=0,
    success_ratio=1.0,
    calls=120,
    retries=5,
    reroutes=10,
    trips=1,
    latency_p50=0.1,
    latency_p99=0.2,
    spent="0.10",
    in_doubt="0.001",
    providers=(),
    wall=15.0,
)
BOOKS = [ProviderBooks(name="alder", stats=Stats(throttled=1, charged_micros=100_000), booked=100_000)]


def test_a_good_run_lacks_nothing():
    assert shortcomings(TASKS, RESULTS, REPORT, BOOKS) == []


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"success_ratio": 0.98}, "expected a success ratio of 0.99 at least, got 0.98"),
        ({"success_ratio": None}, "expected a success ratio of 0.99 at least, got None"),
        ({"trips": 0}, "no breaker tripped"),
        ({"reroutes": 0}, "no request was rerouted"),
    ],
)
def test_what_the_report_lacks_is_named(change, what):
    assert shortcomings(TASKS, RESULTS, msgspec.structs.replace(REPORT, **change), BOOKS) == [what]


@pytest.mark.parametrize(
    ("stats", "what"),
    [
        (Stats(charged_micros=100_000), "no provider answered 429"),
        (Stats(throttled=1, charged_micros=100_000, paid_twice=2), "2 requests were paid twice"),
        (Stats(throttled=1, charged_micros=99_000), "the providers charged $0.099, but $0.10 is booked"),
        (Stats(throttled=1, charged_micros=102_000), "the providers charged $0.102, but $0.10 is booked and $0.001"),
    ],
)
def test_what_the_providers_counted_otherwise_is_named(stats, what):
    books = [msgspec.structs.replace(BOOKS[0], stats=stats)]
    (found,) = shortcomings(TASKS, RESULTS, REPORT, books)
    assert found.startswith(what)


def test_what_may_have_been_charged_for_an_unknown_outcome_is_no_difference():
    books = [msgspec.structs.replace(BOOKS[0], stats=Stats(throttled=1, charged_micros=101_000))]
    assert shortcomings(TASKS, RESULTS, REPORT, books) == []


def test_a_wrong_answer_and_a_missing_line_are_named():
    wrong = [*RESULTS[:-1], msgspec.structs.replace(RESULTS[-1], output="nonsense")]
    assert shortcomings(TASKS, wrong, REPORT, BOOKS) == ["the outputs of 1 requests are wrong, the first that of 100"]
    assert shortcomings(TASKS, RESULTS[1:], REPORT, BOOKS) == [
        "expected one line of results for each of 100 requests, got 99"
    ]


def test_the_texts_are_many_and_differ_by_seed():
    assert len(set(SENTENCES)) >= 30
    assert make_tasks(300, seed=1) != make_tasks(300, seed=2)
    assert len({task.input for task in make_tasks(300, seed=1)}) > 200
    assert {task.service for task in TASKS} == {"uppercase", "word-count"}


@pytest.mark.parametrize("requests", [60, 300, 1000])
def test_the_market_of_every_size_can_be_read(requests):
    listings = demo_listings(requests, seed=7)
    market = parse_market(market_file(listings, [f"http://127.0.0.1:{port}/" for port in (1, 2, 3)]))
    assert [listing.provider.name for listing in market.providers] == ["alder", "birch", "cedar"]
    assert [listing.settings.failure_rate for listing in listings] == [0.3, 0.1, 0.01]


@pytest.mark.slow
def test_a_provider_is_gone_after_its_block_also_after_an_error():
    processes = []

    def fail() -> None:
        with run_providers([DemoSettings(name="alder"), DemoSettings(name="birch")]) as providers:
            processes.extend(provider.process for provider in providers)
            assert all(provider.stats().calls == 0 for provider in providers)
            raise ValueError("on purpose")

    with pytest.raises(ValueError, match="on purpose"):
        fail()
    assert [process.returncode for process in processes] == [0, 0]


def test_a_provider_that_does_not_start_is_named():
    with pytest.raises(OSError, match="the provider 'alder' did not start: it printed b'oops"):
        read_port(DemoSettings(name="alder"), io.BytesIO(b"oops\n"))
    assert read_port(DemoSettings(), io.BytesIO(b'{"port": 7}\n')) == 7


def descendants_of(marker: str) -> list[str]:
    """Return the commands of processes that inherited `marker` in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if marker.encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue  # It has ended, or is not ours.
    return found


def start(marker: str, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "actors.command", "demo", *options],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"UNDERSTUDY_TEST": marker},
    )


@pytest.mark.slow
@pytest.mark.real_time
def test_the_demo_shows_a_trip_and_a_reroute_and_leaves_its_files_and_no_process(tmp_path):
    marker = f"demo-{os.getpid()}-whole"
    process = start(marker, "--requests", "120", "--keep", str(tmp_path / "kept"))
    out, err = process.communicate()
    assert (process.returncode, out) == (0, ""), err
    assert "Every answer is right, nothing was paid twice, and the books agree." in err
    kept = tmp_path / "kept"
    report = msgspec.json.decode((kept / "report.json").read_bytes(), type=Report)
    assert report.done >= 119
    assert min(report.trips, report.reroutes) >= 1
    assert len((kept / "results.jsonl").read_text().splitlines()) == 120
    assert descendants_of(marker) == []


@pytest.mark.slow
@pytest.mark.real_time
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_no_process(number):
    marker = f"demo-{os.getpid()}-{number}"
    process = start(marker)
    assert process.stderr is not None
    for line in process.stderr:
        if re.match(r"\d+\.\d s: [1-9]\d*/300", line):
            break
    assert len(descendants_of(marker)) == 4
    process.send_signal(number)
    err = process.stderr.read()
    assert process.wait() == 128 + number
    assert "Traceback" not in err
    assert descendants_of(marker) == []
    process.communicate()
