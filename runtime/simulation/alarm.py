"""A time limit that cuts a run off, as an interrupt that no task of the run keeps for itself."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from types import TracebackType


class AlarmInterrupt(KeyboardInterrupt):
    """Carries what the handler of an alarm has raised through the tasks of a run, which let no other error through."""


class Alarm:
    """Within it, what the process's handler of SIGALRM raises ends the run, wherever it strikes, and is raised outside.

    Test runners limit a test's time in this way, such as pytest-timeout. Without it, a task would end with the error,
    a supervisor would take it for a failed actor, or a seed would seem to have failed.
    """

    def __init__(self) -> None:
        self.error: BaseException | None = None
        """What the handler raised; None as long as no alarm has cut the run off."""
        self._handler: Any = None

    def __enter__(self) -> Self:
        if hasattr(signal, "SIGALRM") and threading.current_thread() is threading.main_thread():
            handler = signal.getsignal(signal.SIGALRM)
            if callable(handler):
                self._handler = handler
                signal.signal(signal.SIGALRM, self._interrupt)
        return self

    def _interrupt(self, number: int, frame: Any) -> None:
        try:
            self._handler(number, frame)
        except BaseException as error:  # noqa: BLE001 - it is raised where the run ends.
            self.error = error
            raise AlarmInterrupt from None

    def __exit__(self, _kind: object, ended: BaseException | None, _traceback: TracebackType | None) -> None:
        if self._handler is not None:
            signal.signal(signal.SIGALRM, self._handler)
        if self.error is not None:
            # Its traceback leads to where the run was, not to the handler.
            raise self.error.with_traceback(ended.__traceback__ if ended is not None else None) from None
