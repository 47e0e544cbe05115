"""A wait queue with three classes of priority, which share the turns 8 : 4 : 1; tenants take turns in each. Pure data.

The classes are served by start-time fair queueing, as the tenants of one class are: the class with the smallest start
tag is next, the higher one if tags are equal, and a turn moves the tag on by its cost / weight. The virtual time is the
start tag of the turn that was served last, so that a class that comes anew is next.

A class that comes again soon after more than its share would wait for several turns. It waits for one at most, so that
no request is delayed by more than one turn of the lower classes, however many wait there. While a class has requests
that wait, it has its share and no more.

Sources: P. Goyal, H. Vin, H. Cheng, "Start-Time Fair Queueing", SIGCOMM 1996, for tags and virtual time; J. Bennett,
H. Zhang, "Hierarchical Packet Fair Queueing Algorithms", SIGCOMM 1996, for queues of queues.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Generic, Literal, TypeAlias, TypeVar

from actors.limits.fair_queue import FairQueue

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Mapping

    from actors.limits.fair_queue import Turn

T = TypeVar("T", bound="Hashable")
Priority: TypeAlias = Literal["high", "normal", "low"]
"""The class of a request, which says how soon it is served if many wait."""
PRIORITIES: Mapping[Priority, float] = {"high": 8.0, "normal": 4.0, "low": 1.0}
"""The weight of each class, the highest class first."""
RANKS: Mapping[Priority, int] = {priority: rank for rank, priority in enumerate(PRIORITIES)}
"""The place of each class in their order; 0 is the highest."""


def check_priority(priority: object, name: str = "priority") -> None:
    """Raise `ValueError` if this is no class."""
    if not isinstance(priority, str) or priority not in PRIORITIES:
        raise ValueError(f'{name} must be "high", "normal" or "low", got {priority!r:.100}')


def priority_named(name: str) -> Priority | None:
    """Return the class of this name; None if there is none."""
    for priority in PRIORITIES:
        if priority == name:
            return priority
    return None


def lower(one: Priority, other: Priority) -> Priority:
    """Return the lower of two classes.

    >>> lower("low", "normal")
    'low'
    """
    return one if RANKS[one] >= RANKS[other] else other


def turn_cost(weights: Mapping[str, int]) -> float:
    """Return what a turn costs of which a call reserves so much: its tokens, and 1 if it has none.

    >>> turn_cost({"input_tokens": 700, "output_tokens": 200}), turn_cost({})
    (900.0, 1.0)
    """
    tokens = weights.get("tokens") or weights.get("input_tokens", 0) + weights.get("output_tokens", 0)
    return float(max(1, tokens))


class _Lane(Generic[T]):
    __slots__ = ("queue", "rank", "start_tag", "weight")

    def __init__(self, priority: Priority, shares: Mapping[str, float] | None) -> None:
        self.rank, self.weight = RANKS[priority], PRIORITIES[priority]
        self.start_tag = 0.0
        self.queue = FairQueue[T](shares)


class ClassQueue(Generic[T]):
    """Items that wait, each for a tenant and in a class; `shares` are the weights of tenants, 1 if not named.

    With items of one class only, it serves as a `FairQueue` does.
    """

    def __init__(self, shares: Mapping[str, float] | None = None) -> None:
        self._shares = shares
        first = _Lane[T]("normal", shares)  # Checks the shares.
        self._lanes: list[_Lane[T]] = [first]
        """The classes that were asked for so far, the highest first."""
        self._by_priority: dict[Priority, _Lane[T]] = {"normal": first}
        self._virtual_time = 0.0

    def enqueue(
        self,
        item: T,
        tenant: str = "default",
        *,
        cost: float = 1.0,
        priority: Priority = "normal",
        number: int | None = None,
    ) -> None:
        """Add an item, as `FairQueue.enqueue` does, to those of its class."""
        lane = self._by_priority.get(priority)
        if lane is None:
            lane = self._by_priority[priority] = _Lane(priority, self._shares)
            self._lanes = sorted((*self._lanes, lane), key=lambda one: one.rank)
        if not lane.queue and len(self._lanes) > 1:
            self._begin(lane)
        lane.queue.enqueue(item, tenant, cost=cost, number=number)

    def _begin(self, lane: _Lane[T]) -> None:
        """Set the tag of a class that begins to wait."""
        lower = [one for one in self._lanes if one.rank > lane.rank and one.queue]
        lane.start_tag = max(lane.start_tag, self._virtual_time)
        if lower:
            first = min(lower, key=lambda one: (one.start_tag, one.rank))
            after_one_turn = [_tag_after(one) if one is first else one.start_tag for one in lower]
            lane.start_tag = min(lane.start_tag, *after_one_turn)

    def peek(self) -> Turn[T] | None:
        """Return the next turn, and leave its item in the queue; None if the queue is empty."""
        lane = self._next_lane()
        return None if lane is None else lane.queue.peek()

    def head(self) -> T | None:
        """Return the next item alone, and leave it in the queue; None if the queue is empty."""
        lane = self._next_lane()
        return None if lane is None else lane.queue.head()

    def in_order(self) -> Iterator[T]:
        """Iterate over the items in the order of service, which holds until one is added or taken out."""
        waiting = [one for one in self._lanes if one.queue]
        if len(waiting) == 1:
            yield from waiting[0].queue.in_order()
            return
        heads = [
            (one.start_tag, one.rank, next(items), one, items) for one in waiting for items in [one.queue.in_order()]
        ]
        heapq.heapify(heads)
        while heads:
            tag, rank, item, lane, items = heads[0]
            cost = lane.queue.cost_of(item)
            yield item
            following = next(items, None)
            if following is None:
                heapq.heappop(heads)
            else:
                heapq.heapreplace(heads, (tag + cost / lane.weight, rank, following, lane, items))

    def serve(self, item: T) -> None:
        """Take out an item, mostly the next one, and charge its tenant and its class for it.

        Raises LookupError if it is not queued.
        """
        lane = self._lane_of(item)
        if lane is None:
            raise LookupError(f"{item!r} is not in this queue")
        is_next = lane is self._next_lane()
        cost = lane.queue.serve(item)
        if len(self._lanes) > 1:
            if is_next:
                self._virtual_time = lane.start_tag
            lane.start_tag += cost / lane.weight
            self._forget_if_empty()

    def remove(self, item: T) -> bool:
        """Take an item out unserved, at no cost to its tenant; tell whether it was in the queue."""
        lane = self._lane_of(item)
        if lane is None:
            return False
        lane.queue.remove(item)
        self._forget_if_empty()
        return True

    def refund(self, tenant: str, cost: float, *, period: int, priority: Priority = "normal") -> None:
        """Undo the charge for a turn that came to nothing; ignored if its class has been empty since that turn."""
        lane = self._by_priority.get(priority)
        if lane is not None and period == lane.queue.period:
            lane.start_tag -= cost / lane.weight
            lane.queue.refund(tenant, cost, period=period)

    def _next_lane(self) -> _Lane[T] | None:
        found: _Lane[T] | None = None
        for lane in self._lanes:  # The highest first, which goes first among equals.
            if lane.queue and (found is None or lane.start_tag < found.start_tag):
                found = lane
        return found

    def _lane_of(self, item: T) -> _Lane[T] | None:
        return next((lane for lane in self._lanes if item in lane.queue), None)

    def _forget_if_empty(self) -> None:
        """Let an empty queue owe its classes nothing, so that tags stay small."""
        if not self:
            self._virtual_time = 0.0
            for lane in self._lanes:
                lane.start_tag = 0.0

    def __contains__(self, item: object) -> bool:
        return any(item in lane.queue for lane in self._lanes)

    def __iter__(self) -> Iterator[T]:
        for lane in self._lanes:
            yield from lane.queue

    def __bool__(self) -> bool:
        return any(lane.queue for lane in self._lanes)

    def __len__(self) -> int:
        return sum(len(lane.queue) for lane in self._lanes)

    def __repr__(self) -> str:
        lanes = ((priority, self._by_priority.get(priority)) for priority in PRIORITIES)
        waiting = ", ".join(f"{priority} {len(lane.queue)}" for priority, lane in lanes if lane and lane.queue)
        return f"<ClassQueue {waiting or 'empty'}>"


def _tag_after(lane: _Lane[T]) -> float:
    """Return the tag that a class which waits will have after its next turn."""
    turn = lane.queue.peek()
    assert turn is not None  # noqa: S101 - it waits.
    return lane.start_tag + turn.cost / lane.weight
