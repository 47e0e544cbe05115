"""What an actor is doing, as counts and plain values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runtime.cell.phases import IN_SERVICE
from runtime.snapshot import ActorSnapshot

if TYPE_CHECKING:
    from runtime.cell.state import CellState


def waiting(cell: CellState) -> int:
    """Return how many messages are in the mailbox, those that wait for a place in a lane included."""
    return len(cell.queue) + (cell.lanes.waiting if cell.lanes is not None else 0)


def working(cell: CellState) -> int:
    """Return how many handlers are under way, and answers still to come from a future."""
    at_work = cell.busy or (cell.task is not None and cell.current is not None)
    return at_work + len(cell.lane_tasks()) + len(cell.later or ())


def load(cell: CellState) -> int:
    """Return how many messages wait, in the mailbox or for room there, or are being handled."""
    return waiting(cell) + len(cell.wait_queue or ()) + working(cell)


def describe(cell: CellState) -> str:
    """Say in a few words where the actor is, and how it is."""
    facts = [f"{cell.path} {cell.phase.value}"]
    if cell.queue:
        facts.append(f"{len(cell.queue)} waiting")
    if cell.attempt:
        facts.append(f"{cell.attempt} restarts")
    if cell.exit is not None:
        facts.append(cell.exit.reason.value)
    return ", ".join(facts)


def snapshot(cell: CellState) -> ActorSnapshot:
    """Describe the actor and all below it as plain values."""
    children = cell.supervised.by_name.values() if cell.supervised is not None else ()
    under_way = working(cell)
    return ActorSnapshot(
        path=cell.path,
        actor=type(cell.actor).__name__,
        phase=cell.phase.value,
        waiting=waiting(cell),
        capacity=cell.mailbox.capacity,
        working=under_way,
        idle=cell.idle and cell.life is IN_SERVICE and not under_way,
        restarts=cell.attempt,
        age=cell.engine.loop.time() - cell.started_at,
        children=tuple(child.snapshot() for child in children),
    )
