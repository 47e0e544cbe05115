"""A message whose handler crashed is handed to another actor, if the supervisor says so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runtime.cell.failures import crashed
from runtime.cell.inbox import dead_letter
from runtime.envelope import Ask, Envelope, Told, deadline_of, told
from runtime.events import ActorFailed, DeadReason

if TYPE_CHECKING:
    from runtime.cell.state import CellState
    from runtime.ref import ActorRef


def reroute_or_fail(cell: CellState, ask: Ask, error: BaseException) -> None:
    """Let another actor handle a request whose handler crashed, or tell its asker."""
    if not reroute(cell, ask, error):
        ask.fail(crashed(cell.path, ask.message, error))


def reroute(cell: CellState, item: Any, error: BaseException) -> bool:
    """Hand on an item whose handler crashed, if the supervisor says where to; False if it is lost here."""
    owner = cell.owner
    plan = owner.supervision.reroute if owner is not None else None
    if owner is None or plan is None or not isinstance(error, Exception):
        return False
    try:
        if not plan.when(error):
            return False
    except Exception as broken:  # noqa: BLE001 - the event tells; the crash itself has to be seen to.
        cell.engine.events.publish(ActorFailed(owner.ref, broken, told(item)))
        return False
    times = (item.reroutes if isinstance(item, Envelope) else 0) + 1
    target = sibling(cell, plan.to) if isinstance(plan.to, str) else plan.to
    if times > plan.max_times or target is None or target is cell.ref:
        dead_letter(cell, item, DeadReason.POISON)
        return False
    if isinstance(item, Ask):
        item.reroutes = times
        item.answerer = None
        item.put_back()
    else:
        item = Told(told(item), deadline=deadline_of(item), reroutes=times)
    target.recipient.take_over(item)
    return True


def sibling(cell: CellState, name: str) -> ActorRef[Any] | None:
    """Return the child of the same parent that has this name, if it is alive."""
    supervised = cell.owner.supervised if cell.owner is not None else None
    child = supervised.by_name.get(name) if supervised is not None else None
    return child.ref if child is not None else None
