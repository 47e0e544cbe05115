"""What an actor is doing, as counts and plain values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runtime.cell.phases import IN_SERVICE
from runtime.snapshot import ActorRow, ActorRows, ActorSnapshot

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

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


def row(cell: CellState, depth: int) -> ActorRow:
    """Describe the actor as one line."""
    return ActorRow(
        path=cell.path,
        depth=depth,
        actor=type(cell.actor).__name__,
        phase=cell.phase.value,
        waiting=waiting(cell),
        capacity=cell.mailbox.capacity,
        working=working(cell),
        restarts=cell.attempt,
        started_at=cell.started_at,
        children=0 if cell.supervised is None else len(cell.supervised.by_name),
    )


class RowWindow:
    """Takes the lines from `first` on, at most `most`, of a tree in which the actors at `opened` show their children.

    Only what is opened or taken is looked at one by one, however many actors there are.
    """

    def __init__(self, opened: Collection[str], *, first: int, most: int) -> None:
        self._first, self._end = first, first + most
        self._opened: dict[str, list[str]] = {}
        for path in opened:
            above, _, name = path.rpartition("/")
            self._opened.setdefault(above, []).append(name)
        self._paths = frozenset(opened)
        self._seen = 0
        self._rows: list[ActorRow] = []

    def rows(self, root: CellState) -> ActorRows:
        """Return the lines of a tree."""
        self._take(root, 0)
        return ActorRows(total=self._seen, first=self._first, rows=tuple(self._rows))

    def _take(self, cell: CellState, depth: int) -> None:
        self._take_closed((cell,), depth)
        path = cell.path
        if path not in self._paths or cell.supervised is None:
            return
        children: Sequence[Any] = list(cell.supervised.by_name.values())
        names = list(cell.supervised.by_name) if path in self._opened else []
        known = cell.supervised.by_name
        at = 0
        for place in sorted(names.index(name) for name in self._opened.get(path, ()) if name in known):
            self._take_closed(children[at:place], depth + 1)
            self._take(children[place], depth + 1)
            at = place + 1
        self._take_closed(children[at:], depth + 1)

    def _take_closed(self, cells: Sequence[Any], depth: int) -> None:
        """Take those of some actors that are within the window, without their children."""
        inside = cells[max(0, self._first - self._seen) : max(0, self._end - self._seen)]
        self._rows += [row(cell, depth) for cell in inside]
        self._seen += len(cells)
