"""Nodes that share one rate by leases, in virtual time: each with a clock of its own, a network between, and deaths."""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from functools import partial
from heapq import heappop, heappush
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import msgspec

from actors.limits.lease_table import LeaseTable
from actors.limits.rate_lease import (
    DRIFT,
    NO_LEASE,
    STANDSTILL,
    TICK,
    DemandMeter,
    RateLease,
    has_changed,
    is_over,
    next_look,
    under_lease,
)
from actors.limits.token_bucket import TokenBucket

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE = 0.5
"""Seconds of a node's demand that wait at most; what comes besides gives up."""
MOST_HOPS = 8
DEATHS = 0.01 / 60
"""The part of the nodes that die each second."""
SETTLING = 2.0
"""Seconds after a change of demand in which the rate need not be used."""


class Network:
    """The owner of the rate, and the time of all."""

    def __init__(self, rate: float, burst: int, rng: random.Random, *, loss: float = 0.0) -> None:
        self.now = 0.0
        self.loss = loss
        self.rng = rng
        self.table = LeaseTable(rate, burst)
        self.pool = TokenBucket(rate=rate, burst=burst)
        self.granted: list[float] = []
        self.hops = self.asks = 0
        self.dead_held: list[tuple[float, float, int]] = []
        self._asking: list[LeasedNode] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = self._turn = 0

    def at(self, time: float, act: Callable[[], None]) -> None:
        self._count += 1
        heappush(self._events, (time, self._count, act))

    def send(self, act: Callable[[], None]) -> None:
        """Do it at the other end."""
        self.at(self.now + self.rng.uniform(0.0003, 0.002), act)

    def send_or_lose(self, node: LeasedNode, act: Callable[[], None]) -> None:
        if not node.is_cut and self.rng.random() >= self.loss:
            self.send(act)

    def run(self, until: float) -> None:
        while self._events and self._events[0][0] < until:
            self.now, _, act = heappop(self._events)
            act()
        self.now = until

    def repool(self) -> None:
        """Grant single calls by what is not leased."""
        rate, burst = self.table.left(self.now)
        rate = max(rate, STANDSTILL)
        if (rate, burst) != (self.pool.rate, self.pool.burst):
            self.pool = self.pool.changed(self.now, rate=rate, burst=burst)

    def hop(self, node: LeasedNode) -> None:
        self._asking.append(node)
        if len(self._asking) == 1:
            self.serve()

    def give_up(self, node: LeasedNode) -> None:
        for one in [one for one in self._asking if one is node]:
            self._asking.remove(one)
            one.hops -= 1

    def serve(self, turn: int | None = None) -> None:
        """Grant the calls that wait here, in their order."""
        if turn is not None and turn != self._turn:
            return
        self._turn += 1
        while self._asking:
            self.repool()
            taken = self.pool.take(self.now)
            if not isinstance(taken, tuple):
                self.at(min(self.now + taken, self.table.next_change()) + 1e-9, partial(self.serve, self._turn))
                return
            self.pool, _ = taken
            self.send(self._asking.pop(0).hop_granted)


class LeasedNode:
    """One node whose callers come at a steady rate, and give up after a while."""

    def __init__(self, network: Network, name: str) -> None:
        rng = network.rng
        self.network, self.name = network, name
        self.speed, self.offset = 1 + rng.uniform(-DRIFT, DRIFT) / 2, rng.uniform(0, 1e4)
        self.demand = self.waiting = 0.0
        self.seen = network.now
        self.hops = self.turn = 0
        self.is_dead = self.is_cut = False
        self.told = 0.0
        self.lease: RateLease = NO_LEASE
        self.asked = self.clock
        self.look_at = math.inf
        self.meter = DemandMeter(self.clock)
        self.bucket = TokenBucket(rate=STANDSTILL, burst=1)

    @property
    def clock(self) -> float:
        return self.network.now * self.speed + self.offset

    def wants(self, demand: float) -> None:
        """Change the rate at which callers come; without any, those that wait go away."""
        self._come()
        self.demand = demand
        self.waiting = self.network.rng.random() if demand else 0.0
        self._wake()

    def die(self) -> None:
        now = self.network.now
        self.is_dead = True
        self.network.dead_held.append((now, now + 2.0, self.lease.calls))

    def cut(self, seconds: float) -> None:
        """Lose for so long what it asks about its lease, and the answers."""
        now = self.network.now
        self.is_cut = True
        wanted = min(self.demand, self.network.table.rate)  # It may have had no lease yet, and gets none now.
        self.network.dead_held.append((now, now + seconds + 2.0, max(self.lease.calls, int(wanted))))
        self.network.at(now + seconds, self.healed)

    def healed(self) -> None:
        self.is_cut = False

    def hop_granted(self) -> None:
        self.hops -= 1
        if self.is_dead:
            return
        self._come()
        if self.waiting >= 1:
            self.waiting -= 1
            self.network.hops += not self.is_cut  # It can have no lease then.
            self.network.granted.append(self.network.now)
        self._wake()

    def _come(self) -> None:
        """Let come who has come since this was last looked at."""
        now = self.network.now
        came = self.demand * (now - self.seen)
        self.seen = now
        self.meter.count(came)
        self.waiting = min(self.waiting + came, max(1.0, self.demand * PATIENCE))

    def _wake(self, turn: int | None = None) -> None:
        """Make the calls that may be made, ask for what is short, and wake again when there is more to do."""
        if self.is_dead or (turn is not None and turn != self.turn):
            return
        self.turn += 1
        self._come()
        clock = self.clock
        due = self._make_calls(clock)
        if self.look_at == math.inf and self.waiting >= 1:
            self.look_at = clock
        if clock >= self.look_at:
            self._look(clock)
        if self.waiting >= 1:
            if self.hops < min(self.waiting, MOST_HOPS):
                self.hops += 1
                self.network.send(lambda: self.network.hop(self))
        elif self.hops and not self.demand:
            self.network.send(lambda: self.network.give_up(self))
        if self.waiting < 1:
            due = (1 - self.waiting) / self.demand if self.demand else math.inf
        wait = min(due, self.look_at - clock)
        if wait < math.inf:
            turn = self.turn
            self.network.at(self.network.now + wait / self.speed + 1e-9, lambda: self._wake(turn))

    def _make_calls(self, clock: float) -> float:
        """Make the calls that are due, and return the seconds until one could be made again."""
        if is_over(self.lease, self.asked, clock):
            self._take(RateLease(self.lease.number), self.lease.until(self.asked))
        if not self.lease.calls:
            return math.inf
        while True:
            taken = self.bucket.take(clock)
            if not isinstance(taken, tuple):
                return taken
            if self.waiting < 1:
                return math.inf
            self.bucket, _ = taken
            self.waiting -= 1
            self.network.granted.append(self.network.now)

    def _take(self, lease: RateLease, at: float) -> None:
        self.bucket = under_lease(self.bucket, lease, after=self.lease, now=at)
        self.lease = lease

    def _look(self, clock: float) -> None:
        demand = self.meter.demand(clock, int(self.waiting))
        is_due = clock >= self.asked + self.lease.ask_again and (demand or self.lease.calls)
        if not is_due and not has_changed(demand, self.told):
            if demand:
                self.look_at = next_look(self.lease, self.asked, clock)
            else:
                self.look_at = clock + TICK if self.waiting >= 1 or self.meter.is_counting else math.inf
            return
        self.told, self.look_at = demand, clock + TICK  # What is lost is asked again then.
        holds, network = self.lease.number, self.network

        def answer() -> None:
            network.asks += 1
            lease = network.table.ask(self.name, demand, holds=holds, now=network.now)
            network.serve()
            network.send_or_lose(self, lambda: self._answered(lease, clock))

        network.send_or_lose(self, answer)

    def _answered(self, lease: RateLease, asked: float) -> None:
        if self.is_dead or lease.number < self.lease.number:
            return
        network, clock, before = self.network, self.clock, self.lease
        self.asked = asked
        self._take(lease, clock)
        self.look_at = next_look(lease, asked, clock)
        if lease.calls < before.calls:
            network.send_or_lose(self, lambda: network.table.confirm(self.name, lease.number, network.now))
        self._wake()


Demands = Literal["even", "on one", "moving", "by turns"]


class Course(msgspec.Struct):
    """What happened: the calls, those that needed the owner each, and what was used between the changes of demand."""

    rate: float
    burst: int
    granted: list[float]
    hops: int
    asks: int
    spans: list[tuple[float, float]]
    dead: list[tuple[float, float, int]]

    @property
    def most_in_a_second(self) -> int:
        """The most calls of any second, both ends included."""
        last = most = 0
        for first, time in enumerate(self.granted):
            while last < len(self.granted) and self.granted[last] <= time + 1.0 - 1e-6:
                last += 1
            most = max(most, last - first)
        return most

    def used(self) -> list[float]:
        """Return the part of the rate that was used from 2 s after each change, without what dead nodes held."""
        parts: list[float] = []
        for begin, end in self.spans:
            made = bisect_right(self.granted, end) - bisect_right(self.granted, begin)
            held = sum(calls * max(0.0, min(end, until) - max(begin, died)) for died, until, calls in self.dead)
            usable = self.rate * (end - begin) - held
            if usable > held:
                parts.append((made + 1) / usable)  # A span need not begin or end with a call.
        return parts


def course(
    rate: float, burst: int, count: int, demands: Demands, *, seconds: int, seed: int, excess: float = 1.3
) -> Course:
    """Run nodes that ask for `excess` times the rate; every 10 s the demand moves, and 1 % of them die a minute."""
    rng = random.Random(seed)
    network = Network(rate, burst, rng, loss=rng.choice((0.0, 0.02)))
    nodes = [LeasedNode(network, f"node {number}") for number in range(count)]
    changes = [0.0]

    def spread(number: int | None) -> None:
        changes.append(network.now)
        for place, node in enumerate(nodes):
            demand = rate * excess * ((place == number) if number is not None else 1 / count)
            if demand or node.demand:
                node.wants(demand)

    def kill() -> None:
        place = rng.randrange(count)
        dead = nodes[place]
        dead.die()
        heir = nodes[place] = LeasedNode(network, f"{dead.name} again")
        network.at(network.now + 1.0, partial(heir.wants, dead.demand))
        if dead.demand > rate / 2:
            changes.append(network.now + 1.0)  # All of the demand begins anew.

    turns = range(0, seconds, 10)
    for turn, at in enumerate(turns):
        is_even = demands == "even" or (demands == "by turns" and turn % 2 == 0)
        if at == 0 or demands in ("moving", "by turns"):
            network.at(at, partial(spread, None if is_even else rng.randrange(count)))
    time = rng.expovariate(count * DEATHS)
    while time < seconds:
        network.at(time, kill)
        time += rng.expovariate(count * DEATHS)
    for at in range(seconds // 10):
        node = rng.choice(nodes)
        network.at(10 * at + rng.uniform(2.0, 9.0), partial(node.cut, rng.uniform(0.5, 5.0)))
    network.run(seconds)
    times = [*sorted(changes), float(seconds)]
    spans = [(begin + SETTLING, end) for begin, end in pairwise(times) if end >= begin + SETTLING + 1.0]
    granted, asks = sorted(network.granted), network.asks
    return Course(rate, burst, granted, network.hops, asks, spans, network.dead_held)
