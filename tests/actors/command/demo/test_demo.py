"""The demo: what it checks, and the whole as people see it."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from actors.command.demo.books import Compared, OurBooks, books_table, compare, disagreements
from actors.command.demo.demo import demo, shortcomings
from actors.command.demo.processes import BookedLine, read_url, run_servers
from actors.command.demo.servers import demo_servers
from actors.command.demo.tasks import SENTENCES, make_tasks
from actors.command.report import Report
from actors.command.results_file import ResultLine
from actors.ledger.entries import MoneyHeld, MoneyReleased, MoneySettled
from actors.money import Micros

TASKS = make_tasks(100, seed=1)
RESULTS = [ResultLine(id=task.id, status="done", output=task.text) for task in TASKS]
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
    in_doubt="0.00",
    providers=(),
    wall=15.0,
)
BOTH = Compared(
    name="alder",
    calls=120,
    failed=4,
    throttled=3,
    told_calls=100,
    our_told_calls=100,
    charged_told=Fraction(2_999, 3),
    booked_told=Micros(1_050),
    untold_calls=5,
    charged_untold=Fraction(1, 3),
    booked_untold=Micros(20),
)


def settled(reservation: int, cost: int, basis: str | None, corrects: int = 0) -> MoneySettled:
    return MoneySettled(
        reservation=reservation,
        key="k",
        provider="alder",
        accounts=(),
        cost=Micros(cost),
        basis=basis,
        corrects=Micros(corrects),
        at=0.0,
    )


def test_a_good_run_lacks_nothing():
    assert shortcomings(TASKS, RESULTS, REPORT, [BOTH]) == disagreements([BOTH]) == []


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"success_ratio": 0.98}, "expected a success ratio of 0.99 at least, got 0.98; first: no failure is known"),
        ({"success_ratio": None}, "expected a success ratio of 0.99 at least, got None; first: no failure is known"),
        ({"trips": 0}, "no breaker tripped"),
        ({"reroutes": 0}, "no request was rerouted"),
    ],
)
def test_what_the_report_lacks_is_named(change, what):
    assert shortcomings(TASKS, RESULTS, msgspec.structs.replace(REPORT, **change), [BOTH]) == [what]


def test_a_wrong_answer_a_missing_line_and_a_limit_that_was_not_met_are_named():
    wrong = [*RESULTS[:-1], msgspec.structs.replace(RESULTS[-1], output="nonsense")]
    assert shortcomings(TASKS, wrong, REPORT, [BOTH]) == ["the answers to 1 texts are wrong, the first that to 100"]
    missing = ["expected one line of results for each of 100 texts, got 99"]
    assert shortcomings(TASKS, RESULTS[1:], REPORT, [BOTH]) == missing
    unmet = msgspec.structs.replace(BOTH, throttled=0)
    assert shortcomings(TASKS, RESULTS, REPORT, [unmet]) == ["no server answered 429"]


@pytest.mark.parametrize(
    ("booked", "agrees"),
    [(999, False), (1_000, True), (1_099, True), (1_100, False)],
)
def test_of_n_costs_that_were_told_less_than_n_micro_dollars_more_are_booked(booked, agrees):
    both = msgspec.structs.replace(BOTH, booked_told=Micros(booked))
    expected = f"alder charged 999.67 micro-dollars for 100 calls whose usage it told, but {booked:,} are booked"
    assert disagreements([both]) == ([] if agrees else [expected])


def test_costs_that_one_side_alone_knows_are_named():
    both = msgspec.structs.replace(BOTH, our_told_calls=99)
    assert disagreements([both]) == ["alder told the usage of 100 calls, and 99 are booked so"]


def test_our_books_tell_what_was_told_from_what_was_estimated_or_is_held():
    ours = OurBooks()
    held = MoneyHeld(
        reservation=3, key="k", provider="alder", accounts=(), held=Micros(7), released=Micros(0), is_told=True, at=0.0
    )
    for entry in (settled(1, 10, "exact"), settled(2, 20, "provider"), settled(4, 5, "estimated"), held):
        ours.receive(entry)
    ours.receive(msgspec.structs.replace(held, reservation=5))
    ours.receive(MoneyReleased(reservation=5, key="k", provider="alder", accounts=(), released=Micros(7), at=0.0))
    ours.receive(msgspec.structs.replace(held, reservation=6))
    ours.receive(settled(6, 3, "exact"))
    ours.receive(settled(4, 4, "exact", corrects=5))
    assert (ours.told_calls, ours.told, ours.estimated, ours.held) == (4, 37, 0, 7)


def test_their_books_are_compared_by_what_they_told():
    whole = BookedLine(status=200, answered=True, charged="1/4000000")
    cut = BookedLine(status=200, answered=False, charged="1/2000000")
    refused = [BookedLine(status=status, answered=True, charged="0") for status in (429, 503)]
    lines = [whole, whole, cut, *refused]
    found = compare("alder", lines, OurBooks())
    assert (found.calls, found.failed, found.throttled, found.told_calls) == (5, 1, 1, 2)
    assert (found.charged_told, found.charged_untold, found.untold_calls) == (Fraction(1, 2), Fraction(1, 2), 1)


def test_the_table_of_both_books_fits_a_terminal_of_100_columns():
    console = Console(file=io.StringIO(), width=100)
    large = msgspec.structs.replace(
        BOTH, calls=1_000, told_calls=1_000, charged_told=Fraction(98_765_432, 100), booked_told=Micros(988_000)
    )
    console.print(books_table([BOTH, large]))
    told = console.file.getvalue()  # type: ignore[attr-defined]
    assert "…" not in told
    assert "987,654.32" in told


def test_the_texts_are_many_and_differ_by_seed():
    assert len(set(SENTENCES)) >= 30
    assert make_tasks(300, seed=1) != make_tasks(300, seed=2)
    texts = [task.text for task in make_tasks(300, seed=1)]
    assert len(set(texts)) == 300
    assert sum(task.streams for task in TASKS) == 33


@pytest.mark.parametrize("requests", [60, 300, 1000])
def test_the_servers_differ_in_price_window_limits_and_faults_whatever_the_size(requests):
    servers = demo_servers(requests, seed=7)
    models = [server.settings.models[0] for server in servers]
    assert [server.listing("http://127.0.0.1:1").provider.name for server in servers] == ["alder", "birch", "cedar"]
    assert len({model.price for model in models}) == len({server.settings.dialect for server in servers}) == 3
    assert len({model.context_window for model in models}) == len({model.limits for model in models}) == 2
    # Some texts are too long for one window, and none for the others.
    longest = max(len(task.text) // 2 for task in make_tasks(requests, seed=7))
    assert models[0].context_window < longest < models[1].context_window
    assert all(one.settings.plan.faults for one in servers)


@pytest.mark.slow
def test_a_server_is_gone_after_its_block_also_after_an_error(tmp_path):
    processes = []

    def fail() -> None:
        for one in demo_servers(60, seed=1):
            (tmp_path / one.file).write_text(one.config)
        with run_servers(demo_servers(60, seed=1), tmp_path) as servers:
            processes.extend(server.process for server in servers)
            servers[0].begin()
            assert all(server.books().calls == () for server in servers)
            raise ValueError("on purpose")

    with pytest.raises(ValueError, match="on purpose"):
        fail()
    assert [process.returncode for process in processes] == [0, 0, 0]


def test_a_server_that_does_not_start_is_named():
    with pytest.raises(OSError, match="the server 'alder' did not start: oops"):
        read_url("alder", io.BytesIO(b"oops\n"))
    with pytest.raises(OSError, match="the server 'alder' did not start: error: no such port"):
        read_url("alder", io.BytesIO(), io.BytesIO(b"error: no such port\n"))
    assert read_url("alder", io.BytesIO(b'{"url": "http://127.0.0.1:7"}\n')) == "http://127.0.0.1:7"


def test_files_of_another_demo_are_kept(tmp_path):
    (tmp_path / "report.json").write_text("mine")
    with pytest.raises(Exception, match=r"--keep: .*report.json exists; name another folder"):
        demo(Console(file=io.StringIO()), keep=str(tmp_path))
    assert (tmp_path / "report.json").read_text() == "mine"


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
def test_the_demo_shows_a_trip_and_a_reroute_compares_the_books_and_leaves_its_files_and_no_process(tmp_path):
    marker = f"demo-{os.getpid()}-whole"
    process = start(marker, "--requests", "120", "--keep", str(tmp_path / "kept"))
    out, err = process.communicate()
    assert (process.returncode, out) == (0, ""), err
    assert "Every answer is right, and the books agree:" in err
    kept = tmp_path / "kept"
    report = msgspec.json.decode((kept / "report.json").read_bytes(), type=Report)
    assert report.done >= 119
    assert min(report.trips, report.reroutes) >= 1
    assert len((kept / "results.jsonl").read_text().splitlines()) == 120
    assert sorted(path.name for path in kept.glob("*.toml")) == ["alder.toml", "birch.toml", "cedar.toml"]
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
    assert re.search(r"Interrupted after \d+ of 300 texts.", err)
    assert "Traceback" not in err
    assert descendants_of(marker) == []
    process.communicate()
