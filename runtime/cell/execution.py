"""How one item of the mail is handled: straight from the run queue, in the actor's task, or in one of its own.

Handlers of an actor that is purely sync are called straight from the run queue; an actor with an async handler gets
one task for as long as it has mail, and none at rest; a concurrent handler gets a task for each message.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from runtime.cell.answers import take_answer, take_outcome
from runtime.cell.failures import as_failure, crashed
from runtime.cell.inbox import admit_waiters, dead_letter, make_room
from runtime.cell.lanes import Lanes
from runtime.cell.life import advance, end, fail
from runtime.cell.phases import IN_SERVICE, KILL, QUIET
from runtime.cell.rerouting import reroute, reroute_or_fail
from runtime.deadline import current_deadline
from runtime.engine import MESSAGES_PER_ACTIVATION
from runtime.envelope import FROM_RUNTIME, RUNNING, WAITING, Ask, AskState, Unclaimed, deadline_of, told
from runtime.errors import Refusal, Unhandled
from runtime.events import DeadReason
from runtime.messages import name_of
from runtime.propagation import await_with, call_with, set_all

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from runtime.cell.lanes import Lane
    from runtime.cell.state import CellState
    from runtime.handlers import Handler


UNROUTED = (Ask, *FROM_RUNTIME)
"""Items whose crash is not rerouted: an asker is seen to elsewhere, and what the runtime tells an actor is its own."""


# The mail of an actor with an async handler.


async def handle_in_task(cell: CellState) -> None:
    """Handle mail until there is none, as the body of the actor's task."""
    task, engine = cell.task, cell.engine
    engine.at_work += 1
    try:
        await handle_all(cell)
    except BaseException as error:
        if cell.task is not task:
            raise  # It was given up as stuck, and another instance may be at work by now.
        cell.task = None
        handler_raised(cell, error, cell.current, task)
    else:
        if cell.task is task:
            cell.task = None
            cell.current = None
            after_activation(cell)
    finally:
        engine.at_work -= 1


async def handle_all(cell: CellState) -> None:
    """Handle mail in bounded turns until there is none, or the instance is to end."""
    queue, direct, actor = cell.queue, cell.actor.direct, cell.actor
    # Others may begin in this very turn, and are not counted yet: each has no more than an activation at first.
    limit = MESSAGES_PER_ACTIVATION
    while queue:
        for _ in range(limit):
            if not queue or cell.life is not IN_SERVICE:
                return
            cell.current = message = queue.popleft()
            try:
                try:
                    handle = direct[type(message)]
                except KeyError:
                    handle = None
                # Not within the `except`, whose KeyError would stand above each traceback.
                outcome = handle_item(cell, message) if handle is None else handle(actor, message)
                if outcome is not None:
                    if cell.wait_queue:
                        admit_waiters(cell)  # This message left room, and may take long.
                    answer = await outcome
                    if answer is not None:
                        take_outcome(cell, told(message), answer)
            except Refusal:
                dead_letter(cell, message, DeadReason.REFUSED)
        admit_waiters(cell)
        await asyncio.sleep(0)
        limit = cell.engine.share_of_turn()


def after_activation(cell: CellState) -> None:
    """Go on, end, or rest."""
    if cell.wait_queue:
        admit_waiters(cell)
    if cell.life is not IN_SERVICE:
        advance(cell, QUIET)
    elif cell.queue:
        cell.enqueue()
    else:
        cell.idle = True


# One item.


def handle_item(cell: CellState, item: Any) -> Coroutine[Any, Any, None] | None:
    """Handle what has no direct handler; a coroutine that is returned has to be awaited.

    There are three cases: 1. a request that was asked, 2. an answer that came back, 3. a message that was told, of
    which the handler is concurrent, or which travels with a deadline, or which the actor does not handle.
    """
    if isinstance(item, Ask):
        return handle_request(cell, item)
    if isinstance(item, Unclaimed):
        cell.actor.unclaimed(item.request, item.answer)
        return None
    return handle_told(cell, item)


def handle_told(cell: CellState, item: Any) -> Coroutine[Any, Any, None] | None:
    """Handle a message that was told."""
    message, deadline = told(item), deadline_of(item)
    handler = cell.actor.handlers[type(message)]
    if deadline is not None and deadline < cell.engine.time():
        dead_letter(cell, message, DeadReason.EXPIRED)
    elif handler is None:
        dead_letter(cell, message, DeadReason.UNHANDLED)
    elif handler.concurrent > 1:
        start_in_lane(cell, handler, item)
    elif handler.is_async:
        return handle_told_in_task(cell, handler, message, deadline)
    else:
        cell.until = deadline
        cell.current = item
        try:
            take_outcome(cell, message, handler.function(cell.actor, message))
        finally:
            cell.until = None
    return None


async def handle_told_in_task(cell: CellState, handler: Handler, message: Any, deadline: float | None) -> None:
    """Handle a message that was told, by an async handler."""
    current_deadline.set(deadline)
    try:
        take_outcome(cell, message, await handler.function(cell.actor, message))
    finally:
        current_deadline.set(None)


def handle_request(cell: CellState, ask: Ask) -> Coroutine[Any, Any, None] | None:
    """Handle a request that was asked, unless its asker has given up or its time is over."""
    if ask.progress is not WAITING:
        dead_letter(cell, ask, DeadReason.EXPIRED if ask.progress is AskState.EXPIRED else DeadReason.CANCELLED)
        return None
    # The time of the turn stands still while a handler of this actor is awaited.
    if ask.deadline < (cell.engine.turn_began if cell.task is None else cell.engine.time()):
        ask.expire()
        dead_letter(cell, ask, DeadReason.EXPIRED)
        return None
    handler = cell.actor.handlers[type(ask.message)]
    if handler is None:
        handled = sorted(one.__name__ for one, found in cell.actor.handlers.items() if found)
        ask.fail(Unhandled(cell.path, name_of(ask.message), handled=handled))
        dead_letter(cell, ask, DeadReason.UNHANDLED)
        return None
    if handler.concurrent > 1:
        start_in_lane(cell, handler, ask)
        return None
    ask.progress = RUNNING
    if handler.is_async:
        return answer_in_task(cell, handler, ask)
    cell.until = ask.deadline
    cell.current = ask
    try:
        if ask.carried:
            take_answer(cell, ask, call_with(ask.carried, handler.function, cell.actor, ask.message))
        else:
            take_answer(cell, ask, handler.function(cell.actor, ask.message))
    except Refusal as refusal:
        ask.fail(refusal)
    except BaseException as error:
        reroute_or_fail(cell, ask, error)
        raise
    finally:
        cell.until = None
    return None


async def answer_in_task(cell: CellState, handler: Handler, ask: Ask) -> None:
    """Handle a request that was asked, by an async handler."""
    task = cell.task
    ask.execution = task
    current_deadline.set(ask.deadline)
    try:
        if ask.carried:
            answer = await await_with(ask.carried, handler.function, cell.actor, ask.message)
        else:
            answer = await handler.function(cell.actor, ask.message)
        take_answer(cell, ask, answer)
    except asyncio.CancelledError:
        if cell.goal or ask.progress is RUNNING:
            ask.fail(crashed(cell.path, ask.message, None))
            raise
    except Refusal as refusal:
        ask.fail(refusal)
    except BaseException as error:
        reroute_or_fail(cell, ask, error)
        raise
    finally:
        current_deadline.set(None)
        if isinstance(task, asyncio.Task) and ask.execution is task:
            # The asker gave up, which cancelled this handler and nothing else.
            task.uncancel()


# Concurrent handlers.


def start_in_lane(cell: CellState, handler: Handler, item: Any) -> None:
    """Handle an item in a task of its own, as soon as there is a place."""
    if cell.lanes is None:
        cell.lanes = Lanes()
    lane = cell.lanes.of(handler)
    if lane.is_full:
        lane.waiting.append(item)
        make_room(cell, -1)  # It still takes up a place of the mailbox.
        return
    task = cell.engine.create_task(
        handle_in_lane(cell, lane, handler, item), name=f"{cell.name} {handler.message.__name__}"
    )
    lane.running[task] = item
    if isinstance(item, Ask):
        item.progress = RUNNING
        item.execution = task
    # Not a `finally` of the task, whose body does not even begin if it is cancelled at once.
    task.add_done_callback(lambda _: leave_lane(cell, lane, task), context=cell.engine.context)


async def handle_in_lane(cell: CellState, lane: Lane, handler: Handler, item: Any) -> None:
    """Handle an item, as the body of a task of its own."""
    ask = item if isinstance(item, Ask) else None
    message = told(item)
    current_deadline.set(deadline_of(item))
    try:
        if ask is not None:
            set_all(ask.carried)  # For good: the task is its own.
        answer = await handler.function(cell.actor, message)
        if ask is not None:
            take_answer(cell, ask, answer)
        else:
            take_outcome(cell, message, answer)
    except asyncio.CancelledError:
        raise
    except Refusal as refusal:
        if ask is not None:
            ask.fail(refusal)
        else:
            dead_letter(cell, message, DeadReason.REFUSED)
    except BaseException as error:
        if ask is not None:
            reroute_or_fail(cell, ask, error)
        if not is_current(cell, lane):
            raise
        handler_raised(cell, error, item, None)


def is_current(cell: CellState, lane: Lane) -> bool:
    """Tell whether a lane belongs to the present instance, and not to one whose handlers would not end."""
    return cell.lanes is not None and lane in cell.lanes


def leave_lane(cell: CellState, lane: Lane, execution: asyncio.Future[None]) -> None:
    """See to the next message of the lane, and to a handler that ended by cancellation."""
    item = lane.running.pop(execution, None)
    ask = item if isinstance(item, Ask) else None
    if execution.cancelled() and (ask is None or ask.progress is RUNNING):
        # Neither the asker nor, unless there is a goal, the runtime cancelled it.
        if ask is not None:
            ask.fail(crashed(cell.path, ask.message, None))
        if not cell.goal and is_current(cell, lane):
            handler_cancelled(cell, execution, item)
    while not cell.goal and is_current(cell, lane) and lane.waiting and not lane.is_full:
        item = lane.waiting.popleft()
        make_room(cell, 1)
        handle_item(cell, item)
    if cell.wait_queue:
        admit_waiters(cell)
        if cell.queue and cell.idle:
            cell.schedule()


# Handlers that went wrong.


def handler_raised(cell: CellState, error: BaseException, item: Any, task: asyncio.Future[None] | None) -> None:
    """End the instance as the exception that left one of its handlers, or its start, demands."""
    if isinstance(error, asyncio.CancelledError):
        if not cell.goal:
            handler_cancelled(cell, task, item)
        return
    fail(cell, as_failure(error), item)
    if item is not None and not isinstance(item, UNROUTED):
        reroute(cell, item, error)
    if not isinstance(error, Exception):
        raise error  # It ends the program; what cleans up must not find an actor that is stuck.


def handler_cancelled(cell: CellState, task: asyncio.Future[None] | None, item: Any) -> None:
    """End the instance after the cancellation of a handler that is neither its asker's nor the runtime's."""
    if isinstance(task, asyncio.Task) and task.cancelling():
        # The tasks of this loop are being cancelled one by one, as `asyncio.run` does at its end.
        end(cell, KILL)
    else:
        fail(cell, as_failure(asyncio.CancelledError()), item)
