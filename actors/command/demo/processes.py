"""The demo's servers: `understudy fake` in processes of their own, started, told their plans, asked for their books."""

from __future__ import annotations

import http.client
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from typing import IO, TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

    from actors.command.demo.servers import ModelServer

STOP_TIMEOUT = 5.0
"""Seconds that a server has to end by itself."""
ANSWER_TIMEOUT = 10.0
"""Seconds that a server has to tell its books."""


class Ready(msgspec.Struct, frozen=True):
    """The line that a server prints once it listens."""

    url: str


class BookedLine(msgspec.Struct, frozen=True):
    """One call in the books of a server; `charged` is dollars as a fraction."""

    status: int
    answered: bool
    charged: str

    @property
    def micros(self) -> Fraction:
        """What was charged, in micro-dollars."""
        return Fraction(self.charged) * 1_000_000


class ServerBooks(msgspec.Struct, frozen=True):
    """The books of a server."""

    calls: tuple[BookedLine, ...]
    under_way: int


class RunningServer(msgspec.Struct, frozen=True):
    """A server that listens at `url`."""

    server: ModelServer
    url: str
    process: subprocess.Popen[bytes]

    def books(self) -> ServerBooks:
        """Return its books. Raises OSError if it is gone."""
        return msgspec.json.decode(self._ask("GET", "/books"), type=ServerBooks)

    def begin(self) -> None:
        """Put its plan in force once more, whose times count from now. Raises OSError if it is gone."""
        self._ask("POST", "/plan", msgspec.json.encode(self.server.settings.plan))

    def _ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=ANSWER_TIMEOUT)
        try:
            connection.request(method, path, body)
            with connection.getresponse() as response:  # One that breaks off holds the socket open.
                told = response.read()
                if response.status != 200:
                    raise OSError(f"{method} {self.url}{path} was answered {response.status}: {told!r:.200}")
                return told
        except http.client.HTTPException as error:
            raise OSError(f"{method} {self.url}{path} was not answered: {error!r}") from error
        finally:
            connection.close()


@contextmanager
def run_servers(servers: Sequence[ModelServer], folder: Path) -> Generator[list[RunningServer]]:
    """Run these servers within the block; their config files are in `folder`. Raises OSError if one does not start."""
    with ExitStack() as stack:
        # All processes are started before the first one is waited for.
        processes = [(one, stack.enter_context(_started(one, folder))) for one in servers]
        yield [
            RunningServer(one, read_url(one.name, process.stdout, process.stderr), process)
            for one, process in processes
        ]


@contextmanager
def _started(server: ModelServer, folder: Path) -> Generator[subprocess.Popen[bytes]]:
    """Run one server within the block; in every case it is gone afterwards."""
    process = subprocess.Popen(  # noqa: S603 - our own module, our own arguments.
        [sys.executable, "-m", "actors.command", "fake", str(folder / server.file), "--until-eof"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,  # A few lines, which fit into the pipe.
        # A process group of its own, because Ctrl-C would stop it before its books are read.
        process_group=0,
    )
    try:
        yield process
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a server by closing its standard input; kill it if it does not end."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        process.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    except BaseException:
        process.kill()
        process.wait()
        raise
    finally:
        # Not before it has ended: it says last what it charged.
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def read_url(name: str, output: IO[bytes] | None, errors: IO[bytes] | None = None) -> str:
    """Wait for the URL that a server prints, and return it. Raises OSError, with its errors, if it ends instead."""
    line = b"" if output is None else output.readline()
    try:
        return msgspec.json.decode(line, type=Ready).url
    except msgspec.DecodeError as error:
        said = b"" if errors is None else errors.read()
        told = (line + said).decode(errors="replace").strip() or "it said nothing"
        raise OSError(f"the server {name!r} did not start: {told}") from error
