"""An actor that shares one quota among callers: never above its rate; classes and tenants take turns."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from contextvars import copy_context
from itertools import islice
from typing import TYPE_CHECKING, Any, Self

from actors.errors.families import Permanent, RateLimited
from actors.limits.class_queue import ClassQueue
from actors.limits.learned import (
    DEFAULT_LEARNING,
    LearnedGrant,
    LearnedLimit,
    LearningConfig,
    ThrottledCall,
    after_grant,
    after_headers,
    after_no_run,
    after_success,
    after_throttled,
)
from actors.limits.pacing import Pacing
from actors.limits.quota import QuotaGrant, QuotaRefusal, RateLimit, quota_of, weight_in
from actors.rate_limiter.messages import Acquire, ForecastGrants, LimiterGrant, ReportThrottled, SetLimits, Settle
from actors.validation import check_config, check_count, check_text
from runtime import Actor, Message, Request, handles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextvars import Context

    from actors.limits.class_queue import Priority
    from actors.limits.fair_queue import Turn
    from actors.limits.quota import Quota
    from actors.limits.token_bucket import TokenBucket
    from runtime import Timer

NOTHING_LEARNED = LearnedLimit()
MAX_RECENT = 1_000
"""The latest grants, from which the rate is observed if callers do not report how their calls end."""
MAX_SETTLED = 10_000
"""The latest settled grants, remembered so that a second `Settle` of a grant does nothing."""


class Due(Message, frozen=True):
    """Sent by the limiter to itself when the tokens for the first request in the queue are due."""


MAX_FORECAST = 1_000
"""The requests that wait for which it is told when they will be granted."""


class PendingAcquire(asyncio.Future[LimiterGrant]):
    """The answer to one `Acquire` in the queue, and the weights that it takes.

    Its callbacks are called at once with a grant: those of a plain future come in the next turn of the loop, and a turn
    for each grant costs more than the grant. So it must not be awaited itself. `abandoned` is called in the next turn
    if its asker gives up.
    """

    __slots__ = ("_abandoned", "_calls", "_context", "asker", "priority", "weights")

    asker: str
    """Names the request."""

    def __init__(
        self,
        weights: Mapping[str, int],
        loop: asyncio.AbstractEventLoop,
        *,
        abandoned: Callable[[Self], None],
        priority: Priority = "normal",
    ) -> None:
        super().__init__(loop=loop)
        self.weights = weights
        self.priority: Priority = priority
        self._abandoned = abandoned
        self._context = copy_context()
        self._calls: list[tuple[Callable[[Self], object], Context | None]] = []

    def add_done_callback(self, call: Callable[[Self], object], /, *, context: Context | None = None) -> None:
        if self.done():
            super().add_done_callback(call, context=context)
        else:
            self._calls.append((call, context))

    def set_result(self, result: LimiterGrant, /) -> None:
        super().set_result(result)
        for call, _ in self._calls:
            call(self)

    def set_exception(self, exception: type[BaseException] | BaseException, /) -> None:
        super().set_exception(exception)
        for call, _ in self._calls:
            call(self)

    def cancel(self, msg: Any | None = None) -> bool:
        if not super().cancel(msg):
            return False
        self.get_loop().call_soon(self._abandoned, self, context=self._context)
        for call, context in self._calls:
            super().add_done_callback(call, context=context)
        return True


class RateLimiter(Actor[Acquire | Settle | ReportThrottled | ForecastGrants | SetLimits | Due]):
    """Answers each `Acquire` when its tokens are due: at most `burst` at once and `rate` a second.

    `limits` are for further dimensions, such as `per_minute("tokens", 90_000)`. Each limit, and `rate` too, is paced at
    `headroom` of its rate; what the provider really allows is learned from `ReportThrottled`. Its callers share one
    limit, so the first 429 that is reported holds back all of them, for its `retry_after`, and they begin again below
    the rate that was observed. One that is known to stray should not be reported: settle its grant as "failed".
    Requests of one tenant and class are served in order. Of what waits, the classes "high", "normal" and "low" share
    the quota 8 : 4 : 1; in each, tenants share it by `shares`, which is 1 for a tenant that is not named.

    An asker that gives up leaves the queue without a trace, and a grant that comes too late for its asker is given
    back. What is taken outlives a restart, and in `kept` also the actor. At most `max_waiting` requests wait; one more
    is refused with `RateLimited`.
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
        kept: dict[str, Any] | None = None,
    ) -> None:
        check_text("name of a rate limiter", name)
        check_count("max_waiting", max_waiting, least=0)
        check_config("learning", learning, LearningConfig)
        if rate is not None:
            limits = (RateLimit(rate=rate, burst=burst), *limits)
        self.name = name
        self._kept = kept
        self.quota = quota_of(*limits, headroom=headroom) if limits else None
        self.learned = NOTHING_LEARNED
        self.learning = learning
        self.max_waiting = max_waiting
        self._max_catch_up = catch_up_of(self.buckets)
        self._waiting: ClassQueue[PendingAcquire] = ClassQueue(shares)
        self._timer: Timer | None = None
        self._due_at = 0.0
        self._first_number = self._granted = 0
        self._settled: OrderedDict[int, None] = OrderedDict()
        self._recent: deque[float] = deque(maxlen=MAX_RECENT)
        self._has_outcomes = False

    @property
    def buckets(self) -> Sequence[TokenBucket]:
        """The bucket of each limit; the first is that of `rate`, if that was given."""
        return () if self.quota is None else self.quota.buckets

    @property
    def bucket(self) -> TokenBucket:
        """The bucket of the first limit. Raises IndexError if there is no limit."""
        return self.buckets[0]

    @property
    def whole_quota(self) -> Quota | None:
        """The quota of which `quota` is the part that is granted here: all of it."""
        return self.quota

    def started(self) -> None:
        # A restart gives no caller more than the quota: what is taken, and what was learned, goes over to it.
        kept = self._keeper.get("state")
        if kept is not None:
            self.quota, self.learned, self._first_number, self._granted, self._settled = kept
            return
        # Grants of another limiter do not count for this one.
        self._granted = int(self.context.random.random() * 2**52)
        self._first_number = self._granted + 1

    async def stopped(self) -> None:
        self._keeper["state"] = (self.quota, self.learned, self._first_number, self._granted, self._settled)

    @property
    def _keeper(self) -> dict[str, Any]:
        return self.context.kept if self._kept is None else self._kept

    @handles(Acquire)
    def acquire(self, message: Acquire) -> LimiterGrant | PendingAcquire:
        """Grant at once if no request waits and the tokens are due; otherwise join the queue."""
        now, weights, queue = self.context.now(), message.total_weights(), self._waiting
        wait = 0.0
        if not queue:
            taken = self._take(now, weights)
            if isinstance(taken, LimiterGrant):
                return taken
            wait = taken
        cost = self._cost(weights)
        if message.at_once:
            raise RateLimited(self.name, retry_after=max(wait, len(queue) * cost))
        if len(queue) >= self.max_waiting:
            # About when the whole queue is served, if no request gives up and each takes as much as this one.
            raise RateLimited(self.name, retry_after=max(wait, (len(queue) + 1) * cost))
        loop, priority = asyncio.get_running_loop(), message.priority
        waiter = PendingAcquire(weights, loop, abandoned=self._abandoned, priority=priority)
        waiter.asker = message.asker
        queue.enqueue(waiter, message.tenant, cost=cost, priority=priority)
        if self._timer is None or self._is_first(waiter):
            self._serve_queue()
        return waiter

    @handles(Due)
    def due(self, message: Due) -> None:
        """Grant the first request, and those behind it whose tokens are due too."""
        self._serve_queue()

    @handles(Settle)
    def settle(self, message: Settle) -> None:
        """Correct a grant, and learn from the outcome of its call."""
        grant, now = message.grant, self.context.now()
        if not self._is_first_settlement(grant):
            return
        self._has_outcomes = True
        if message.limits:
            self.learned = after_headers(self.learned, message.limits, now, config=self.learning)
        if message.outcome == "never_ran":
            self._refund(grant)
            return
        if message.outcome == "served":
            self.learned = after_success(self.learned, now, started=grant.at, config=self.learning)
        if self.quota is not None and grant.quota is not None and message.weights:
            self.quota = self.quota.correct(grant.quota, message.weights, now)
        self._serve_queue()

    @handles(SetLimits)
    def set_limits(self, message: SetLimits) -> None:
        """Go on under other limits, and refuse the requests that could never be served under them."""
        limits, headroom = message.limits, message.headroom
        if self.quota is None:
            self.quota = quota_of(*limits, headroom=headroom)
        else:
            self.quota = self.quota.with_limits(*limits, headroom=headroom, now=self.context.now())
        self._max_catch_up = catch_up_of(self.buckets)
        for waiter in tuple(self._waiting):
            try:
                self._cost(waiter.weights)
            except Permanent as refusal:
                self._waiting.remove(waiter)
                if not waiter.done():
                    waiter.set_exception(refusal)
        self._serve_queue()

    @handles(ReportThrottled)
    def report_throttled(self, message: ReportThrottled) -> None:
        """Let all requests wait at the gate of the learned limit."""
        now = self.context.now()
        learned = after_headers(self.learned, message.limits, now, config=self.learning)
        for at in self._recent:
            learned = after_grant(learned, at, config=self.learning)
        self._recent.clear()
        started = None if message.grant is None else message.grant.at
        # The callers share a limit, or they would not ask.
        refused = ThrottledCall(message.retry_after, started, at_once=True)
        random = self.context.random.random()
        self.learned = after_throttled(learned, now, refused, random=random, config=self.learning)
        self._serve_queue()

    @handles(ForecastGrants)
    def forecast(self, message: ForecastGrants) -> dict[str, float]:
        """Tell when those that wait will be granted if nothing changes."""
        pacing, at = Pacing(self.learned, self.quota), self.context.now()
        due: dict[str, float] = {}
        for waiter in islice(self._waiting.in_order(), MAX_FORECAST) if self._waiting else ():
            at = due[waiter.asker] = pacing.next_after(at, waiter.weights)
        return due

    def unclaimed(self, request: Request[Any], answer: LimiterGrant) -> None:
        if self._is_first_settlement(answer):
            self._refund(answer)

    def _refund(self, grant: LimiterGrant) -> None:
        if self.quota is not None and grant.quota is not None:
            self.quota = self.quota.refund(grant.quota)
        self.learned = after_no_run(self.learned, grant.learned)
        self._waiting.refund(grant.tenant, grant.cost, period=grant.period, priority=grant.priority)
        # The first request may wait for what came back.
        self._serve_queue()

    def _abandoned(self, waiter: PendingAcquire) -> None:
        if waiter not in self._waiting:
            return
        is_first = self._is_first(waiter)
        self._waiting.remove(waiter)
        if is_first:
            # The next request may take less, and be due sooner.
            self._serve_queue()

    def _serve_queue(self) -> None:
        """Grant requests from the head while their tokens are due, and set the timer for the next one."""
        now = self.context.now()
        # What fell due a moment ago is granted as of then; otherwise the delay of each timer would lower the rate.
        at = now if self._timer is None else min(now, max(self._due_at, now - self._max_catch_up))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while (turn := self._waiting.peek()) is not None:
            if turn.item.done():
                # Its asker gave up a moment ago, and the callback has not run yet.
                self._waiting.remove(turn.item)
                continue
            granted = self._take(at, turn.item.weights, turn=turn)
            if isinstance(granted, LimiterGrant):
                self._waiting.serve(turn.item)
                turn.item.set_result(granted)
            elif at + granted <= now:
                at += granted
            else:
                self._due_at = at + granted
                self._timer = self.context.timers.once(self._due_at - now, Due())
                return

    def _take(
        self, now: float, weights: Mapping[str, int], *, turn: Turn[PendingAcquire] | None = None
    ) -> LimiterGrant | float:
        """Take everything that a call needs, or return the seconds until it may be due."""
        quota, learned = self.quota, self.learned
        grant: QuotaGrant | None = None
        begun: LearnedGrant | None = None
        # Most limiters never hear of a 429; they pay nothing for the learned limit.
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
        if not self._has_outcomes:
            self._recent.append(now)
        self._granted += 1
        if turn is None:
            return LimiterGrant(now, self._granted, grant, begun)
        return LimiterGrant(now, self._granted, grant, begun, turn.tenant, turn.cost, turn.period, turn.item.priority)

    def _cost(self, weights: Mapping[str, int]) -> float:
        """Return the cost of one turn for its tenant; raises `Permanent` if the quota can never serve the request."""
        quota = self.whole_quota
        if quota is None:
            return 1.0
        for dimension, bucket in zip(quota.dimensions, quota.buckets, strict=True):
            weight = weight_in(weights, dimension)
            if weight > bucket.burst:
                raise Permanent(
                    f"{weight} tokens of {dimension!r} exceed the burst of quota {self.name!r}, {bucket.burst}; "
                    "ask for less, or raise its burst"
                )
        return quota.dominant_share(weights)

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
            yield f"{len(self._waiting)} callers were left waiting for quota {self.name!r}"
        for bucket in self.buckets:
            yield from bucket.broken_invariants(f"quota {self.name!r}")

    def __repr__(self) -> str:
        dimensions = () if self.quota is None else self.quota.dimensions
        pairs = zip(dimensions, self.buckets, strict=True)
        limits = ", ".join(f"{bucket.rate:g} {dimension}/s burst {bucket.burst}" for dimension, bucket in pairs)
        return f"<RateLimiter {self.name!r} {limits or 'of unknown limit'}, {len(self._waiting)} waiting>"


def catch_up_of(buckets: Sequence[TokenBucket]) -> float:
    """Return the seconds that a timer may be late without loss: in them less than a token of any bucket falls due."""
    return min((1 / bucket.rate for bucket in buckets), default=0.0)
