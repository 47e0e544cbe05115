"""The demo's provider processes: started on free loopback ports, asked for their counters, and stopped by their ids."""

from __future__ import annotations

import http.client
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from typing import IO, TYPE_CHECKING

import msgspec

from actors.command.demo.backend import Stats

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from actors.command.demo.backend import DemoSettings

STOP_TIMEOUT = 5.0
"""Seconds that a provider has to end by itself."""


class Ready(msgspec.Struct, frozen=True):
    """The line that a provider prints once it listens."""

    port: int


class DemoProcess(msgspec.Struct, frozen=True):
    """A provider that listens on `port` of 127.0.0.1."""

    settings: DemoSettings
    port: int
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        """The URL for calls."""
        return f"http://127.0.0.1:{self.port}/"

    def stats(self) -> Stats:
        """Return its counters. Raises OSError if it is gone."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", "/stats")
            with connection.getresponse() as response:  # One that breaks off holds the socket open.
                return msgspec.json.decode(response.read(), type=Stats)
        finally:
            connection.close()


def arguments(settings: DemoSettings) -> list[str]:
    """Return the command line arguments of a demo provider for these settings.

    >>> from actors.command.demo.backend import DemoSettings
    >>> arguments(DemoSettings(name="alder", price="0.001", brownout=(4.0, 3.0)))[2:6]
    ['--price', '0.001', '--failure-rate', '0.0']
    """
    given = ["--name", settings.name, "--price", settings.price, "--failure-rate", str(settings.failure_rate)]
    given += ["--unclear-rate", str(settings.unclear_rate)]
    given += ["--latency", f"{settings.latency[0]}-{settings.latency[1]}", "--seed", str(settings.seed)]
    if settings.brownout is not None:
        given += ["--brownout", f"{settings.brownout[0]}:{settings.brownout[1]}"]
    if settings.rate_limit is not None:
        given += ["--rate-limit", str(settings.rate_limit)]
    if settings.burst is not None:
        given += ["--burst", str(settings.burst)]
    return given


@contextmanager
def run_providers(providers: Sequence[DemoSettings]) -> Generator[list[DemoProcess]]:
    """Run these providers within the block. Raises OSError if one does not start."""
    with ExitStack() as stack:
        # All processes are started before the first one is waited for.
        processes = [(one, stack.enter_context(start_provider(one))) for one in providers]
        yield [DemoProcess(one, read_port(one, process.stdout), process) for one, process in processes]


@contextmanager
def start_provider(settings: DemoSettings) -> Generator[subprocess.Popen[bytes]]:
    """Run one provider within the block; in every case it is gone afterwards."""
    process = subprocess.Popen(  # noqa: S603 - our own module, our own arguments.
        [sys.executable, "-m", "actors.command.demo.server", *arguments(settings)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # A process group of its own, because Ctrl-C would stop it before its counters are read.
        process_group=0,
    )
    try:
        yield process
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a provider by closing its standard input; kill it if it does not end."""
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
    try:
        process.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    except BaseException:
        process.kill()
        process.wait()
        raise


def read_port(settings: DemoSettings, output: IO[bytes] | None) -> int:
    """Wait for the port that a provider prints, and return it. Raises OSError if it ends instead."""
    line = b"" if output is None else output.readline()
    try:
        return msgspec.json.decode(line, type=Ready).port
    except msgspec.DecodeError as error:
        raise OSError(f"the provider {settings.name!r} did not start: it printed {line!r}") from error
