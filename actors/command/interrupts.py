"""SIGINT and SIGTERM: the first asks the run to stop, the second ends the process at once."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """Whether the run was asked to stop, and by which signal; made on the loop that runs."""

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.signal: int | None = None

    @property
    def exit_code(self) -> int | None:
        """128 and the number of the signal, as shells count: 130 for Ctrl-C, 143 for SIGTERM; None without one."""
        return None if self.signal is None else 128 + self.signal

    @contextmanager
    def listening(self, *, first: Callable[[], None], at_once: Callable[[], None]) -> Generator[None]:
        """Listen within the block: call `first` on the loop at the first signal, `at_once` before the sudden end.

        It listens also where a shell had the process ignore SIGINT, as for a command in the background.
        """
        loop = asyncio.get_running_loop()

        def stop() -> None:
            self.stop.set()
            first()

        # Handlers of the signal module run even while the loop is busy, and so does the second signal's.
        def receive(number: int, _frame: object) -> None:
            if self.signal is not None:
                at_once()
                os._exit(128 + number)
            self.signal = number
            loop.call_soon_threadsafe(stop)

        before = {number: signal.signal(number, receive) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
