"""How mail gets into an actor's mailbox, how a sender waits for room there, and what becomes of mail without room."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

from runtime.cell.state import NO_MAIL, PendingSend
from runtime.deadline import current_deadline, earlier
from runtime.envelope import FROM_RUNTIME, WAITING, Ask, Envelope, Unclaimed
from runtime.errors import ActorStopped, AskTimeout, MailboxFull
from runtime.events import DeadLetter, DeadReason
from runtime.mailbox import Overflow
from runtime.messages import name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runtime.cell.state import CellState

LONGEST = 1e12
"""Seconds: a wait as long as that is one for ever, and no clock could tell when it is over."""


def accept(
    cell: CellState,
    item: Any,
    *,
    otherwise: Callable[[CellState, Any], None],
    needs_room: bool = True,
    in_front: bool = False,
) -> None:
    """Put an item into the mailbox; if there is no room, or the actor takes no more mail, do `otherwise` with the item.

    With `needs_room` False the mailbox may grow beyond its capacity; with `in_front` the item overtakes the mail.
    """
    if cell.queue is NO_MAIL and not cell.closed:
        open_queue(cell)
    if cell.closed or (needs_room and len(cell.queue) >= cell.room):
        otherwise(cell, item)
        return
    if cell.idle:
        cell.schedule()
    if in_front:
        cell.queue.appendleft(item)
    else:
        cell.queue.append(item)


def accept_if_room(cell: CellState, item: Any) -> bool:
    """Put an item into the mailbox if there is room; False if there is not. It is `accept` made quick, for `ask`."""
    if cell.queue is NO_MAIL and not cell.closed:
        open_queue(cell)
    if len(cell.queue) >= cell.room:
        return False
    if cell.idle:
        cell.schedule()
    cell.queue.append(item)
    return True


def is_waiting(cell: CellState, item: Any) -> bool:
    """Tell whether this very item waits in the mailbox, or for a place in a lane."""
    if any(one is item for one in cell.queue):
        return True
    return cell.lanes is not None and any(one is item for lane in cell.lanes for one in lane.waiting)


# What may be done with an item that found no room.


def apply_overflow_rule(cell: CellState, message: Any) -> None:
    """Do with a told message as the mailbox says."""
    if cell.closed:
        dead_letter(cell, message, DeadReason.STOPPED)
        return
    match cell.mailbox.overflow:
        case Overflow.REJECT:
            raise MailboxFull(cell.path, capacity=cell.mailbox.capacity)
        case Overflow.DROP_NEWEST:
            dead_letter(cell, message, DeadReason.FULL)
        case Overflow.DROP_OLDEST:
            if drop_oldest(cell):
                accept(cell, message, needs_room=False, otherwise=dead_letter_instead)
            else:
                dead_letter(cell, message, DeadReason.FULL)


def dead_letter_instead(cell: CellState, item: Any) -> None:
    """Make it a dead letter; its sender, such as a timer, could not be told by an exception."""
    dead_letter(cell, item, DeadReason.STOPPED if cell.closed else DeadReason.FULL)


def drop(cell: CellState, item: Any) -> None:
    """Do nothing with it: an actor that takes no more mail need not know."""


def enqueue_waiter(cell: CellState, item: Ask | PendingSend) -> None:
    """Let it wait for room."""
    if cell.wait_queue is None:
        cell.wait_queue = cell.engine.new_wait_queue(cell)
    cell.wait_queue[item] = None


def accept_rerouted(cell: CellState, item: Any) -> None:
    """Take over an item whose handler crashed elsewhere, or which was sent to a router."""
    waits = isinstance(item, Ask) and not cell.closed  # Its asker has a deadline.
    accept(cell, item, otherwise=enqueue_waiter if waits else dead_letter_instead)


# Dead letters.


def dead_letter(cell: CellState, item: Any, reason: DeadReason) -> None:
    """Publish a message that no handler will see; its asker, if any, is told."""
    if isinstance(item, Envelope):
        item.dead_letter(reason, cell)
        item = item.message
    if not isinstance(item, DeadLetter):  # Otherwise one told to a stopped subscriber would breed for ever.
        cell.engine.events.publish(DeadLetter(cell.ref, item, reason))


def dead_letter_all(cell: CellState) -> None:
    """Turn what is left into dead letters, and tell what waits for room that there will be none."""
    while cell.queue:
        dead_letter(cell, cell.queue.popleft(), DeadReason.STOPPED)
    cell.queue = NO_MAIL
    wait_queue, cell.wait_queue = cell.wait_queue, None
    for item in wait_queue or ():
        if isinstance(item, Ask):
            item.fail(ActorStopped(cell.path, name_of(item.message)))
        else:
            item.expire()


def drop_oldest(cell: CellState) -> bool:
    """Make the mail that has waited longest a dead letter; False if all there is comes from the runtime."""
    lane = cell.lanes.longest if cell.lanes is not None else None
    if lane is not None:  # What waits there left the queue before the rest.
        make_room(cell, 1)
        dead_letter(cell, lane.waiting.popleft(), DeadReason.FULL)
        return True
    for position, item in enumerate(cell.queue):
        if not isinstance(item, FROM_RUNTIME):
            del cell.queue[position]
            dead_letter(cell, item, DeadReason.FULL)
            return True
    return False


# The queue itself.


def open_queue(cell: CellState) -> None:
    """Make the queue, for the first message."""
    cell.queue = cell.engine.new_queue(cell)
    cell.room = 0 if cell.closed else cell.mailbox.capacity


def close(cell: CellState) -> None:
    """Take no more mail; what comes from now on is a dead letter."""
    cell.closed = True
    cell.room = 0


def make_room(cell: CellState, places: int) -> None:
    """Have that many places more; less (< 0) if mail leaves the queue but not the mailbox."""
    if not cell.closed:
        cell.room += places


def put_in_front(cell: CellState, items: Sequence[Any]) -> None:
    """Put back mail that had left the queue, before the rest but for answers that came back."""
    if cell.queue is NO_MAIL:
        open_queue(cell)
    queue = cell.queue
    first: list[Any] = []
    while queue and isinstance(queue[0], Unclaimed):
        first.append(queue.popleft())
    queue.extendleft(reversed(items))
    queue.extendleft(reversed(first))


# Waiting for room.


def admit_waiters(cell: CellState) -> None:
    """Let in what waits for room, in the order of its arrival."""
    wait_queue = cell.wait_queue
    while wait_queue and len(cell.queue) < cell.room:
        item, _ = wait_queue.popitem(last=False)
        if isinstance(item, Ask):
            if item.progress is WAITING:
                cell.queue.append(item)
        elif not item.waiter.done():
            cell.queue.append(item.message)
            item.waiter.set_result(True)


def dequeue_waiter(cell: CellState, item: Ask | PendingSend) -> None:
    """Let it wait no longer."""
    if cell.wait_queue:
        cell.wait_queue.pop(item, None)


async def send(cell: CellState, message: Any, timeout: float | None) -> None:  # noqa: ASYNC109 - a deadline, not a scope.
    """Put a message into the mailbox as soon as there is room; see `ActorRef.send`."""
    if timeout is not None and not timeout > 0:
        raise ValueError(f"timeout must be > 0 seconds, got {timeout}")
    cell.engine.check_thread()
    if accept_if_room(cell, message):
        return
    if cell.closed:
        raise ActorStopped(cell.path, name_of(message))
    loop = cell.engine.loop
    now = loop.time()
    inherited = current_deadline.get()
    deadline = earlier(inf if timeout is None or timeout >= LONGEST else now + timeout, inherited)
    pending = PendingSend(message, deadline, loop.create_future())
    enqueue_waiter(cell, pending)
    if deadline < inf:
        cell.engine.deadlines.add(pending)
    try:
        admitted = await pending.waiter
    finally:
        if deadline < inf:
            cell.engine.deadlines.discard(pending)
        dequeue_waiter(cell, pending)
    if not admitted:
        if cell.closed:
            raise ActorStopped(cell.path, name_of(message))
        raise AskTimeout(cell.path, name_of(message), timeout=deadline - now)
