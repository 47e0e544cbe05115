"""Real providers with a market file, and the command as a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from tests.actors.command.http_providers import HttpProvider, JsonSettings, run_providers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path


COMMAND = (sys.executable, "-m", "actors.command")
# A machine that is busy makes good providers slow, and none of them may be given up for it.
PATIENCE = 600.0
POLICIES = """
[retry]
max_retries = 8
base = 0.02
cap = 0.2
[breaker]
failure_rate = 0.8
open_for = 0.2
max_open_for = 0.4
"""


class Market:
    """Providers that run, in the folder of the test: market.toml, requests.jsonl, results.jsonl, report.json."""

    def __init__(self, folder: Path, providers: Sequence[HttpProvider]) -> None:
        self.folder = folder
        self.providers = providers
        sections = [
            f'[[providers]]\nname = "{one.settings.name}"\nservices = ["uppercase"]\nprice = "{one.settings.price}"\n'
            f'url = "{one.url}"\nidempotent = "key"\ntimeout = {PATIENCE}\n'
            for one in providers
        ]
        (folder / "market.toml").write_text("\n".join([*sections, POLICIES]))

    def ask(self, count: int, **fields: Any) -> None:
        """Write so many requests."""
        line = {"service": "uppercase", "timeout": PATIENCE}
        lines = [line | {"id": number, "input": f"text {number}"} | fields for number in range(count)]
        (self.folder / "requests.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    @property
    def results(self) -> list[dict[str, Any]]:
        content = (self.folder / "results.jsonl").read_text()
        assert not content or content.endswith("\n")
        return [json.loads(line) for line in content.splitlines()]

    @property
    def report(self) -> dict[str, Any]:
        return json.loads((self.folder / "report.json").read_text())

    @property
    def charged(self) -> int:
        return sum(one.stats().charged_micros for one in self.providers)

    def run(self, *options: str, out: str = "results.jsonl", **given: Any) -> subprocess.CompletedProcess[str]:
        """Run `understudy run` to its end."""
        return self.execute("run", "market.toml", "requests.jsonl", "--out", out, *options, **given)

    def execute(self, *arguments: str, **given: Any) -> subprocess.CompletedProcess[str]:
        command = [*COMMAND, *arguments]
        given = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE} | ({"input": None} | given)
        if given["input"] is not None:
            del given["stdin"]
        return subprocess.run(command, cwd=self.folder, check=False, text=True, stderr=subprocess.PIPE, **given)

    def start(self, *options: str) -> subprocess.Popen[str]:
        """Start `understudy run`, and return when it has written its first result."""
        arguments = ["run", "market.toml", "requests.jsonl", "--out", "/dev/stdout", *options]
        process = subprocess.Popen(
            [*COMMAND, *arguments], cwd=self.folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert process.stdout is not None
        # Byte by byte: what a buffer reads beyond the line, `communicate` would not see any more.
        line = b""
        while not line.endswith(b"\n") and (byte := os.read(process.stdout.fileno(), 1)):
            line += byte
        self.first = line.decode()
        return process


@pytest.fixture(scope="module")
def idle() -> Iterator[HttpProvider]:
    """Start one provider for all tests of a module that must not call it."""
    with run_providers([JsonSettings(name="alder", price="0.001")]) as (one,):
        yield one


@pytest.fixture
def uncalled(tmp_path: Path, idle: HttpProvider) -> Iterator[Market]:
    """Write the market of the idle provider, and see that it was not called."""
    yield Market(tmp_path, [idle])
    assert idle.stats().calls == 0


@pytest.fixture
def market(tmp_path: Path) -> Iterator[Callable[..., Market]]:
    """Start providers and write their market; called with `JsonSettings`, or with nothing for one good provider."""
    with ExitStack() as stack:

        def start(*settings: JsonSettings) -> Market:
            providers = stack.enter_context(run_providers(settings or [JsonSettings(name="alder", price="0.001")]))
            return Market(tmp_path, providers)

        yield start
