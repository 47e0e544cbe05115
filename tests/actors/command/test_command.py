"""The command as people run it: a process of its own over real providers; each exit code, and what stays behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from actors.command import main
from actors.command.report import Report
from actors.fake import fake_server
from actors.fake.files import read_config
from tests.actors.command.http_providers import JsonSettings

pytestmark = [pytest.mark.slow, pytest.mark.real_time]

THREE = (
    JsonSettings(name="alder", price="0.001", failure_rate=0.3, seed=1),
    JsonSettings(name="birch", price="0.002", failure_rate=0.1, rate_limit=20, burst=5, seed=2),
    JsonSettings(name="cedar", price="0.005", failure_rate=0.01, seed=3),
)


def assert_one_error(stderr: str, *facts: str) -> None:
    assert stderr.startswith("error: ")
    assert len(stderr.splitlines()) <= 2
    assert "Traceback" not in stderr
    for fact in facts:
        assert fact in stderr


def test_all_done_is_0_with_every_answer_right_and_the_books_equal(market):
    market = market(*THREE)
    market.ask(60)
    page = ("--html", "page.html")
    done = market.run("--report", "report.json", *page, "--strategy", "cheapest", "--rate-limit", "100")
    assert (done.returncode, done.stdout) == (0, "")
    assert sorted((line["id"], line["output"]) for line in market.results) == [(n, f"TEXT {n}") for n in range(60)]
    assert {line["status"] for line in market.results} == {"done"}
    assert list(market.results[0]) == ["id", "status", "output", "provider", "cost", "attempts", "error", "key"]
    report = msgspec.convert(market.report, Report)
    assert (report.done, report.success_ratio, report.in_doubt) == (60, 1.0, "0.00")
    assert report.spent == f"{market.charged / 1_000_000:.3f}".rstrip("0")
    assert "60 of 60 requests answered" in (market.folder / "page.html").read_text(encoding="utf-8")
    assert sum(one.stats().paid_twice for one in market.providers) == 0
    assert report.calls == sum(one.stats().calls for one in market.providers)
    # Standard error is no terminal: whole lines, no escape sequences.
    assert "\x1b" not in done.stderr
    assert "\r" not in done.stderr
    assert "0/60" in done.stderr
    assert "60/60" in done.stderr
    assert "success ratio  100.0 %" in done.stderr


def test_some_failed_is_1(market):
    market = market()
    market.ask(3)
    with (market.folder / "requests.jsonl").open("a") as file:
        file.write('{"id": "odd", "service": "poetry", "input": 1}\n')
    done = market.run()
    assert done.returncode == 1
    assert {line["id"]: line["status"] for line in market.results} == {0: "done", 1: "done", 2: "done", "odd": "failed"}
    assert "1 failed" in done.stderr


def test_budget_exhausted_is_3_and_not_a_cent_over(market):
    market = market()
    market.ask(50)
    done = market.run("--budget", "0.007", "--report", "report.json")
    assert done.returncode == 3
    assert [line["status"] for line in market.results].count("done") == 7
    assert len(market.results) == 50
    assert market.charged == 7_000
    assert market.report["budget_exhausted"] is True


@pytest.mark.parametrize("options", [[], ["--budget", "1"]], ids=["alone", "with --budget"])
def test_so_it_is_where_the_market_has_the_budget(market, options):
    market = market()
    file = market.folder / "market.toml"
    file.write_text('budget = "0.007"\n' + file.read_text())
    market.ask(50)
    done = market.run(*options, "--report", "report.json")
    assert done.returncode == 3
    assert [line["status"] for line in market.results].count("done") == 7
    assert market.charged == 7_000
    assert market.report["budget_exhausted"] is True
    refused = [line["error"] for line in market.results if line["status"] == "budget"]
    assert len(refused) == 43
    assert all("of the run budget is left" in error for error in refused)


@pytest.mark.parametrize(
    ("content", "facts"),
    [
        ('{"id":1}\n{oops\n', ["/dev/stdin: line 1: service: expected"]),
        ('{"id":1,"service":"uppercase","input":"a"}\n{oops\n', ["/dev/stdin: line 2: expected a JSON object"]),
        ("", ["/dev/stdin: expected at least one request"]),
    ],
)
def test_bad_requests_are_2_and_no_provider_is_called(uncalled, content, facts):
    done = uncalled.execute("run", "market.toml", "/dev/stdin", "--out", "o.jsonl", input=content)
    assert done.returncode == 2
    assert_one_error(done.stderr, *facts)
    assert not (uncalled.folder / "o.jsonl").exists()


@pytest.fixture(params=["here", pytest.param("as a process", marks=pytest.mark.nightly)])
def execute(request, uncalled, monkeypatch, capfd):
    """Run the command in the folder of the market: in this process, and every night in one of its own."""
    if request.param == "as a process":
        return uncalled.execute

    def execute_here(*arguments):
        monkeypatch.chdir(uncalled.folder)
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        return subprocess.CompletedProcess(arguments, ended.value.code, *capfd.readouterr())

    return execute_here


@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        (["run", "market.toml", "requests.jsonl", "--out", "none/o.jsonl"], ["--out: none/o.jsonl cannot be written"]),
        (["run", "market.toml", "requests.jsonl", "--out", "o", "--report", "none/r"], ["--report: none/r cannot"]),
        (["run", "market.toml", "requests.jsonl", "--out", "o", "--report", "o"], ["--report: o is another file"]),
        (["run", "market.toml", "requests.jsonl", "--out", "requests.jsonl", "--overwrite"], ["is another file"]),
        (["run", "market.toml", "requests.jsonl", "--out", "market.toml"], ["market.toml is another file"]),
        (["run", "market.toml", "requests.jsonl", "--out", "full.txt"], ["full.txt exists", "--overwrite"]),
        (["run", "market.toml", "requests.jsonl", "--out", "o", "--budget", "-1"], ["--budget: amount '-1'"]),
        (["run", "market.toml", "requests.jsonl", "--out", "o", "--budget", "0.0000001"], ["--budget: ", "6 decimals"]),
        (["run", "market.toml", "requests.jsonl", "--out", "o", "--max-concurrency", "0"], ["--max-concurrency: "]),
        (["run", "market.toml", "requests.jsonl", "--out", "o", "--max-concurrency", "x"], ["'--max-concurrency'"]),
        (["run", "market.toml", "requests.jsonl", "--out", "o", "--strategy", "luck"], ["--strategy: expected one of"]),
        (["run", "market.toml", "requests.jsonl"], ["--out", "understudy run --help"]),
        (["run", "market.toml", "requests.jsonl", "--out", "o", "--budet", "1"], ["--budet", "understudy run --help"]),
        (["run", "none.toml", "requests.jsonl", "--out", "o"], ["none.toml: cannot be read"]),
        (["run", "bad.toml", "requests.jsonl", "--out", "o"], ["bad.toml: providers[0].price ('a', line 4): expected"]),
        (["run", "market.toml", "none.jsonl", "--out", "o"], ["none.jsonl: cannot be read"]),
        (["providers", "none.toml"], ["none.toml: cannot be read"]),
        (["providers"], ["MARKET.toml", "understudy providers --help"]),
        (["prices", "--budet"], ["--budet", "understudy prices --help"]),
        (["demo", "--requests", "3"], ["--requests: expected a number from 60 to 1000, got 3"]),
        (["demo", "--keep", "market.toml"], ["--keep: the folder market.toml cannot be made"]),
        (["demo", "--keep", "."], ["--keep: report.json exists"]),
        (["dmeo"], ["dmeo", "understudy --help"]),
    ],
)
def test_bad_input_is_2_in_one_or_two_plain_lines(uncalled, execute, arguments, facts):
    uncalled.ask(1)
    (uncalled.folder / "bad.toml").write_text(
        '[[providers]]\nname = "a"\nservices = ["s"]\nprice = 1\nurl = "http://a/"\n'
    )
    for name in ("full.txt", "report.json"):
        (uncalled.folder / name).write_text("precious")
    before = sorted(path.name for path in uncalled.folder.iterdir())
    done = execute(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert_one_error(done.stderr, *facts)
    assert sorted(path.name for path in uncalled.folder.iterdir()) == before
    assert (uncalled.folder / "full.txt").read_text() == "precious"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_leaves_whole_lines_and_its_report(market, number, code):
    market = market(JsonSettings(name="alder", price="0.001", latency=(0.05, 0.1)))
    market.ask(5_000)
    process = market.start("--report", "report.json")
    process.send_signal(number)
    out, err = process.communicate()
    assert process.returncode == code
    assert (market.first + out).endswith("\n")
    lines = [json.loads(line) for line in (market.first + out).splitlines()]
    assert {line["status"] for line in lines} <= {"done", "unknown"}
    report = market.report
    assert (report["ending"], report["done"] + report["unknown"]) == ("interrupted", len(lines))
    assert report["unfinished"] == 5_000 - len(lines)
    # What was cut off may have been paid, and nothing else was.
    charged, spent = market.charged, round(float(report["spent"]) * 1_000_000)
    assert spent <= charged <= spent + round(float(report["in_doubt"]) * 1_000_000)
    assert "interrupted" in err
    assert "not begun or cut off" in err
    assert "Traceback" not in err
    assert "warning" not in err


def test_a_run_in_the_background_of_a_script_can_be_interrupted_too(market):
    # A shell has such a command ignore SIGINT.
    market = market(JsonSettings(name="alder", price="0.001", latency=(0.05, 0.1)))
    market.ask(5_000)
    script = f"""
        {sys.executable} -m actors.command run market.toml requests.jsonl --out results.jsonl --quiet &
        until [ -s results.jsonl ]; do sleep 0.05; done
        kill -INT $!
        wait $!
    """
    done = subprocess.run(["sh", "-c", script], cwd=market.folder, check=False, capture_output=True)
    assert (done.returncode, done.stderr) == (130, b"")
    assert market.results


def test_a_second_interrupt_ends_at_once(market):
    market = market(JsonSettings(name="alder", price="0.001", latency=(0.05, 0.1)))
    market.ask(5_000)
    process = market.start()
    # The first is not handled before the second is there, because nothing runs in between.
    process.send_signal(signal.SIGSTOP)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    out, _ = process.communicate()
    assert process.returncode in {130, 143}
    assert all(json.loads(line) for line in out.splitlines())


def test_results_may_go_to_standard_output_and_quiet_says_nothing(market):
    market = market()
    market.ask(5)
    done = market.run("--quiet", out="-")
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(json.loads(line)["id"] for line in done.stdout.splitlines()) == list(range(5))


def test_a_full_disk_stops_the_run_with_1_and_its_report(market):
    market = market()
    market.ask(500)
    done = market.run("--max-concurrency", "1", out="/dev/full")
    assert done.returncode == 1
    assert "error: --out: /dev/full cannot be written: No space left on device; the run was stopped" in done.stderr
    assert "Traceback" not in done.stderr
    assert market.providers[0].stats().calls < 10


def test_a_reader_that_goes_away_stops_the_run_with_1(market):
    market = market(JsonSettings(name="alder", price="0.001", latency=(0.05, 0.1)))
    market.ask(5_000)
    process = market.start()
    process.stdout.close()
    assert process.wait() == 1
    assert "Broken pipe" in process.stderr.read()
    process.stderr.close()


def test_a_second_run_into_the_same_file_pays_again_only_if_that_is_said_twice(market):
    market = market()
    market.ask(2)
    assert market.run().returncode == 0
    assert market.run("--overwrite", "--report", "report.json").returncode == 0
    assert market.providers[0].stats().calls == 2
    assert (market.report["before"], market.report["spent"]) == (2, "0.002")
    refused = market.run("--fresh")
    assert (refused.returncode, "$0.002 was spent" in refused.stderr) == (2, True)
    assert len(market.results) == 2
    assert market.run("--fresh", "--fresh").returncode == 0
    assert len(market.results) == 2
    assert market.providers[0].stats().calls == 4


def test_providers_shows_the_market_and_is_0_only_if_all_are_healthy(market):
    market = market(*THREE)
    done = market.execute("providers", "market.toml")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("healthy") == 3
    assert "alder" in done.stdout
    assert "$0.001" in done.stdout
    with (market.folder / "market.toml").open("a") as file:
        # Bound and not listening, so that nobody else can be there.
        closed = socket.socket()
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        file.write(f'[[providers]]\nname = "gone"\nservices = ["uppercase"]\nurl = "http://127.0.0.1:{port}/"\n')
    done = market.execute("providers", "market.toml")
    closed.close()
    assert done.returncode == 1
    assert "no connection to 'gone'" in done.stdout
    assert all(one.stats().calls == 0 for one in market.providers)


@pytest.mark.parametrize("command", ["run", "providers", "demo"])
def test_help_names_every_option_with_its_unit_and_the_exit_codes(command):
    done = subprocess.run(
        [sys.executable, "-m", "actors.command", command, "--help"],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"COLUMNS": "120"},
    )
    assert done.returncode == 0
    assert "Exit codes: 0 " in done.stdout
    assert f"Example: understudy {command}" in done.stdout


def test_the_installed_command_shows_its_help_when_it_is_given_nothing():
    installed = Path(sys.executable).with_name("understudy")
    done = subprocess.run([installed], check=False, capture_output=True, text=True)
    assert done.returncode == 0
    for command in ("run", "providers", "demo"):
        assert command in done.stdout


@pytest.mark.parametrize("missing", ["rich", "typer", "aiohttp"])
def test_without_its_extra_the_command_says_how_to_get_it(missing):
    program = f"import sys; sys.modules[{missing!r}] = None; from actors.command import main; main(['demo'])"
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == f'error: the command understudy needs {missing}; write: pip install "understudy[cli]"\n'


async def test_the_example_files_work_as_they_say(tmp_path):
    examples = Path(__file__).parents[3] / "examples"
    text = (examples / "market.toml").read_text()
    config = read_config((examples / "fake.toml").read_text())
    async with fake_server(config) as alder, fake_server(msgspec.structs.replace(config, seed=2)) as birch:
        for server, port in ((alder, "8001"), (birch, "8002")):
            assert text.count(f"http://127.0.0.1:{port}/") == 1
            text = text.replace(f"http://127.0.0.1:{port}", server.url)
        (tmp_path / "market.toml").write_text(text)
        command = ["run", "market.toml", str(examples / "requests.jsonl"), "--out", "results.jsonl", "--budget", "0.05"]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "actors.command", *command, cwd=tmp_path, stderr=subprocess.PIPE
        )
        _, err = await process.communicate()
    assert process.returncode == 0, err
    results = {line["id"]: line for line in map(json.loads, (tmp_path / "results.jsonl").read_text().splitlines())}
    said = {one: line["output"]["choices"][0]["message"]["content"] for one, line in results.items()}
    assert said[1] == "The glacier has its own postcode."
    assert (said["four"], results["four"]["provider"]) == ("Coffee is served.", "birch")
    assert len(results) == 4


def test_a_reader_that_never_reads_keeps_no_run_from_its_end(market):
    market = market()
    line = {"service": "uppercase", "timeout": 600.0}
    lines = [line | {"id": number, "input": "long " * 20_000} for number in range(10)]
    (market.folder / "requests.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    process = market.start("--report", "report.json", "--max-concurrency", "1")
    process.send_signal(signal.SIGTERM)
    process.stderr.read()
    process.stdout.close()
    process.stderr.close()
    assert process.wait() == 143
    assert len(market.report["lost"]) >= 1
