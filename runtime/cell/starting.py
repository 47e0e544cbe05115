"""How an instance begins: it is made anew after a restart, and its `started` hook runs, sync or in a task."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

from runtime.actor import Actor
from runtime.cell.execution import after_activation, handler_raised
from runtime.cell.life import ONCE_STARTED, advance
from runtime.cell.phases import QUIET, RESTART_DUE, STARTING_UP
from runtime.events import ActorRestarted, ActorStarted

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime.cell.state import CellState


def begin(cell: CellState) -> None:
    """Start the instance, in a turn of the cell."""
    if cell.task is not None:
        return  # Its `started` hook is still running.
    cell.busy = True
    try:
        if cell.stale:
            renew(cell)
        else:
            cell.started_at = cell.engine.turn_began
        actor = cell.actor
        if actor.starts_async:
            cell.task = cell.engine.create_task(begin_in_task(cell), name=f"{cell.name} starts")
            cell.task.add_done_callback(partial(never_begun, cell), context=cell.engine.context)
            return
        actor.started()
        cell.begun = True
    except BaseException as error:  # noqa: BLE001 - `handler_raised` raises what concerns more than the actor.
        handler_raised(cell, error, None, None)
    finally:
        cell.busy = False
        if cell.begun and cell.life is STARTING_UP:
            now_alive(cell)
        elif cell.task is None:
            after_activation(cell)
        elif not cell.is_alive:
            advance(cell, QUIET)  # It was told to end while its instance was made; the hook may finish.


def renew(cell: CellState) -> None:
    """Make the instance that takes over from one that has ended."""
    context = cell.actor.bound_to
    cell.actor = actor = made_by(cell.factory)
    actor.bound_to = context
    if cell.engine.interceptors is not None:
        cell.engine.interceptors.intercept(actor)


def never_begun(cell: CellState, starting: asyncio.Task[None]) -> None:
    """End an instance whose start was cancelled before its first step."""
    if cell.task is starting:
        cell.task = None
        handler_raised(cell, asyncio.CancelledError(), None, starting)


async def begin_in_task(cell: CellState) -> None:
    """Run an async `started`, as the body of a task."""
    task = cell.task
    try:
        await cell.actor.started()
    except BaseException as error:
        if cell.task is not task:
            raise  # It was given up as stuck.
        cell.task = None
        handler_raised(cell, error, None, task)
    else:
        if cell.task is task:
            cell.task = None
            cell.begun = True
            if cell.life is STARTING_UP:
                now_alive(cell)


def now_alive(cell: CellState) -> None:
    """Let the actor handle its mail, and announce it."""
    cell.life = ONCE_STARTED  # As `advance` would look up, for an actor that is starting up and has no goal.
    events = cell.engine.events
    if cell.stale:
        cell.stale = False
        if events.wants(ActorRestarted):
            events.publish(ActorRestarted(cell.ref, cell.attempt, cell.cause))
        cell.cause = None
    elif events.wants(ActorStarted):
        events.publish(ActorStarted(cell.ref))
    if cell.queue or cell.wait_queue:
        after_activation(cell)
    else:
        cell.idle = True


def restart_after(cell: CellState, delay: float, cause: Exception | None) -> None:
    """Start a new instance in `delay` seconds, because of what the last one crashed with, if it did."""
    cell.attempt += 1
    cell.cause = cause
    if delay > 0:
        engine = cell.engine
        due = engine.loop.call_later(delay, advance, cell, RESTART_DUE, context=engine.context)
        cell.restart_timer = due
    else:
        advance(cell, RESTART_DUE)


def never_again() -> Actor[Any]:
    """Stand in for the factory of a temporary actor."""
    raise RuntimeError("a temporary actor is not restarted")


def made_by(factory: Callable[[], Any]) -> Actor[Any]:
    """Return a new actor; raise `TypeError` for a factory that does not give one each time it is called."""
    try:
        made = factory()
    except TypeError:
        if callable(factory):
            raise
        raise TypeError(f"spawn takes an Actor class or a function that makes one, got {factory!r}") from None
    if not isinstance(made, Actor):
        raise TypeError(f"spawn takes an Actor class or a function that makes one; {factory!r} made {made!r}")
    if made.bound_to is not None:
        raise TypeError(f"{factory!r} gave an actor that runs already; it must make a new one each time it is called")
    return made  # pyright: ignore[reportUnknownVariableType] - of whatever it handles.
