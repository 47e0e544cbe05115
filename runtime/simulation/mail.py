"""The mailboxes of simulated actors: faults act on their messages, and the order of messages is checked."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from contextvars import ContextVar
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, TypeAlias

from runtime.cell.inbox import accept, dead_letter_instead
from runtime.envelope import SETTLED, WAITING, Ask, told
from runtime.events import Terminated
from runtime.messages import name_of
from runtime.simulation.world import TimedFault

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runtime.engine import Engine
    from runtime.simulation.world import World

system_at_work: ContextVar[Engine | None] = ContextVar("understudy_system_at_work", default=None)
"""The simulated system whose handler is running; None outside of handlers."""

Origin: TypeAlias = tuple[Any, int] | None
"""The sender of a message, and its number among all messages of the run; None if it has no known sender."""

MAX_SENDERS = 10_000
"""So many senders of one actor are checked for order at the same time."""


class Duplicate(Ask):
    """The second copy of a request. Its caller gets the answer to the first, so the answer to this one is unclaimed."""

    __slots__ = ()

    def answer(self, value: Any) -> bool:
        self.progress = SETTLED
        self.execution = None
        return False


class Origins:
    """The senders of one run, and the count of their messages."""

    def __init__(self) -> None:
        self.running: Any = None
        """The cell whose sync handler is running; None if none is."""
        self._sent = 0

    def here(self) -> Origin:
        """Return the origin of a message that is sent now."""
        sender = self.running
        if sender is None:
            task = asyncio.current_task()
            if task is None:
                return None
            sender = getattr(task, "number", None)
        self._sent += 1
        return sender, self._sent


class MailFault(TimedFault, frozen=True, kw_only=True):
    """A fault that acts on messages to `actor` (a path or a pattern).

    `message` limits it to types of messages with such names (a pattern), and `rate` to a share of these, drawn by
    chance.
    """

    actor: str
    message: str = "*"
    rate: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.rate <= 1:
            raise ValueError(f"rate must be above 0 and at most 1, got {self.rate}")

    @property
    def target(self) -> tuple[str, str]:
        return "actor", self.actor

    def affects(self, inbox: Any, message: Any, world: World) -> bool:
        """Tell whether the fault acts on this message."""
        return (
            fnmatchcase(inbox.path, self.actor)
            and fnmatchcase(name_of(message), self.message)
            and (self.rate >= 1 or world.roll() < self.rate)
        )

    def apply_to_mail(self, queue: RecordedQueue, item: Any, origin: Origin, world: World) -> bool:
        """Act on an item that arrives; return True if the queue must not take it in the usual way."""
        raise NotImplementedError


class Mail:
    """The mail of one run: its queues, the faults that act on it, and the requests that these have lost."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.origins = Origins()
        self.queues: list[RecordedQueue] = []
        self.faults: list[MailFault] = []
        """The mail faults that last now."""
        self.lost: list[tuple[Ask, Any]] = []
        """Requests that a fault has taken out, each with the inbox it was for."""

    def new_queue(self, inbox: Any) -> RecordedQueue:
        """Return an empty queue for the mail of one actor."""
        queue = RecordedQueue(inbox, self)
        self.queues.append(queue)
        self.world.declare("actor", inbox.path)
        return queue

    def __repr__(self) -> str:
        return f"<Mail of {len(self.queues)} actors, {len(self.faults)} faults>"


class RecordedWaitQueue(OrderedDict[Any, None]):
    """The senders that wait for room in a mailbox; the order of a message counts from when its sender came."""

    def __init__(self, inbox: Any, origins: Origins) -> None:
        super().__init__()
        self._inbox = inbox
        self._origins = origins
        self._origin_of: dict[Any, Origin] = {}

    def __setitem__(self, item: Any, value: None) -> None:
        self._origin_of[item] = self._origins.here()
        super().__setitem__(item, value)

    def __delitem__(self, item: Any) -> None:
        self._origin_of.pop(item, None)
        super().__delitem__(item)

    def pop(self, key: Any, *default: Any) -> Any:  # type: ignore[override]
        self._origin_of.pop(key, None)
        return super().pop(key, *default)

    def popitem(self, last: bool = True) -> tuple[Any, None]:  # noqa: FBT001, FBT002 - as in its parent.
        item = next(reversed(self) if last else iter(self))
        origin = self._origin_of.get(item)
        item, value = super().popitem(last)
        self._origin_of.pop(item, None)
        # A sender that has given up is skipped, and must not pass its origin on to the next with the same message.
        waits = item.progress is WAITING if isinstance(item, Ask) else not item.waiter.done()
        self._inbox.queue.admitted = (item.message, origin) if waits else None
        return item, value


class RecordedQueue(deque[Any]):
    """The messages waiting in one mailbox, recorded as they come and go."""

    def __init__(self, inbox: Any, mail: Mail) -> None:
        super().__init__()
        self.inbox = inbox
        self.admitted: tuple[Any, Origin] | None = None
        """The message that the wait queue let in last, and its origin."""
        self._mail = mail
        self._world = mail.world
        self._origins: deque[Origin] = deque()
        """The origin of each item of the queue."""
        self._newest: dict[Any, int] = {}
        """For each sender the number of its last message that was handled."""
        self._delayed: deque[tuple[Any, Origin]] = deque()
        """Items that a fault delays, and all that were sent after them."""
        self._arrives_at = 0.0

    def append(self, item: Any) -> None:
        message = told(item)
        if self.admitted is not None and self.admitted[0] is message:
            origin = self.admitted[1]
        else:
            origin = self._mail.origins.here()
        self.admitted = None
        faults = self._mail.faults
        # Faults leave the runtime's own messages alone: that each arrives, and arrives once, is promised.
        if not faults or isinstance(message, Terminated) or not self._is_taken_by_fault(item, message, faults, origin):
            self.arrive(item, origin)

    def arrive(self, item: Any, origin: Origin) -> None:
        """Take an item, after all that are delayed."""
        if self._delayed:
            self.delay(item, 0.0, origin)
        else:
            self.take(item, origin)

    def take(self, item: Any, origin: Origin) -> None:
        """Take an item at once."""
        self._world.trace.add("gets", self.inbox.ref, told(item))
        super().append(item)
        self._origins.append(origin)

    def delay(self, item: Any, seconds: float, origin: Origin = None) -> None:
        """Let an item arrive later, and not before those that are delayed already."""
        self._delayed.append((item, origin))
        self.lose(item)  # Until it arrives, no mailbox holds it.
        self._arrives_at = max(self._arrives_at, self._world.now() + seconds)
        self._world.call_at(self._arrives_at, self._arrive_delayed)

    def _arrive_delayed(self) -> None:
        item, origin = self._delayed.popleft()
        inbox = self.inbox
        if inbox.queue is self:
            self.take(item, origin)
            if inbox.idle:
                inbox.schedule()
        else:
            accept(inbox, item, otherwise=dead_letter_instead)

    def _is_taken_by_fault(self, item: Any, message: Any, faults: Iterable[MailFault], origin: Origin) -> bool:
        """Apply the faults to an item; return True if it does not arrive now, or not in its place."""
        for fault in tuple(faults):
            if fault.affects(self.inbox, message, self._world) and fault.apply_to_mail(self, item, origin, self._world):
                return True
        return False

    def lose(self, item: Any) -> None:
        """Note an item that no mailbox holds, so that a request among these fails when its system ends."""
        if isinstance(item, Ask):
            self._mail.lost.append((item, self.inbox))

    def popleft(self) -> Any:
        item = super().popleft()
        origin = self._origins.popleft()
        self._world.trace.step(0.5)
        if origin is not None:
            sender, number = origin
            if self._newest.get(sender, 0) > number:
                name = getattr(sender, "path", f"task {sender}")
                self._world.problem(
                    f"{self.inbox.path} got {name_of(told(item))} of {name} after a later message of {name} (G2)"
                )
            if len(self._newest) > MAX_SENDERS:
                self._newest.clear()
            self._newest[sender] = number
        return item

    # Items that the runtime puts in front, or takes out of the middle, have no order that could be checked.

    def appendleft(self, item: Any) -> None:
        super().appendleft(item)
        self._origins.appendleft(None)

    def extendleft(self, items: Iterable[Any]) -> None:
        for item in items:
            self.appendleft(item)

    def extend(self, items: Iterable[Any]) -> None:
        for item in items:
            self.take(item, None)

    def insert(self, index: int, item: Any) -> None:
        super().insert(index, item)
        self._origins.insert(index, None)

    def clear(self) -> None:
        super().clear()
        self._origins.clear()

    def __delitem__(self, index: Any) -> None:
        super().__delitem__(index)
        del self._origins[index]

    __hash__ = object.__hash__  # type: ignore[assignment]
