"""The figures of a run, counted from its events and outcomes. No clock, no I/O: the time is an argument."""

from __future__ import annotations

import math
from array import array
from collections import deque
from functools import singledispatchmethod
from typing import TYPE_CHECKING, Literal

import msgspec

from actors.command.bad_input import one_line
from actors.events import (
    BreakerClosed,
    BreakerHalfOpened,
    BreakerOpened,
    CallEnded,
    DearAnswer,
    ProviderBack,
    ProviderLeft,
    RequestEnded,
    Rerouted,
    Retried,
)
from actors.money import ZERO, Micros, usd

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from actors.command.results_file import LineStatus
    from actors.ledger.account import Account
    from actors.supervisor.messages import TargetStatus
    from runtime import Event

PACE_WINDOW = 10.0
"""Seconds over which the pace of a run is measured, so that it follows what happens now."""
MAY_BE_PAID = frozenset({"Cancelled", "OutcomeUnknown", "Transient", "Unclassified"})
"""The kinds of error after which a paid provider may have charged the call."""

Ending = Literal["finished", "interrupted", "failed"]
"""A run is finished when every request has its line; it failed if its results could not be written."""


class ProviderReport(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of one provider; `breaker` is its state at the end, `spent` is in dollars.

    `dear_answers` counts those that cost more than it lists, and `dearest` is the most that one cost, in dollars.
    `left` says what the provider is left alone for at the end, and how that ends; `waits` what else held requests back
    there. `hidden_calls` are the requests that its client has sent by itself, beyond one a call. `last_error` is the
    text of its last failure, with what the provider itself said.
    """

    name: str
    breaker: str
    calls: int
    failures: int
    trips: int
    spent: str
    dear_answers: int = 0
    dearest: str | None = None
    left: tuple[str, ...] = ()
    waits: tuple[str, ...] = ()
    hidden_calls: int = 0
    last_error: str | None = None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of a run: money in dollars, durations in seconds.

    What a call in doubt may have cost is the price of a call, or with a tariff that of a call of usual size.

    `budget` counts the requests for which too little money was left, and `paid` those that were paid, and whose answers
    cannot be had. Of a run that goes on, `before` counts those that
    were over when it did, and `spent` and `in_doubt` are those of the whole run; calls and providers are since then.
    `lost` are the keys of answers that are paid, and could neither be written nor kept.

    `success_ratio` is that of the requests with a line; `unfinished` counts those without. `in_doubt` is what requests
    of unknown outcome may have cost beyond `spent`. Latencies are those of answered requests, with all their calls and
    waits.
    """

    ending: Ending
    budget_exhausted: bool
    requests: int
    done: int
    failed: int
    paid: int = 0
    budget: int = 0
    unknown: int
    unfinished: int
    success_ratio: float | None
    calls: int
    retries: int
    reroutes: int
    trips: int
    latency_p50: float | None
    latency_p99: float | None
    spent: str
    in_doubt: str
    providers: tuple[ProviderReport, ...]
    wall: float
    before: int = 0
    lost: tuple[str, ...] = ()


class Ended(msgspec.Struct, frozen=True):
    """The end of a request according to its events; `doubt` is a provider that may have been paid for no answer."""

    event: RequestEnded
    doubt: str | None


class ProviderTally:
    """The counts of one provider."""

    def __init__(self, price: Micros) -> None:
        self.price = price
        self.breaker = "closed"
        self.calls = self.failures = self.trips = self.hidden_calls = 0
        self.spent = ZERO
        self.dear_answers = 0
        self.dearest = ZERO
        self.left: dict[str, str] = {}
        """Why it is left alone, by what for."""
        self.waits: tuple[str, ...] = ()
        """What holds requests back there, as the supervisor last said; what it is left alone for excepted."""
        self.last_error: str | None = None

    def report(self, name: str) -> ProviderReport:
        """Return the figures."""
        return ProviderReport(
            name=name,
            breaker=self.breaker,
            calls=self.calls,
            failures=self.failures,
            trips=self.trips,
            spent=usd(self.spent),
            dear_answers=self.dear_answers,
            dearest=usd(self.dearest) if self.dear_answers else None,
            left=tuple(self.left.values()),
            waits=self.waits,
            hidden_calls=self.hidden_calls,
            last_error=self.last_error,
        )


class RunTally:
    """The counts so far. Memory is bounded by the requests under way, except for 8 bytes for each answer's latency."""

    def __init__(self, *, requests: int, prices: Mapping[str, Micros], started: float) -> None:
        self.requests = requests
        self.started = started
        self.statuses = {"done": 0, "failed": 0, "paid": 0, "budget": 0, "unknown": 0}
        self.before = 0
        """The requests that were over before."""
        self.spent_before = ZERO
        """What a run that goes on had spent before."""
        self.account: Account | None = None
        """The money of the whole run, once its ledger has told it."""
        self.lost: set[str] = set()
        """The keys of answers that are paid and kept nowhere; those with a line are taken out again."""
        self.retries = self.reroutes = 0
        self.in_doubt = ZERO
        self.providers = {name: ProviderTally(price) for name, price in prices.items()}
        self._latencies = array("d")
        self._looks: deque[tuple[float, int]] = deque([(started, 0)])
        """When it was looked at, and the lines of this run then: of the last ten seconds, and one look before."""
        self._doubts: dict[str, str] = {}
        self._ended: dict[str, Ended] = {}

    @property
    def lines(self) -> int:
        """The number of requests that have a line."""
        return sum(self.statuses.values())

    def look(self, now: float) -> None:
        """Take note of how far the run is, for its pace; call it at each look at the run."""
        looks = self._looks
        looks.append((now, self.lines - self.before))
        while len(looks) > 2 and looks[1][0] <= now - PACE_WINDOW:
            looks.popleft()

    @property
    def pace(self) -> float:
        """The requests per second that had a line in the last ten seconds, as of the last look."""
        (began, before), (ended, after) = self._looks[0], self._looks[-1]
        return (after - before) / (ended - began) if ended > began else 0.0

    @property
    def seconds_left(self) -> float | None:
        """How long the rest takes at this pace; None if nothing has had a line in the last ten seconds."""
        return (self.requests - self.lines) / self.pace if self.pace > 0 else None

    @property
    def calls(self) -> int:
        """The number of calls to all providers."""
        return sum(provider.calls for provider in self.providers.values())

    @property
    def spent(self) -> Micros:
        """The sum that all providers are known to have charged, in a run that goes on also before."""
        if self.account is not None:
            return self.account.settled
        return sum((provider.spent for provider in self.providers.values()), self.spent_before)

    @property
    def success_ratio(self) -> float | None:
        """The share of the requests with a line that were answered; None before the first line."""
        return self.statuses["done"] / self.lines if self.lines else None

    @singledispatchmethod
    def receive(self, event: Event) -> None:
        """Count an event; ignore those without a meaning for the report."""

    @receive.register
    def _(self, event: CallEnded) -> None:
        provider = self.providers[event.provider]
        provider.calls += 1
        provider.hidden_calls += max(0, event.wire_calls - 1)
        provider.failures += event.error is not None
        provider.spent += event.cost
        if event.detail is not None:
            provider.last_error = f"{event.error}: {event.detail}"
        if event.error is None:
            self._doubts.pop(event.request_id, None)
        elif event.error in MAY_BE_PAID and provider.price > 0:
            self._doubts[event.request_id] = event.provider

    @receive.register
    def _(self, event: RequestEnded) -> None:
        self._ended[event.request_id] = Ended(event, self._doubts.pop(event.request_id, None))
        if event.error is None:
            self._latencies.append(event.latency)

    @receive.register
    def _(self, _event: Retried) -> None:
        self.retries += 1

    @receive.register
    def _(self, _event: Rerouted) -> None:
        self.reroutes += 1

    @receive.register
    def _(self, event: BreakerOpened) -> None:
        self.providers[event.provider].breaker = "open"
        self.providers[event.provider].trips += 1

    @receive.register
    def _(self, event: BreakerHalfOpened) -> None:
        self.providers[event.provider].breaker = "half-open"

    @receive.register
    def _(self, event: BreakerClosed) -> None:
        self.providers[event.provider].breaker = "closed"

    @receive.register
    def _(self, event: DearAnswer) -> None:
        provider = self.providers[event.provider]
        provider.dear_answers += 1
        provider.dearest = max(provider.dearest, event.charged)

    @receive.register
    def _(self, event: ProviderLeft) -> None:
        self.providers[event.provider].left[event.what] = one_line(event.cause)

    @receive.register
    def _(self, event: ProviderBack) -> None:
        self.providers[event.provider].left.pop(event.what, None)

    def note_waits(self, statuses: Iterable[TargetStatus]) -> None:
        """Take note of what holds requests back at each provider."""
        for status in statuses:
            texts = (one_line(one.text(status.now)) for one in status.waiting if one.reason != "left alone")
            self.providers[status.provider.name].waits = tuple(texts)

    def take(self, request_id: str) -> Ended | None:
        """Return the end of a request and forget it; None if there was no event."""
        return self._ended.pop(request_id, None)

    def take_all(self) -> dict[str, Ended]:
        """Return the ends of all requests that were not taken, and forget them."""
        ended, self._ended = self._ended, {}
        return ended

    def note_before(self, status: LineStatus) -> None:
        """Count a request that was over before."""
        self.statuses[status] += 1
        self.before += 1

    def note_lost(self, key: str) -> None:
        """Note an answer that could not be kept; only its line has it."""
        self.lost.add(key)

    def note_written(self, key: str) -> None:
        """Note that an answer has its line."""
        self.lost.discard(key)

    def count(self, status: LineStatus, *, doubt: str | None = None) -> None:
        """Count a line; `doubt` is the provider that may have been paid by a request of unknown outcome."""
        self.statuses[status] += 1
        if status == "unknown" and doubt is not None:
            self.in_doubt += self.providers[doubt].price

    def report(self, *, now: float, ending: Ending, budget_exhausted: bool) -> Report:
        """Return the figures at `now`."""
        return Report(
            ending=ending,
            budget_exhausted=budget_exhausted,
            requests=self.requests,
            **self.statuses,
            unfinished=self.requests - self.lines,
            success_ratio=None if self.success_ratio is None else round(self.success_ratio, 6),
            calls=self.calls,
            retries=self.retries,
            reroutes=self.reroutes,
            trips=sum(provider.trips for provider in self.providers.values()),
            latency_p50=percentile(self._latencies, 50),
            latency_p99=percentile(self._latencies, 99),
            spent=usd(self.spent),
            in_doubt=usd(self.in_doubt if self.account is None else self.account.held),
            before=self.before,
            lost=tuple(sorted(self.lost)),
            providers=tuple(provider.report(name) for name, provider in self.providers.items()),
            wall=round(now - self.started, 6),
        )


def percentile(values: Sequence[float], percent: float) -> float | None:
    """Return the smallest value that `percent` of the values do not exceed (nearest rank); None for no values.

    >>> percentile([4.0, 1.0, 3.0, 2.0], 50), percentile([4.0, 1.0], 99), percentile([], 50)
    (2.0, 4.0, None)
    """
    if not values:
        return None
    return round(sorted(values)[max(1, math.ceil(len(values) * percent / 100)) - 1], 6)
