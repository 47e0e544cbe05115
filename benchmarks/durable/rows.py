"""What durability costs: the journal beside plain sqlite3 with rows of equal size, and requests with and without one.

`python -m benchmarks.durable --json`
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from time import perf_counter
from typing import TYPE_CHECKING, Any, cast

from actors import FunctionTransport, Ledger, Listing, Market, Provider, Supervisor, smart_request
from actors.ledger import LedgerConfig, Reserve
from actors.ledger.book import Book
from actors.ledger.journal import MoneyJournal
from actors.ledger.saved_book import BookSaver
from actors.money import Micros
from benchmarks.harness import Row, medians, ratio_row, value_row
from runtime import ActorSystem
from runtime.persistence import GroupCommit, Retention, SqliteJournal

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Generator, Iterator

    from actors.ledger.entries import MoneyReserved
    from runtime.persistence import Safety

ENTRY = 160
"""The bytes of an entry, as one of a reservation has them."""
EACH_COMMIT = 20
"""The entries of one commit, as ten calls at once make them."""
SYNCHRONOUS = {"process": "NORMAL", "power": "FULL"}


class Files:
    """Journals of one benchmark in a directory of its own, which is on the disk that the figures are about."""

    def __init__(self, directory: str) -> None:
        self._directory = Path(directory)
        self._made = 0

    def new(self) -> str:
        self._made += 1
        return str(self._directory / f"{self._made}.journal")


def plain(path: str, safety: Safety, *, commits: int, each: int) -> float:
    """Return the rows a second that plain sqlite3 takes, with a number and so many bytes each."""
    file = sqlite3.connect(path, isolation_level=None)
    file.execute("PRAGMA journal_mode = WAL")
    file.execute(f"PRAGMA synchronous = {SYNCHRONOUS[safety]}")
    file.execute("CREATE TABLE entries (number INTEGER PRIMARY KEY, content BLOB NOT NULL)")
    begin = perf_counter()
    for number in range(commits):
        file.execute("BEGIN")
        rows = [(number * each + one + 1, os.urandom(ENTRY)) for one in range(each)]
        file.executemany("INSERT INTO entries VALUES (?, ?)", rows)
        file.execute("COMMIT")
    taken = perf_counter() - begin
    file.close()
    return commits * each / taken


def ours(path: str, safety: Safety, *, commits: int, each: int) -> float:
    """Return the entries a second that a journal takes, in as many commits."""
    journal = SqliteJournal(path, safety=safety)
    begin = perf_counter()
    for _ in range(commits):
        for _ in range(each):
            journal.append(os.urandom(ENTRY))
        journal.commit()
    taken = perf_counter() - begin
    journal.close()
    return commits * each / taken


async def latency(path: str, safety: Safety, *, count: int) -> float:
    """Return the median of the milliseconds from an append to its answer, on a loop that is half busy."""
    unused: Callable[[Any], None] = print
    commits = GroupCommit(
        SqliteJournal(path, safety=safety),
        refusal=lambda error: error,
        on_refused=unused,
        on_abandoned=unused,
        on_failure=unused,
    )
    busy = asyncio.create_task(keep_half_busy())
    found: list[float] = []
    for _ in range(count):
        begin = perf_counter()
        commits.journal.append(os.urandom(ENTRY))
        commits.schedule()
        await commits.once_written(None)
        found.append(perf_counter() - begin)
        await asyncio.sleep(0.001)
    busy.cancel()
    await commits.close()
    return statistics.median(found) * 1e3


async def keep_half_busy() -> None:
    while True:
        until = perf_counter() + 0.000_2
        while perf_counter() < until:
            pass
        await asyncio.sleep(0.000_2)


async def requests(journal: str | None, safety: Safety, *, callers: int, each: int) -> float:
    """Return the milliseconds that a request of one of so many callers takes."""

    async def answer(call: Any) -> Any:
        return call.input

    alder = Listing(
        provider=Provider(name="alder", services={"echo"}, price="0.0001"),
        transport=lambda: FunctionTransport(answer, paid=True, idempotent="no"),
    )

    async def caller() -> None:
        for number in range(each):
            await smart_request(supervisor, service="echo", input=number, budget="0.01")

    async with ActorSystem("bench", log=False) as system:
        config = LedgerConfig(safety=safety)
        ledger = system.spawn(lambda: Ledger(config, journal=journal))
        supervisor = system.spawn(lambda: Supervisor(Market(providers=[alder]), ledger=ledger))
        await smart_request(supervisor, service="echo", input="first", budget="0.01")
        begin = perf_counter()
        await asyncio.gather(*(caller() for _ in range(callers)))
        return (perf_counter() - begin) / each / callers * 1e3


def made_ledger(path: str, entries: int) -> None:
    """Write a journal of so many entries: calls that were reserved and paid, under a key each."""
    journal, book = MoneyJournal(path), Book()
    list(journal.read())
    journal.append(book.open("run", cap=None, at=1.0))
    for number in range(entries // 2):
        at = 1.8e9 + number
        wish = Reserve(key=f"request {number}", provider="alder", amount=Micros(300), accounts=("run",))
        made = cast("MoneyReserved", book.reserve(wish, at=at))
        journal.append(made)
        settled = book.book(book.reservation(made.reservation), "yes", Micros(200), at=at)
        assert settled is not None
        journal.append(settled)
        if number % 500 == 0:
            journal.commit()
    journal.commit()
    journal.close()


def start_of(path: str) -> tuple[float, float]:
    """Return the seconds of CPU that one start takes in a process of its own, and the MB."""
    command = [sys.executable, "-m", "benchmarks.durable.start", path]
    ran = subprocess.run(command, capture_output=True, check=True, text=True)  # noqa: S603 - it is this package.
    seconds, size = ran.stdout.split()
    return float(seconds), int(size) / 1e6


def write_snapshot(path: str) -> None:
    journal, book = MoneyJournal(path), Book()
    for entry in journal.read():
        book.postings.apply(entry)
    saver = BookSaver(book.postings)
    saver.prepare(sys.maxsize)
    content = saver.save()
    assert content is not None
    journal.store.save(content)
    journal.commit()
    journal.close()


def rates(files: Files, options: argparse.Namespace, scale: float) -> Iterator[Row]:
    commits: dict[Safety, int] = {"process": int(2_000 * scale), "power": int(200 * scale)}
    for safety, count in commits.items():
        found = medians(
            {
                "plain": lambda safety=safety, count=count: plain(files.new(), safety, commits=count, each=EACH_COMMIT),
                "ours": lambda safety=safety, count=count: ours(files.new(), safety, commits=count, each=EACH_COMMIT),
            },
            rounds=options.rounds,
        )
        name = f"entries a second, {safety}"
        yield ratio_row(name, found["ours"], found["plain"], "1/s", "sqlite3", ">= 0.5")


def latencies(files: Files, options: argparse.Namespace, scale: float) -> Iterator[Row]:
    bounds: dict[Safety, float] = {"process": 0.2, "power": 10.0}
    for safety, bound in bounds.items():
        found = medians(
            {safety: lambda safety=safety: latency(files.new(), safety, count=int(500 * scale))}, rounds=options.rounds
        )
        yield value_row(f"from append to commit, {safety}, p50", found[safety], "ms", f"<= {bound}")


def whole_requests(files: Files, options: argparse.Namespace, scale: float) -> Iterator[Row]:
    each = max(3, int(30 * scale))
    kinds: tuple[tuple[int, Safety], ...] = ((100, "process"), (1, "process"), (1, "power"))
    for callers, safety in kinds:
        found = medians(
            {
                "with": lambda callers=callers, safety=safety: requests(
                    files.new(), safety, callers=callers, each=each
                ),
                "without": lambda callers=callers, safety=safety: requests(None, safety, callers=callers, each=each),
                "commit": lambda safety=safety: 1e3 / plain(files.new(), safety, commits=max(20, each), each=1),
            },
            rounds=options.rounds,
        )
        name = f"request with a journal, {safety}, {callers} at once"
        if callers > 1:
            yield ratio_row(name, found["with"], found["without"], "ms", "without", "<= 1.5")
        else:
            added, commits = max(0.0, found["with"] - found["without"]), 2 * found["commit"]
            yield ratio_row(f"{name}: added", added, commits, "ms", "two commits of sqlite3", "<= 1")


def starts(files: Files, options: argparse.Namespace, scale: float) -> Iterator[Row]:
    path = files.new()
    made_ledger(path, int(1_000_000 * scale))
    found = [start_of(path) for _ in range(min(3, options.rounds))]
    yield value_row("start with 10^6 entries: CPU", min(one for one, _ in found), "s", "<= 5")
    yield value_row("start with 10^6 entries: memory", min(size for _, size in found), "MB", "<= 50")
    write_snapshot(path)
    found = [start_of(path) for _ in range(min(3, options.rounds))]
    yield value_row("start from a snapshot: CPU", min(one for one, _ in found), "s", "<= 0.5")


def keys(files: Files, options: argparse.Namespace, scale: float) -> Iterator[Row]:
    del options
    path, count = files.new(), int(1_000_000 * scale)
    journal = SqliteJournal(path, retention=Retention(heads_for=1e8, entries_bytes=100_000))
    for number in range(count):
        journal.put("shop", f"order {number}", b"paid 12345 alder", at=1.8e9)
        if number % 1_000 == 0:
            journal.commit()
            while journal.arrears >= 1.0 and journal.tend():
                pass
    journal.commit()
    journal.checkpoint(is_whole=True)
    size = Path(path).stat().st_size
    yield value_row("a key among 10^6 is found, p99", found_p99(journal, count), "ms", "<= 1")
    with upkeep(journal):
        yield value_row("a key is found during upkeep, p99", found_p99(journal, count), "ms", "<= 1")
    journal.close()
    yield value_row("the bytes of a key", size / count, "B", "<= 100")


def found_p99(journal: SqliteJournal, count: int) -> float:
    """Return the milliseconds in which 99 of 100 keys are found."""
    found: list[float] = []
    for number in range(0, count, max(1, count // 2_000)):
        begin = perf_counter()
        assert journal.find("shop", f"order {number}") is not None
        found.append(perf_counter() - begin)
    return statistics.quantiles(found, n=100)[98] * 1e3


@contextmanager
def upkeep(journal: SqliteJournal) -> Generator[None]:
    """Have a thread do the upkeep of a journal without a pause: entries go, and all keys are looked through."""
    for number in range(50_000):
        journal.append(b"%d" % number * 20)
    journal.save(b"state")
    journal.commit()
    ended = Event()

    def work() -> None:
        while not ended.is_set():
            journal.tend()

    with ThreadPoolExecutor(1) as threads:
        done = threads.submit(work)
        try:
            yield
        finally:
            ended.set()
            done.result()


GROUPS = {
    "entries a second": rates,
    "from append to commit": latencies,
    "request with a journal": whole_requests,
    "start": starts,
    "key": keys,
}


def collect(options: argparse.Namespace, *, scale: float = 1.0) -> list[Row]:
    """Measure every group of rows whose name contains what `--only` says."""
    with tempfile.TemporaryDirectory() as directory:
        files = Files(directory)
        return [
            row
            for name, group in GROUPS.items()
            if options.only in name or name in options.only
            for row in group(files, options, scale)
        ]
