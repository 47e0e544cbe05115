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

inline_calls_here: ContextVar[int] = ContextVar("understudy_errands", default=0)
"""How many the running code stands on."""


class InlineExecution(asyncio.Future[None]):
    """A handler that waits in its asker's task; done when it has ended. To cancel it leaves the asker alone.

    When it began the task was not being cancelled (`may_run_inline`): all that its count shows since came meanwhile.
    """

    def __init__(self, task: asyncio.Task[Any]) -> None:
        super().__init__(loop=task.get_loop())
        self._task = task
        self._times_called_off = 0
        self._is_over = False
        self._thrown: asyncio.CancelledError | None = None

    def cancel(self, msg: Any | None = None) -> bool:
        """Cancel the handler, also one that has been cancelled before and went on."""
        if self._is_over:
            return False
        self._times_called_off += 1
        self._task.cancel(msg)
        return True

    @property
    def was_called_off(self) -> bool:
        """True where the handler was cancelled, by its actor or its deadline, and not by what happened to the asker."""
        return self._times_called_off > 0

    @property
    def asker_cancelled(self) -> asyncio.CancelledError | None:
        """What to raise where the asker itself was cancelled meanwhile, whatever the handler made of it."""
        return (self._thrown or asyncio.CancelledError()) if self._task.cancelling() else None

    async def run(self, work: Coroutine[Any, Any, Any], context: Context, waits_for: Any) -> Any:
        """Go on with a handler that waits for the first time; return or raise what it does, in its own context."""
        try:
            return await self._drive(work, context, waits_for)
        finally:
            self._is_over = True
            if self._task.cancelling():
                await self._take_late_cancellation()
            for _ in range(self._times_called_off):
                self._task.uncancel()
            self.set_result(None)

    @coroutine
    def _drive(self, work: Coroutine[Any, Any, Any], context: Context, waits_for: Any) -> Generator[Any, Any, Any]:
        while True:
            try:
                yield waits_for
            except BaseException as error:  # noqa: BLE001 - it is thrown on; a GeneratorExit, too, is the handler's.
                if isinstance(error, asyncio.CancelledError):
                    self._thrown = error
                step, value = work.throw, error
            else:
                step, value = work.send, None
            try:
                waits_for = context.run(step, value)
            except StopIteration as done:
                return done.value

    @coroutine
    def _take_late_cancellation(self) -> Generator[None, None, None]:
        """Take the cancellation of the handler's last step, which the task would else meet where its asker awaits."""
        try:
            yield
        except asyncio.CancelledError as error:
            self._thrown = error


def may_run_inline(loop: asyncio.AbstractEventLoop) -> bool:
    """Tell whether the running task can be lent: not where a cancellation waits for its next await, or it cleans up."""
    task = asyncio.current_task(loop)
    return task is not None and not task.cancelling() and inline_calls_here.get() < MAX_ERRANDS


def first_step(work: Coroutine[Any, Any, Any], deadline: float, standing_on: int) -> Any:
    """Begin a handler in the context this is run in; return what it waits for, or raise StopIteration at its end."""
    current_deadline.set(deadline)
    inline_calls_here.set(standing_on + 1)
    return work.send(None)
