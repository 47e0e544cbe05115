"""What a report is drawn from, recorded from events in bounded memory: single calls, and sums over time beside them.

Times are seconds since the recording began.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable  # noqa: TC003 - inspect.signature evaluates it.
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from actors.events import BreakerClosed, BreakerHalfOpened, BreakerOpened, CallEnded, RequestEnded
from actors.limits.waiting import LearnedPace, Waiting
from actors.monitor.histogram import Histogram, bucket_of

if TYPE_CHECKING:
    from runtime import Event

RECORDED = (CallEnded, RequestEnded, BreakerOpened, BreakerHalfOpened, BreakerClosed)
"""The events that are recorded."""
MAX_CALLS = 5_000
"""Calls that are recorded one by one; of more, only the sums over time are shown."""
BINS = 240
"""Bins of time; if a run lasts longer than they reach, each becomes twice as wide."""
FIRST_WIDTH = 0.05
"""Seconds of a bin at first."""
MAX_CHANGES = 2_000
"""StateChanges of a breaker or a limit that are recorded for a provider; of more, the first and the last ones."""
MAX_PROVIDERS = 100
"""Providers with a lane; calls to others are counted in the sums of all."""
MAX_OPEN = 100_000
"""Requests whose attempts are remembered until they end."""
MAX_ATTEMPTS = 50
WORST = 10

OK, FAILED, THROTTLED, CANCELLED = "ok", "failed", "throttled", "cancelled"
OUTCOMES = (OK, FAILED, THROTTLED, CANCELLED)


class CallTick(NamedTuple):
    """One call: when it ended, how, and how many seconds it took."""

    at: float
    provider: str
    outcome: str
    latency: float
    request: str
    attempt: int


class AttemptMark(msgspec.Struct, frozen=True):
    """One attempt at a request, for the list of the worst ones; `error` is the kind of failure."""

    provider: str
    at: float
    latency: float
    error: str | None


class WorstRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request that failed, or took long."""

    request: str
    service: str
    at: float
    latency: float
    cost: int
    error: str | None
    attempts: tuple[AttemptMark, ...]


class TimeBins:
    """Sums over time in a fixed number of bins, which become wider as time goes on."""

    def __init__(self) -> None:
        self.width = FIRST_WIDTH
        self.sums: dict[str, list[float]] = {}

    def add(self, name: str, at: float, amount: float = 1.0) -> None:
        """Add an amount to the bin of a time."""
        while at >= self.width * BINS:
            self.width *= 2
            self.sums = {one: _halved(bins) for one, bins in self.sums.items()}
        bins = self.sums.get(name)
        if bins is None:
            bins = self.sums[name] = [0.0] * BINS
        bins[max(0, int(at / self.width))] += amount

    def of(self, name: str) -> list[float]:
        """Return the sums of a name; zeros if nothing was added."""
        return self.sums.get(name) or [0.0] * BINS


def _halved(bins: list[float]) -> list[float]:
    return [left + right for left, right in zip(bins[::2], bins[1::2], strict=True)] + [0.0] * (BINS // 2)


class StateChanges:
    """The values of something over time, one for each change."""

    def __init__(self) -> None:
        self.points: list[tuple[float, float | str]] = []

    def note(self, at: float, value: float | str) -> None:
        """Note a value, if it is another one than before."""
        if self.points and self.points[-1][1] == value:
            return
        if len(self.points) >= MAX_CHANGES:
            self.points.pop()
        self.points.append((at, value))


class ProviderLane:
    """What is known of one provider."""

    def __init__(self) -> None:
        self.series = TimeBins()
        self.breaker, self.limit = StateChanges(), StateChanges()
        self.latency = Histogram()
        self.calls = self.failures = 0


class Recording:
    """Records what `receive` is given: subscribe it to `Event`, before the supervisor is spawned.

    `now` is the clock that events are dated by, such as the `time` of the loop.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._started = now()
        self.calls: list[CallTick] = []
        self.call_count = self.request_count = self.failure_count = 0
        self.lanes: dict[str, ProviderLane] = {}
        self.all = TimeBins()
        """Of all requests: `done`, `failed`, and `cost` in micro-units."""
        self.attempts: dict[int, int] = {}
        """How many requests took so many calls."""
        self._open: dict[str, list[AttemptMark]] = {}
        self._worst: list[tuple[tuple[bool, float, int], WorstRequest]] = []

    @property
    def seconds(self) -> float:
        """How long it has recorded."""
        return self._now() - self._started

    @property
    def worst(self) -> list[WorstRequest]:
        """The ten worst requests: those that failed before the others, and the longest first."""
        return [one for _, one in sorted(self._worst, key=lambda found: found[0], reverse=True)]

    @property
    def is_binned(self) -> bool:
        """Whether there were too many calls to show each."""
        return self.call_count > MAX_CALLS

    def receive(self, event: Event) -> None:
        """Record an event; others than those of calls, requests and breakers are ignored."""
        at = self.seconds
        match event:
            case CallEnded():
                self._call(event, at)
            case RequestEnded():
                self._request(event, at)
            case BreakerOpened():
                self._note_breaker(event.provider, "isolated" if math.isinf(event.wait) else "open", at)
            case BreakerHalfOpened():
                self._note_breaker(event.provider, "half-open", at)
            case BreakerClosed():
                self._note_breaker(event.provider, "closed", at)
            case _:
                pass

    def note_waits(self, provider: str, waiting: Iterable[Waiting]) -> None:
        """Note the learned limit among what holds requests back at a provider."""
        for one in waiting:
            if isinstance(one.evidence, LearnedPace) and one.evidence.rate is not None:
                self.note_limit(provider, one.evidence.rate)

    def note_limit(self, provider: str, rate: float) -> None:
        """Note the limit that has been learned of a provider, in calls per second."""
        lane = self._lane(provider)
        if lane is not None:
            lane.limit.note(self.seconds, rate)

    def _call(self, event: CallEnded, at: float) -> None:
        outcome = outcome_of(event.error)
        self.call_count += 1
        if self.call_count <= MAX_CALLS:
            tick = CallTick(at, event.provider, outcome, event.latency, event.request_id, event.attempt)
            self.calls.append(tick)
        self.all.add("cost", at, int(event.cost))
        lane = self._lane(event.provider)
        if lane is not None:
            lane.calls += 1
            lane.failures += outcome in {FAILED, THROTTLED}
            lane.series.add(outcome, at)
            lane.latency.add(bucket_of(event.latency))
        if event.request_id in self._open or len(self._open) < MAX_OPEN:
            marks = self._open.setdefault(event.request_id, [])
            if len(marks) < MAX_ATTEMPTS:
                marks.append(AttemptMark(event.provider, at - event.latency, event.latency, event.error))

    def _request(self, event: RequestEnded, at: float) -> None:
        attempts = tuple(self._open.pop(event.request_id, ()))
        if event.error == "Cancelled":
            return
        self.request_count += 1
        self.failure_count += event.error is not None
        self.all.add("done" if event.error is None else "failed", at)
        self.attempts[event.attempts] = self.attempts.get(event.attempts, 0) + 1
        rank = (event.error is not None, event.latency, self.request_count)
        if len(self._worst) == WORST and rank <= self._worst[0][0]:
            return
        one = WorstRequest(
            request=event.request_id,
            service=event.service,
            at=at - event.latency,
            latency=event.latency,
            cost=int(event.cost),
            error=event.error,
            attempts=attempts,
        )
        put = heapq.heappush if len(self._worst) < WORST else heapq.heapreplace
        put(self._worst, (rank, one))

    def _note_breaker(self, provider: str, state: str, at: float) -> None:
        lane = self._lane(provider)
        if lane is not None:
            lane.breaker.note(at, state)

    def _lane(self, provider: str) -> ProviderLane | None:
        lane = self.lanes.get(provider)
        if lane is None and len(self.lanes) < MAX_PROVIDERS:
            lane = self.lanes[provider] = ProviderLane()
        return lane


def outcome_of(error: str | None) -> str:
    """Return how a call ended, by the kind of its failure.

    >>> outcome_of(None), outcome_of("Throttled"), outcome_of("Transient")
    ('ok', 'throttled', 'failed')
    """
    if error is None:
        return OK
    return {"Cancelled": CANCELLED, "Throttled": THROTTLED}.get(error, FAILED)
