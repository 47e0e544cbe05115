"""A concurrent handler at work in the task of its asker: no task of its own, no future, no turn of the loop.

The asker lends its task, and waits inside of the handler. So the two share what asyncio keeps for each task, above all
its cancellation; an errand tells apart whose it was.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from types import coroutine
from typing import TYPE_CHECKING, Any

from runtime.deadline import current_deadline

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator
    from contextvars import Context

MAX_ERRANDS = 8
"""How many may stand on each other in one task, when the handler of one asks for the next: each is a few frames."""

errands_here: ContextVar[int] = ContextVar("understudy_errands", default=0)
"""How many the running code stands on."""


class Errand(asyncio.Future[None]):
    """A handler that waits in its asker's task; done when it has ended. To cancel it leaves the asker alone."""

    def __init__(self, task: asyncio.Task[Any]) -> None:
        super().__init__(loop=task.get_loop())
        self._task = task
        self._cancelled_before = task.cancelling()
        self._was_called_off = False
        self._is_due = False
        """Whether a cancellation has been asked for and has not reached the handler yet."""
        self._thrown: asyncio.CancelledError | None = None

    def cancel(self, msg: Any | None = None) -> bool:
        """Cancel the handler, once."""
        if self.done() or self._was_called_off:
            return False
        self._was_called_off = self._is_due = True
        self._task.cancel(msg)
        return True

    @property
    def was_called_off(self) -> bool:
        """True where the handler was cancelled, by its actor or its deadline, and not by what happened to the asker."""
        return self._was_called_off

    @property
    def asker_cancelled(self) -> asyncio.CancelledError | None:
        """What to raise where the asker itself was cancelled meanwhile, whatever the handler made of it."""
        if self._task.cancelling() <= self._cancelled_before:
            return None
        return self._thrown or asyncio.CancelledError()

    async def run(self, work: Coroutine[Any, Any, Any], context: Context, waits_for: Any) -> Any:
        """Go on with a handler that waits for the first time; return or raise what it does, in its own context."""
        try:
            return await self._drive(work, context, waits_for)
        finally:
            if self._is_due:
                await self._take_late_cancellation()
            if self._was_called_off:
                self._task.uncancel()
            self.set_result(None)

    @coroutine
    def _drive(self, work: Coroutine[Any, Any, Any], context: Context, waits_for: Any) -> Generator[Any, Any, Any]:
        while True:
            try:
                yield waits_for
            except BaseException as error:  # noqa: BLE001 - it is thrown on; a GeneratorExit, too, is the handler's.
                if isinstance(error, asyncio.CancelledError):
                    self._thrown, self._is_due = error, False
                step, value = work.throw, error
            else:
                step, value = work.send, None
            try:
                waits_for = context.run(step, value)
            except StopIteration as done:
                return done.value

    @coroutine
    def _take_late_cancellation(self) -> Generator[None, None, None]:
        """Take the cancellation that the task would else meet at its next await, which is the asker's."""
        try:
            yield
        except asyncio.CancelledError as error:
            self._thrown = error


def may_begin() -> bool:
    """Tell whether one more may stand on what runs here."""
    return errands_here.get() < MAX_ERRANDS


def first_step(work: Coroutine[Any, Any, Any], deadline: float, standing_on: int) -> Any:
    """Begin a handler in the context this is run in; return what it waits for, or raise StopIteration at its end."""
    current_deadline.set(deadline)
    errands_here.set(standing_on + 1)
    return work.send(None)
