"""Messages that an actor puts aside while it handles them, to have them again after a change of its state."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

from runtime.cell.inbox import put_in_front
from runtime.cell.phases import ENDED
from runtime.envelope import Ask, Stashed, told
from runtime.errors import ActorStopped, MailboxFull
from runtime.messages import name_of

if TYPE_CHECKING:
    from runtime.cell.state import CellState


def stash(cell: CellState, message: Any) -> Any:
    """Put the message being handled aside; see `Context.stash`."""
    if cell.phase is ENDED:
        raise ActorStopped(cell.path, name_of(message))
    if is_handled_in_lane(cell, message):
        raise RuntimeError(f"{cell.path} cannot stash {name_of(message)}, whose handler is concurrent")
    item: Any = cell.current
    if item is None and cell.until is not None:
        # It came without an envelope, because the actor was at rest.
        cell.current = item = Ask(message, cell.until)
    elif item is None or (told(item) is not message and cell.engine.interceptors is None):
        item = message  # A plain message in the run queue; an interceptor may have replaced what is in `item`.
    if cell.stashed is None:
        cell.stashed = deque()
    if len(cell.stashed) >= cell.mailbox.capacity:
        raise MailboxFull(cell.path, capacity=cell.mailbox.capacity)
    cell.stashed.append(item)
    return Stashed(item) if isinstance(item, Ask) else None


def is_handled_in_lane(cell: CellState, message: Any) -> bool:
    """Tell whether a concurrent handler runs here, or has the message."""
    if cell.lanes is None:
        return False
    messages = {task: told(item) for task, item in cell.lanes.running.items()}
    return (not cell.busy and asyncio.current_task() in messages) or any(one is message for one in messages.values())


def unstash_all(cell: CellState) -> None:
    """Put what was stashed back in front of the mail, in its order."""
    stashed = cell.stashed
    if stashed is not None:
        cell.stashed = None
        put_in_front(cell, stashed)
        if cell.idle:
            cell.schedule()
