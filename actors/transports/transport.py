"""The interface of a transport, which makes calls to one provider: one call out, one reply or classified error back.

A transport knows how to reach one provider and nothing else: no retry, no breaker, no budget. Its owner decides about
those, by what the transport declares about itself and by the errors that it raises.
"""

from __future__ import annotations

from collections.abc import Callable  # noqa: TC003 - msgspec resolves the annotations below.
from decimal import Decimal
from typing import Any, Literal, Protocol

import msgspec

from actors.limits.reported import ReportedLimit, check_reported
from actors.money import (
    MAX_BARE_DOLLARS,
    MAX_MICROS,
    MICROS_PER_DOLLAR,
    AmountField,
    Micros,
    OptionalAmountField,
    amount_default,
    cost_of,
    take_amount,
)
from actors.tariffs.usage import Usage
from actors.transports.streaming import CallStream  # noqa: TC001 - msgspec resolves the annotations below.

Idempotent = Literal["key", "repeatable", "no"]
"""Whether a call whose outcome is unknown may be repeated.

"key": yes, and it is charged once, because the provider honours idempotency keys. "repeatable": yes, because doing the
work twice does no harm, though a repetition may be charged again. "no": it has to be reconciled first.
"""


MAX_SHOWN_COST = 100
"""Characters of what a provider stated as its cost that are kept if it is none."""


MAX_HANDLE = 200
"""Characters of a handle; a longer one is none."""


class CallNotes(msgspec.Struct, gc=False):
    """What its transport notes of a call while it is under way.

    `reference` is the name that the provider gave it, by which its cost can be asked for later. `owed` is the reply
    that a call without a stream is paid by if it is cancelled, at a provider that stops then; None if that is not
    known. `handle` is that by which the call can be taken up again (see `Resumes`).
    """

    reference: str | None = None
    owed: ProviderReply | None = None
    handle: str | None = None
    on_handle: Callable[[str], None] | None = None
    """What the owner of the call does with its handle, as long as the call is under way."""
    longest: float | None = None
    """The seconds that its time may grow to while it is under way; None if it does not grow."""
    more: float = 0.0
    """The seconds by which its time has grown."""
    on_more_time: Callable[[float, float], None] | None = None
    """What its transport does if its time grows by so many seconds, and that to its first piece by so many."""

    def give_time(self, seconds: float, to_first: float) -> None:
        """Give a call more time, because another request has joined that has more; `to_first` is that to a first piece.

        A transport that does not know how to take it ends the call when it would have.
        """
        self.more += seconds
        if self.on_more_time is not None:
            self.on_more_time(seconds, to_first)

    def begun(self, handle: str) -> None:
        """Note the handle by which the call can be taken up, because its provider has begun.

        From now on the call goes on there whatever becomes of the connection. A handle has 200 characters at most; a
        longer one is not kept.
        """
        if 0 < len(handle) <= MAX_HANDLE and handle != self.handle:
            self.handle = handle
            if self.on_handle is not None:
                self.on_handle(handle)


class ProviderCall(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt at one logical request.

    `request_id` and `idempotency_key` are the same for all attempts at a request. `max_cost` is the amount reserved for
    this attempt; `timeout` is for the whole attempt, in seconds. `provider` is the name under which the
    called provider is listed.
    """

    service: str
    input: Any
    request_id: str
    idempotency_key: str
    max_cost: AmountField
    timeout: float
    provider: str | None = None
    stream: CallStream | None = None
    """Where the pieces of the answer go; None if it is wanted whole."""
    notes: CallNotes = msgspec.field(default_factory=CallNotes)
    trace: dict[str, str] | None = None
    """The headers that tell the provider which trace it is part of (W3C Trace Context); None if it is part of none."""

    def __post_init__(self) -> None:
        """Raise ValueError for a call that could never succeed."""
        max_cost = self.max_cost
        if not (type(max_cost) is Micros and 0 <= max_cost <= MAX_MICROS):
            take_amount(self, "max_cost")
        if not self.timeout > 0:
            raise ValueError(f"timeout must be > 0 seconds, got {self.timeout}")


class ProviderReply(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of a provider, and the cost that it states, in dollars as str, int or Decimal; None if it states none.

    A cost that is finer than a micro-unit rounds up. One that is none does no harm to the answer: `cost` is None then,
    so that what was reserved is paid, and `unread_cost` says what was stated. If it is of a type that no amount has, or
    a plain int that may be meant either way, `UnreadableCost` is raised, which carries this reply.

    `usage` is how many tokens the call used, if the provider told it: a tariff makes the cost of it, and it counts for
    limits by the token. `weights` is what the call used of the provider's limits, such as `{"tokens": 870}`, if that is
    known; it counts instead of the usage. `limits`
    are the limits that the provider reported. `wire_calls` is the number of requests sent for this one attempt: more
    than 1 if a layer below the transport retries on its own, 0 if the answer came from a cache. `translated`
    tells what of the request was approximated or left out because the provider speaks another protocol.
    """

    output: Any
    cost: OptionalAmountField = amount_default(None)
    wire_calls: int = 1
    weights: dict[str, int] = {}
    limits: tuple[ReportedLimit, ...] = ()
    unread_cost: str | None = None
    usage: Usage | None = None
    translated: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if type(self.usage) is not Usage and self.usage is not None:
            raise TypeError(f"usage must be a Usage, or None, got {self.usage!r:.100}; read_usage reads what was told")
        if type(self.wire_calls) is not int or self.wire_calls < 0:
            raise ValueError(f"wire_calls must be >= 0 and a whole number of requests, got {self.wire_calls!r}")
        if self.weights or self.limits or type(self.weights) is not dict or type(self.limits) is not tuple:
            check_reported(self.weights, self.limits)
        if self.cost is not None:
            wrong = take_cost(self)
            if wrong is not None:
                raise UnreadableCost(str(wrong), self) from None


class UnreadableCost(TypeError, ValueError):
    """The cost given for a reply is of a type that no amount has, or may be meant either way.

    That is a mistake of the program; the answer is in `reply` all the same, and what was reserved is paid for it.
    """

    def __init__(self, problem: str, reply: ProviderReply) -> None:
        super().__init__(problem, reply)
        self.reply = reply

    def __str__(self) -> str:
        return f"cost: {self.args[0]}"


def take_cost(stating: Any) -> TypeError | ValueError | None:
    """Convert the cost that a new struct was given, or note it in `unread_cost` if it is none.

    Returns the error for it if that is a mistake of the program, and not of the provider.
    """
    given: Any = stating.cost
    mistake: TypeError | ValueError | None = None
    cost: Micros | None = None
    try:
        cost = cost_of(given)
    except TypeError as error:
        mistake = error
    except ValueError as error:
        mistake = error if type(given) is int and MAX_BARE_DOLLARS < given <= MAX_MICROS / MICROS_PER_DOLLAR else None
    msgspec.structs.force_setattr(stating, "cost", cost)
    if cost is None:
        msgspec.structs.force_setattr(stating, "unread_cost", shown_cost(given))
    return mistake


def shown_cost(given: object) -> str:
    """Return what was stated as a cost, in at most 100 characters."""
    if isinstance(given, str | float | Decimal | bool):
        text = str(given)
    elif isinstance(given, int) and abs(given) < 10**MAX_SHOWN_COST:
        text = str(int(given))
    else:
        text = f"a value of type {type(given).__name__}"
    return text if len(text) <= MAX_SHOWN_COST else text[: MAX_SHOWN_COST - 3] + "..."


def check_declared(paid: object, idempotent: object) -> None:
    """Raise TypeError or ValueError for a wrong declaration: whether a provider is paid twice depends on it."""
    if not isinstance(paid, bool):
        raise TypeError(f"paid must be True or False, got {paid!r}")
    if idempotent not in {"key", "repeatable", "no"}:
        raise ValueError(f'idempotent must be "key", "repeatable" or "no", got {idempotent!r}')


class Transport(Protocol):
    """Makes calls to one provider. Implement it for a protocol that this package does not know."""

    @property
    def paid(self) -> bool:
        """Whether a call that ran is charged."""
        ...

    @property
    def idempotent(self) -> Idempotent:
        """Whether a call whose outcome is unknown may be repeated, and why."""
        ...

    async def call(self, call: ProviderCall) -> ProviderReply:
        """Make one attempt within `call.timeout` seconds. Raises members of `CallFailed` only; other errors are bugs.

        If a transport ends soon after it is cancelled, whatever it waits for, it may declare so by an attribute
        `ends_when_cancelled = True`. Its calls then need no task of their own, and a caller that gives one up waits for
        its end. By default, a call that does not end is left behind.
        """
        ...

    async def check(self, *, timeout: float) -> None:  # noqa: ASYNC109 - the transport bounds itself.
        """Return if the provider is healthy, within `timeout` seconds; raises a member of `CallFailed` if not.

        If that tells whether calls would be answered, a transport may declare so by an attribute `has_check = True`.
        Then a check that passes closes the breaker, instead of a request that may be paid and would be lost.
        """
        ...

    async def aclose(self) -> None:
        """Close every connection. Safe to call twice.

        A transport that several listings share is closed when none of them needs it, and may be called again after
        that: it either opens again, or raises a `NotAdmitted` such as `ConnectionFailed`.
        """
        ...
