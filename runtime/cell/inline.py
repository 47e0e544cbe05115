"""A concurrent handler at work in the task of its asker: no task of its own, no future, no turn of the loop.

The asker waits inside of the handler, in its own task. So the two share what asyncio keeps for each task, above all
its cancellation; an inline execution tells apart which of them was cancelled.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from types import CoroutineType, coroutine
from typing import TYPE_CHECKING, Any

from runtime.cell.answers import take_answer
from runtime.cell.execution import after_activation, handler_cancelled, handler_raised, is_current, leave_lane
from runtime.cell.failures import crashed
from runtime.cell.lanes import Lanes
from runtime.cell.rerouting import reroute_or_fail
from runtime.deadline import current_deadline
from runtime.envelope import RUNNING, Ask, Stashed
from runtime.errors import Refusal
from runtime.propagation import set_all

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator
    from contextvars import Context

    from runtime.cell.lanes import Lane
    from runtime.cell.state import CellState
    from runtime.handlers import Handler

MAX_INLINE_DEPTH = 8
"""How many may stand on each other in one task, when the handler of one asks for the next: each is a few frames."""

inline_depth: ContextVar[int] = ContextVar("understudy_inline_depth", default=0)
"""How many inline executions the running code stands on."""


class InlineExecution(asyncio.Future[None]):
    """A handler that waits in its asker's task; done when it has ended. To cancel it leaves the asker alone.

    When it began the task was not being cancelled (`may_run_inline`): all that its count shows since came meanwhile.
    """

    def __init__(self, task: asyncio.Task[Any]) -> None:
        super().__init__(loop=task.get_loop())
        self._task = task
        self._times_cancelled = 0
        self._is_over = False
        self._thrown: asyncio.CancelledError | None = None

    def cancel(self, msg: Any | None = None) -> bool:
        """Cancel the handler, also one that has been cancelled before and went on."""
        if self._is_over:
            return False
        self._times_cancelled += 1
        self._task.cancel(msg)
        return True

    @property
    def handler_cancelled(self) -> bool:
        """True if the handler was cancelled, by its actor or its deadline, and not by what happened to the asker."""
        return self._times_cancelled > 0

    @property
    def asker_cancelled(self) -> asyncio.CancelledError | None:
        """What to raise if the asker itself was cancelled meanwhile, whatever the handler made of it."""
        return (self._thrown or asyncio.CancelledError()) if self._task.cancelling() else None

    async def run(self, work: Coroutine[Any, Any, Any], context: Context, waits_for: Any) -> Any:
        """Go on with a handler that waits for the first time; return or raise what it does, in its own context."""
        try:
            return await self._drive(work, context, waits_for)
        finally:
            self._is_over = True
            if self._task.cancelling():
                await self._take_late_cancellation()
            for _ in range(self._times_cancelled):
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
        """Take the cancellation of the handler's last step, which the asker's next await would raise otherwise."""
        try:
            yield
        except asyncio.CancelledError as error:
            self._thrown = error


def may_run_inline(cell: CellState, handler: Handler) -> bool:
    """Tell whether a request may be handled in the running task, and begin before any other turn.

    The task must not be one that is being cancelled, whether that waits for its next await or it cleans up already.
    """
    if cell.lanes is not None and not cell.lanes.may_begin_at_once(handler):
        return False
    task = asyncio.current_task(cell.engine.loop)
    return task is not None and not task.cancelling() and inline_depth.get() < MAX_INLINE_DEPTH


async def answer_inline(cell: CellState, message: Any, deadline: float) -> Any:
    """Handle a request in the running task, which is its asker's; return its answer, or the `Ask` to wait for."""
    handler = cell.actor.handlers[type(message)]
    assert handler is not None  # noqa: S101 - it was found a moment ago.
    context = cell.engine.context.copy()
    if cell.engine.propagation is not None:
        context.run(set_all, cell.engine.propagation.capture())
    work: Any = handler.function(cell.actor, message)
    ask: Ask | None = None
    cell.busy = True
    cell.idle = False
    try:
        waits_for = context.run(first_step, work, deadline, inline_depth.get())
        ask = running(message, deadline)
        lane, execution = enter_lane(cell, handler, ask)
    except StopIteration as done:
        answer: Any = done.value
        if not isinstance(answer, asyncio.Future | CoroutineType | Stashed):
            return answer
        ask = running(message, deadline)
        take_answer_or_crash(cell, ask, answer)
        return ask
    except Refusal:
        raise
    except BaseException as error:  # noqa: BLE001 - `handler_raised` raises what concerns more than the actor.
        ask = running(message, deadline)
        reroute_or_fail(cell, ask, error)
        handler_raised(cell, error, ask, None)
        return ask
    finally:
        cell.busy = False
        after_activation(cell)
    return await wait_inline(cell, lane, execution, ask, execution.run(work, context, waits_for))


def first_step(work: Coroutine[Any, Any, Any], deadline: float, depth: int) -> Any:
    """Begin a handler in the context this is run in; return what it waits for, or raise StopIteration at its end."""
    current_deadline.set(deadline)
    inline_depth.set(depth + 1)
    return work.send(None)


def running(message: Any, deadline: float) -> Ask:
    """Make the envelope of a request whose handler has begun without one."""
    ask = Ask(message, deadline)
    ask.progress = RUNNING
    return ask


def enter_lane(cell: CellState, handler: Handler, ask: Ask) -> tuple[Lane, InlineExecution]:
    """Take a place in the lane for a handler that waits in the running task."""
    task = asyncio.current_task(cell.engine.loop)
    assert task is not None  # noqa: S101 - asyncio steps a coroutine nowhere else.
    if cell.lanes is None:
        cell.lanes = Lanes()
    lane = cell.lanes.of(handler)
    execution = ask.execution = InlineExecution(task)
    lane.running[execution] = ask
    return lane, execution


async def wait_inline(
    cell: CellState, lane: Lane, execution: InlineExecution, ask: Ask, work: Coroutine[Any, Any, Any]
) -> Ask:
    """See an inline execution to its end, and settle its request as a task of a lane does."""
    deadlines = cell.engine.deadlines
    deadlines.add(ask)
    cancelled: asyncio.CancelledError | None = None
    try:
        try:
            answer = await work
        finally:
            deadlines.discard(ask)
            cancelled = execution.asker_cancelled
            if cancelled is not None:
                ask.cancel()
        take_answer(cell, ask, answer)
    except asyncio.CancelledError:
        if ask.progress is RUNNING:
            ask.fail(crashed(cell.path, ask.message, None))
            if not execution.handler_cancelled and not cell.goal and is_current(cell, lane):
                handler_cancelled(cell, None, ask)
    except Refusal as refusal:
        ask.fail(refusal)
    except GeneratorExit:
        raise  # The loop is closed, and nothing is left to be told.
    except BaseException as error:  # noqa: BLE001 - `handler_raised` raises what concerns more than the actor.
        reroute_or_fail(cell, ask, error)
        if is_current(cell, lane):
            handler_raised(cell, error, ask, None)
    finally:
        leave_lane(cell, lane, execution)
    if cancelled is not None:
        raise cancelled
    return ask


def take_answer_or_crash(cell: CellState, ask: Ask, answer: Any) -> None:
    """Take an answer that is not one yet, or none at all."""
    try:
        take_answer(cell, ask, answer)
    except TypeError as error:
        reroute_or_fail(cell, ask, error)
        handler_raised(cell, error, ask, None)
