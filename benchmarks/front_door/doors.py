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

OURS, BARE, LITELLM = "understudy", "bare proxy", "litellm's proxy"
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


def is_installed(name: str) -> bool:
    """Return whether a door can be started here."""
    return name != LITELLM or litellm_command() is not None


def litellm_command() -> str | None:
    """Return the command of litellm's proxy: that of this environment, or the one that LITELLM_PROXY names."""
    beside = Path(sys.executable).with_name("litellm")
    return os.environ.get("LITELLM_PROXY") or shutil.which(str(beside))


@contextlib.contextmanager
def running_door(name: str, target: str, folder: Path) -> Generator[RunningDoor]:
    """Run a door over the server at `target`."""
    if name == OURS:
        market = folder / "market.toml"
        market.write_text(MARKET.format(url=target), encoding="utf-8")
        command = [sys.executable, "-m", "actors.command", "serve", str(market), "--port", "0"]
        with _running(command) as process:
            yield RunningDoor(json.loads(_line(process))["url"].removesuffix("/v1"), process.pid)
    elif name == BARE:
        with _running([sys.executable, "-m", "benchmarks.front_door.bare_proxy", target]) as process:
            yield RunningDoor(_line(process), process.pid)
    else:
        config = folder / "litellm.yaml"
        config.write_text(LITELLM_CONFIG.format(url=target), encoding="utf-8")
        port = _free_port()
        command = [str(litellm_command()), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
        with _running(command) as process:
            url = f"http://127.0.0.1:{port}"
            _until_alive(f"{url}/health/liveliness")
            yield RunningDoor(url, process.pid)


@contextlib.contextmanager
def _running(command: list[str]) -> Generator[subprocess.Popen[str]]:
    environ = os.environ | {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
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


def _until_alive(url: str) -> None:
    until = time.monotonic() + START_SECONDS
    while True:
        try:
            with urllib.request.urlopen(url, timeout=2.0):  # noqa: S310 - it is of this machine.
                return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)
