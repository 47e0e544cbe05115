"""A line in which tenants take turns by weight, whatever each of them queues up: start-time fair queueing. Pure data.

Each tenant's line is first in, first out. Its front bears a start tag: the virtual time up to which the tenant has been
served, or the queue's own, if that is later, when it comes anew. The smallest tag is next, and moves its tenant on by
cost / weight. Since a tag depends on what the tenant was *given*, one who leaves its line unserved has cost nothing.

Sources: P. Goyal, H. Vin, H. Cheng, "Start-Time Fair Queueing", SIGCOMM 1996, for tags and order: of two tenants that
wait all the while, what was given to each per weight differs by no more than the largest cost / weight of the one plus
that of the other. J. Bennett, H. Zhang, "Hierarchical Packet Fair Queueing Algorithms", SIGCOMM 1996 (WF2Q+), for the
virtual time, which goes on with every cost served: so newcomers, however many, do not hold back one who waits.
"""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Mapping

T = TypeVar("T", bound="Hashable")

MIN_SWEPT = 64
"""Entries out of date, or tenants that nobody needs, which are not worth a sweep."""


class Turn(msgspec.Struct, Generic[T], frozen=True):
    """Who is next: the item, its tenant, and what serving it costs, in the queue's busy period number `period`."""

    item: T
    tenant: str
    cost: float
    period: int


class _Tenant(Generic[T]):
    __slots__ = ("entry", "line", "name", "served_to", "weight")

    def __init__(self, name: str, weight: float, served_to: float) -> None:
        self.name = name
        self.weight = weight
        self.served_to = served_to
        # No plain dict: to find its first after many have left from the front takes time for each of them.
        self.line: OrderedDict[T, tuple[int, float]] = OrderedDict()
        """The number and the cost of each item."""
        self.entry: tuple[float, int, _Tenant[T]] | None = None


class FairQueue(Generic[T]):
    """Items that wait, each for a tenant; tenants not named in `weights` weigh 1.

    Every operation takes O(log n) time, averaged over many. Tenants with the same tag are served in the order in which
    their fronts arrived, so that one tenant, or as many as there are items, are first in, first out.
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

    def join(self, item: T, tenant: str = "default", *, cost: float = 1.0, returns: bool = False) -> None:
        """Put an item, which must not be there yet, at the end of its tenant's line; serving it costs `cost` (>= 0).

        One that `returns`, because it left the line for something that came to nothing, stands in front of it.
        """
        if item in self._tenant_of:
            raise ValueError(f"{item!r} is in the queue already")
        if not 0 <= cost < math.inf:
            raise ValueError(f"cost must be >= 0 and finite, got {cost}")
        owner = self._tenants.get(tenant)
        if owner is None:
            owner = self._tenants[tenant] = _Tenant(tenant, self.weights.get(tenant, 1.0), self.virtual_time)
        self._arrivals += 1
        owner.line[item] = (self._arrivals, cost)
        self._tenant_of[item] = owner
        if len(owner.line) == 1:
            owner.served_to = max(owner.served_to, self.virtual_time)
            self._waiting_weight += owner.weight
            self._waiting_tenants += 1
            self._enter(owner)
        elif returns:
            owner.line.move_to_end(item, last=False)
            self._enter(owner)

    def first(self) -> Turn[T] | None:
        """Return who is next, and leave it where it is; None if nobody waits."""
        owner = self._next_tenant()
        if owner is None:
            return None
        item = next(iter(owner.line))
        return Turn(item, owner.name, owner.line[item][1], self.period)

    def front(self) -> T | None:
        """Return the item that is next, and no more about it; None if nobody waits."""
        owner = self._next_tenant()
        return None if owner is None else next(iter(owner.line))

    def serve(self, turn: Turn[T] | None = None) -> Turn[T]:
        """Take out who is next, and charge its tenant for it; `turn`, if given, is what `first` has just returned.

        Raises LookupError if nobody waits.
        """
        turn = turn or self.first()
        if turn is None:
            raise LookupError("nobody waits in this queue; ask first() before")
        owner = self._tenants[turn.tenant]
        # All who wait share the cost, this one included: that is how fast the queue as a whole goes on. The sum of
        # weights may be a hair too small, from rounding.
        gained = turn.cost / max(self._waiting_weight, owner.weight)
        self.virtual_time = max(self.virtual_time + gained, owner.served_to)
        owner.served_to += turn.cost / owner.weight
        self._remove(turn.item, owner)
        return turn

    def leave(self, item: T) -> bool:
        """Take an item out unserved, at no cost to its tenant; tell whether it was there."""
        owner = self._tenant_of.get(item)
        if owner is None:
            return False
        self._remove(item, owner)
        return True

    def give_back(self, tenant: str, cost: float, *, period: int) -> None:
        """Undo the charge for a turn that was taken in vain. Nothing is owed for one before the queue was empty."""
        owner = self._tenants.get(tenant)
        if owner is not None and period == self.period:
            owner.served_to -= cost / owner.weight
            if owner.line:
                self._enter(owner)

    def _next_tenant(self) -> _Tenant[T] | None:
        heap = self._heap
        while heap:
            owner = heap[0][2]
            if owner.entry is heap[0]:
                return owner
            heapq.heappop(heap)
        return None

    def _remove(self, item: T, owner: _Tenant[T]) -> None:
        was_first = next(iter(owner.line)) == item
        del owner.line[item], self._tenant_of[item]
        if not self._tenant_of:
            # Nobody is owed anything by an empty queue; so tags stay small, and nobody has to be remembered.
            self._tenants.clear()
            self._heap.clear()
            self.virtual_time = self._waiting_weight = 0.0
            self._waiting_tenants = 0
            self.period += 1
        elif not owner.line:
            owner.entry = None
            self._waiting_weight -= owner.weight
            self._waiting_tenants -= 1
        elif was_first:
            self._enter(owner)

    def _enter(self, owner: _Tenant[T]) -> None:
        """Enter a tenant under the tag of its front; its entry before that is out of date."""
        owner.entry = (owner.served_to, owner.line[next(iter(owner.line))][0], owner)
        heapq.heappush(self._heap, owner.entry)
        if len(self._heap) > 2 * self._waiting_tenants + MIN_SWEPT:
            self._heap = [one.entry for one in self._tenants.values() if one.entry is not None]
            heapq.heapify(self._heap)
        if len(self._tenants) > self._swept_above:
            # One that was served no further than the queue itself is as good as new.
            known = self._tenants.items()
            self._tenants = {name: one for name, one in known if one.line or one.served_to > self.virtual_time}
            self._swept_above = 2 * len(self._tenants) + MIN_SWEPT

    def __contains__(self, item: object) -> bool:
        return item in self._tenant_of

    def __iter__(self) -> Iterator[T]:
        return iter(self._tenant_of)

    def __len__(self) -> int:
        return len(self._tenant_of)

    def __repr__(self) -> str:
        lines = ", ".join(f"{one.name} {len(one.line)}" for one in self._tenants.values() if one.line)
        return f"<FairQueue {lines or 'empty'}>"
