"""`understudy demo`: texts go over three local model servers that fail; both sides' books are compared afterwards."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from actors.command.bad_input import BadInput
from actors.command.demo import FEWEST, MOST
from actors.command.demo.asking import BUDGET, RUN, ask_all
from actors.command.demo.books import books_table, compare, disagreements
from actors.command.demo.processes import run_servers
from actors.command.demo.servers import demo_servers
from actors.command.demo.tasks import make_tasks
from actors.command.display import report_text
from actors.command.progress import write_error

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from rich.console import Console

    from actors.command.demo.asking import DemoRun
    from actors.command.demo.books import Compared
    from actors.command.demo.servers import ModelServer
    from actors.command.demo.tasks import Task
    from actors.command.report import Report
    from actors.command.results_file import ResultLine

MIN_SUCCESS_RATIO = 0.99
RESULTS, REPORT = "results.jsonl", "report.json"
FILES = ("alder.toml", "birch.toml", "cedar.toml", RESULTS, REPORT)


def demo(console: Console, *, requests: int = 300, seed: int = 1, keep: str | None = None) -> int:
    """Run the demo; return 0 if the run showed all that it should, 1 if not, or the exit code of an interrupt.

    Raises `BadInput` for too few or too many requests, for a folder that cannot be used, and without the extra `serve`.
    """
    if not FEWEST <= requests <= MOST:
        raise BadInput(f"--requests: expected a number from {FEWEST} to {MOST}, got {requests}")
    tasks = make_tasks(requests, seed=seed)
    servers = demo_servers(requests, seed=seed)
    with _folder(keep) as folder:
        for one in servers:
            _write(folder / one.file, one.config.encode())
        try:
            code, asked, both = _run(servers, folder, tasks, seed=seed, console=console)
        except OSError as error:
            raise BadInput(str(error)) from error
        _write(folder / RESULTS, b"".join(msgspec.json.encode(line) + b"\n" for line in asked.lines))
        _write(folder / REPORT, msgspec.json.format(msgspec.json.encode(asked.report), indent=2) + b"\n")
    if code is not None:
        return code
    missing = [*shortcomings(tasks, asked.lines, asked.report, both), *disagreements(both)]
    for what in missing:
        write_error(f"error: {what}\n")
    if not missing:
        calls = sum(one.told_calls for one in both)
        console.print("Every answer is right, and the books agree:", highlight=False)
        difference = sum(float(one.difference) for one in both)
        console.print(
            f"0 <= {difference:,.2f} < {calls}: each of {calls} costs is exact, and rounded up once.", highlight=False
        )
    if keep is not None:
        console.print(f"The files are in {keep}.", highlight=False)
    return 1 if missing else 0


def _run(
    servers: Sequence[ModelServer], folder: Path, tasks: Sequence[Task], *, seed: int, console: Console
) -> tuple[int | None, DemoRun, list[Compared]]:
    with run_servers(servers, folder) as running:
        console.print("Three model servers run on this machine, each in a process of its own:", highlight=False)
        for one in running:
            console.print(f"  {one.server.name} at {one.url} {one.server.terms}:", highlight=False)
            console.print(f"    {one.server.bears}; {one.server.faults}", highlight=False)
        streams = sum(task.streams for task in tasks)
        console.print(
            f"{len(tasks)} texts go to them in about {RUN:g} s, {streams} of them as streams, within ${BUDGET}:\n",
            highlight=False,
        )
        for one in running:
            one.begin()
        asked = asyncio.run(ask_all(running, tasks, seed=seed, console=console))
        if asked.exit_code is not None:
            console.print(f"Interrupted after {len(asked.lines)} of {len(tasks)} texts.", highlight=False)
            return asked.exit_code, asked, []
        console.print(report_text(asked.report))
        both = [compare(one.server.name, one.books().calls, asked.ours[one.server.name]) for one in running]
    console.print()
    console.print(books_table(both))
    return None, asked, both


@contextmanager
def _folder(keep: str | None) -> Generator[Path]:
    """Make the folder of the files; a temporary one is gone after the block. Raises `BadInput` for one in use."""
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


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise BadInput(f"--keep: {path} cannot be written: {error.strerror}") from error


def shortcomings(
    tasks: Sequence[Task], results: Sequence[ResultLine], report: Report, both: Sequence[Compared]
) -> list[str]:
    """Return what is wrong with a run, or missing in it; nothing for a good run."""
    expected = {task.id: task.text for task in tasks}
    missing: list[str] = []
    if sorted(int(line.id or 0) for line in results) != sorted(expected):
        missing.append(f"expected one line of results for each of {len(tasks)} texts, got {len(results)}")
    wrong = [line.id for line in results if line.status == "done" and line.output != expected[int(line.id or 0)]]
    if wrong:
        missing.append(f"the answers to {len(wrong)} texts are wrong, the first that to {wrong[0]}")
    if (report.success_ratio or 0.0) < MIN_SUCCESS_RATIO:
        failed = next((line.error for line in results if line.error), "no failure is known")
        missing.append(
            f"expected a success ratio of {MIN_SUCCESS_RATIO} at least, got {report.success_ratio}; first: {failed}"
        )
    if not report.trips:
        missing.append("no breaker tripped")
    if not report.reroutes:
        missing.append("no request was rerouted")
    if not any(one.throttled for one in both):
        missing.append("no server answered 429")
    return missing
