"""Performs what the table of `phases` says follows an event in the life of an actor."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from runtime.cell.ending import cancel_handlers, kill_children, release, wind_down
from runtime.cell.inbox import close, dead_letter_all
from runtime.cell.phases import (
    AWAITING_RESTART,
    CRASH,
    ENDED,
    GIVEN_UP,
    LIFE_STATES,
    QUIET,
    STARTED,
    STARTING_UP,
    TRANSITIONS,
    Action,
    Event,
    Goal,
)
from runtime.cell.watching import tell_watchers
from runtime.envelope import told
from runtime.events import ActorEnded, ActorFailed
from runtime.supervision import KILLED, STOPPED, Exit, ended_by

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from typing import Any

    from runtime.cell.state import CellState


def advance(cell: CellState, event: Event) -> None:
    """Go on in an actor's life."""
    cell.life, actions = cell.life.plan[event]
    for perform in actions:
        perform(cell)


def end(cell: CellState, goal: Goal) -> None:
    """End the instance, and let `goal` follow: now, or once the handler that is on the stack has returned."""
    advance(cell, goal)
    if not cell.busy:
        advance(cell, QUIET)


def fail(cell: CellState, error: Exception, item: Any) -> None:
    """End the instance because a handler raised while it handled `item`, or a hook did (`item` None)."""
    events = cell.engine.events
    if events.wants(ActorFailed):
        events.publish(ActorFailed(cell.ref, error, told(item)))
    cell.cause = error
    end(cell, CRASH)


def terminate(cell: CellState, exit: Exit) -> None:  # noqa: A002 - the field's word for how a process ended.
    """Let the actor end for good."""
    if cell.exit is None:
        cell.exit = exit
        advance(cell, GIVEN_UP)


async def wait_until_ended(cell: CellState) -> Exit:
    """Wait until the actor has ended for good, and return how."""
    while cell.exit is None:
        await wait_for_end(cell)
    return cell.exit


async def wait_until_instance_ended(cell: CellState) -> None:
    """Wait until there is no instance."""
    while cell.phase not in (AWAITING_RESTART, ENDED):
        await wait_for_end(cell)


async def wait_for_end(cell: CellState) -> None:
    """Wait until the instance has ended, or the actor has."""
    future: asyncio.Future[None] = cell.engine.loop.create_future()
    if cell.end_waiters is None:
        cell.end_waiters = []
    cell.end_waiters.append(future)
    try:
        await future
    finally:
        if cell.end_waiters is not None and future in cell.end_waiters:
            cell.end_waiters.remove(future)


# The actions.


def _wind_down(cell: CellState) -> None:
    wind_down(cell, report=advance)


def _ask_supervisor(cell: CellState) -> None:
    cause, cell.cause = cell.cause, None
    siblings = cell.owner.supervised if cell.owner is not None else None
    if siblings is not None:
        siblings.failed(cell.name, cause)
    else:
        terminate(cell, ended_by(cause))


def _cancel_restart(cell: CellState) -> None:
    if cell.restart_timer is not None:
        cell.restart_timer.cancel()
        cell.restart_timer = None


def _enqueue_start(cell: CellState) -> None:
    cell.stale = True
    cell.restart_timer = None
    cell.enqueue()


def _end_given_up(cell: CellState) -> None:
    _end(cell, cell.exit or STOPPED)  # `terminate` has set it.


def _end(cell: CellState, exit: Exit) -> None:  # noqa: A002 - as above.
    cell.exit = exit
    if cell.cause is not None:
        cell.cause = None
    if cell.kept_values is not None:
        cell.kept_values = None
    close(cell)
    dead_letter_all(cell)
    siblings = cell.owner.supervised if cell.owner is not None else None
    if siblings is not None:
        siblings.forget(cell.name, cell.ref)
    if cell.watchers is not None:
        tell_watchers(cell, cell.watchers, exit)
    cell.engine.events.publish(ActorEnded(cell.ref, exit))


def _notify(cell: CellState) -> None:
    waiters = cell.end_waiters
    if waiters is not None:
        cell.end_waiters = None
        for future in waiters:
            if not future.done():
                future.set_result(None)


PERFORM: dict[Action, Callable[[CellState], None]] = {
    Action.CLOSE_MAILBOX: close,
    Action.CANCEL_RESTART: _cancel_restart,
    Action.CANCEL_HANDLERS: cancel_handlers,
    Action.KILL_CHILDREN: kill_children,
    Action.WIND_DOWN: _wind_down,
    Action.RELEASE: release,
    Action.ASK_SUPERVISOR: _ask_supervisor,
    Action.END_STOPPED: partial(_end, exit=STOPPED),
    Action.END_KILLED: partial(_end, exit=KILLED),
    Action.END_GIVEN_UP: _end_given_up,
    Action.NOTIFY: _notify,
    Action.ENQUEUE_START: _enqueue_start,
}


def fill_in_plans() -> None:
    """Put the table into the states of a life, with functions in place of the actions."""
    for (phase, goal, event), step in TRANSITIONS.items():
        actions = tuple(PERFORM[action] for action in step.actions)
        LIFE_STATES[phase, goal].plan[event] = LIFE_STATES[step.phase, step.goal], actions


fill_in_plans()
ONCE_STARTED, _ = STARTING_UP.plan[STARTED]
"""What a start leads to; so many actors start that each is spared the look-up."""
