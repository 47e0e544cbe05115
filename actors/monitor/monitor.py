"""The actor that makes metrics, alerts and log lines from the events on the stream.

Publishing an event costs its publisher one entry in a queue; the monitor counts it in a later turn of the loop.
"""

from __future__ import annotations

import asyncio
import inspect
import math
from collections import deque
from contextvars import copy_context
from typing import TYPE_CHECKING

import msgspec

from actors.events import (
    LEDGER_ALERTS,
    AlertCleared,
    AlertRaised,
    BreakerClosed,
    BreakerHalfOpened,
    BreakerOpened,
    CallEnded,
    Hedged,
    ProviderBack,
    ProviderLeft,
    Reconciled,
    RequestEnded,
    Rerouted,
    Retried,
)
from actors.monitor.metrics import Histograms, Metrics
from actors.monitor.readings import book_of, readings_of
from actors.monitor.request_log import line_of
from actors.monitor.rules import (
    DEFAULT_RULES,
    Alerts,
    CircuitOpenRule,
    LeftAloneRule,
    OnOffRule,
    Reading,
    Rule,
    judge,
    passed_on,
)
from actors.validation import check_config, check_count
from runtime import Actor, Message, Request, handles

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.monitor.tallies import TallyBook
    from runtime import Event, Subscription

OBSERVED = (
    CallEnded,
    RequestEnded,
    Retried,
    Rerouted,
    Hedged,
    Reconciled,
    BreakerOpened,
    BreakerHalfOpened,
    BreakerClosed,
    ProviderLeft,
    ProviderBack,
    AlertRaised,
    AlertCleared,
)

MIN_COUNTED = 250
"""At least so many pending events are counted in one turn of the loop: about a millisecond."""


class MonitorConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The rules and limits of a monitor; durations are seconds.

    `rules` raise alerts, and are checked every `interval`, with or without traffic. `recent` is the window of the
    rates in `Metrics`. `max_subjects` providers, and as many services, have figures of their own; the others share
    one. `max_pending` events may wait to be counted; further ones are missed.
    """

    rules: tuple[Rule, ...] = DEFAULT_RULES
    interval: float = 1.0
    recent: float = 60.0
    max_subjects: int = 1_000
    max_pending: int = 100_000

    def __post_init__(self) -> None:
        for name, duration in (("interval", self.interval), ("recent", self.recent)):
            if not 0 < duration < math.inf:
                raise ValueError(f"{name} must be > 0 seconds and finite, got {duration}")
        for name, count in (("max_subjects", self.max_subjects), ("max_pending", self.max_pending)):
            check_count(name, count)
        names = [rule.name for rule in self.rules]
        for name in names:
            if name in LEDGER_ALERTS:
                raise ValueError(f"alerts of a ledger are named {name!r}; give the rule another name")
            if names.count(name) > 1:
                raise ValueError(f"two rules are named {name!r}; give each rule a name of its own")


class GetMetrics(Request[Metrics], frozen=True):
    """Ask for all figures and alerts, with every event that was published until now."""


class GetHistograms(Request[Histograms], frozen=True):
    """Ask how many durations did not exceed each of these `bounds`, in seconds and in ascending order."""

    bounds: tuple[float, ...]


class CheckRules(Message, frozen=True):
    """Sent by the monitor to itself, every `interval` seconds."""


class Memory:
    """The counters and alerts of a monitor. If all its instances share one, a restart loses nothing counted before.

    To share it, pass `Monitor(memory=memory)` in the factory. Events that are published between the end of an instance
    and the start of the next, during a backoff, are not counted in any case.
    """

    def __init__(self) -> None:
        self.book: TallyBook | None = None
        """Made by the first instance, from its configuration."""
        self.alerts = Alerts()
        self.pending: deque[Event] = deque()
        self.missed_events = self.callback_failures = 0

    def __repr__(self) -> str:
        return f"<Memory {len(self.pending)} events pending, {len(self.alerts.raised)} alerts raised>"


class Monitor(Actor[GetMetrics | GetHistograms | CheckRules]):
    """Counts the events of its system, and raises alerts.

    Alerts are events, `AlertRaised` and `AlertCleared`, and log lines. `on_alert` is called with the events too, and
    should return soon. Those that a ledger publishes are among them: 80 % of a cap is used ("cap"), and money is held
    for a call whose outcome is unknown ("held"). An exception of it is logged and counted, and has no other effect.

    With `log_requests`, there is a log line for each attempt, retry, reroute, second call and reconciled call; an
    attempt that did not fail is at level DEBUG. The line of a request is the supervisor's.

    The monitor sees events from its start on: spawn it before the supervisor.

    Without a `memory`, a restarted monitor begins anew: counters are 0, windows are empty, and no alert is raised. An
    alert that was raised before is never cleared, and an open breaker is unknown until its next event.
    """

    def __init__(
        self,
        config: MonitorConfig | None = None,
        *,
        on_alert: Callable[[AlertRaised | AlertCleared], None] | None = None,
        log_requests: bool = False,
        memory: Memory | None = None,
    ) -> None:
        if inspect.iscoroutinefunction(on_alert):
            raise TypeError("on_alert must not be async, because it is not awaited; let it tell an actor instead")
        self.config = MonitorConfig() if config is None else config
        check_config("config", self.config, MonitorConfig)
        self.on_alert = on_alert
        self.log_requests = log_requests
        self.memory = memory or Memory()
        self.subscriptions: tuple[Subscription, ...] = ()
        self.counting: asyncio.Handle | None = None
        """The next turn of counting; there is one while events are pending."""

    def started(self) -> None:
        context, config, memory = self.context, self.config, self.memory
        if memory.book is None:
            memory.book = book_of(
                config.rules, start=context.now(), recent=config.recent, max_subjects=config.max_subjects
            )
        self.book = memory.book
        self.loop, self.surroundings = asyncio.get_running_loop(), copy_context()
        context.timers.every(config.interval, CheckRules())
        # Last, because an instance that fails to start is not stopped either.
        self.subscriptions = tuple(context.events.subscribe(kind, self.receive) for kind in OBSERVED)

    def stopped(self) -> None:
        for subscription in self.subscriptions:
            subscription.cancel()
        self._count_pending()

    def receive(self, event: Event) -> None:
        """Queue an event to be counted; called by its publisher, and therefore quick."""
        pending = self.memory.pending
        if len(pending) >= self.config.max_pending:
            self.memory.missed_events += 1
            return
        pending.append(event)
        if self.counting is None:
            # Not by a message, which would be a dead letter if the monitor is stopped before its turn. Nor in the
            # publisher's context, whose deadline does not concern the receivers of an alert.
            self.counting = self.loop.call_soon(self._count_some, context=self.surroundings)

    @handles(CheckRules)
    def check(self, message: CheckRules) -> None:
        """Check every rule against its window; clear what follows events and is fine again."""
        self._count_pending()
        now = self.context.now()
        for rule in self.config.rules:
            if isinstance(rule, OnOffRule):
                for name, subject in tuple(self.memory.alerts.good_since):
                    if name == rule.name:
                        self._judge(rule, Reading(subject=subject, value=0.0))
            for reading in readings_of(self.book, rule, now=now):
                self._judge(rule, reading)

    @handles(GetMetrics)
    def report(self, message: GetMetrics) -> Metrics:
        """Answer with all figures and alerts, after counting the pending events."""
        self._count_pending()
        return msgspec.structs.replace(
            self.book.metrics(now=self.context.now()),
            alerts=tuple(self.memory.alerts.raised.values()),
            missed_events=self.memory.missed_events,
            callback_failures=self.memory.callback_failures,
        )

    @handles(GetHistograms)
    def report_durations(self, message: GetHistograms) -> Histograms:
        """Answer with the durations that were counted, after counting the pending events."""
        self._count_pending()
        return self.book.histograms(message.bounds)

    def _count_some(self) -> None:
        """Count half of the pending events, which keeps up with any rate and blocks the loop for no burst."""
        self.counting = None
        pending = len(self.memory.pending)
        self._count_oldest(max(MIN_COUNTED, pending // 2))
        if self.memory.pending and self.counting is None:
            self.counting = self.loop.call_soon(self._count_some)

    def _count_pending(self) -> None:
        if self.counting is not None:
            self.counting.cancel()
            self.counting = None
        self._count_oldest(len(self.memory.pending))

    def _count_oldest(self, count: int) -> None:
        pending, now = self.memory.pending, self.context.now()
        for _ in range(min(count, len(pending))):
            event = pending.popleft()
            try:
                self._count(event, now)
            except Exception as error:  # noqa: BLE001 - logged below; one odd event must not stop the counting of others.
                self.memory.missed_events += 1
                self.context.log.opt(exception=error).error("{} cannot be counted", type(event).__name__)

    def _count(self, event: Event, now: float) -> None:
        seen = self.book.record(event, now=now)
        if seen is not None:
            self.context.log.warning(
                "{} takes {} wire calls for {} attempts: a client below retries too, switch that off",
                seen.provider,
                seen.wire_calls,
                seen.attempts,
            )
            self.context.events.publish(seen)
        if isinstance(event, BreakerOpened | BreakerClosed):
            reading = Reading(subject=event.provider, value=float(isinstance(event, BreakerOpened)))
            self._judge_event(CircuitOpenRule, reading)
        elif isinstance(event, ProviderLeft | ProviderBack):
            cause = event.cause if isinstance(event, ProviderLeft) else None
            reading = Reading(subject=f"{event.provider}: {event.what}", value=float(cause is not None), cause=cause)
            self._judge_event(LeftAloneRule, reading)
        elif isinstance(event, AlertRaised | AlertCleared) and event.rule in LEDGER_ALERTS:
            self.memory.alerts, change = passed_on(self.memory.alerts, event)
            if change is not None:
                self._tell(change)
        if self.log_requests:
            self._log(event)

    def _log(self, event: Event) -> None:
        line = line_of(event)
        if line is not None:
            self.context.log.bind(**line.fields).log(line.level, "{}", line.text)

    def _judge_event(self, kind: type[Rule], reading: Reading) -> None:
        """Apply the rules of one kind to what an event says."""
        for rule in self.config.rules:
            if isinstance(rule, kind):
                self._judge(rule, reading)

    def _judge(self, rule: Rule, reading: Reading) -> None:
        """Apply a rule to a reading, and publish the change of its alert, if any."""
        self.memory.alerts, change = judge(self.memory.alerts, rule, reading, now=self.context.now())
        if change is not None:
            self._tell(change)
            self.context.events.publish(change)

    def _tell(self, change: AlertRaised | AlertCleared) -> None:
        """Log a change of an alert, and call back."""
        log = self.context.log.bind(alert=type(change).__name__, rule=change.rule, subject=change.subject)
        log = log.bind(value=change.value)
        if isinstance(change, AlertRaised):
            # The words of a provider may have line breaks, with which parts of them could pass for log lines.
            why = "" if change.cause is None else f": {' '.join(change.cause.split())}"
            log.warning("alert {} of {} raised at {:g}{}", change.rule, change.subject, change.value, why)
        else:
            log.info("alert {} of {} cleared after {:g} s", change.rule, change.subject, change.lasted)
        if self.on_alert is not None:
            try:
                self.on_alert(change)
            except Exception as error:  # noqa: BLE001 - logged below; the monitor must not fail with a callback.
                self.memory.callback_failures += 1
                log.opt(exception=error).error("on_alert raised for {}", type(change).__name__)

    def __repr__(self) -> str:
        return f"<Monitor {len(self.config.rules)} rules, {self.memory!r}>"
