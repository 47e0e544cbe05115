"""An actor that shares one quota among the callers of a node, by leases from the owner of the quota elsewhere."""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from actors.errors.families import CallFailed, RateLimited
from actors.limits.lease_table import LEASE
from actors.limits.quota import NO_WEIGHTS, REQUESTS, Quota, RateLimit, weight_in
from actors.limits.rate_lease import (
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
from actors.rate_limiter.messages import (
    Acquire,
    AskLease,
    ConfirmLease,
    HoldBack,
    LimiterGrant,
    ReportThrottled,
    SetLimits,
    Settle,
)
from actors.rate_limiter.rate_limiter import MAX_SETTLED, Due, RateLimiter
from runtime import ActorRef, Message, RuntimeFault, handles

if TYPE_CHECKING:
    from collections.abc import Mapping

    from actors.limits.fair_queue import Turn
    from actors.rate_limiter.rate_limiter import PendingAcquire
    from runtime import Timer

MAX_HOPS = 8
"""The calls for which the owner is asked one by one at the same time, while others wait."""
MAX_PASSED_ON = 10_000
"""The questions that the owner answers itself at the same time."""
NO_LEASE_WAIT = 3600.0
"""Seconds until a call would be due if nothing came from the owner: any that are long."""
OWNER_TIMEOUT = 5.0
"""Seconds after which a question to the owner is given up, and asked again if need be."""


class RenewLease(Message, frozen=True):
    """Sent by the limiter to itself: ask for the lease of so many calls a second."""

    wanted: float


class AskForOne(Message, frozen=True):
    """Sent by the limiter to itself: ask the owner for the next call that waits."""


class LookAgain(Message, frozen=True):
    """Sent by the limiter to itself when a tick has passed."""


class PassOn(Message, frozen=True):
    """Sent by the limiter to itself: let the owner answer this one."""

    question: Acquire
    answer: Any
    timeout: float


class LeasedLimiter(RateLimiter):
    """A `RateLimiter` whose quota is that of a `LeaseOwner`, on whichever node: it takes the same messages.

    Most calls are granted here, by a lease of a part of the rate. What is short is asked of the owner call by call. If
    the owner cannot be reached, the lease ends, and calls wait. A 429 slows this node; if it says how long to wait, the
    owner holds back all nodes.
    """

    def __init__(self, name: str, *, owner: ActorRef[Any], max_waiting: int = 100_000) -> None:
        super().__init__(name, limits=(RateLimit(rate=STANDSTILL),), max_waiting=max_waiting)
        self._owner = owner
        self._lease: RateLease = NO_LEASE
        self._asked = self._told = 0.0
        self._look_at = math.inf
        self._look_timer: Timer | None = None
        self._hops = 0
        self._is_renewing = False
        self._spare: list[tuple[int, LimiterGrant]] = []
        """Grants of the owner that have just come, by their weights."""
        self._from_owner: OrderedDict[int, LimiterGrant] = OrderedDict()
        """The grants of the owner by which calls are under way, by the numbers under which they were given here."""
        self._max_catch_up = 0.0  # A call that comes late must not be followed by the next one too soon.

    def started(self) -> None:
        super().started()
        context = self.context
        self._node = f"{context.ref.path} of {context.random.getrandbits(64):x}"
        self._meter = DemandMeter(context.now())
        if self.quota is not None:  # The instance before may have had a lease.
            self.quota = Quota(
                self.quota.dimensions, (under_lease(self.bucket, NO_LEASE, after=NO_LEASE, now=context.now()),)
            )

    @handles(Acquire)
    def acquire(self, message: Acquire) -> LimiterGrant | PendingAcquire | asyncio.Future[LimiterGrant]:
        """Grant at once if the lease allows it; otherwise join the queue, or let the owner answer."""
        weight = message.total_weights().get(REQUESTS, 1)
        self._meter.count(weight)
        if weight > self.bucket.burst or message.weights.keys() - {REQUESTS}:
            return self._passed_on(message)
        if not message.at_once:
            answer = super().acquire(message)
            self._look()
            return answer
        try:
            return super().acquire(message)  # type: ignore[return-value]
        except RateLimited:
            return self._passed_on(message)
        finally:
            self._look()

    @handles(Due)
    def due(self, message: Due) -> None:
        """Grant what is due."""
        self._serve_queue()

    @handles(LookAgain)
    def look_again(self, message: LookAgain) -> None:
        """See whether the lease has ended, and whether more or less is wanted."""
        self._look_at, self._look_timer = math.inf, None
        self._serve_queue()
        self._look()

    @handles(RenewLease, concurrent=2)
    async def renew(self, message: RenewLease) -> None:
        """Ask the owner for a lease."""
        asked, before = self.context.now(), self._lease
        try:
            question = AskLease(node=self._node, wanted=message.wanted, holds=before.number)
            lease = await self._owner.ask(question, timeout=LEASE / 2)
        except RuntimeFault:
            return  # It is asked again at the next look; meanwhile the lease may end.
        finally:
            self._is_renewing = False
        self._asked = asked
        self._take_up(lease, self.context.now())
        if lease.calls < before.calls:
            with suppress(RuntimeFault):
                self._owner.tell(ConfirmLease(node=self._node, holds=lease.number))
        self._serve_queue()

    @handles(AskForOne, concurrent=MAX_HOPS)
    async def ask_for_one(self, message: AskForOne) -> None:
        """Ask the owner for the call that waits first; what comes is for the one that waits first then."""
        try:
            turn = self._waiting.peek()
            if turn is None:
                return
            weight, priority = weight_in(turn.item.weights, REQUESTS), turn.item.priority
            question = Acquire(weight=weight, tenant=self._node, priority=priority)
            grant = await self._owner.ask(question, timeout=OWNER_TIMEOUT)
        except (RuntimeFault, CallFailed):
            return  # It is asked again at the next look.
        finally:
            self._hops -= 1
        self._spare.append((weight, grant))
        self._serve_queue()
        for _, unused in self._spare:
            self._give_back(unused)
        self._spare.clear()

    @handles(PassOn, concurrent=MAX_PASSED_ON)
    async def pass_on(self, message: PassOn) -> None:
        """Let the owner answer a question, as long as its asker waits."""
        answer: asyncio.Future[LimiterGrant] = message.answer
        asking = asyncio.ensure_future(self._owner.ask(message.question, timeout=message.timeout))
        answer.add_done_callback(lambda _: asking.cancel())
        await asyncio.wait((asking,))
        if asking.cancelled():
            return
        error = asking.exception()
        if answer.done():
            if error is None:
                self._give_back(asking.result())
        elif error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(self._given(self.context.now(), asking.result()))

    @handles(Settle)
    def settle(self, message: Settle) -> None:
        """Correct a grant, here or at the owner who gave it, and learn from the outcome of its call."""
        grant = self._from_owner.get(message.grant.number)
        if grant is not None and message.outcome != "never_ran":
            del self._from_owner[message.grant.number]
            self._tell_owner(msgspec.structs.replace(message, grant=grant))
        super().settle(message)

    @handles(ReportThrottled)
    def report_throttled(self, message: ReportThrottled) -> None:
        """Slow down here, and let all nodes wait as long as the provider said."""
        super().report_throttled(message)
        if message.retry_after is not None:
            self._tell_owner(HoldBack(message.retry_after))

    @handles(SetLimits)
    def set_limits(self, message: SetLimits) -> None:
        """Pass them on: the limits are the owner's."""
        self._tell_owner(message)

    def _refund(self, grant: LimiterGrant) -> None:
        taken = self._from_owner.pop(grant.number, None)
        if taken is not None:
            self._give_back(taken)
        super()._refund(grant)

    def _passed_on(self, question: Acquire) -> asyncio.Future[LimiterGrant]:
        answer: asyncio.Future[LimiterGrant] = asyncio.get_running_loop().create_future()
        deadline = self.context.deadline
        left = OWNER_TIMEOUT if deadline is None else max(1e-3, deadline - self.context.now())
        self.context.ref.tell(PassOn(question, answer, left))
        return answer

    def _given(self, now: float, grant: LimiterGrant, turn: Turn[PendingAcquire] | None = None) -> LimiterGrant:
        """Return a grant of the owner as one of this limiter."""
        self._granted += 1
        self._from_owner[self._granted] = grant
        if len(self._from_owner) > MAX_SETTLED:
            self._from_owner.popitem(last=False)
        if turn is None:
            return LimiterGrant(now, self._granted)
        priority = turn.item.priority
        return LimiterGrant(now, self._granted, None, None, turn.tenant, turn.cost, turn.period, priority)

    def _take(
        self, now: float, weights: Mapping[str, int] = NO_WEIGHTS, *, turn: Turn[PendingAcquire] | None = None
    ) -> LimiterGrant | float:
        present = self.context.now()
        if is_over(self._lease, self._asked, present):
            self._take_up(RateLease(self._lease.number), self._lease.until(self._asked))
        if self._spare and self._spare[0][0] == weight_in(weights, REQUESTS):
            wait = self.learned.wait(now, weights, config=self.learning)
            return wait if wait > 0 else self._given(now, self._spare.pop()[1], turn)
        if not self._lease.calls:
            return NO_LEASE_WAIT
        return super()._take(now, weights, turn=turn)

    def _take_up(self, lease: RateLease, now: float) -> None:
        if self.quota is not None:
            bucket = under_lease(self.bucket, lease, after=self._lease, now=now)
            self.quota = Quota(self.quota.dimensions, (bucket,))
        self._lease = lease

    def _look(self) -> None:
        """Ask for what is short, and see to the lease, at most once a tick."""
        now, waiting = self.context.now(), len(self._waiting)
        while self._hops < min(waiting, MAX_HOPS):
            self._hops += 1
            self.context.ref.tell(AskForOne())
        if now < self._look_at < math.inf:
            return
        demand = self._meter.demand(now, waiting)
        is_due = now >= self._asked + self._lease.ask_again and (demand or self._lease.calls)
        if (is_due or has_changed(demand, self._told)) and not self._is_renewing:
            self._told, self._is_renewing = demand, True
            self.context.ref.tell(RenewLease(demand))
        if demand or waiting or self._lease.calls or self._is_renewing or self._meter.is_counting:
            self._look_at = min(now + TICK, max(now + TICK / 8, next_look(self._lease, self._asked, now)))
            if self._look_timer is not None:
                self._look_timer.cancel()
            self._look_timer = self.context.timers.once(self._look_at - now, LookAgain())

    def _tell_owner(self, message: Any) -> None:
        with suppress(RuntimeFault):  # An owner that has ended counts no more.
            self._owner.tell(message)

    def _give_back(self, grant: LimiterGrant) -> None:
        self._tell_owner(Settle(grant=grant, outcome="never_ran"))

    def __repr__(self) -> str:
        return f"<LeasedLimiter {self.name!r} {self._lease.calls}/s leased, {len(self._waiting)} waiting>"
