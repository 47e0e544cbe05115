"""Handle SIGINT, SIGTERM and SIGHUP: the first signal stops the run, the second ends the process at once."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Interrupts:
    """Whether the run was asked to stop, and by which signal. Make it in the running event loop."""

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.signal: int | None = None

    @property
    def exit_code(self) -> int | None:
        """128 plus the number of the signal, as in shells, such as 130 for Ctrl-C; None without a signal."""
        return None if self.signal is None else 128 + self.signal

    @contextmanager
    def listening(
        self, *, first: Callable[[], None], at_once: Callable[[], None], on_hangup: Callable[[], None] | None = None
    ) -> Generator[None]:
        """Handle signals within the block: call `first` on the loop at the first one, `at_once` before the sudden end.

        With `on_hangup`, SIGHUP calls that on the loop, each time, and ends nothing, also if it was ignored before.

        SIGINT is handled even if a shell made the process ignore it, as for a command in the background. SIGHUP is not
        if it is ignored: so `nohup` has the command outlive its terminal.
        """
        loop = asyncio.get_running_loop()

        def stop() -> None:
            self.stop.set()
            first()

        # A handler of the signal module runs even while the loop is busy, which the second signal relies on.
        def receive(number: int, _frame: object) -> None:
            if on_hangup is not None and number not in {signal.SIGINT, signal.SIGTERM}:
                loop.call_soon_threadsafe(on_hangup)
                return
            if self.signal is not None:
                at_once()
                os._exit(128 + number)
            self.signal = number
            loop.call_soon_threadsafe(stop)

        before = {
            number: signal.signal(number, receive)
            for number in SIGNALS
            if on_hangup is not None or not _is_kept_from(number)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _is_kept_from(number: int) -> bool:
    return number not in {signal.SIGINT, signal.SIGTERM} and signal.getsignal(number) is signal.SIG_IGN
