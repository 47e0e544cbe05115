"""An actor that owns a quota which the limiters of several nodes draw on by leases."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec

from actors.limits.lease_table import LEASE, SECOND, LeaseTable
from actors.limits.quota import NO_WEIGHTS, REQUESTS, Quota, quota_of, weight_in
from actors.limits.rate_lease import NO_LEASE, STANDSTILL, RateLease
from actors.rate_limiter.messages import AskLease, ConfirmLease, HoldBack, LimiterGrant, SetLimits
from actors.rate_limiter.rate_limiter import NOTHING_LEARNED, Due, RateLimiter
from runtime import Request, handles

if TYPE_CHECKING:
    from collections.abc import Mapping

    from actors.limits.fair_queue import Turn
    from actors.rate_limiter.rate_limiter import PendingAcquire

TAKE_OVER = LEASE + SECOND
"""Seconds after which no lease of an owner before can be in force, and a second more."""

SOON = 1e-4
"""Seconds after which to look again for what is given back now."""


class LeaseOwner(RateLimiter):
    """A `RateLimiter` that also leases parts of its rate to the `LeasedLimiter` of each node.

    Calls that ask here are granted by what is not leased. Only a quota of one limit, of requests, is leased; of any
    other each call is granted here, and so is each once a 429 has been reported here. With `takes_over` there may have
    been an owner before, whose leases are unknown: nothing is granted until they have ended, for 2 s.
    """

    def __init__(self, name: str, *, takes_over: bool = False, **options: Any) -> None:
        super().__init__(name, **options)
        self._takes_over = takes_over
        self._closed_until = -math.inf
        self._table: LeaseTable | None = None
        self._whole = self.quota

    @property
    def whole_quota(self) -> Quota | None:
        """The quota with what is leased of it."""
        return self._whole

    def started(self) -> None:
        super().started()
        kept = self._keeper.get("leases")
        if kept is not None:
            self._table, self._closed_until, self._whole = kept
        elif self._takes_over:
            self._closed_until = self.context.now() + TAKE_OVER

    async def stopped(self) -> None:
        await super().stopped()
        self._keeper["leases"] = (self._table, self._closed_until, self._whole)

    @handles(AskLease)
    def lease(self, message: AskLease) -> RateLease:
        """Lease a part of the rate, or none, if calls are to be granted one by one."""
        now = self.context.now()
        if now < self._closed_until:
            return msgspec.structs.replace(NO_LEASE, ask_again=self._closed_until - now)
        table = self._leasable()
        if table is None:
            return msgspec.structs.replace(NO_LEASE, ask_again=4 * LEASE)
        first = self._waiting.peek()
        if first is not None and weight_in(first.item.weights, REQUESTS) > self.bucket.burst:
            # It needs what leases have of the burst: none is given until they have ended.
            return msgspec.structs.replace(NO_LEASE, ask_again=LEASE)
        lease = table.ask(message.node, message.wanted, holds=message.holds, now=now)
        self._serve_queue()
        return lease

    @handles(ConfirmLease)
    def confirm(self, message: ConfirmLease) -> None:
        """Take note that a node uses less."""
        if self._table is not None:
            self._table.confirm(message.node, message.holds, self.context.now())

    @handles(HoldBack)
    def hold_back(self, message: HoldBack) -> None:
        """Grant and lease nothing for a while: the provider has told a node to wait."""
        self._closed_until = max(self._closed_until, self.context.now() + message.seconds)

    @handles(SetLimits)
    def set_limits(self, message: SetLimits) -> None:
        """Go on under other limits; what is leased is leased until it ends."""
        self._whole = quota_of(*message.limits, headroom=message.headroom)
        if self._table is not None:
            if self._is_leasable(self._whole):
                self._table.change(self._whole.buckets[0].rate, self._whole.buckets[0].burst)
            else:
                # What was leased under the limit before counts no more once it has ended.
                self._closed_until, self._table = self.context.now() + TAKE_OVER, None
        super().set_limits(message)

    def unclaimed(self, request: Request[Any], answer: LimiterGrant | RateLease) -> None:
        if isinstance(answer, LimiterGrant):  # A lease that its asker did not take ends by itself.
            super().unclaimed(request, answer)

    def _leasable(self) -> LeaseTable | None:
        """Return the table of leases, if the quota is one that is leased."""
        if self.learned is not NOTHING_LEARNED or self._whole is None or not self._is_leasable(self._whole):
            return None
        if self._table is None:
            bucket = self._whole.buckets[0]
            self._table = LeaseTable(bucket.rate, bucket.burst)
        return self._table

    @staticmethod
    def _is_leasable(quota: Quota) -> bool:
        return quota.dimensions == (REQUESTS,)

    def _take(
        self, now: float, weights: Mapping[str, int] = NO_WEIGHTS, *, turn: Turn[PendingAcquire] | None = None
    ) -> LimiterGrant | float:
        present = self.context.now()
        if present < self._closed_until:
            return self._closed_until - now
        if self._table is not None and self.quota is not None:
            rate, burst = self._table.left(present)
            rate, bucket = max(rate, STANDSTILL), self.quota.buckets[0]
            if (rate, burst) != (bucket.rate, bucket.burst):
                self.quota = Quota(self.quota.dimensions, (bucket.changed(present, rate=rate, burst=burst),))
            if burst < weight_in(weights, REQUESTS) <= self._table.burst:
                return max(self._table.next_change() - now, SOON)
        return super()._take(now, weights, turn=turn)

    def _serve_queue(self) -> None:
        super()._serve_queue()
        if self._timer is not None and self._table is not None:
            change = self._table.next_change()
            if change < self._due_at:
                # What a node gives back may serve the first request sooner.
                self._timer.cancel()
                self._due_at = change
                self._timer = self.context.timers.once(max(change - self.context.now(), SOON), Due())
