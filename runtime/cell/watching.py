"""Actors that are told, by `Terminated`, when another one ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runtime.cell.inbox import accept, drop
from runtime.events import Terminated

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runtime.cell.far_target import FarTarget
    from runtime.cell.state import CellState
    from runtime.supervision import Exit


def watch(cell: CellState, target: CellState | FarTarget) -> None:
    """Have the actor told when `target` ends, or now if it has; see `Context.watch`."""
    if target.exit is not None:
        tell_of_end(cell, target, target.exit)
        return
    if target.watchers is None:
        target.watchers = {}
    if cell.watching is None:
        cell.watching = {}
    target.watchers[cell] = cell.watching[target] = None


def unwatch(cell: CellState, target: CellState | FarTarget) -> None:
    """Undo `watch`."""
    if target.watchers is not None and cell.watching is not None:
        target.watchers.pop(cell, None)
        cell.watching.pop(target, None)


def unwatch_all(cell: CellState) -> None:
    """Undo every `watch` of the instance."""
    for target in cell.watching or ():
        if target.watchers is not None:
            target.watchers.pop(cell, None)
    cell.watching = None


def tell_watchers(cell: CellState | FarTarget, watchers: Iterable[CellState], exit: Exit) -> None:  # noqa: A002 - the field's word for how a process ended.
    """Tell all that watch the actor how it has ended."""
    cell.watchers = None
    for watcher in watchers:
        if watcher.watching is not None:
            watcher.watching.pop(cell, None)
        tell_of_end(watcher, cell, exit)


def tell_of_end(watcher: CellState, target: CellState | FarTarget, exit: Exit) -> None:  # noqa: A002 - as above.
    """Tell one of them, whatever its room."""
    accept(watcher, Terminated(target.ref, exit), needs_room=False, otherwise=drop)
