"""Progress on standard error: a live display on a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

import asyncio
import sys
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol

from rich.live import Live

from actors.command.bad_input import one_line
from actors.command.display import live_display, progress_line
from actors.masking import escaped
from runtime import logger_for

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator

    from rich.console import Console

    from actors.command.report import RunTally


class ProgressDisplay(Protocol):
    """A display of the state of a run, updated every `interval` seconds."""

    interval: float
    log_level: str

    def show(self, tally: RunTally, *, now: float) -> None:
        """Show the state at `now`."""
        ...

    def note(self, text: str) -> None:
        """Show a line that stays."""
        ...

    def warn(self, text: str) -> None:
        """Show a line of the runtime's log."""
        ...

    def close(self) -> None:
        """Leave the terminal as it was found; a second call does nothing."""
        ...


class LiveProgress:
    """A bar and a line for each provider, drawn in place; notes go above it."""

    interval = 0.1
    log_level = "WARNING"

    def __init__(self, console: Console) -> None:
        self._console = console
        # The run draws it in its own ticks, so that no thread is started.
        self._live = Live(console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
        self._live.start()

    def show(self, tally: RunTally, *, now: float) -> None:
        self._live.update(live_display(tally, now=now, width=self._console.width), refresh=True)

    def note(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False)

    def warn(self, text: str) -> None:
        self.note(text)

    def close(self) -> None:
        self._live.stop()


class PlainProgress:
    """A line every `interval` seconds, if anything has changed."""

    log_level = "WARNING"

    def __init__(self, write: Callable[[str], object], *, interval: float = 2.0) -> None:
        self.interval = interval
        self._write = write
        self._shown = -1

    def show(self, tally: RunTally, *, now: float) -> None:
        if tally.lines != self._shown:
            self._shown = tally.lines
            self._write(progress_line(tally, now=now) + "\n")

    def note(self, text: str) -> None:
        self._write(text + "\n")

    def warn(self, text: str) -> None:
        self.note(text)

    def close(self) -> None:
        pass


class NoProgress:
    """No progress; only errors."""

    interval = 3600.0
    log_level = "ERROR"

    def show(self, tally: RunTally, *, now: float) -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def warn(self, text: str) -> None:
        write_error(text + "\n")

    def close(self) -> None:
        pass


def choose_progress(console: Console, *, quiet: bool, alone: bool) -> ProgressDisplay:
    """Return the display for standard error; `alone` is False if results are written to the same terminal."""
    if quiet:
        return NoProgress()
    if alone and console.is_terminal and not console.is_dumb_terminal:
        return LiveProgress(console)
    return PlainProgress(write_error)


def write_error(text: str) -> None:
    """Write to standard error at once; if that has gone, or its disk is full, the text is lost."""
    with suppress(OSError, ValueError, AttributeError):  # It may be closed, or None.
        sys.stderr.write(text)
        sys.stderr.flush()


@asynccontextmanager
async def ticking(progress: ProgressDisplay, tally: RunTally) -> AsyncGenerator[None]:
    """Show the state of `tally` at intervals within the block, and once more at its end."""
    loop = asyncio.get_running_loop()

    async def tick() -> None:
        while True:
            tally.look(loop.time())  # A display looks only if there is news.
            progress.show(tally, now=loop.time())
            await asyncio.sleep(progress.interval)

    ticker = asyncio.create_task(tick())
    try:
        yield
    finally:
        ticker.cancel()
        await asyncio.wait([ticker])
        progress.show(tally, now=loop.time())


@contextmanager
def logging_to(progress: ProgressDisplay, *, is_stopping: Callable[[], bool]) -> Generator[None]:
    """Show the runtime's warnings and errors by `progress` within the block, one line each, and no other log lines.

    Warnings are left out while the run is being stopped, because the interruptions that they report are intended.
    """
    log = logger_for("understudy")

    def sink(message: Any) -> None:
        record = message.record
        level = record["level"].name
        if level == "WARNING" and is_stopping():
            return
        cause = record["exception"]
        because = f": {cause.type.__name__}: {cause.value}" if cause is not None and cause.type is not None else ""
        # It may quote a provider, and a terminal does what it is told by some characters.
        progress.warn(escaped(one_line(f"{level.lower()}: {record['message']}{because}")))

    # This handler replaces that of loguru, which would write into the live display.
    log.remove()
    handler = log.add(sink, level=progress.log_level, format="{message}", backtrace=False, diagnose=False)
    try:
        yield
    finally:
        log.remove(handler)
