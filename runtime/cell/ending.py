"""How an instance ends: its handlers first, then its children, then its `stopped` hook, each within a limit."""

from __future__ import annotations

import asyncio
from functools import partial
from inspect import isawaitable
from typing import TYPE_CHECKING, Any

from runtime.cell.failures import as_failure
from runtime.cell.inbox import make_room, put_in_front
from runtime.cell.phases import CLEANED_UP, KILL, LifeEvent
from runtime.cell.stash import unstash_all
from runtime.cell.state import NO_MAIL
from runtime.cell.watching import unwatch_all
from runtime.envelope import Ask
from runtime.errors import ActorCrashed
from runtime.events import ActorFailed, CancellationIgnored
from runtime.messages import name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeAlias

    from runtime.cell.lanes import Lanes
    from runtime.cell.state import CellState

    Report: TypeAlias = Callable[[CellState, LifeEvent], None]
    """Says that the instance is cleaned up."""


def wind_down(cell: CellState, report: Report) -> None:
    """Let the instance end, and report it: at once if nothing has to be waited for, or from a task."""
    cell.idle = False
    if cell.own_timers is not None:
        drop_timers(cell)
    if cell.watching is not None:
        unwatch_all(cell)
    if cell.later:
        for future in tuple(cell.later):
            future.cancel()
    hook = cell.actor.stopped
    if (
        cell.task is not None
        or (cell.supervised is not None and cell.supervised.by_name)
        or (cell.lanes is not None and cell.lanes.running)
        or cell.later
        or cell.actor.stops_async
    ):
        ending = cell.lifecycle = cell.engine.create_task(wind_down_in_task(cell, report), name=f"{cell.name} ends")
        # What cancels all tasks, as `asyncio.run` does after a `sys.exit`, may come before its first step.
        ending.add_done_callback(partial(never_wound_down, cell, report), context=cell.engine.context)
        return
    try:
        if cell.begun:
            hook()
    except BaseException as error:
        # It ends all the same; the event tells why it was not clean.
        cell.engine.events.publish(ActorFailed(cell.ref, as_failure(error)))
        if not isinstance(error, Exception | asyncio.CancelledError):
            raise
    finally:
        report(cell, CLEANED_UP)


async def wind_down_in_task(cell: CellState, report: Report) -> None:
    """Wait for handlers and children, and run the hook, which may be async."""
    try:
        await finish_handlers(cell)
        if cell.supervised is not None:
            if cell.goal is KILL:
                cell.supervised.kill_all()
            await cell.supervised.stop_all()
        if cell.begun:
            hook = cell.engine.create_task(run_stopped_hook(cell), name=f"{cell.name} stopped")
            await finish(cell, {hook: None})
    finally:
        end_at_once(cell, report)


def never_wound_down(cell: CellState, report: Report, ending: asyncio.Task[None]) -> None:
    """End an instance whose orderly end was cancelled before it began."""
    if cell.lifecycle is ending:
        end_at_once(cell, report)


def end_at_once(cell: CellState, report: Report) -> None:
    """End the instance without waiting for what is left of its children."""
    cell.lifecycle = None
    kill_children(cell)
    report(cell, CLEANED_UP)


async def run_stopped_hook(cell: CellState) -> None:
    """Run the hook, and report what it raises: the instance ends all the same."""
    try:
        outcome = cell.actor.stopped()
        if isawaitable(outcome):
            await outcome
    except asyncio.CancelledError:
        late = TimeoutError(f"its `stopped` hook was cancelled; it has {cell.options.stop_timeout:g} s")
        cell.engine.events.publish(ActorFailed(cell.ref, late))
    except Exception as error:  # noqa: BLE001 - the event tells why the end was not clean.
        cell.engine.events.publish(ActorFailed(cell.ref, error))


async def finish_handlers(cell: CellState) -> None:
    """Wait for the handlers and answers that are under way."""
    work: dict[asyncio.Future[Any], Any] = dict(cell.later or {})
    if cell.lanes is not None:
        work.update(cell.lanes.running)
    if cell.task is not None:
        work[cell.task] = cell.current
    await finish(cell, work)
    await finish(cell, dict(cell.later or {}))


async def finish(cell: CellState, work: Mapping[asyncio.Future[Any], Any]) -> None:
    """Wait for what still runs, cancel it at the limit, and report what will not end."""
    if not work:
        return
    limit = cell.options.stop_timeout
    await asyncio.wait(work, timeout=limit)
    # In their order: a set of futures has none that could be repeated.
    late = [future for future in work if not future.done()]
    if not late:
        return
    for future in late:
        future.cancel()
    await asyncio.wait(late, timeout=limit)
    stuck = [future for future in late if not future.done()]
    for future in stuck:
        message = work[future]
        if isinstance(message, Ask):
            message.fail(ActorCrashed(cell.path, name_of(message.message), reason="its handler does not end"))
            message = message.message
        cell.engine.events.publish(CancellationIgnored(cell.ref, message))
    if cell.task in stuck and cell.queue is not NO_MAIL:
        # It still goes through the mail; what is left belongs to the next instance.
        left, cell.queue = cell.queue, cell.engine.new_queue(cell)
        cell.queue.extend(left)
        left.clear()


def cancel_handlers(cell: CellState) -> None:
    """Cancel every handler that runs; one that has not begun goes back to the mail, and survives a restart."""
    if cell.task is not None:
        cell.task.cancel()
    if cell.lanes is not None:
        make_room(cell, -cell.lanes.cancel())


def kill_children(cell: CellState) -> None:
    """Kill every child; their ends follow."""
    if cell.supervised is not None:
        cell.supervised.kill_all()


def release(cell: CellState) -> None:
    """Give up what belonged to the instance, and put the mail that it had set aside back into the mailbox."""
    cell.begun = False
    cell.task = None
    cell.current = None
    if cell.later is not None:
        cell.later = None
    if cell.supervised is not None:
        cell.supervised.forget_group()
        cell.supervised = None
    if cell.own_timers is not None:
        drop_timers(cell)
    if cell.lanes is not None:
        requeue_parked(cell, cell.lanes)
    if cell.stashed is not None:
        unstash_all(cell)


def requeue_parked(cell: CellState, lanes: Lanes) -> None:
    """Put back into the mailbox what waited for a place in a lane; it survives a restart like other mail."""
    cell.lanes = None
    for lane in lanes:
        put_in_front(cell, lane.waiting)
        make_room(cell, len(lane.waiting))


def drop_timers(cell: CellState) -> None:
    """Cancel the timers of the instance."""
    if cell.own_timers is not None:
        cell.own_timers.cancel_all()
        cell.own_timers = None
