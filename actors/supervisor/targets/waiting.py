"""Wait queues, one for each thing that is short. Classes and tenants take turns, one tenant's requests in order.

A turn costs its class and its tenant the tokens that its call reserves, so that these are shared, and not the requests.

Only the head of a queue looks whether it may go on at its time. A release wakes the first entry that sleeps, and an
entry that leaves the head of a queue, whatever the reason, wakes the next. So a release costs two looks, however many
requests wait, and none is lost on a request that was cancelled meanwhile.

The number of those that wait is bounded, over all queues. A request that has waited before counts too, and may wait
again whatever their number.
"""

from __future__ import annotations

import asyncio
import math
from itertools import islice
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from actors.limits.class_queue import ClassQueue
from actors.market.market import MAX_WAITING
from actors.supervisor.targets.waiter_bound import WaiterBound

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from actors.limits.class_queue import Priority

QueueName: TypeAlias = tuple[str, str]
"""What is short: a kind and a name."""


class Wait(msgspec.Struct, frozen=True, gc=False):
    """Wait in these queues, each named once, and look again at loop time `until` at the latest."""

    queues: tuple[QueueName, ...]
    until: float


class QueueEntry:
    """One request in the wait queues; it keeps its place in each by its arrival.

    If it leaves a queue for something that comes to nothing, it has its place again when it comes back. After a turn at
    what a queue is for, it comes anew there.
    """

    __slots__ = (
        "arrival",
        "cost",
        "deadline",
        "has_waited",
        "is_sent_away",
        "looked",
        "number",
        "priority",
        "queues",
        "tenant",
        "turns",
        "waiter",
    )

    def __init__(self, tenant: str = "default", deadline: float = math.inf, priority: Priority = "normal") -> None:
        self.tenant = tenant
        self.deadline = deadline
        self.priority: Priority = priority
        self.cost = 1.0
        """What its turn costs its tenant and its class: the tokens that it reserves, at least 1."""
        self.number = 0
        """Its number among those that are counted as waiting; 0 if it is not."""
        self.has_waited = False
        self.is_sent_away = False
        """Whether it may not wait any more, because too many do."""
        # No set: the order in which queues are left decides which request is woken first.
        self.queues: tuple[QueueName, ...] = ()
        self.arrival = 0
        """Its number in the order in which requests began to wait; 0 if it never has."""
        self.turns: dict[QueueName, int] = {}
        """Its number in the queues in which it has had a turn; 0 until it comes back there."""
        self.looked: dict[QueueName, int] = {}
        """The release of each queue after which it has looked as the first one."""
        self.waiter: asyncio.Future[None] | None = None

    @property
    def has_come_by(self) -> bool:
        """Whether it waits, or has waited, so that there is something to leave."""
        return bool(self.queues or self.number)

    def wake(self) -> bool:
        """Let the request look again, and tell whether it slept; one that is awake already will look anyway."""
        if self.waiter is None or self.waiter.done():
            return False
        self.waiter.set_result(None)
        return True


class WaitQueues:
    """The wait queues of one supervisor, by what is short; at most `max_waiting` requests begin to wait."""

    def __init__(self, max_waiting: int = MAX_WAITING) -> None:
        self.bound = WaiterBound[QueueEntry](max_waiting)
        self._queues: dict[QueueName, ClassQueue[QueueEntry]] = {}
        self._releases: dict[QueueName, int] = {}
        """The number of the last change for each queue, among all changes."""
        self._changes = 0
        self._arrivals = 0

    def is_first(self, entry: QueueEntry, name: QueueName) -> bool:
        """Tell whether it is the turn of `entry`; if others wait, it is enqueued to find out."""
        queue = self._joined(entry, name)
        if queue is None:
            return True
        is_first = head_of(queue) is entry
        if is_first:
            entry.looked[name] = self._releases.get(name, 0)
        else:
            entry.looked.pop(name, None)  # It waits for those before it, and is woken once they have gone.
        return is_first

    def join(self, entry: QueueEntry, name: QueueName) -> None:
        """Enqueue an entry behind the others that wait; if none does, it need not wait either."""
        self._joined(entry, name)

    def waiting_in(self, name: QueueName) -> int:
        """Return how many requests are in a queue."""
        return len(self._queues.get(name, ()))

    def places_in(self, name: QueueName, most: int) -> dict[QueueEntry, int]:
        """Return how many come before each of the first `most` entries of a queue."""
        queue = self._queues.get(name)
        return {} if queue is None else {one: place for place, one in enumerate(islice(queue.in_order(), most))}

    def has_waiters(self, name: QueueName) -> bool:
        """Tell whether a request waits in a queue."""
        return name in self._queues

    def may_wait(self, entry: QueueEntry, now: float, *, max_of_tenant: int | None = None) -> bool:
        """Count `entry` among those that wait, and tell whether it may, in all and of its tenant.

        If too many wait, the late ones go first, and then what is of the lowest class (see `WaiterBound`).
        """
        if entry.number:
            return True
        if not entry.arrival:
            entry.arrival = self._next_arrival()
        bound = self.bound
        if not entry.has_waited and (bound.is_full or bound.is_full_for(entry, max_of_tenant)):
            for late in bound.take_late(now):
                self._send_away(late)
                if not (bound.is_full or bound.is_full_for(entry, max_of_tenant)):
                    break
            for of_tenant in (True, False):
                if bound.is_full_for(entry, max_of_tenant) if of_tenant else bound.is_full:
                    other = bound.to_send_away(entry, of_tenant=of_tenant)
                    if other is None:
                        return False
                    other.is_sent_away = True
                    self._send_away(other)
        bound.add(entry, now)
        return True

    def _send_away(self, entry: QueueEntry) -> None:
        self.leave(entry)
        entry.wake()

    async def wait(self, entry: QueueEntry, wait: Wait) -> None:
        """Wait in the queues of `wait`, and no others, until woken or until its time."""
        self._move_to(entry, wait.queues)
        loop = asyncio.get_running_loop()
        entry.waiter = loop.create_future()
        timer = loop.call_at(wait.until, entry.wake)
        try:
            await entry.waiter
        finally:
            timer.cancel()
            entry.waiter = None

    def leave(self, entry: QueueEntry, *, served: QueueName | None = None) -> None:
        """Leave every queue: the request has ended, or goes on with what it waited for in the queue `served`."""
        if entry.number:
            self.bound.discard(entry, asyncio.get_running_loop().time())
            entry.has_waited = True
        if served is not None:
            entry.turns[served] = 0
            entry.is_sent_away = False  # It is called now, and one that was called stays.
        if entry.queues:
            self._move_to(entry, (), served=served)

    def reclass(self, entry: QueueEntry, priority: Priority) -> None:
        """Move a request into another class; there it has its place by its arrival."""
        if entry.priority == priority:
            return
        if entry.number:
            self.bound.keep(entry)  # Several ask for it.
        entry.priority = priority
        for name in entry.queues:
            queue = self._queues[name]
            before = head_of(queue)
            queue.remove(entry)
            self._enqueue(queue, entry, name)
            if (head := head_of(queue)) is not before:
                head.wake()
        entry.wake()  # It may wait elsewhere too, such as for a quota, and asks there in its new class.

    def wake(self, name: QueueName) -> None:
        """Let the next of a queue look again: something changed for the better.

        That is the first one that is not awake yet: of several places that become free in one turn of the loop, each
        has its request. One that looks before its turn goes on waiting.
        """
        queue = self._queues.get(name)
        if queue is not None:
            self._release(name)
            for entry in queue.in_order():
                if entry.wake():
                    return

    def wake_all(self, name: QueueName) -> None:
        """Let every entry of a queue look again: something changed for the worse, and some may have to give up."""
        if name in self._queues:
            self._release(name)
        for entry in tuple(self._queues.get(name, ())):
            entry.wake()

    def _move_to(self, entry: QueueEntry, names: Sequence[QueueName], *, served: QueueName | None = None) -> None:
        before, entry.queues = entry.queues, tuple(names)
        for name in names:
            if name not in before:
                queue = self._queues.get(name)
                if queue is None:
                    queue = self._queues[name] = ClassQueue()
                    self._release(name)  # What entries saw of an earlier queue of this name is of no use.
                self._enqueue(queue, entry, name)
        for name in before:
            if name not in names:
                self._dequeue(entry, name, is_served=name == served)

    def _joined(self, entry: QueueEntry, name: QueueName) -> ClassQueue[QueueEntry] | None:
        """Return the queue that `entry` is in now; None if no request waits there."""
        queue = self._queues.get(name)
        if queue is not None and entry not in queue:
            self._enqueue(queue, entry, name)
            entry.queues = (*entry.queues, name)
        return queue

    def _enqueue(self, queue: ClassQueue[QueueEntry], entry: QueueEntry, name: QueueName) -> None:
        queue.enqueue(
            entry, entry.tenant, cost=entry.cost, priority=entry.priority, number=self._arrival_of(entry, name)
        )

    def _arrival_of(self, entry: QueueEntry, name: QueueName) -> int:
        """Return the number of an entry in the order of a queue."""
        if not entry.arrival:
            entry.arrival = self._next_arrival()
        if name not in entry.turns:
            return entry.arrival
        if not entry.turns[name]:
            entry.turns[name] = self._next_arrival()
        return entry.turns[name]

    def _release(self, name: QueueName) -> None:
        self._changes += 1
        self._releases[name] = self._changes

    def _next_arrival(self) -> int:
        self._arrivals += 1
        return self._arrivals

    def _dequeue(self, entry: QueueEntry, name: QueueName, *, is_served: bool) -> None:
        queue = self._queues[name]
        was_first = queue.head() is entry
        if is_served:
            queue.serve(entry)  # Its tenant has had this turn.
        else:
            queue.remove(entry)
        if not queue:
            del self._queues[name]
            self._releases.pop(name, None)
        elif was_first:
            head = head_of(queue)
            # One that has looked since the last release would find what it found then, and two that leave and come back
            # would wake each other for ever.
            if is_served or head.looked.get(name) != self._releases.get(name, 0):
                head.wake()

    def broken_invariants(self) -> Iterator[str]:
        """Name the queues that are not empty although no request is under way."""
        for (kind, name), queue in self._queues.items():
            yield f"{len(queue)} requests were left in the wait queue for {kind} {name!r}"
        if self.bound.count:
            yield f"{self.bound.count} requests were left counted among those that wait"

    def __bool__(self) -> bool:
        return bool(self._queues)

    def __len__(self) -> int:
        return len({entry for queue in self._queues.values() for entry in queue})

    def __repr__(self) -> str:
        return f"<WaitQueues {len(self)} requests in {len(self._queues)} queues>"


def head_of(queue: ClassQueue[QueueEntry]) -> QueueEntry:
    """Return the entry whose turn it is in a queue that is not empty."""
    entry = queue.head()
    assert entry is not None  # noqa: S101 - an empty queue is taken away.
    return entry
