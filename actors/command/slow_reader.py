"""Writes to a pipe or a terminal, whose reader may be slow, without making the loop wait.

The thread that does so is a daemon: a reader that never reads keeps no program from its end.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

GRACE = 2.0
"""Seconds that a reader has to take what is being written, once the run is to stop."""


class ReaderTooSlow(Exception):
    """The reader has not taken what was written before the run had to stop."""


class ThreadWriter:
    """Calls `write` with one text after the other, in a thread."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write
        self._texts: SimpleQueue[tuple[bytes, asyncio.AbstractEventLoop, asyncio.Future[None]]] = SimpleQueue()
        self._thread: threading.Thread | None = None

    async def write(self, text: bytes, *, stop: asyncio.Event | None = None) -> None:
        """Wait until a text is written; raises what `write` does.

        Once `stop` is set, it waits for `GRACE` seconds more, and then raises `ReaderTooSlow`.
        """
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="results", daemon=True)
            self._thread.start()
        loop = asyncio.get_running_loop()
        written: asyncio.Future[None] = loop.create_future()
        self._texts.put((text, loop, written))
        if stop is None:
            await written
            return
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({written, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not written.done():
                await asyncio.wait({written}, timeout=GRACE)
        finally:
            stopping.cancel()
        if not written.done():
            raise ReaderTooSlow(f"its reader has taken nothing for {GRACE:g} s")
        written.result()

    def _run(self) -> None:
        while True:
            text, loop, written = self._texts.get()
            failure: Exception | None = None
            try:
                self._write(text)
            except Exception as error:  # noqa: BLE001 - raised to the one that waits.
                failure = error
            with suppress(RuntimeError):  # The loop has ended meanwhile.
                loop.call_soon_threadsafe(_tell, written, failure)

    def __repr__(self) -> str:
        return f"<ThreadWriter {self._texts.qsize()} texts wait>"


def _tell(written: asyncio.Future[None], failure: Exception | None) -> None:
    if written.done():
        return
    if failure is None:
        written.set_result(None)
    else:
        written.set_exception(failure)
