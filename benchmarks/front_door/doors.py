"""Starts a door in a process of its own, over one model server: ours by its command, and its peers."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator

OURS, OURS_PROCESS = "understudy", 'understudy, journal at "process"'
BARE, LITELLM = "bare proxy", "litellm's proxy"
BESIDE = str(Path(sys.executable).parent)
START_SECONDS = 120.0
TICKS = os.sysconf("SC_CLK_TCK")
MARKET = """
[[providers]]
name = "alder"
kind = "compatible"
model = "m"
base_url = "{url}/v1"
api_key = "none"
max_concurrency = 512
tariff = {{ input = "0.25", output = "2.00" }}
"""
LITELLM_CONFIG = """
model_list:
  - model_name: m
    litellm_params: {{model: openai/m, api_base: "{url}/v1", api_key: none}}
litellm_settings: {{telemetry: false}}
"""


class DoorNotStarted(Exception):
    """A door cannot be measured here; the message is one line that says why."""


LITELLM_ENVIRONMENT = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOG": "ERROR",
    "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
}
"""It asks for no key, as our door does not on this machine: without the last, newer versions do not start."""


@dataclass(frozen=True)
class RunningDoor:
    """A door that serves: its base URL, and its process."""

    url: str
    pid: int

    def cpu(self) -> float:
        """Return the seconds of CPU that it has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def memory(self) -> float:
        """Return its resident megabytes."""
        lines = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def litellm_command() -> str | None:
    """Return the command of litellm's proxy: that of this environment, or the one that LITELLM_PROXY names."""
    return os.environ.get("LITELLM_PROXY") or shutil.which("litellm", path=BESIDE)


@contextlib.contextmanager
def running_door(name: str, target: str, folder: Path) -> Generator[RunningDoor]:
    """Run a door over the server at `target`. Raises `DoorNotStarted`."""
    if name in {OURS, OURS_PROCESS}:
        market = folder / "market.toml"
        market.write_text(MARKET.format(url=target), encoding="utf-8")
        command = [sys.executable, "-m", "actors.command", "serve", str(market), "--port", "0"]
        command += ["--safety", "process" if name == OURS_PROCESS else "power"]
        command += ["--journal", str(folder / f"{len(list(folder.iterdir()))}.journal")]
        with _running(command) as process:
            yield RunningDoor(json.loads(_line(process))["url"].removesuffix("/v1"), process.pid)
    elif name == BARE:
        with _running([sys.executable, "-m", "benchmarks.front_door.bare_proxy", target]) as process:
            yield RunningDoor(_line(process), process.pid)
    else:
        if (found := litellm_command()) is None:
            raise DoorNotStarted(f"{name} is not installed; LITELLM_PROXY names its command")
        config = folder / "litellm.yaml"
        config.write_text(LITELLM_CONFIG.format(url=target), encoding="utf-8")
        port = _free_port()
        command = [found, "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
        with _running(command) as process:
            url = f"http://127.0.0.1:{port}"
            _until_alive(f"{url}/health/liveliness", process)
            yield RunningDoor(url, process.pid)


@contextlib.contextmanager
def _running(command: list[str]) -> Generator[subprocess.Popen[str]]:
    environ = os.environ | LITELLM_ENVIRONMENT
    with subprocess.Popen(  # noqa: S603
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environ,
    ) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate()


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def _until_alive(url: str, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + START_SECONDS
    while True:
        try:
            with urllib.request.urlopen(url, timeout=2.0):  # noqa: S310 - it is of this machine.
                return
        except OSError as error:
            if process.poll() is not None:
                raise DoorNotStarted(f"{LITELLM} ended with {process.returncode} as it started") from error
            if time.monotonic() > until:
                raise DoorNotStarted(f"{LITELLM} did not answer within {START_SECONDS:.0f} s") from error
            time.sleep(0.2)
