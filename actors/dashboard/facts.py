"""What the events of a system tell of it, counted into the tables of a board as they happen, in bounded memory."""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from itertools import islice
from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from actors.dashboard.series import STEP, Series
from actors.dashboard.view import AlertRow, DeadLetterRow, EventRow, StepRow, TotalRow, TraceRow, shown
from actors.events import (
    AlertCleared,
    AlertRaised,
    BreakerClosed,
    BreakerHalfOpened,
    BreakerOpened,
    CallEnded,
    CostUnreadable,
    DearAnswer,
    Hedged,
    HeldExpired,
    Overcharged,
    ProviderBack,
    ProviderLeft,
    Reconciled,
    RequestEnded,
    Rerouted,
    Retried,
)
from actors.ledger.entries import (
    AccountClosed,
    AccountOpened,
    AccountPaused,
    AccountResumed,
    CapChanged,
    CapRenewed,
    MoneyHeld,
    MoneyReleased,
    MoneyReserved,
    MoneySettled,
    QuestionAnswered,
    QuestionAsked,
)
from actors.money import ZERO
from runtime import ActorFailed, ActorRestarted, CancellationIgnored, DeadLetter, Event

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from actors.dashboard.board import Board
    from actors.dashboard.view import Level
    from actors.ledger.entries import AccountEntry
    from runtime import EventStream, Subscription

ACCOUNT_CHANGES = (
    AccountOpened,
    AccountClosed,
    AccountPaused,
    AccountResumed,
    CapChanged,
    CapRenewed,
    QuestionAnswered,
)
"""What changes how an account is shown, and no money in it."""
MAX_RECENT = 2_000
"""The last calls that succeeded at once, and ends of their requests, that are remembered."""
MAX_TROUBLED = 1_000
"""The last requests that needed more than one call, or failed, of which every step is remembered."""
MAX_STEPS = 30
MAX_A_SECOND = 10
"""The rows of one kind that are added in a second; what is beyond is counted, so that no flood hides the rest."""
MAX_DIRTY = 5_000
"""The accounts that have changed and are asked for; if there are more, all that are shown are asked for."""
ALL = "*"


TracedEvent: TypeAlias = CallEnded | Retried | Rerouted | Hedged | Reconciled | RequestEnded
TraceStep: TypeAlias = tuple[float, TracedEvent]
"""When something happened to a request, and what; it is made a row only if one looks at that."""


class ProviderCounts:
    """What is counted of one provider."""

    __slots__ = ("last_error", "last_error_at", "last_words", "series")

    def __init__(self) -> None:
        self.series = Series()
        self.last_error: str | None = None
        self.last_words: str | None = None
        self.last_error_at: float | None = None


class Facts:
    """Counts events; `dirty_accounts`, `is_held_dirty` and the like tell what has to be asked for because of them."""

    def __init__(self, board: Board, *, now: Callable[[], float], may_act: bool) -> None:
        self.board = board
        self.now = now
        self.totals = TotalRow(since=now(), may_act=may_act)
        self.providers: dict[str, ProviderCounts] = {}
        self.all = Series()
        self.recent: deque[TraceStep] = deque(maxlen=MAX_RECENT)
        self.troubled: OrderedDict[str, list[TraceStep]] = OrderedDict()
        self.moved_accounts = set[tuple[str, ...]]()
        self.dirty_accounts: dict[str, None] = {ALL: None}
        self.is_held_dirty = self.is_status_dirty = True
        self._charted = -1
        self._due_charts: set[str] = set()
        self.restarts = self.crashes = self.dead_letters = self.requests = self.failed = 0
        self._second = -1
        self._rows: dict[str, int] = {}
        self._last_key: dict[str, str] = {}
        self._number = 0
        self._handlers: dict[type[Event], Callable[[Any], None]] = {
            CallEnded: self._call_ended,
            RequestEnded: self._request_ended,
            MoneyReserved: self._money_reserved,
            MoneySettled: self._money_settled,
            MoneyReleased: self._money_released,
            MoneyHeld: self._money_held,
            **dict.fromkeys(ACCOUNT_CHANGES, self._account_changed),
            QuestionAsked: self._question_asked,
            Retried: self._retried,
            Rerouted: self._retried,
            Hedged: self._retried,
            Reconciled: self._reconciled,
            BreakerOpened: self._breaker_opened,
            BreakerHalfOpened: self._breaker_half_opened,
            BreakerClosed: self._breaker_closed,
            ProviderLeft: self._provider_left,
            ProviderBack: self._provider_back,
            AlertRaised: self._alert_raised,
            AlertCleared: self._alert_cleared,
            Overcharged: self._overcharged,
            HeldExpired: self._held_expired,
            CostUnreadable: self._cost_unreadable,
            DearAnswer: self._dear_answer,
            DeadLetter: self._dead_letter,
            ActorFailed: self._actor_failed,
            ActorRestarted: self._actor_restarted,
            CancellationIgnored: self._cancellation_ignored,
        }

    def subscribe(self, events: EventStream) -> tuple[Subscription, ...]:
        """Count the events of a stream from now on."""
        return tuple(events.subscribe(kind, handle) for kind, handle in self._handlers.items())

    def take_dirty(self, *, most: int) -> list[str]:
        """Return accounts that have changed, those that wait for longest first; `ALL` alone if they are too many."""
        dirty = self.dirty_accounts
        for accounts in self.moved_accounts:
            dirty.update(dict.fromkeys(accounts))
        self.moved_accounts.clear()
        if ALL in dirty or len(dirty) > MAX_DIRTY:
            dirty.clear()
            return [ALL]
        names = list(islice(dirty, most))
        for name in names:
            del dirty[name]
        return names

    def provider(self, name: str) -> ProviderCounts:
        """Return what is counted of a provider; beyond so many, all others share one."""
        found = self.providers.get(name)
        if found is None:
            if len(self.providers) >= 1_000:
                name = ALL
            found = self.providers.setdefault(name, ProviderCounts())
        return found

    def charts_due(self, now: float, *, most: int) -> list[str]:
        """Return the providers whose charts have a new point, at most so many; those without calls become flat."""
        step = int(now / STEP)
        if step != self._charted:
            self._charted = step
            self._due_charts = set(self.providers)
        return [self._due_charts.pop() for _ in range(min(most, len(self._due_charts)))]

    def trace(self, request_id: str) -> TraceRow | None:
        """Return the way of a request, by its id as it is shown, as far as it is remembered."""
        recent = (one for one in self.recent if shown(one[1].request_id) == request_id)
        steps = sorted((*self.troubled.get(request_id, ()), *recent), key=itemgetter(0))
        return trace_row(request_id, steps) if steps else None

    def note(self, kind: str, level: Level, subject: str, text: str) -> None:
        """Put an event into its table; one that says the same as the one before it is counted there."""
        now, table = self.now(), self.board.events
        last = table.get(self._last_key.get(kind, ""))
        subject, text = shown(subject), shown(text)
        if last is not None and (last.subject, last.text) == (subject, text):
            table.put(self._last_key[kind], msgspec.structs.replace(last, at=now, count=last.count + 1))
            return
        if last is not None and not self._has_room(f"event {kind}", now):
            table.put(self._last_key[kind], msgspec.structs.replace(last, at=now, others=last.others + 1))
            return
        self._number += 1
        key = self._last_key[kind] = str(self._number)
        table.put(key, EventRow(kind=kind, level=level, subject=subject, text=text, at=now))

    def _has_room(self, kind: str, now: float) -> bool:
        if (second := int(now)) != self._second:
            self._second = second
            self._rows.clear()
        count = self._rows[kind] = self._rows.get(kind, 0) + 1
        return count <= MAX_A_SECOND

    # Calls and requests.

    def _call_ended(self, event: CallEnded) -> None:
        now, name = self.now(), event.provider
        is_failed = event.error is not None and event.error != "Cancelled"
        provider = self.providers.get(name) or self.provider(name)
        provider.series.add(now, event.latency, event.cost, is_failed=is_failed, first_piece=event.first_piece)
        if is_failed:
            provider.last_error, provider.last_error_at = event.error, now
            provider.last_words = event.detail and shown(event.detail)
        self.is_status_dirty = True
        if event.error is None and event.attempt == 1:
            self.recent.append((now, event))
        else:
            self._step(now, event)

    def _request_ended(self, event: RequestEnded) -> None:
        now = self.now()
        is_failed = event.error is not None and event.error != "Cancelled"
        self.requests += 1
        self.all.add(now, event.latency, is_failed=is_failed)
        self.is_status_dirty = True
        if event.error is None and event.attempts <= 1:
            self.recent.append((now, event))
            return
        self.failed += is_failed
        self._step(now, event)
        if (is_failed or event.attempts > 1) and self._has_room("trace", now):
            request_id = shown(event.request_id)
            row = self.trace(request_id)
            if row is not None:
                self.board.traces.put(request_id, row)

    def _step(self, now: float, event: TracedEvent) -> None:
        """Remember a step of a request that is not simply answered by its first call."""
        request_id, troubled = shown(event.request_id), self.troubled
        trace = troubled.get(request_id)
        if trace is None:
            trace = troubled[request_id] = []
            if len(troubled) > MAX_TROUBLED:
                troubled.popitem(last=False)
        if len(trace) < MAX_STEPS or isinstance(event, RequestEnded):
            trace.append((now, event))

    def _retried(self, event: Retried | Rerouted | Hedged) -> None:
        self._step(self.now(), event)

    def _reconciled(self, event: Reconciled) -> None:
        self._step(self.now(), event)
        self.is_held_dirty = True
        self.note("money", "info", event.provider, f"the outcome of a held call is known: {event.found}, {event.cost}")

    # Money.

    def _money_moved(self, event: MoneyReserved | MoneySettled | MoneyReleased | MoneyHeld) -> None:
        if len(self.moved_accounts) < MAX_DIRTY:
            self.moved_accounts.add(event.accounts)
        else:
            self.dirty_accounts[ALL] = None

    def _money_reserved(self, event: MoneyReserved) -> None:
        if event.accounts not in self.moved_accounts:
            self._money_moved(event)
        self.is_status_dirty = True

    def _money_settled(self, event: MoneySettled) -> None:
        if event.accounts not in self.moved_accounts:
            self._money_moved(event)
        self.all.spend(self.now(), event.cost, event.corrects)
        if self.totals.held:
            self.is_held_dirty = True

    def _money_released(self, event: MoneyReleased) -> None:
        self._money_moved(event)
        if event.corrects:
            self.all.spend(self.now(), ZERO, event.corrects)
        if self.totals.held:
            self.is_held_dirty = True

    def _money_held(self, event: MoneyHeld) -> None:
        self._money_moved(event)
        self.is_held_dirty = True
        if event.held:
            self.note("money", "warn", event.provider, f"{event.held} are held: it is unknown if a call was paid")

    def _account_changed(self, event: AccountEntry) -> None:
        self.dirty_accounts[event.account if len(self.dirty_accounts) < MAX_DIRTY else ALL] = None

    def _question_asked(self, event: QuestionAsked) -> None:
        self._account_changed(event)
        self.note("money", "warn", event.account, f"question {event.question}: more is needed, by {event.needed}")

    def _overcharged(self, event: Overcharged) -> None:
        self.note("money", "warn", event.provider, f"charged {event.charged} instead of {event.quoted}")

    def _held_expired(self, event: HeldExpired) -> None:
        self.note("money", "warn", event.provider, f"{event.amount} count as charged: nothing was found out for long")

    def _cost_unreadable(self, event: CostUnreadable) -> None:
        self.note("money", "warn", event.provider, f"stated a cost that is none: {event.stated}")

    def _dear_answer(self, event: DearAnswer) -> None:
        self.note("money", "warn", event.provider, f"an answer cost {event.charged}; it lists {event.listed}")

    # Providers.

    def _breaker_opened(self, event: BreakerOpened) -> None:
        self.is_status_dirty = True
        if event.wait < math.inf:
            self.note("breaker", "bad", event.provider, f"breaker open; it is probed in {event.wait:.1f} s")
        else:
            self.note("breaker", "warn", event.provider, "isolated by hand")

    def _breaker_half_opened(self, event: BreakerHalfOpened) -> None:
        self.is_status_dirty = True
        self.note("breaker", "info", event.provider, "breaker half-open: one probe")

    def _breaker_closed(self, event: BreakerClosed) -> None:
        self.is_status_dirty = True
        self.note("breaker", "good", event.provider, "breaker closed")

    def _provider_left(self, event: ProviderLeft) -> None:
        self.is_status_dirty = True
        self.note("provider", "bad", event.provider, f"left alone: {event.cause}")

    def _provider_back(self, event: ProviderBack) -> None:
        self.is_status_dirty = True
        self.note("provider", "good", event.provider, f"{event.what} is no longer a reason not to call it")

    def _alert_raised(self, event: AlertRaised) -> None:
        row = AlertRow(
            rule=event.rule,
            subject=shown(event.subject),
            value=event.value,
            threshold=event.threshold,
            since=event.at,
            cause=event.cause and shown(event.cause),
        )
        self.board.alerts.put(f"{event.rule} {event.subject}", row)
        self.note("alert", "bad", event.subject, f"{event.rule}: {event.cause or f'{event.value:g}'}")

    def _alert_cleared(self, event: AlertCleared) -> None:
        self.board.alerts.remove(f"{event.rule} {event.subject}")
        self.note("alert", "good", event.subject, f"{event.rule}: over after {event.lasted:.0f} s")

    # Actors.

    def _dead_letter(self, event: DeadLetter) -> None:
        self.dead_letters += 1
        now, table = self.now(), self.board.dead_letters
        recipient, kind = shown(event.recipient.path), type(event.message).__name__
        key = f"{recipient} {kind} {event.reason.value}"
        known = table.get(key)
        if known is None and not self._has_room("dead letter", now):
            return
        count = 1 if known is None else known.count + 1
        row = DeadLetterRow(recipient=recipient, message=kind, reason=event.reason.value, count=count, at=now)
        table.put(key, row)

    def _actor_failed(self, event: ActorFailed) -> None:
        self.crashes += 1
        self.note("actor", "bad", event.ref.path, f"crashed with {type(event.error).__name__}")

    def _actor_restarted(self, event: ActorRestarted) -> None:
        self.restarts += 1
        self.note("actor", "info", event.ref.path, "restarted")

    def _cancellation_ignored(self, event: CancellationIgnored) -> None:
        self.note("actor", "warn", event.ref.path, f"goes on with {type(event.message).__name__} although cancelled")


def trace_row(request_id: str, trace: Sequence[TraceStep]) -> TraceRow:
    """Return the way of a request as a row."""
    steps = [step_row(at, event) for at, event in trace if not isinstance(event, RequestEnded)]
    ended, end = next(((at, event) for at, event in trace if isinstance(event, RequestEnded)), (None, None))
    began = min((one.at - one.latency for one in steps), default=math.inf)
    if end is not None and ended is not None:
        began = min(began, ended - end.latency)
    service = next((event.service for _, event in trace if isinstance(event, CallEnded | RequestEnded)), "")
    provider = None if end is None else end.provider
    return TraceRow(
        request_id=request_id,
        service=shown(service),
        began=began,
        ended=ended,
        provider=provider and shown(provider),
        cost=sum((one.cost for one in steps if one.kind == "call"), start=ZERO) if end is None else end.cost,
        error=None if end is None else end.error,
        words=None if end is None or end.detail is None else shown(end.detail),
        steps=tuple(steps),
    )


def step_row(at: float, event: CallEnded | Retried | Rerouted | Hedged | Reconciled) -> StepRow:
    """Return a step of a request as a row."""
    provider = shown(event.provider)
    match event:
        case CallEnded():
            return StepRow(
                kind="call",
                at=at,
                provider=provider,
                attempt=event.attempt,
                latency=event.latency,
                cost=event.cost,
                error=event.error,
                words=event.detail and shown(event.detail),
            )
        case Reconciled():
            words = shown(event.found)
            return StepRow(kind="reconciled", at=at, provider=provider, cost=event.cost, words=words)
        case Retried():
            return StepRow(kind="retry", at=at, provider=provider)
        case Rerouted():
            return StepRow(kind="reroute", at=at, provider=provider)
        case Hedged():
            return StepRow(kind="hedge", at=at, provider=provider)
