"""`understudy run` as a process of its own, which is killed, over `understudy fake`, which counts what it charges."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMAND = (sys.executable, "-m", "actors.command")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
FAKE = """
seed = 7
idempotency = {honours}
[[models]]
name = "parrot"
price = {{ per_call = "0.01" }}
latency = 0.1
answers = [{{ kind = "echo" }}]
on_cut = "runs_on"
"""
MARKET = """
[[providers]]
name = "parrot"
kind = "compatible"
model = "parrot"
base_url = "{url}/v1"
services = ["chat"]
price = "0.01"
timeout = 60
idempotent = "{idempotent}"
"""


class KeptRun:
    """A folder with a run of so many requests."""

    def __init__(self, folder: Path, url: str, *, honours: bool, requests: int) -> None:
        self.folder, self.url, self.requests = folder, url, requests
        (folder / "market.toml").write_text(MARKET.format(url=url, idempotent="key" if honours else "no"))
        lines = ({"id": n, "service": "chat", "input": question(n)} for n in range(requests))
        (folder / "requests.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    def start(self, *options: str, first: str = "", is_quiet: bool = True) -> subprocess.Popen[bytes]:
        """Start the run, in a shell that does something else `first` if there is such a command."""
        begin = ("sh", "-c", f'{first}; exec "$@"', "sh") if first else ()
        arguments = ["run", "market.toml", "requests.jsonl", "--out", "results.jsonl", "--report", "report.json"]
        options = ("--timeout", "60", "--max-concurrency", "4", *(("--quiet",) if is_quiet else ()), *options)
        return subprocess.Popen(
            [*begin, *COMMAND, *arguments, *options], cwd=self.folder, env=ENVIRONMENT, stderr=subprocess.PIPE
        )

    def wait_for(self, process: subprocess.Popen[bytes], calls: int) -> None:
        """Wait until the provider has so many calls in all, or the run has ended."""
        while process.poll() is None and len(self.calls) < calls:
            let_run(process, 0.01)

    def kill_after(self, calls: int, pause: float) -> None:
        """Start the run, and kill it so many seconds after the provider has so many calls more; it may end before."""
        wanted = len(self.calls) + calls
        with self.start() as process:
            self.wait_for(process, wanted)
            let_run(process, pause)
            process.kill()

    def finish(self, *options: str) -> int:
        """Run it to its end, and return the exit code."""
        with self.start(*options) as process:
            process.communicate()
            return process.returncode

    @property
    def calls(self) -> list[dict[str, Any]]:
        """What the provider has done, but for answers that it has given again."""
        with urllib.request.urlopen(f"{self.url}/books") as books:  # noqa: S310 - of this machine.
            return [call for call in json.load(books)["calls"] if not call["replayed"]]

    @property
    def charged(self) -> int:
        return sum(int(call["charged_micros"]) for call in self.calls)

    @property
    def lines(self) -> list[dict[str, Any]]:
        content = (self.folder / "results.jsonl").read_bytes()
        assert content.endswith(b"\n")
        return [json.loads(line) for line in content.splitlines()]

    @property
    def report(self) -> dict[str, Any]:
        return json.loads((self.folder / "report.json").read_bytes())

    def check(self) -> Counter[str]:
        """Make sure that no request is lost or there twice, and no answer is another's; return how they have ended."""
        lines = self.lines
        assert sorted(line["id"] for line in lines) == list(range(self.requests))
        for line in lines:
            if line["status"] == "done":
                assert f"question {line['id']}." in json.dumps(line["output"])
        return Counter(line["status"] for line in lines)


def let_run(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Wait so long, or until it has ended."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)


def question(number: int) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": f"question {number}."}], "max_tokens": 20}


@contextmanager
def kept_run(folder: Path, *, honours: bool, requests: int) -> Iterator[KeptRun]:
    """Start the provider, which `honours` idempotency keys or not, for a run over it."""
    (folder / "fake.toml").write_text(FAKE.format(honours=str(honours).lower()))
    with subprocess.Popen(
        [*COMMAND, "fake", "fake.toml", "--until-eof"],
        cwd=folder,
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as provider:
        assert provider.stdout is not None
        url = json.loads(provider.stdout.readline())["url"]
        yield KeptRun(folder, url, honours=honours, requests=requests)
        provider.communicate(b"")
