"""A wait queue in which tenants take turns by weight, however much each queues: start-time fair queueing. Pure data.

The items of each tenant are first in, first out. The item at a tenant's head bears a start tag: the virtual time up to
which the tenant has been served, or the virtual time of the queue if that is later, as it is for a tenant that comes
anew. The head with the smallest tag is next, and moves the tag of its tenant on by cost / weight. Since a tag depends
on what the tenant was *given*, an item that leaves the queue unserved has cost its tenant nothing.

Sources: P. Goyal, H. Vin, H. Cheng, "Start-Time Fair Queueing", SIGCOMM 1996, for tags and order: of two tenants that
wait all the while, what was given to each per weight differs by no more than the largest cost / weight of the one plus
that of the other. J. Bennett, H. Zhang, "Hierarchical Packet Fair Queueing Algorithms", SIGCOMM 1996 (WF2Q+), for the
virtual time, which moves on with every cost served: so newcomers, however many, do not hold back a tenant that waits.
"""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict
from itertools import takewhile
from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Mapping

T = TypeVar("T", bound="Hashable")

MIN_SWEPT = 64
"""The number of outdated entries, or of tenants without items, that is not worth a sweep."""


class Turn(msgspec.Struct, Generic[T], frozen=True):
    """The next item, its tenant and the cost of serving it; `period` is the number of the queue's busy period."""

    item: T
    tenant: str
    cost: float
    period: int


class _Tenant(Generic[T]):
    __slots__ = ("entry", "items", "name", "start_tag", "weight")

    def __init__(self, name: str, weight: float, start_tag: float) -> None:
        self.name = name
        self.weight = weight
        self.start_tag = start_tag
        # No plain dict: to find its first key after many removals at the front takes time for each removal.
        self.items: OrderedDict[T, tuple[int, float]] = OrderedDict()
        """The arrival number and the cost of each item, in the order of service."""
        self.entry: tuple[float, int, _Tenant[T]] | None = None


class FairQueue(Generic[T]):
    """Items that wait, each for a tenant; tenants not named in `weights` weigh 1.

    Every operation takes O(log n) time, averaged over many. Tenants with the same tag are served in the order in which
    their heads arrived: a queue of one tenant, or of as many tenants as items, is first in, first out.
    """

    def __init__(self, weights: Mapping[str, float] | None = None) -> None:
        self.weights = dict(weights or {})
        for tenant, weight in self.weights.items():
            if not 0 < weight < math.inf:
                raise ValueError(f"the weight of tenant {tenant!r} must be > 0 and finite, got {weight}")
        self.virtual_time = 0.0
        self.period = 0
        self._tenants: dict[str, _Tenant[T]] = {}
        self._tenant_of: dict[T, _Tenant[T]] = {}
        self._heap: list[tuple[float, int, _Tenant[T]]] = []
        self._waiting_weight = 0.0
        self._waiting_tenants = 0
        self._arrivals = 0
        self._swept_above = MIN_SWEPT

    def enqueue(self, item: T, tenant: str = "default", *, cost: float = 1.0, number: int | None = None) -> None:
        """Add an item, which must not be queued yet, behind its tenant's other items; serving it costs `cost` (>= 0).

        With the `number` of its arrival, it comes before those with a greater one: an item that comes back has its
        place again. That takes time for each of its tenant's items before it.
        """
        if item in self._tenant_of:
            raise ValueError(f"{item!r} is in this queue already; remove it first")
        if not 0 <= cost < math.inf:
            raise ValueError(f"cost must be >= 0 and finite, got {cost}")
        owner = self._tenants.get(tenant)
        if owner is None:
            owner = self._tenants[tenant] = _Tenant(tenant, self.weights.get(tenant, 1.0), self.virtual_time)
        self._arrivals = self._arrivals + 1 if number is None else max(self._arrivals, number)
        items, arrival = owner.items, self._arrivals if number is None else number
        ahead: list[T] | None = None
        if items and items[next(reversed(items))][0] > arrival:
            ahead = list(takewhile(lambda one: items[one][0] <= arrival, items))
        items[item] = (arrival, cost)
        self._tenant_of[item] = owner
        if len(owner.items) == 1:
            owner.start_tag = max(owner.start_tag, self.virtual_time)
            self._waiting_weight += owner.weight
            self._waiting_tenants += 1
            self._push(owner)
        elif ahead is not None:
            for one in (item, *reversed(ahead)):
                items.move_to_end(one, last=False)
            if not ahead:
                self._push(owner)

    def peek(self) -> Turn[T] | None:
        """Return the next turn, and leave its item in the queue; None if the queue is empty."""
        owner = self._next_tenant()
        if owner is None:
            return None
        item = next(iter(owner.items))
        return Turn(item, owner.name, owner.items[item][1], self.period)

    def head(self) -> T | None:
        """Return the next item alone, and leave it in the queue; None if the queue is empty."""
        owner = self._next_tenant()
        return None if owner is None else next(iter(owner.items))

    def in_order(self) -> Iterator[T]:
        """Iterate over the items in the order of service, which holds until one is added or taken out."""
        if self._waiting_tenants == 1:
            owner = self._next_tenant()
            assert owner is not None  # noqa: S101 - one tenant waits.
            yield from owner.items
            return
        heads = [
            (one.start_tag, *next(items), one, items)
            for one in self._tenants.values()
            if one.items
            for items in [_arrivals(one)]
        ]
        heapq.heapify(heads)
        while heads:
            tag, _, item, cost, owner, items = heads[0]
            yield item
            following = next(items, None)
            if following is None:
                heapq.heappop(heads)
            else:
                heapq.heapreplace(heads, (tag + cost / owner.weight, *following, owner, items))

    def dequeue(self) -> Turn[T]:
        """Take out the next item, and charge its tenant for it. Raises LookupError if the queue is empty."""
        turn = self.peek()
        if turn is None:
            raise LookupError("this queue is empty; call peek() first, which then returns None")
        self.serve(turn.item)
        return turn

    def serve(self, item: T) -> float:
        """Take out an item, mostly the next one, charge its tenant for it, and return the cost.

        Raises LookupError if it is not queued.
        """
        owner = self._tenant_of.get(item)
        if owner is None:
            raise LookupError(f"{item!r} is not in this queue")
        cost, is_next = owner.items[item][1], self._next_tenant() is owner
        # All waiting tenants share the cost, this one included: so fast the virtual time of the queue moves on. The sum
        # of weights may be slightly too small, from rounding.
        self.virtual_time += cost / max(self._waiting_weight, owner.weight)
        if is_next:
            self.virtual_time = max(self.virtual_time, owner.start_tag)
        owner.start_tag += cost / owner.weight
        self._take_out(item, owner)
        if owner.items and (owner.entry is None or owner.entry[0] != owner.start_tag):
            self._push(owner)
        return cost

    def cost_of(self, item: T) -> float:
        """Return the cost of an item that is queued."""
        return self._tenant_of[item].items[item][1]

    def remove(self, item: T) -> bool:
        """Take an item out unserved, at no cost to its tenant; tell whether it was in the queue."""
        owner = self._tenant_of.get(item)
        if owner is None:
            return False
        self._take_out(item, owner)
        return True

    def refund(self, tenant: str, cost: float, *, period: int) -> None:
        """Undo the charge for a turn that came to nothing; ignored if the queue has been empty since that turn."""
        owner = self._tenants.get(tenant)
        if owner is not None and period == self.period:
            owner.start_tag -= cost / owner.weight
            if owner.items:
                self._push(owner)

    def _next_tenant(self) -> _Tenant[T] | None:
        heap = self._heap
        while heap:
            owner = heap[0][2]
            if owner.entry is heap[0]:
                return owner
            heapq.heappop(heap)
        return None

    def _take_out(self, item: T, owner: _Tenant[T]) -> None:
        was_first = next(iter(owner.items)) == item
        del owner.items[item], self._tenant_of[item]
        if not self._tenant_of:
            # An empty queue owes its tenants nothing; so tags stay small, and no tenant has to be remembered.
            self._tenants.clear()
            self._heap.clear()
            self.virtual_time = self._waiting_weight = 0.0
            self._waiting_tenants = 0
            self.period += 1
        elif not owner.items:
            owner.entry = None
            self._waiting_weight -= owner.weight
            self._waiting_tenants -= 1
        elif was_first:
            self._push(owner)

    def _push(self, owner: _Tenant[T]) -> None:
        """Put a tenant into the heap under the tag of its head, which makes its earlier entry outdated."""
        owner.entry = (owner.start_tag, owner.items[next(iter(owner.items))][0], owner)
        heapq.heappush(self._heap, owner.entry)
        if len(self._heap) > 2 * self._waiting_tenants + MIN_SWEPT:
            self._heap = [one.entry for one in self._tenants.values() if one.entry is not None]
            heapq.heapify(self._heap)
        if len(self._tenants) > self._swept_above:
            # A tenant without items whose tag is not ahead of the virtual time is as good as new.
            known = self._tenants.items()
            self._tenants = {name: one for name, one in known if one.items or one.start_tag > self.virtual_time}
            self._swept_above = 2 * len(self._tenants) + MIN_SWEPT

    def __contains__(self, item: object) -> bool:
        return item in self._tenant_of

    def __iter__(self) -> Iterator[T]:
        return iter(self._tenant_of)

    def __len__(self) -> int:
        return len(self._tenant_of)

    def __repr__(self) -> str:
        tenants = ", ".join(f"{one.name} {len(one.items)}" for one in self._tenants.values() if one.items)
        return f"<FairQueue {tenants or 'empty'}>"


def _arrivals(owner: _Tenant[T]) -> Iterator[tuple[int, T, float]]:
    """Iterate over a tenant's items, each with its arrival number and its cost."""
    for item, (arrival, cost) in owner.items.items():
        yield arrival, item, cost
