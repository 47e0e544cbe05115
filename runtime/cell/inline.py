"""A handler at work in the task of its asker: no task of its own, no future, no turn of the loop.

The asker waits inside of the handler, in its own task. So the two share what asyncio keeps for each task, above all
its cancellation; an inline execution tells apart which of them was cancelled.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from runtime.cell.answers import take_answer
from runtime.cell.execution import after_activation, handler_cancelled, handler_raised, is_current, leave_lane
from runtime.cell.failures import crashed
from runtime.cell.inbox import admit_waiters
from runtime.cell.inline_execution import InlineExecution
from runtime.cell.lanes import Lanes
from runtime.cell.life import advance
from runtime.cell.phases import IN_SERVICE, QUIET
from runtime.cell.rerouting import reroute_or_fail
from runtime.deadline import current_deadline
from runtime.envelope import RUNNING, Ask, Stashed
from runtime.errors import Refusal
from runtime.propagation import carried_to, set_all

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from runtime.cell.lanes import Lane
    from runtime.cell.state import CellState
    from runtime.handlers import Handler

MAX_INLINE_DEPTH = 8
"""How many may stand on each other in one task, when the handler of one asks for the next: each is a few frames."""

NO_ANSWERS = (asyncio.Future, CoroutineType, Stashed)
"""What a handler returns that is not its answer. As a tuple: a union would be made anew for each check."""

inline_depth: ContextVar[int] = ContextVar("understudy_inline_depth", default=0)
"""How many inline executions the running code stands on."""


def may_run_inline(cell: CellState, handler: Handler) -> bool:
    """Tell whether a request may be handled in the running task, and begin before any other turn.

    The task must not be one that is being cancelled, whether that waits for its next await or it cleans up already.
    """
    if cell.lanes is not None and not cell.lanes.may_begin_at_once(handler):
        return False
    task = asyncio.current_task(cell.engine.loop)
    return task is not None and not task.cancelling() and inline_depth.get() < MAX_INLINE_DEPTH


def begin_inline(cell: CellState, message: Any, deadline: float) -> Any:
    """Handle a request in the running task, which is its asker's.

    Return its answer, the `Ask` to wait for, or a coroutine that returns this `Ask`: its handler waits, and goes on in
    the coroutine, which has to be awaited at once.
    """
    handler = cell.actor.handlers[type(message)]
    assert handler is not None  # noqa: S101 - it was found a moment ago.
    context = cell.engine.context.copy()
    if cell.engine.propagation is not None or cell.actor.take_along is not None:
        context.run(set_all, carried_to(cell))
    work: Any = handler.function(cell.actor, message)
    execution: InlineExecution | None = None
    if handler.concurrent == 1:
        # It holds the actor's turn from the first step on: what it asks there may be a circle.
        cell.task = execution = InlineExecution(running_task(cell))
    cell.busy = True
    cell.idle = False
    try:
        waits_for = context.run(first_step, work, deadline, inline_depth.get())
    except StopIteration as done:
        if execution is not None:
            give_turn_back(cell, execution)
        answer: Any = done.value
        if not isinstance(answer, NO_ANSWERS):
            return answer
        ask = running(message, deadline)
        take_answer_or_crash(cell, ask, answer)
        return ask
    except Refusal:
        give_turn_back(cell, execution)
        raise
    except BaseException as error:  # noqa: BLE001 - `handler_raised` raises what concerns more than the actor.
        give_turn_back(cell, execution)
        ask = running(message, deadline)
        reroute_or_fail(cell, ask, error)
        handler_raised(cell, error, ask, None)
        return ask
    else:
        ask = running(message, deadline)
        lane, execution = take_place(cell, handler, ask, execution)
    finally:
        cell.busy = False
        if cell.task is not None or cell.queue or cell.wait_queue or cell.life is not IN_SERVICE:
            after_step(cell)
        else:
            cell.idle = True
    return wait_inline(cell, lane, execution, ask, execution.run(work, context, waits_for))


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


def running_task(cell: CellState) -> asyncio.Task[Any]:
    """Return the task that is running, which is the asker's."""
    task = asyncio.current_task(cell.engine.loop)
    assert task is not None  # noqa: S101 - asyncio steps a coroutine nowhere else.
    return task


def take_place(
    cell: CellState, handler: Handler, ask: Ask, turn: InlineExecution | None
) -> tuple[Lane | None, InlineExecution]:
    """Let a handler that waits in the running task take a place in its lane; without one, it holds the turn."""
    if turn is not None:
        ask.execution, cell.current = turn, ask
        return None, turn
    if cell.lanes is None:
        cell.lanes = Lanes()
    lane = cell.lanes.of(handler)
    execution = ask.execution = InlineExecution(running_task(cell))
    lane.running[execution] = ask
    return lane, execution


def give_turn_back(cell: CellState, turn: InlineExecution | None) -> None:
    """Let the actor's turn go that a handler held which ended in its first step."""
    if turn is not None and cell.task is turn:
        cell.task = None


def has_place(cell: CellState, lane: Lane | None, execution: InlineExecution) -> bool:
    """Tell whether an execution belongs to the present instance, and not to one whose handlers would not end."""
    return cell.task is execution if lane is None else is_current(cell, lane)


def leave_place(cell: CellState, lane: Lane | None, execution: InlineExecution) -> None:
    """See to what comes after a handler that has ended."""
    if lane is not None:
        leave_lane(cell, lane, execution)
    elif cell.task is execution:
        cell.task = cell.current = None
        after_activation(cell)


def after_step(cell: CellState) -> None:
    """Go on, end, or rest after the first step of a handler; one that holds the actor's turn keeps it."""
    if not isinstance(cell.task, InlineExecution):
        after_activation(cell)
    elif cell.life is not IN_SERVICE:
        advance(cell, QUIET)
    elif cell.wait_queue:
        admit_waiters(cell)


async def wait_inline(
    cell: CellState, lane: Lane | None, execution: InlineExecution, ask: Ask, work: Coroutine[Any, Any, Any]
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
            if not execution.handler_cancelled and not cell.goal and has_place(cell, lane, execution):
                handler_cancelled(cell, None, ask)
    except Refusal as refusal:
        ask.fail(refusal)
    except GeneratorExit:
        raise  # The loop is closed, and nothing is left to be told.
    except BaseException as error:  # noqa: BLE001 - `handler_raised` raises what concerns more than the actor.
        reroute_or_fail(cell, ask, error)
        if has_place(cell, lane, execution):
            handler_raised(cell, error, ask, None)
    finally:
        leave_place(cell, lane, execution)
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
