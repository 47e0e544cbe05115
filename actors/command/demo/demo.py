"""`understudy demo`: a real run over three local providers that fail, with every answer and cent checked afterwards."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from rich import box
from rich.table import Table

from actors.command.bad_input import BadInput
from actors.command.demo import FEWEST, MOST
from actors.command.demo.market import RUN, demo_listings, market_file
from actors.command.demo.processes import DemoProcess, run_providers
from actors.command.demo.tasks import Task, make_tasks
from actors.command.plan import Options, Plan
from actors.command.progress import write_error
from actors.command.requests_file import read_requests
from actors.command.results_file import OutputFile, ResultLine
from actors.command.run import make_run
from actors.market.file import load_market
from actors.money import to_micros, usd

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from rich.console import Console

    from actors.command.demo.backend import Stats
    from actors.command.report import Report

MIN_SUCCESS_RATIO = 0.99
FILES = ("market.toml", "requests.jsonl", "results.jsonl", "report.json")


class ProviderBooks(msgspec.Struct, frozen=True, kw_only=True):
    """The counters of one provider, and the micro-units that the run booked for it."""

    name: str
    stats: Stats
    booked: int


def demo(console: Console, *, requests: int = 300, seed: int = 1, keep: str | None = None) -> int:
    """Run the demo; return 0 if the run showed all that it should, 1 if not, or another exit code of the run.

    Raises `BadInput` for too few or too many requests, and for a folder that cannot be used.
    """
    if not FEWEST <= requests <= MOST:
        raise BadInput(f"--requests: expected a number from {FEWEST} to {MOST}, got {requests}")
    tasks = make_tasks(requests, seed=seed)
    listings = demo_listings(requests, seed=seed)
    with _folder(keep) as folder, run_providers([listing.settings for listing in listings]) as providers:
        _write_inputs(folder, market_file(listings, [provider.url for provider in providers]), tasks)
        console.print("Three providers are running on this machine:")
        for listing, provider in zip(listings, providers, strict=True):
            console.print(f"  {listing.settings.name} ({provider.url}) {listing.description}", highlight=False)
        console.print(f"{requests} requests go to them in about {RUN:g} s:\n", highlight=False)
        code, report = _run(folder, console, requests=requests, seed=seed)
        books = _books(providers, report)
        results = (folder / "results.jsonl").read_bytes()
    console.print(books_table(books))
    if code not in {0, 1}:
        return code
    missing = shortcomings(tasks, msgspec.json.Decoder(ResultLine).decode_lines(results), report, books)
    for what in missing:
        write_error(f"error: {what}\n")
    if not missing:
        console.print("Every answer is right, nothing was paid twice, and the books agree.")
    if keep is not None:
        console.print(f"The files are in {folder}.", highlight=False)
    return 1 if missing else 0


def _run(folder: Path, console: Console, *, requests: int, seed: int) -> tuple[int, Report]:
    market, lines, out, report = (str(folder / name) for name in FILES)
    plan = Plan(
        market=load_market(market),
        requests=tuple(read_requests(lines)),
        options=Options(max_concurrency=50, rate_limit=requests / RUN, strategy="cheapest", seed=seed),
    )
    with OutputFile("--out", out) as results, OutputFile("--report", report) as report_file:
        return make_run(plan, results=results, report=report_file, console=console)


@contextmanager
def _folder(keep: str | None) -> Generator[Path]:
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="understudy-demo-") as folder:
            yield Path(folder)
        return
    folder = Path(keep)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"--keep: the folder {keep} cannot be made: {error.strerror}") from error
    for name in FILES:
        if (folder / name).exists():
            raise BadInput(f"--keep: {folder / name} exists; name another folder")
    yield folder


def _write_inputs(folder: Path, market: str, tasks: Sequence[Task]) -> None:
    try:
        (folder / "market.toml").write_text(market, encoding="utf-8")
        (folder / "requests.jsonl").write_bytes(b"".join(msgspec.json.encode(task) + b"\n" for task in tasks))
    except OSError as error:
        raise BadInput(f"--keep: {error.filename} cannot be written: {error.strerror}") from error


def _books(providers: Sequence[DemoProcess], report: Report) -> list[ProviderBooks]:
    booked = {one.name: to_micros(one.spent) for one in report.providers}
    return [
        ProviderBooks(name=one.settings.name, stats=one.stats(), booked=booked[one.settings.name]) for one in providers
    ]


def books_table(books: Sequence[ProviderBooks]) -> Table:
    """Return a table of the providers' counters beside the amounts that the run booked."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title="What the providers counted", title_justify="left")
    table.add_column("provider")
    for heading in ("calls seen", "failed", "throttled", "answered again", "charged", "we booked", "paid twice"):
        table.add_column(heading, justify="right")
    for one in books:
        stats = one.stats
        counts = (stats.calls, stats.failures, stats.throttled, stats.replayed)
        money = (f"${usd(stats.charged_micros)}", f"${usd(one.booked)}")
        table.add_row(one.name, *map(str, counts), *money, str(stats.paid_twice))
    return table


def shortcomings(
    tasks: Sequence[Task], results: Sequence[ResultLine], report: Report, books: Sequence[ProviderBooks]
) -> list[str]:
    """Return what is wrong with a run, or missing in it; nothing for a good run."""
    expected = {task.id: task.expected for task in tasks}
    missing: list[str] = []
    if sorted(str(line.id) for line in results) != sorted(map(str, expected)):
        missing.append(f"expected one line of results for each of {len(tasks)} requests, got {len(results)}")
    wrong = [line.id for line in results if line.status == "done" and line.output != expected[int(line.id)]]
    if wrong:
        missing.append(f"the outputs of {len(wrong)} requests are wrong, the first that of {wrong[0]}")
    if (report.success_ratio or 0.0) < MIN_SUCCESS_RATIO:
        missing.append(f"expected a success ratio of {MIN_SUCCESS_RATIO} at least, got {report.success_ratio}")
    if not report.trips:
        missing.append("no breaker tripped")
    if not report.reroutes:
        missing.append("no request was rerouted")
    if not any(one.stats.throttled for one in books):
        missing.append("no provider answered 429")
    if twice := sum(one.stats.paid_twice for one in books):
        missing.append(f"{twice} requests were paid twice")
    # The cost of a request of unknown outcome is in the books of its provider only.
    charged, booked = sum(one.stats.charged_micros for one in books), sum(one.booked for one in books)
    if not booked <= charged <= booked + to_micros(report.in_doubt):
        missing.append(
            f"the providers charged ${usd(charged)}, but ${usd(booked)} is booked and ${report.in_doubt} in doubt"
        )
    return missing
