"""A handler that waits in the task of its asker, as a future: it tells apart which of the two was cancelled."""

from __future__ import annotations

import asyncio
from types import coroutine
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator
    from contextvars import Context


class InlineExecution(asyncio.Future[None]):
    """A handler that waits in its asker's task; done when it has ended. To cancel it leaves the asker alone.

    When it began the task was not being cancelled (`may_run_inline`): all that its count shows since came meanwhile.
    """

    def __init__(self, task: asyncio.Task[Any]) -> None:
        super().__init__(loop=task.get_loop())
        self.task = task
        """The task of the asker."""
        self._times_cancelled = 0
        self._is_over = False
        self._thrown: asyncio.CancelledError | None = None

    def cancel(self, msg: Any | None = None) -> bool:
        """Cancel the handler, also one that has been cancelled before and went on."""
        if self._is_over:
            return False
        self._times_cancelled += 1
        self.task.cancel(msg)
        return True

    @property
    def handler_cancelled(self) -> bool:
        """True if the handler was cancelled, by its actor or its deadline, and not by what happened to the asker."""
        return self._times_cancelled > 0

    @property
    def asker_cancelled(self) -> asyncio.CancelledError | None:
        """What to raise if the asker itself was cancelled meanwhile, whatever the handler made of it."""
        return (self._thrown or asyncio.CancelledError()) if self.task.cancelling() else None

    async def run(self, work: Coroutine[Any, Any, Any], context: Context, waits_for: Any) -> Any:
        """Go on with a handler that waits for the first time; return or raise what it does, in its own context."""
        try:
            return await self._drive(work, context, waits_for)
        finally:
            self._is_over = True
            if self.task.cancelling():
                await self._take_late_cancellation()
            for _ in range(self._times_cancelled):
                self.task.uncancel()
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
        """Take the cancellation of the handler's last step, which the asker's next await would raise otherwise."""
        try:
            yield
        except asyncio.CancelledError as error:
            self._thrown = error
