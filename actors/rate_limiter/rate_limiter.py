"""One quota, shared by all who draw on it: never faster than its rate, first come, first served, tenants in turn."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Any, cast

from actors.errors.families import Permanent, RateLimited
from actors.limits.fair_queue import FairQueue
from actors.limits.learned import (
    DEFAULT_LEARNING,
    LearnedGrant,
    LearnedLimit,
    LearningConfig,
    after_grant,
    after_headers,
    after_no_run,
    after_success,
    after_throttled,
)
from actors.limits.quota import QuotaGrant, QuotaRefusal, RateLimit, quota_of, weight_in
from actors.rate_limiter.messages import Acquire, LimiterGrant, ReportThrottled, Settle
from actors.validation import check_count
from runtime import Actor, Message, Request, handles

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from actors.limits.fair_queue import Turn
    from actors.limits.token_bucket import TokenBucket
    from runtime import Timer

NOTHING_LEARNED = LearnedLimit()
MAX_RECENT = 1_000
"""The grants given last, from which the rate is taken where nobody tells how calls end."""
MAX_SETTLED = 10_000
"""The grants settled last, which are remembered so that a second `Settle` of one does nothing."""


class Due(Message, frozen=True):
    """Sent by the limiter to itself when the tokens for the first in line are there."""


class AcquireWaiter(asyncio.Future[LimiterGrant]):
    """The answer to one `Acquire` in line, and what it draws."""

    __slots__ = ("weights",)

    weights: Mapping[str, int]


class RateLimiter(Actor[Acquire | Settle | ReportThrottled | Due]):
    """Answers each `Acquire` when its tokens are there: at most `burst` at once and `rate` a second.

    `limits` are of further dimensions, such as `per_minute("tokens", 90_000)`, each paced at `headroom` of its rate, as
    `rate` is; what the provider really allows is learned from `ReportThrottled`. Within a tenant the order is FIFO;
    tenants get their parts of the quota by `shares`, 1 for those not named, for as long as they wait.

    An asker that gives up leaves the line without a trace, and one whose grant comes too late gives it back. At most
    `max_waiting` wait; one more is refused with `RateLimited`.
    """

    def __init__(
        self,
        name: str,
        *,
        rate: float | None = None,
        burst: int = 1,
        limits: Sequence[RateLimit] = (),
        headroom: float = 1.0,
        shares: Mapping[str, float] | None = None,
        learning: LearningConfig = DEFAULT_LEARNING,
        max_waiting: int = 100_000,
    ) -> None:
        check_count("max_waiting", max_waiting, least=0)
        if rate is not None:
            limits = (RateLimit(rate=rate, burst=burst), *limits)
        self.name = name
        self.quota = quota_of(*limits, headroom=headroom) if limits else None
        self.learned = NOTHING_LEARNED
        self.learning = learning
        self.max_waiting = max_waiting
        # The span in which less than one token of any dimension falls due; so late a timer may be, at no loss.
        self._max_catch_up = min((1 / bucket.rate for bucket in self.buckets), default=0.0)
        self._waiting: FairQueue[AcquireWaiter] = FairQueue(shares)
        self._timer: Timer | None = None
        self._due_at = 0.0
        self._first_number = self._granted = 0
        self._settled: OrderedDict[int, None] = OrderedDict()
        self._recent: deque[float] = deque(maxlen=MAX_RECENT)
        self._is_told = False

    @property
    def buckets(self) -> Sequence[TokenBucket]:
        """The bucket of each limit; the first is that of `rate`, if that was given."""
        return () if self.quota is None else self.quota.buckets

    @property
    def bucket(self) -> TokenBucket:
        """The bucket of the first limit. Raises IndexError where there is none."""
        return self.buckets[0]

    def started(self) -> None:
        # Grants of an instance before a restart are none of this one's, whose quota is full.
        self._granted = int(self.context.random.random() * 2**52)
        self._first_number = self._granted + 1

    @handles(Acquire)
    def acquire(self, message: Acquire) -> LimiterGrant | AcquireWaiter:
        """Grant at once where nobody waits and the tokens are there; otherwise join the line."""
        now, weights, queue = self.context.now(), message.drawn(), self._waiting
        wait = 0.0
        if not queue:
            taken = self._take(now, weights)
            if isinstance(taken, LimiterGrant):
                return taken
            wait = taken
        cost = self._cost(weights)
        if len(queue) >= self.max_waiting:
            # About when the whole line has been served, if nobody in it gives up and they want as much each.
            raise RateLimited(self.name, retry_after=max(wait, (len(queue) + 1) * cost))
        waiter = AcquireWaiter(loop=asyncio.get_running_loop())
        waiter.weights = weights
        queue.enqueue(waiter, message.tenant, cost=cost)
        waiter.add_done_callback(self._left)
        if self._timer is None or self._is_first(waiter):
            self._serve_line()
        return waiter

    @handles(Due)
    def due(self, message: Due) -> None:
        """Grant whoever is first in line, and those behind whose tokens are there too."""
        self._serve_line()

    @handles(Settle)
    def settle(self, message: Settle) -> None:
        """Correct a grant, and learn from how its call ended."""
        grant, now = message.grant, self.context.now()
        if not self._is_first_settlement(grant):
            return
        self._is_told = True
        if message.limits:
            self.learned = after_headers(self.learned, message.limits, now, config=self.learning)
        if message.outcome == "never_ran":
            self._take_back(grant)
            return
        if message.outcome == "served":
            self.learned = after_success(self.learned, now, started=grant.at, config=self.learning)
        if self.quota is not None and grant.quota is not None and message.weights:
            self.quota = self.quota.correct(grant.quota, message.weights, now)
        self._serve_line()

    @handles(ReportThrottled)
    def throttled(self, message: ReportThrottled) -> None:
        """Let everybody wait at the gate."""
        now = self.context.now()
        learned = after_headers(self.learned, message.limits, now, config=self.learning)
        for at in self._recent:
            learned = after_grant(learned, at, config=self.learning)
        self._recent.clear()
        self.learned = after_throttled(
            learned,
            now,
            message.retry_after,
            started=None if message.grant is None else message.grant.at,
            random=self.context.random.random(),
            config=self.learning,
        )
        self._serve_line()

    def unclaimed(self, request: Request[Any], answer: LimiterGrant) -> None:
        if self._is_first_settlement(answer):
            self._take_back(answer)

    def _take_back(self, grant: LimiterGrant) -> None:
        if self.quota is not None and grant.quota is not None:
            self.quota = self.quota.refund(grant.quota)
        self.learned = after_no_run(self.learned, grant.learned)
        self._waiting.refund(grant.tenant, grant.cost, period=grant.period)
        # What came back may be what the first in line waits for.
        self._serve_line()

    def _left(self, waiter: asyncio.Future[LimiterGrant]) -> None:
        if waiter not in self._waiting:
            return
        is_first = self._is_first(waiter)
        self._waiting.remove(cast("AcquireWaiter", waiter))
        if is_first:
            # The next may want less, and be due sooner.
            self._serve_line()

    def _serve_line(self) -> None:
        """Grant from the front whatever is there, and set the timer for the next."""
        now = self.context.now()
        # What fell due a moment ago is granted as of then, or every timer's delay would be taken from the rate.
        at = now if self._timer is None else min(now, max(self._due_at, now - self._max_catch_up))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while (turn := self._waiting.peek()) is not None:
            if turn.item.done():
                # It gave up a moment ago, and has not been told of yet.
                self._waiting.remove(turn.item)
                continue
            granted = self._take(at, turn.item.weights, turn=turn)
            if isinstance(granted, LimiterGrant):
                self._waiting.dequeue(turn)
                turn.item.set_result(granted)
            elif at + granted <= now:
                at += granted
            else:
                self._due_at = at + granted
                self._timer = self.context.timers.once(self._due_at - now, Due())
                return

    def _take(
        self, now: float, weights: Mapping[str, int], *, turn: Turn[AcquireWaiter] | None = None
    ) -> LimiterGrant | float:
        """Take all that a call needs, or return the seconds until it may be there."""
        quota, learned = self.quota, self.learned
        grant: QuotaGrant | None = None
        begun: LearnedGrant | None = None
        # Most limiters never hear of a 429, and pay nothing for what they might learn from it.
        wait = 0.0 if learned is NOTHING_LEARNED else learned.wait(now, weights, config=self.learning)
        if quota is not None:
            taken = quota.take(now, weights)
            if isinstance(taken, QuotaRefusal):
                return max(wait, taken.wait)
            quota, grant = taken
        if wait > 0:
            return wait
        self.quota = quota
        if learned is not NOTHING_LEARNED:
            self.learned, begun = learned.take(now, weights, config=self.learning)
        if not self._is_told:
            self._recent.append(now)
        self._granted += 1
        if turn is None:
            return LimiterGrant(now, self._granted, grant, begun)
        return LimiterGrant(now, self._granted, grant, begun, turn.tenant, turn.cost, turn.period)

    def _cost(self, weights: Mapping[str, int]) -> float:
        """Return what one turn costs its tenant; raises `Permanent` where no turn will ever be enough."""
        if self.quota is None:
            return 1.0
        for dimension, bucket in zip(self.quota.dimensions, self.quota.buckets, strict=True):
            weight = weight_in(weights, dimension)
            if weight > bucket.burst:
                raise Permanent(
                    f"{weight} tokens of {dimension!r} are more than quota {self.name!r} ever has at once, "
                    f"{bucket.burst}; ask for less, or raise its burst"
                )
        return self.quota.dominant_share(weights)

    def _is_first(self, waiter: asyncio.Future[LimiterGrant]) -> bool:
        turn = self._waiting.peek()
        return turn is not None and turn.item is waiter

    def _is_first_settlement(self, grant: LimiterGrant) -> bool:
        if grant.number in self._settled or not self._first_number <= grant.number <= self._granted:
            return False
        self._settled[grant.number] = None
        if len(self._settled) > MAX_SETTLED:
            self._settled.popitem(last=False)
        return True

    def broken_invariants(self) -> Iterator[str]:
        if self._waiting:
            yield f"{len(self._waiting)} were left waiting for quota {self.name!r}"
        for bucket in self.buckets:
            yield from bucket.broken_invariants(f"quota {self.name!r}")

    def __repr__(self) -> str:
        dimensions = () if self.quota is None else self.quota.dimensions
        pairs = zip(dimensions, self.buckets, strict=True)
        limits = ", ".join(f"{bucket.rate:g} {dimension}/s burst {bucket.burst}" for dimension, bucket in pairs)
        return f"<RateLimiter {self.name!r} {limits or 'of unknown limit'}, {len(self._waiting)} waiting>"
