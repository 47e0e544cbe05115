"""`understudy top` in a real pseudo-terminal, at a program that runs in a process of its own."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import textwrap
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("textual", reason="the extra `tui` is not installed")

pytestmark = [pytest.mark.slow, pytest.mark.real_time]

PROGRAM = """
import asyncio

from actors import FunctionTransport, Listing, Market, Provider, Supervisor, Transient, smart_request
from actors.dashboard import ActDone
from actors.dashboard.local import LocalSocket
from actors.errors.families import CallFailed
from runtime import ActorSystem


def listing(name, service, error):
    async def call(_call):
        if error is not None:
            raise error
        return "done"

    transport = FunctionTransport(call, paid=False, idempotent="repeatable")
    return Listing(provider=Provider(name=name, services={service}), transport=lambda: transport)


async def main():
    async with ActorSystem("shop", log=False) as system, LocalSocket(system, may_act=True) as place:
        print(place.path, flush=True)
        cold = Transient("the oven \\x1b[31m is [red]cold[/]")
        listings = [listing("alder", "bread", None), listing("birch", "cake", cold)]
        system.events.subscribe(ActDone, lambda done: print(done.who, done.kind, done.outcome, flush=True))
        supervisor = system.spawn(lambda: Supervisor(Market(providers=listings)))
        while True:
            for service in ("bread", "cake"):
                try:
                    await smart_request(supervisor, service=service, input="x", timeout=0.2)
                except CallFailed:
                    pass
            await asyncio.sleep(0.1)


asyncio.run(main())
"""
ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[()][0-9A-B]|[=>78cDEHM])")


class RealTerminal:
    """A command in a pseudo-terminal, and what it has written there."""

    def __init__(self, command: list[str], environ: dict[str, str]) -> None:
        self.main, follower = pty.openpty()
        fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 140, 0, 0))
        self.before = termios.tcgetattr(follower)
        self.follower = follower
        self.process = subprocess.Popen(
            command, stdin=follower, stdout=follower, stderr=follower, env=environ, start_new_session=True
        )
        self.written, self.bytes = "", b""

    def read(self, seconds: float) -> None:
        """Read what comes within so many seconds at most."""
        ready, _, _ = select.select([self.main], [], [], seconds)
        if ready:
            self.bytes += os.read(self.main, 65_536)
            self.written = self.bytes.decode("utf-8", "replace")

    def shows(self, *words: str) -> str:
        """Wait until all words stand in one picture, and return it."""
        end = time.monotonic() + 60
        while time.monotonic() < end:
            # Each picture begins at the upper left; the last may not be whole.
            for picture in self.written.split("\x1b[1;1H")[-6:]:
                text = ESCAPE.sub("", picture)
                if all(word in text for word in words):
                    return text
            self.read(0.2)
        pytest.fail(f"{words} are not on the screen: {ESCAPE.sub('', self.written)[-4_000:]!r}")

    def press(self, keys: str) -> None:
        self.written, self.bytes = "", b""
        os.write(self.main, keys.encode())

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(30)
        os.close(self.main)
        os.close(self.follower)


@contextmanager
def terminal(environ: dict[str, str], pid: int):
    """Run `understudy top` on the program `pid`: others of this user may run meanwhile, such as other tests."""
    made = RealTerminal([sys.executable, "-m", "actors.command", "top", str(pid)], environ)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def environ():
    folder = tempfile.mkdtemp(prefix="us-")
    root = Path(__file__).resolve().parents[4]
    yield {**os.environ, "XDG_RUNTIME_DIR": folder, "TERM": "xterm-256color", "PYTHONPATH": str(root), "TMPDIR": folder}
    shutil.rmtree(folder)


def test_a_breaker_is_seen_a_key_isolates_and_the_terminal_is_left_as_it_was(environ):
    program = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PROGRAM)], env=environ, stdout=subprocess.PIPE, text=True
    )
    try:
        assert program.stdout is not None
        assert program.stdout.readline().startswith(environ["XDG_RUNTIME_DIR"])
        with terminal(environ, program.pid) as top:
            top.shows("alder", "birch", "✕ open", "● live", r"the oven \x1b[31m is [red]cold[/]")
            top.press("i")
            top.shows("isolate birch? y")  # The worst off stands first.
            top.press("y")
            top.shows("birch", "‖ isolated")
            assert program.stdout.readline() == "terminal isolate isolated\n"
            top.press("q")
            while top.process.poll() is None:
                top.read(0.2)
            top.read(0.5)
            assert top.process.returncode == 0
            assert top.written.count("\x1b[?1049l") == 1  # The screen that was there before is back,
            assert "\x1b[?25h" in top.written.partition("\x1b[?1049l")[2]  # so is its cursor,
            assert termios.tcgetattr(top.follower) == top.before  # and what is typed is shown again.
    finally:
        program.send_signal(signal.SIGKILL)
        program.communicate(timeout=30)
