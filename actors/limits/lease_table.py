"""Who may use how much of one rate by itself: the leases of all nodes, and what is left for calls granted one by one.

Pure: `now` is the owner's clock. The leases in force, and the owner's own share, never add up to more than the rate and
the burst, so that no second sees more than both together. Shares are fair: nodes that want less than an equal share get
what they want, and the rest is shared among the others (max-min fairness; the algorithm FAIR_SHARE of Doorman,
github.com/youtube/doorman). A node that asks for the first time gets at most half of what is left, so that the first of
many does not get everything.

Why no second sees too much: a node counts for what it holds until a second after it is known to hold less (`_Claim`);
what it may use more from now on costs it a call (`under_lease`). So the calls of a node in any second are at most what
it counts for, averaged over that second, and its burst.
"""

from __future__ import annotations

import math
from heapq import heappop, heappush

import msgspec

from actors.limits.rate_lease import RateLease

SECOND = 1.0
"""The span in which the rate must hold, in seconds."""
LEASE = 1.0
"""Seconds for which a rate is leased: the longest that a node that has died keeps its share, and a second more."""
AMPLE = 1.25
"""How many times what it uses a node wants, to grow without asking."""
PLAN_AGE = 0.05
"""Seconds for which the plan of shares holds."""


class _Claim(msgspec.Struct, gc=False):
    """A node counts for `calls` until the time `until`, because of the lease of that number."""

    number: int
    calls: int
    until: float


class _Holder:
    __slots__ = ("charged", "claims", "granted", "heard_until", "planned", "until", "wanted")

    def __init__(self) -> None:
        self.claims: list[_Claim] = []
        self.charged = self.granted = self.planned = 0
        self.wanted = 0.0
        self.heard_until = self.until = -math.inf

    def calls(self, now: float) -> int:
        """Return what its newest lease says, if that has not ended."""
        return self.granted if now < self.until else 0

    @property
    def wish(self) -> int:
        """The lease that would be ample for it; below a call a second it needs none."""
        return math.ceil(self.wanted - 1e-9) if self.wanted >= 1 else 0


class LeaseTable:
    """The leases of one rate, in calls a second, of which `burst` may come at once besides."""

    def __init__(self, rate: float, burst: int) -> None:
        self.rate = rate
        self.burst = burst
        self._holders: dict[str, _Holder] = {}
        self._changes: list[tuple[float, str]] = []
        self._charged = self._extra = self._number = 0
        self._planned_at = -math.inf
        self._level = math.inf

    def __repr__(self) -> str:
        return f"<LeaseTable of {self.rate:g}/s: {self._charged} leased to {len(self._holders)} nodes>"

    def ask(self, node: str, wanted: float, *, holds: int, now: float) -> RateLease:
        """Return the lease of a node that wants so many calls a second, and now holds the lease of number `holds`."""
        self.confirm(node, holds, now)
        self.left(now)
        holder = self._holders.get(node)
        is_new = holder is None or now >= holder.heard_until
        if holder is None:
            holder = self._holders[node] = _Holder()
        holder.wanted = min(wanted * AMPLE, self.rate)
        holder.heard_until = max(holder.heard_until, now + SECOND)
        fair, calls = self._target(holder, now, is_new=is_new), holder.calls(now)
        target = min(fair, calls + self._rise(holder, fair - calls, calls, is_new=is_new)) if fair > calls else fair
        ask_again = LEASE / 4 if target < fair else LEASE / 2
        if not target and self._level < 1:
            # There is less than a call a second for each, so that asking helps only once that has changed.
            ask_again = 4 * LEASE
        holder.heard_until = now + 2 * ask_again + SECOND
        heappush(self._changes, (holder.heard_until, node))
        self._number += 1
        holder.granted, holder.until = target, now + LEASE
        if target:
            holder.claims.append(_Claim(self._number, target, now + LEASE + SECOND))
            heappush(self._changes, (now + LEASE + SECOND, node))
        self._recount(node, holder, now)
        return RateLease(self._number, target, self.extra_of(target), LEASE, ask_again)

    def confirm(self, node: str, holds: int, now: float) -> None:
        """Take note that a node has taken its lease of number `holds`, and uses no earlier one any more."""
        holder = self._holders.get(node)
        if holder is None:
            return
        for claim in holder.claims:
            if claim.number < holds and claim.until > now + SECOND:
                claim.until = now + SECOND
                heappush(self._changes, (claim.until, node))

    def left(self, now: float) -> tuple[float, int]:
        """Return the rate and the burst that are the owner's own at `now`, to grant single calls by."""
        while self._changes and self._changes[0][0] <= now:
            _, node = heappop(self._changes)
            holder = self._holders.get(node)
            if holder is not None:
                self._recount(node, holder, now)
        return max(0.0, self.rate - self._charged), max(1, self.burst - self._extra)

    def next_change(self) -> float:
        """Return when `left` is more the next time, if no node asks."""
        return self._changes[0][0] if self._changes else math.inf

    def change(self, rate: float, burst: int) -> None:
        """Go on at another rate and burst; what is leased stays so until its lease ends."""
        self.rate, self.burst = rate, burst
        self._extra = sum(self.extra_of(one.charged) for one in self._holders.values())
        self._planned_at = -math.inf

    def extra_of(self, calls: int) -> int:
        """Return the part of the burst that goes with so many calls a second; one call is always the owner's."""
        return math.floor((self.burst - 1) * calls / self.rate)

    def _recount(self, node: str, holder: _Holder, now: float) -> None:
        holder.claims = [claim for claim in holder.claims if claim.until > now]
        charged = max((claim.calls for claim in holder.claims), default=0)
        self._charged += charged - holder.charged
        self._extra += self.extra_of(charged) - self.extra_of(holder.charged)
        holder.charged = charged
        if not holder.claims and now >= holder.heard_until:
            del self._holders[node]

    def _target(self, holder: _Holder, now: float, *, is_new: bool) -> int:
        """Return the lease that a node should have."""
        if now >= self._planned_at + PLAN_AGE:
            self._plan(now)
            self._planned_at = now
        wish, calls = holder.wish, holder.calls(now)
        if self._level < math.inf:
            return min(wish, math.floor(self._level) if is_new else holder.planned)
        if wish and abs(wish - calls) <= max(1, calls // 8):
            return calls  # Each rise costs a call, so small ones are not followed.
        return wish

    def _rise(self, holder: _Holder, missing: int, calls: int, *, is_new: bool) -> int:
        """Return how much more a node may have at once; nothing if that is little, for each rise costs a call."""
        free = math.floor(self.rate + 1e-9) - self._charged
        possible = holder.charged - calls + ((free + 1) // 2 if is_new else free)
        return possible if min(possible, missing) >= max(1, missing // 4) else 0

    def _plan(self, now: float) -> None:
        """Find the equal share, and who gets a whole call of what is left over parts of calls."""
        wanting = [one for one in self._holders.values() if now < one.heard_until and one.wanted > 0]
        level = self._level = fair_share(sorted(one.wanted for one in wanting), self.rate)
        base = math.floor(min(level, self.rate))
        left = self.rate
        more: list[_Holder] = []
        for one in wanting:
            one.planned = min(one.wish, math.floor(one.wanted), base)
            left -= one.planned or min(one.wanted, level)
            if one.planned and one.wanted > one.planned:
                more.append(one)
        # Those who have a call more already keep it: each change costs one.
        more.sort(key=lambda one: one.calls(now) <= one.planned)
        for one in more[: max(0, math.floor(left + 1e-6))]:
            one.planned += 1


def fair_share(wanted: list[float], rate: float) -> float:
    """Return the most that each gets if the rate is shared fairly; infinite if there is enough for all.

    `wanted` is sorted.

    >>> fair_share([1.0, 4.0, 9.0], 7.0), fair_share([1.0, 2.0], 7.0)
    (3.0, inf)
    """
    left, count = rate, len(wanted)
    for one in wanted:
        if one * count > left:
            return left / count
        left -= one
        count -= 1
    return math.inf
