"""What is asked of the supervisor, and what it answers."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, cast, get_args

import msgspec

from actors.errors.families import Attempt, PossibleCharge  # noqa: TC001
from actors.limits.class_queue import Priority, check_priority
from actors.limits.waiting import Waiting, WaitReason  # noqa: TC001 - msgspec resolves the annotations below.
from actors.market.market import Market
from actors.money import ZERO, Micros, OptionalAmountField, amount_default, take_amount
from actors.providers.provider import Provider, ProviderFilter, as_filter
from actors.providers.requirement import NO_REQUIREMENT, Requirement
from actors.providers.selection import (
    ADAPTIVE_STRATEGIES,
    KNOWN_STRATEGIES,
    STRATEGIES,
    SelectionStrategy,
    check_strategy,
)
from actors.rate_limiter.messages import Acquire
from actors.transports.streaming import StreamTerms  # noqa: TC001 - msgspec resolves the annotations below.
from actors.validation import check_count, check_text
from runtime import ActorRef, Request

OnUnknown: TypeAlias = Literal["hold", "pay_again"]
"""What a request does if a call may have been paid and its outcome stays unknown."""
OnRefused: TypeAlias = Literal["fail", "next"]
"""What a request does if a provider refuses its content."""
OnBadAnswer: TypeAlias = Literal["fail", "next"]
"""What a request does if an answer is of no use, for which it has paid."""
AfterCut: TypeAlias = Literal["fail", "restart", "restart_unseen"]
"""What a request does if its stream breaks off after the first piece; see `smart_stream`."""
AFTER_CUT = get_args(AfterCut)
ON_UNKNOWN, ON_REFUSED, ON_BAD_ANSWER = get_args(OnUnknown), get_args(OnRefused), get_args(OnBadAnswer)
MAX_TIMEOUT = 1e9
"""Seconds, some 30 years: more than a request needs, and less than a clock has difficulties with."""
MAX_RATE = 1e15
MAX_LISTED = 1_000
"""The requests under way that are listed at most in one answer."""
NUMBER, TEXT_OR_NONE = (int, float), (str, type(None))
"""As tuples: a union would be made anew for each check."""
ALL_STRATEGIES: tuple[str, ...] = (*STRATEGIES, *ADAPTIVE_STRATEGIES)


class SmartResult(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a request: which provider gave it, what it cost, and how many calls it took.

    `latency` is the seconds from the request's arrival to its answer, with all of its calls and waits.
    `failures` holds the calls that failed before it, in order. `held` are the calls before it that may have been
    charged as well, for all that is known, and `at_risk` is what they hold together: that much may be paid twice.
    `translated` tells what of the request was approximated or left out because the provider speaks another protocol.

    `paid` is what the answer cost when it was paid. It is `cost`, unless the answer is `replayed`: then an earlier
    request under the same idempotency key has paid it, and this one cost nothing and called no provider.

    `saved` is what it would have cost more if none of its prompt had been cached at the provider, by the usage that it
    told.

    The `receipt` of what is paid under a key is "kept", or "lost" if it could not be written: then the call is held at
    the next start of the program, and its answer is here alone. It is None if there is none.
    """

    output: Any
    provider: str
    cost: Micros
    attempts: int
    request_id: str
    latency: float = 0.0
    failures: tuple[Attempt, ...] = ()
    at_risk: Micros = ZERO
    held: tuple[PossibleCharge, ...] = ()
    translated: tuple[str, ...] = ()
    paid: Micros = ZERO
    replayed: bool = False
    receipt: Literal["kept", "lost"] | None = None
    saved: Micros = ZERO


class SmartRequest(Request[SmartResult], frozen=True, kw_only=True):
    """Have a service rendered by a provider that can; refused with a member of `CallFailed`.

    `where` is what providers must pass: a `ProviderFilter`, or a function that returns True for one that may be called.
    `strategies` rank them: names, or functions that order providers (see `rank`). `requirement` is what they must be
    able to take, such as the size of the input. `budget` caps this request, in dollars as str, int or Decimal;
    `account` names an open account that it draws on as well. `timeout` is in seconds. `weights` estimates what it uses
    of a provider's limits, such as `{"tokens": 900}`. At what is short, requests take turns: the classes "high",
    "normal" and "low" of `priority` have 8, 4 and 1 of 13 tokens that are reserved, and the tenants of each as many as
    one another; a request without tokens counts as one. At most `max_waiting` requests of a tenant wait. `tenant` is by
    default the account. An `idempotency_key` is kept over all attempts; by default it is the `request_id`, and that is
    made up. If a provider refuses its content, the request fails; with `on_refused="next"` it is shown to the next
    provider. If an answer is of no use (`BadAnswer`), it fails too, unless `on_bad_answer="next"`, and is paid for
    either way.

    If it cannot be found out whether a call was paid, its money is held. Then other providers may be paid besides as
    long as the calls that are passed over hold at most `risk` together, in dollars too (None: as the market says, which
    is 0 by default); else the request fails with `OutcomeUnknown`. `on_unknown="hold"` is a risk of 0, and
    `on_unknown="pay_again"` one that only the budget bounds.

    Under an `idempotency_key`, an answer is paid once: a second request gets it again, at no cost, and so it does the
    error for which the first was charged. Another request under the key is refused with `KeyReused`. Only with
    `repurchase` is it paid again. The key holds for the tenant, else for the account, else for the ledger.

    `trace` is the trace that it is part of, by the headers of W3C Trace Context (`traceparent` and `tracestate`); None
    for the one that is current where it is asked, if the supervisor is told to trace (see `Tracing`).

    With `stream`, the pieces of the answer go to its sink while the call is under way (see `smart_stream`).
    """

    service: str
    input: Any
    timeout: float
    budget: OptionalAmountField = amount_default(None)
    where: ProviderFilter = ProviderFilter()
    requirement: Requirement = NO_REQUIREMENT
    strategies: tuple[SelectionStrategy, ...] = ("best",)
    health_check: bool = False
    account: str | None = None
    weights: dict[str, int] = {}  # noqa: RUF012 - msgspec makes a new one for each.
    tenant: str | None = None
    request_id: str | None = None
    idempotency_key: str | None = None
    on_unknown: OnUnknown | None = None
    on_refused: OnRefused = "fail"
    on_bad_answer: OnBadAnswer = "fail"
    risk: OptionalAmountField = amount_default(None)
    stream: StreamTerms | None = None
    after_cut: AfterCut = "fail"
    repurchase: bool = False
    priority: Priority = "normal"
    max_waiting: int | None = None
    trace: dict[str, str] | None = None

    def __post_init__(self) -> None:  # noqa: C901, PLR0912 - in two functions each request would cost a call more.
        # A caller's mistake must come out here, and not in the supervisor, which serves all callers. What is as it
        # nearly always is, is seen without a call: every request comes by here.
        if type(self.where) is not ProviderFilter:
            msgspec.structs.force_setattr(self, "where", as_filter(self.where))
        if not (
            isinstance(self.service, str)
            and isinstance(self.timeout, NUMBER)
            and isinstance(self.requirement, Requirement)
            and isinstance(self.strategies, tuple)
            and isinstance(self.request_id, TEXT_OR_NONE)
            and isinstance(self.idempotency_key, TEXT_OR_NONE)
            and isinstance(self.account, TEXT_OR_NONE)
            and isinstance(self.tenant, TEXT_OR_NONE)
        ):
            raise wrong_type(self)
        if self.risk is not None:
            take_amount(self, "risk")
        if self.on_unknown is not None:
            check_on_unknown(self.on_unknown, self.risk)
        is_plain = self.on_refused == self.on_bad_answer == self.after_cut == "fail" and self.priority == "normal"
        if self.repurchase is not False or not is_plain:
            check_priority(self.priority)
            _check_repurchase(self.repurchase, self.idempotency_key)
            _check_choice("on_refused", self.on_refused, ON_REFUSED)
            _check_choice("on_bad_answer", self.on_bad_answer, ON_BAD_ANSWER)
            _check_choice("after_cut", self.after_cut, AFTER_CUT)
        if not 0 < self.timeout <= MAX_TIMEOUT:
            raise ValueError(f"timeout must be > 0 and at most {MAX_TIMEOUT:g} seconds, got {self.timeout!r:.100}")
        if self.budget is not None:
            take_amount(self, "budget")
        if self.trace is not None:
            check_trace(self.trace)
        if self.weights or type(self.weights) is not dict:
            check_weights(self.weights)
        key = self.idempotency_key or self.request_id
        if key is not None and not key.isascii():
            check_text("idempotency_key or request_id", key)
        if not self.strategies:
            raise ValueError(f"strategies must name at least one of {', '.join(ALL_STRATEGIES)}")
        for strategy in self.strategies:
            if type(strategy) is not str or strategy not in KNOWN_STRATEGIES:
                check_strategy(strategy)


def check_on_unknown(on_unknown: OnUnknown | None, risk: Micros | None) -> None:
    """Raise `ValueError` if a request cannot do this after a call whose outcome is unknown."""
    if on_unknown is None:
        return
    _check_choice("on_unknown", on_unknown, ON_UNKNOWN)
    if risk is not None and (risk or on_unknown == "pay_again"):
        what = "has no risk to bound" if on_unknown == "pay_again" else "is a risk of 0"
        raise ValueError(f"on_unknown={on_unknown!r} {what}, got a risk of {risk} beside it; give one of the two")


def _check_repurchase(repurchase: object, key: str | None) -> None:
    """Raise TypeError if this is no bool, and ValueError if there is no key whose answer could be paid again."""
    if not isinstance(repurchase, bool):
        raise TypeError(f"repurchase must be a bool, got {repurchase!r:.100}")
    if repurchase and key is None:
        raise ValueError("repurchase=True pays again for a key; give the idempotency_key beside it")


def check_weights(weights: dict[str, int]) -> None:
    """Raise `ValueError` if an estimate is not a whole number of at least 0."""
    for dimension, weight in weights.items():
        if type(weight) is not int or weight < 0:
            raise ValueError(f"weight of {dimension} must be a whole number >= 0, got {weight!r}")


def check_trace(trace: object) -> None:
    """Raise TypeError if these are no headers."""
    if type(trace) is not dict or not all(
        isinstance(one, str) for header in cast("dict[Any, Any]", trace).items() for one in header
    ):
        raise TypeError(f'trace must be a dict of headers, such as {{"traceparent": "00-..."}}, got {trace!r:.100}')


def _check_choice(name: str, value: object, known: tuple[str, ...]) -> None:
    if value not in known:
        listed = " or ".join(f'"{one}"' for one in known)
        raise ValueError(f"{name} must be {listed}, got {value!r}")


WHAT_IT_IS: dict[str, tuple[Any, str]] = {
    "service": (str, "a str"),
    "timeout": (int | float, "a number of seconds"),
    "requirement": (Requirement, "a Requirement"),
    "strategies": (tuple, "a tuple of strategies"),
    "request_id": (str | None, "a str or None"),
    "idempotency_key": (str | None, "a str or None"),
    "account": (str | None, "a str or None"),
    "tenant": (str | None, "a str or None"),
}


def wrong_type(request: SmartRequest) -> TypeError:
    """Make the error for the first field of a request that is not what it must be."""
    for name, (kind, what) in WHAT_IT_IS.items():
        value: object = getattr(request, name)
        if not isinstance(value, kind):
            return TypeError(f"{name} must be {what}, got {value!r:.100}")
    raise AssertionError(f"every field of {request} is what it must be")


class OpenQuota(Request[ActorRef[Acquire]], frozen=True, kw_only=True):
    """Start a limiter of `rate` a second, at most `burst` at once, and learn its ref; stop the ref to close it."""

    name: str
    rate: float
    burst: int = 1

    def __post_init__(self) -> None:
        check_text("name", self.name)
        if not isinstance(self.rate, float | int) or not 0 < self.rate < MAX_RATE:
            raise ValueError(f"rate must be > 0 requests a second and finite, got {self.rate!r:.100}")
        check_count("burst", self.burst, unit="request")


class GetLedger(Request[ActorRef], frozen=True):
    """Ask for the ref of the ledger that a supervisor was given; refused with `Permanent` if it has one of its own."""


class Isolate(Request[None], frozen=True, kw_only=True):
    """Send nothing more to a provider until `Release`; its calls under way are finished."""

    provider: str

    def __post_init__(self) -> None:
        check_text("provider", self.provider)


class Release(Request[None], frozen=True, kw_only=True):
    """End the isolation of a provider."""

    provider: str

    def __post_init__(self) -> None:
        check_text("provider", self.provider)


class MarketChange(msgspec.Struct, frozen=True, kw_only=True):
    """What another market has changed, by the names of providers.

    Those `moved` have another address than before, and are as new; those `kept` go on as they were.
    """

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    moved: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()


class ReplaceMarket(Request[MarketChange], frozen=True):
    """Put another market in the place of the one in force; refused with `Permanent` if it offers nothing.

    It is in force for every request that comes afterwards. What is under way, and what waits, ends under the market
    that it began with: its providers, prices and policies. A provider of the same name and address keeps its breaker,
    its learned limits and its account, as far as its new settings allow that. One that is not in the new market is
    closed when the last call to it has ended. Caps that differ are changed at the ledger, where accounts keep what was
    spent; the answer comes when that is done. If it raises `LedgerDown`, the market is in force all the same, and each
    cap is changed before the next call that draws on it.
    """

    market: Market

    def __post_init__(self) -> None:
        if not isinstance(self.market, Market):
            raise TypeError(f"ReplaceMarket needs a Market, got {self.market!r:.100}")


class TargetStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One provider as the supervisor sees it now. `breaker` is closed, open, half-open or isolated.

    `left` says, for each thing that the provider is left alone for, what it is, for how long, and how it ends.
    `dearest` is the dearest charge of the last hour above its price, in micro-units: so much is reserved for a call;
    None if no answer cost more than the provider lists. `waiting` says what requests wait for there, or what slows them
    down, as of loop time `now`; `queued` requests are in its wait queue. `hidden_calls` are the requests that its
    client has sent by itself, beyond one a call: retries and redirects that are better switched off.
    """

    provider: Provider
    breaker: str
    under_way: int
    calls: int
    failures: int
    trips: int
    spent: Micros
    healthy: bool | None = None
    """None if it was not checked."""
    problem: str | None = None
    left: tuple[str, ...] = ()
    dearest: Micros | None = None
    waiting: tuple[Waiting, ...] = ()
    now: float = 0.0
    queued: int = 0
    hidden_calls: int = 0
    first_piece: float | None = None
    """The mean seconds until the first piece of its last streams; None if it had none."""
    piece_interval: float | None = None
    """The mean seconds between two of their pieces."""

    @property
    def waits(self) -> tuple[str, ...]:
        """What requests wait for, in words."""
        return tuple(one.text(self.now) for one in self.waiting)


class GetStatus(Request[tuple[TargetStatus, ...]], frozen=True, kw_only=True):
    """Ask for the state of every provider; with `check_health`, after a fresh health check of each."""

    check_health: bool = False


class RequestStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One request under way. `since` is when it arrived, and `deadline` when it ends, in loop time.

    `calls` have been made so far, those under way included; `attempts` are those that have failed. `provider` is where
    a call is under way, None if none is. `waiting` says what the request waits for, the soonest first: as soon as one
    of these is over, it goes on. It is empty while a call is under way. `cost` is what it is known to have cost so far.
    """

    request_id: str
    service: str
    account: str | None
    tenant: str
    since: float
    deadline: float
    calls: int
    attempts: tuple[Attempt, ...]
    cost: Micros
    provider: str | None = None
    waiting: tuple[Waiting, ...] = ()


class RequestsUnderWay(msgspec.Struct, frozen=True, kw_only=True):
    """The requests of a supervisor at loop time `now`: `count` in all, of which `calling` have a call under way.

    `requests` lists the oldest of them. `waiting` counts all that wait, by what will presumably let them go on first.
    """

    now: float
    count: int
    calling: int
    waiting: dict[WaitReason, int]
    requests: tuple[RequestStatus, ...]


class GetRequests(Request[RequestsUnderWay], frozen=True, kw_only=True):
    """Ask which requests are under way, and what they wait for; at most `most` are listed, the oldest ones."""

    most: int = 100

    def __post_init__(self) -> None:
        check_count("most", self.most, least=0)
        if self.most > MAX_LISTED:
            raise ValueError(f"most must be <= {MAX_LISTED:,} requests, got {self.most}")
