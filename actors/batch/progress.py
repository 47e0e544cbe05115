"""How far a batch has come, told to a function of the caller's, sync or async, that may fail."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Sized
from typing import TypeAlias

from runtime import is_being_cancelled

OnProgress: TypeAlias = Callable[[int, "int | None"], object]
"""Called with the items finished and the total (None if the source has no length); what it awaits is awaited."""


class Progress:
    """Counts the finished items, and tells `on_progress` of each: one call at a time, in order.

    The item waits for an async `on_progress` before its outcome is delivered. An error of it stops nothing: the first
    is `error`, and is reported to the event loop's exception handler; `failures` counts them.
    """

    def __init__(self, on_progress: OnProgress | None, items: object) -> None:
        if on_progress is not None and not callable(on_progress):
            raise TypeError(f"on_progress must be a function of (finished, total), got {on_progress!r:.100}")
        self.finished = self.failures = 0
        self.total = len(items) if isinstance(items, Sized) else None
        self.error: Exception | None = None
        self._on_progress = on_progress
        self._turn = asyncio.Lock()

    def count(self, count: int) -> None:
        """Count items that have finished."""
        self.finished += count

    async def tell(self) -> None:
        """Tell of the items that have finished by now."""
        if self._on_progress is None:
            return
        finished = self.finished
        async with self._turn:
            try:
                told = self._on_progress(finished, self.total)
                if inspect.isawaitable(told):
                    await told
            except BaseException as error:
                failure = failure_of(error, "on_progress")
                if failure is None:
                    raise
                self._report(failure)

    def _report(self, error: Exception) -> None:
        self.failures += 1
        if self.error is None:
            self.error = error
            message = "on_progress raised; the work goes on, and further errors of on_progress are only counted"
            asyncio.get_running_loop().call_exception_handler({"message": message, "exception": error})

    def __repr__(self) -> str:
        return f"<Progress {self.finished} of {'?' if self.total is None else self.total} items finished>"


class TellsProgress:
    """A batch that says how `on_progress` fared."""

    _progress: Progress

    @property
    def progress_error(self) -> Exception | None:
        """The first error of `on_progress`."""
        return self._progress.error

    @property
    def progress_failures(self) -> int:
        """How often `on_progress` raised."""
        return self._progress.failures


def failure_of(error: BaseException, what: str) -> Exception | None:
    """Return how a function of the caller's failed; None if the task itself has to end."""
    if isinstance(error, Exception):
        return error
    if isinstance(error, asyncio.CancelledError) and not is_being_cancelled():
        stray = RuntimeError(f"{what} let a CancelledError escape")
        stray.__cause__ = error
        return stray
    return None
