"""The mail of simulated actors: where faults strike it, and where its order is checked."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from contextvars import ContextVar
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, TypeAlias

from runtime.envelope import SETTLED, WAITING, Ask, told
from runtime.events import Terminated
from runtime.messages import name_of
from runtime.simulation.world import TimedFault

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runtime.engine import Engine
    from runtime.simulation.world import World

system_at_work: ContextVar[Engine | None] = ContextVar("understudy_system_at_work", default=None)
"""The simulated system one of whose handlers runs; None outside of all."""

Origin: TypeAlias = tuple[Any, int] | None
"""Who sent a message, and as the how-manieth of the run; None where nobody in particular did."""

MAX_SENDERS = 10_000
"""Senders of one actor whose order is watched at the same time."""


class Duplicate(Ask):
    """A request that came twice. Whoever asked has one answer already, so that this one is unclaimed."""

    __slots__ = ()

    def answer(self, value: Any) -> bool:
        self.progress = SETTLED
        self.handling = None
        return False


class Origins:
    """Who sent which message when, in one simulation."""

    def __init__(self) -> None:
        self.running: Any = None
        """The cell whose sync handlers run now."""
        self._sent = 0

    def here(self) -> Origin:
        """Return the origin of what is sent now."""
        sender = self.running
        if sender is None:
            task = asyncio.current_task()
            if task is None:
                return None
            sender = getattr(task, "number", None)
        self._sent += 1
        return sender, self._sent


class MailFault(TimedFault, frozen=True, kw_only=True):
    """Something is wrong with the mail of `actor` (a path or a pattern).

    `message` limits it to messages of types so named (a pattern), `rate` to so large a part of them, drawn by chance.
    """

    actor: str
    message: str = "*"
    rate: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.rate <= 1:
            raise ValueError(f"rate must be above 0 and at most 1, got {self.rate}")

    def hits(self, inbox: Any, message: Any, world: World) -> bool:
        """Tell whether this message is struck."""
        return (
            fnmatchcase(inbox.path, self.actor)
            and fnmatchcase(name_of(message), self.message)
            and (self.rate >= 1 or world.roll() < self.rate)
        )

    def apply_to_mail(self, queue: RecordedQueue, item: Any, origin: Origin, world: World) -> bool:
        """Do it; True where the message does not arrive in the usual way."""
        raise NotImplementedError


class Mail:
    """The mail of one run: where it lies, and what faults do to it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.origins = Origins()
        self.queues: list[RecordedQueue] = []
        self.faults: list[MailFault] = []
        """Those that last now."""
        self.lost: list[tuple[Ask, Any]] = []
        """Requests that a fault has taken from their way, and the inboxes they were for."""

    def new_queue(self, inbox: Any) -> RecordedQueue:
        """Return an empty queue for the mail of one actor."""
        queue = RecordedQueue(inbox, self)
        self.queues.append(queue)
        return queue

    def __repr__(self) -> str:
        return f"<Mail of {len(self.queues)} actors, {len(self.faults)} faults>"


class RecordedLine(OrderedDict[Any, None]):
    """Those who wait for room; their order counts from the time they came."""

    def __init__(self, inbox: Any, origins: Origins) -> None:
        super().__init__()
        self._inbox = inbox
        self._origins = origins
        self._came: dict[Any, Origin] = {}

    def __setitem__(self, item: Any, value: None) -> None:
        self._came[item] = self._origins.here()
        super().__setitem__(item, value)

    def __delitem__(self, item: Any) -> None:
        self._came.pop(item, None)
        super().__delitem__(item)

    def pop(self, key: Any, *default: Any) -> Any:  # type: ignore[override]
        self._came.pop(key, None)
        return super().pop(key, *default)

    def popitem(self, last: bool = True) -> tuple[Any, None]:  # noqa: FBT001, FBT002 - as in its parent.
        item = next(reversed(self) if last else iter(self))
        came = self._came.get(item)
        item, value = super().popitem(last)
        self._came.pop(item, None)
        # Whoever has given up is passed over, and must not lend their place to the next one with the same message.
        waits = item.progress is WAITING if isinstance(item, Ask) else not item.waiter.done()
        self._inbox.queue.admitted = (item.message, came) if waits else None
        return item, value


class RecordedQueue(deque[Any]):
    """The mail of one actor, taken down as it comes and goes."""

    def __init__(self, inbox: Any, mail: Mail) -> None:
        super().__init__()
        self.inbox = inbox
        self.admitted: tuple[Any, Origin] | None = None
        """What the line of those who waited let in last, and where it came from."""
        self._mail = mail
        self._world = mail.world
        self._from: deque[Origin] = deque()
        self._newest: dict[Any, int] = {}
        """For each sender the number of the last message that was handled."""
        self._under_way: deque[tuple[Any, Origin]] = deque()
        """What a fault delays, and all that was sent after it."""
        self._arrives = 0.0

    def append(self, item: Any) -> None:
        message = told(item)
        if self.admitted is not None and self.admitted[0] is message:
            origin = self.admitted[1]
        else:
            origin = self._mail.origins.here()
        self.admitted = None
        faults = self._mail.faults
        # What the runtime itself tells an actor is no mail: that it comes, and comes once, is promised.
        if not faults or isinstance(message, Terminated) or not self._struck(item, message, faults, origin):
            self.arrive(item, origin)

    def arrive(self, item: Any, origin: Origin) -> None:
        """Take an item, after all that is under way."""
        if self._under_way:
            self.delay(item, 0.0, origin)
        else:
            self.take(item, origin)

    def take(self, item: Any, origin: Origin) -> None:
        """Take an item that no fault keeps away."""
        self._world.trace.add("gets", self.inbox.ref, told(item))
        super().append(item)
        self._from.append(origin)

    def delay(self, item: Any, seconds: float, origin: Origin = None) -> None:
        """Let an item arrive later, and not before those that are under way already."""
        self._under_way.append((item, origin))
        self.lose(item)  # Nobody but a fault knows of it, for the time being.
        self._arrives = max(self._arrives, self._world.now() + seconds)
        self._world.call_at(self._arrives, self._arrive)

    def _arrive(self) -> None:
        item, origin = self._under_way.popleft()
        inbox = self.inbox
        if inbox.queue is self:
            self.take(item, origin)
            if inbox.idle:
                inbox.schedule()
        else:
            inbox.deliver_or_bury(item)

    def _struck(self, item: Any, message: Any, faults: Iterable[MailFault], origin: Origin) -> bool:
        """Let the faults have the item; True where it does not arrive now, or not in its place."""
        for fault in tuple(faults):
            if fault.hits(self.inbox, message, self._world) and fault.apply_to_mail(self, item, origin, self._world):
                return True
        return False

    def lose(self, item: Any) -> None:
        """Let an item never arrive."""
        if isinstance(item, Ask):
            self._mail.lost.append((item, self.inbox))

    def popleft(self) -> Any:
        item = super().popleft()
        origin = self._from.popleft()
        self._world.trace.step(0.5)
        if origin is not None:
            sender, number = origin
            if self._newest.get(sender, 0) > number:
                who = getattr(sender, "path", f"task {sender}")
                self._world.problem(
                    f"{self.inbox.path} got {name_of(told(item))} of {who} after what {who} sent later (G2)"
                )
            if len(self._newest) > MAX_SENDERS:
                self._newest.clear()
            self._newest[sender] = number
        return item

    # What the runtime puts in front, or takes out of the middle, is in no order that could be checked.

    def appendleft(self, item: Any) -> None:
        super().appendleft(item)
        self._from.appendleft(None)

    def extendleft(self, items: Iterable[Any]) -> None:
        for item in items:
            self.appendleft(item)

    def extend(self, items: Iterable[Any]) -> None:
        for item in items:
            self.take(item, None)

    def insert(self, index: int, item: Any) -> None:
        super().insert(index, item)
        self._from.insert(index, None)

    def clear(self) -> None:
        super().clear()
        self._from.clear()

    def __delitem__(self, place: Any) -> None:
        super().__delitem__(place)
        del self._from[place]

    __hash__ = object.__hash__  # type: ignore[assignment]
