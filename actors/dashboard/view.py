"""What is shown of a system at one moment: its money, its providers, what waits, what went wrong, and its actors.

A `View` is a set of tables. It is brought up to date by `Update`s, each of which says what has changed since the one
before, so that a page or a terminal is sent little. Times are loop times in seconds; `Update.now` and `Update.at` are
the same moment in loop time and in seconds since 1970. Amounts are micro-units. Texts from outside are printable and at
most `MAX_TEXT` long, but may hold anything else: whatever shows them must not take them for markup.
"""

from __future__ import annotations

from typing import Generic, Literal, TypeAlias

import msgspec
from typing_extensions import TypeVar

from actors.masking import escaped
from actors.money import ZERO, Micros

R = TypeVar("R")
MAX_TEXT = 200
"""Characters of a text from outside."""
Level: TypeAlias = Literal["good", "info", "warn", "bad"]
"""How much an event concerns a person who looks."""


def shown(text: str) -> str:
    r"""Return a text from outside as it is shown: one line without control characters, and not too long.

    >>> shown("red \x1b[31m"), len(shown("x" * 1_000))
    ('red \\x1b[31m', 200)
    """
    if len(text) <= MAX_TEXT and text.isprintable():
        return text
    text = escaped(text[: MAX_TEXT + 1])
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}…"


class ViewRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One row of a table; what says nothing is left out of its JSON."""


class AccountRow(ViewRow, frozen=True, kw_only=True):
    """The money of one account; `used` of its `cap` counts now, of a cap that renews until `renews_at` (since 1970).

    `ledger` is the path of the ledger that keeps it; the account "" is all of that together. `paused_cap` is the cap
    of one that is paused, and "" if it has none; None if it is not paused.
    """

    ledger: str
    name: str
    parent: str | None = None
    cap: Micros | None = None
    reserved: Micros = ZERO
    held: Micros = ZERO
    settled: Micros = ZERO
    estimated: Micros = ZERO
    used: Micros = ZERO
    renewal: str | None = None
    renews_at: float | None = None
    is_closed: bool = False
    question: int | None = None
    paused_cap: str | None = None


class WaitingRow(ViewRow, frozen=True, kw_only=True):
    """Why something waits: the `reason`, since and until when as far as that is known, and the rest in words.

    Of one request, `provider` is where it waits, and so many requests wait there `before` it.
    """

    reason: str
    since: float | None = None
    until: float | None = None
    text: str
    provider: str | None = None
    before: int | None = None


class ProviderRow(ViewRow, frozen=True, kw_only=True):
    """One provider: its breaker, load, limits, what it cost, its latest latencies in seconds, and its last words.

    `rate` is what its 429s and headers let it be called a second, if they limit it. The quantiles are those of the last
    half minute to minute.
    """

    supervisor: str
    name: str
    breaker: str
    under_way: int = 0
    queued: int = 0
    calls: int = 0
    failures: int = 0
    trips: int = 0
    spent: Micros = ZERO
    price: Micros = ZERO
    healthy: bool | None = None
    problem: str | None = None
    left: tuple[str, ...] = ()
    waiting: tuple[WaitingRow, ...] = ()
    rate: float | None = None
    hidden_calls: int = 0
    p50: float | None = None
    p95: float | None = None
    first_piece: float | None = None
    last_error: str | None = None
    last_words: str | None = None
    last_error_at: float | None = None


class ChartRow(ViewRow, frozen=True, kw_only=True):
    """The last minutes of a provider, or of all requests together, in steps of `step` seconds.

    The last point ends at loop time `until`. `p50` and `p95` are latencies in seconds, `first_piece` the mean seconds
    to the first piece of streams; None if there were none. `cost` is in micro-units.
    """

    until: float
    step: float
    calls: tuple[int, ...]
    failed: tuple[int, ...]
    cost: tuple[int, ...]
    p50: tuple[float | None, ...] = ()
    p95: tuple[float | None, ...] = ()
    first_piece: tuple[float | None, ...] = ()


class RequestRow(ViewRow, frozen=True, kw_only=True):
    """A request that is under way, its calls so far, how many of them failed, and what it waits for, if it does."""

    supervisor: str
    request_id: str
    service: str
    account: str | None = None
    since: float
    deadline: float | None = None
    calls: int = 0
    failed: int = 0
    cost: Micros = ZERO
    provider: str | None = None
    waiting: tuple[WaitingRow, ...] = ()


class StepRow(ViewRow, frozen=True, kw_only=True):
    """One step of a request: a `call` with its end, or that it was retried, rerouted, hedged or reconciled."""

    kind: Literal["call", "retry", "reroute", "hedge", "reconciled"]
    at: float
    provider: str
    attempt: int = 0
    latency: float = 0.0
    cost: Micros = ZERO
    error: str | None = None
    words: str | None = None


class TraceRow(ViewRow, frozen=True, kw_only=True):
    """The way of one request, attempt by attempt; `ended` is None while it is under way."""

    request_id: str
    service: str
    began: float
    ended: float | None = None
    provider: str | None = None
    cost: Micros = ZERO
    error: str | None = None
    words: str | None = None
    steps: tuple[StepRow, ...] = ()


class HeldRow(ViewRow, frozen=True, kw_only=True):
    """A call whose outcome is unknown, and for which `amount` is held since `since`, in seconds since 1970."""

    ledger: str
    reservation: int
    provider: str
    amount: Micros
    accounts: tuple[str, ...] = ()
    since: float
    is_passed_over: bool = False


class DeadLetterRow(ViewRow, frozen=True, kw_only=True):
    """Messages of one kind to one actor that no handler saw, `count` of them, the last at `at`; never their content."""

    recipient: str
    message: str
    reason: str
    count: int
    at: float


class EventRow(ViewRow, frozen=True, kw_only=True):
    """Something that happened, `count` times in a row, the last time at `at`.

    `others` of its kind followed faster than they can be read, and have no rows.
    """

    kind: str
    level: Level
    subject: str
    text: str
    at: float
    count: int = 1
    others: int = 0


class AlertRow(ViewRow, frozen=True, kw_only=True):
    """An alert that is raised since `since`."""

    rule: str
    subject: str
    value: float
    threshold: float
    since: float
    cause: str | None = None


class TotalRow(ViewRow, frozen=True, kw_only=True):
    """What is counted since the watcher began, and of the tables, how many rows there would be without their bounds.

    `waits` counts the requests that wait, by the reason that will presumably be over first.
    """

    since: float
    requests: int = 0
    failed: int = 0
    restarts: int = 0
    crashes: int = 0
    dead_letters: int = 0
    accounts: int = 0
    providers: int = 0
    held: int = 0
    under_way: int = 0
    waiting: int = 0
    may_act: bool = False
    waits: dict[str, int] = {}


class ActorLine(ViewRow, frozen=True, kw_only=True):
    """One actor as a line of the tree, with the number of those below it.

    Its `path` is as it is, by which it is opened and acted on; what is shown is its `name`.
    """

    path: str
    name: str
    depth: int
    actor: str
    phase: str
    waiting: int
    capacity: int
    working: int
    restarts: int
    started_at: float
    children: int


class ActorPage(ViewRow, frozen=True, kw_only=True):
    """The lines of the tree that are looked at: from `first` on, of `total`."""

    total: int
    first: int
    rows: tuple[ActorLine, ...]


class TableChanges(msgspec.Struct, Generic[R], frozen=True, kw_only=True, omit_defaults=True):
    """What has changed in a table: rows that are `gone`, then rows to `put`; `is_all` if nothing else is in it."""

    put: dict[str, R] = {}
    gone: tuple[str, ...] = ()
    is_all: bool = False


class Seen(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How far a viewer has come: the versions of the tables, of the run `epoch` of what counts them."""

    epoch: str = ""
    versions: dict[str, tuple[int, int]] = {}
    actors: int = 0
    trace: int = 0
    """Digests of what was sent last."""


class Update(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What has changed since the update before it; `seen` is what the next is asked for with.

    `is_more` if not all of it had room. `actors` and `trace` are there if they were looked at and have changed.
    """

    seen: Seen
    now: float
    at: float
    is_more: bool = False
    accounts: TableChanges[AccountRow] = TableChanges()
    providers: TableChanges[ProviderRow] = TableChanges()
    charts: TableChanges[ChartRow] = TableChanges()
    requests: TableChanges[RequestRow] = TableChanges()
    traces: TableChanges[TraceRow] = TableChanges()
    held: TableChanges[HeldRow] = TableChanges()
    dead_letters: TableChanges[DeadLetterRow] = TableChanges()
    events: TableChanges[EventRow] = TableChanges()
    alerts: TableChanges[AlertRow] = TableChanges()
    totals: TableChanges[TotalRow] = TableChanges()
    actors: ActorPage | None = None
    trace: TraceRow | None = None


class View:
    """The tables as one viewer has them, each a dict of rows by keys that mean nothing."""

    def __init__(self) -> None:
        self.seen = Seen()
        self.now = self.at = 0.0
        self.accounts: dict[str, AccountRow] = {}
        self.providers: dict[str, ProviderRow] = {}
        self.charts: dict[str, ChartRow] = {}
        self.requests: dict[str, RequestRow] = {}
        self.traces: dict[str, TraceRow] = {}
        self.held: dict[str, HeldRow] = {}
        self.dead_letters: dict[str, DeadLetterRow] = {}
        self.events: dict[str, EventRow] = {}
        self.alerts: dict[str, AlertRow] = {}
        self.totals: dict[str, TotalRow] = {}
        self.actors: ActorPage | None = None
        self.trace: TraceRow | None = None

    def apply(self, update: Update) -> None:
        """Bring the tables up to date."""
        self.seen, self.now, self.at = update.seen, update.now, update.at
        _change(self.accounts, update.accounts)
        _change(self.providers, update.providers)
        _change(self.charts, update.charts)
        _change(self.requests, update.requests)
        _change(self.traces, update.traces)
        _change(self.held, update.held)
        _change(self.dead_letters, update.dead_letters)
        _change(self.events, update.events)
        _change(self.alerts, update.alerts)
        _change(self.totals, update.totals)
        self.actors = update.actors or self.actors
        self.trace = update.trace or self.trace

    def __repr__(self) -> str:
        return f"<View {len(self.providers)} providers, {len(self.accounts)} accounts, {len(self.requests)} requests>"


def _change(table: dict[str, R], changes: TableChanges[R]) -> None:
    if changes.is_all:
        table.clear()
    for key in changes.gone:
        table.pop(key, None)
    table.update(changes.put)
