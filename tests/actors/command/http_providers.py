"""Providers that speak plain JSON over HTTP, each a process of its own, for tests of the command."""

from __future__ import annotations

import http.client
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import msgspec

from actors.command.demo.backend import DemoSettings, Stats

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class HttpProvider(msgspec.Struct, frozen=True):
    """A provider that listens on `port` of 127.0.0.1."""

    settings: DemoSettings
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def stats(self) -> Stats:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", "/stats")
            with connection.getresponse() as response:
                return msgspec.json.decode(response.read(), type=Stats)
        finally:
            connection.close()


def arguments(settings: DemoSettings) -> list[str]:
    given = ["--name", settings.name, "--price", settings.price, "--failure-rate", str(settings.failure_rate)]
    given += ["--latency", f"{settings.latency[0]}-{settings.latency[1]}", "--seed", str(settings.seed)]
    if settings.rate_limit is not None:
        given += ["--rate-limit", str(settings.rate_limit)]
    if settings.burst is not None:
        given += ["--burst", str(settings.burst)]
    return given


@contextmanager
def run_providers(settings: Sequence[DemoSettings]) -> Iterator[list[HttpProvider]]:
    """Run these providers within the block."""
    with ExitStack() as stack:
        started = [(one, stack.enter_context(_started(one))) for one in settings]
        yield [HttpProvider(one, msgspec.json.decode(process.stdout.readline())["port"]) for one, process in started]


@contextmanager
def _started(settings: DemoSettings) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "actors.command.demo.server", *arguments(settings)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield process
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait()
