"""Finds circles of actors of which each waits, in its only handler, for the answer of the next: no turn can come."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runtime.cell.failures import waits_for_itself
from runtime.cell.inline_execution import InlineExecution
from runtime.envelope import WAITING

if TYPE_CHECKING:
    import asyncio
    from typing import Any

    from runtime.cell.state import CellState
    from runtime.envelope import Ask


def register_wait(cell: CellState, ask: Ask, asker: asyncio.Task[Any] | None) -> None:
    """Note that `asker` waits for a request to `cell`; raise RuntimeError if that would wait for its own asker."""
    circle = circle_of(cell, ask, asker)
    if circle:
        ask.cancel()
        raise waits_for_itself([one.path for one in circle], ask.message)
    cell.engine.asking[asker] = ask


def circle_of(cell: CellState, ask: Ask, asker: asyncio.Task[Any] | None) -> list[CellState]:
    """Return the actors, the asked `cell` first, through which a request waits for its own `asker`; [] if it does not.

    Only a request that can have no turn counts: each actor is at work in its own task, which waits for the next. One
    whose handler is concurrent, or has returned its future, is free for other messages.
    """
    path: list[CellState] = []
    while True:
        task = cell.task
        if task is None or not waits_for(ask, cell, task):
            return []
        path.append(cell)
        if isinstance(task, InlineExecution):
            task = task.task
        if task is asker:
            return path
        pending = cell.engine.asking.get(task)
        if pending is None or pending.answerer is None or pending.answerer in path:
            return []
        ask, cell = pending, pending.answerer


def waits_for(ask: Ask, cell: CellState, task: asyncio.Task[None] | InlineExecution) -> bool:
    """Tell whether a request cannot be answered before what the asked actor runs goes on."""
    if ask.execution is task:
        return True
    is_parked = cell.lanes is not None and any(ask in lane.waiting for lane in cell.lanes)
    return ask.progress is WAITING and not is_parked
