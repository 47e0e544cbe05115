"""The events of calls and requests on the event stream; monitors and progress bars are built from them alone."""

from __future__ import annotations

from typing import Any

from actors.money import ZERO, Micros
from runtime import Event

CAP_ALERT = "cap"
"""The rule that a ledger names if most of an account's cap is used."""
HELD_ALERT = "held"
"""The rule that a ledger names while money is held for calls to a provider whose outcome is unknown."""
CLOCK_ALERT = "clock"
"""The rule that a ledger names if a cap has renewed because the clock leapt ahead, until it next renews."""
LEDGER_ALERTS = frozenset({CAP_ALERT, CLOCK_ALERT, HELD_ALERT})
"""The rules of the alerts that a ledger publishes by itself."""


class CallEnded(Event, frozen=True, kw_only=True, gc=False):
    """One call to one provider has ended; `error` is the kind of failure, or None, and `detail` its text.

    `latency` is the seconds until its answer, or the end of a call that failed; of a stream, until its first piece.
    Then `first_piece` has them as well, and `piece_interval` the mean seconds between two pieces.

    `wire_calls` is the number of requests sent for it: more than 1 if a layer below retries on its own. `is_blameless`
    says that its item failed alike at others, so that the error tells nothing of the provider.
    """

    request_id: str
    provider: str
    service: str
    attempt: int
    latency: float
    cost: Micros
    error: str | None = None
    detail: str | None = None
    account: str | None = None
    wire_calls: int = 1
    is_blameless: bool = False
    first_piece: float | None = None
    piece_interval: float | None = None


class Retried(Event, frozen=True, kw_only=True):
    """A request is tried again with a provider that failed it before."""

    request_id: str
    provider: str
    waited: float
    attempt: int = 0


class Rerouted(Event, frozen=True, kw_only=True):
    """A request goes on to another provider."""

    request_id: str
    provider: str
    away_from: str
    attempt: int = 0


class Hedged(Event, frozen=True, kw_only=True):
    """A request that costs nothing is also sent to a second provider, because the first takes unusually long."""

    request_id: str
    provider: str
    beside: str
    attempt: int = 0


class RequestEnded(Event, frozen=True, kw_only=True, gc=False):
    """A request has ended: with the answer of `provider`, or with `error`, the kind of failure.

    `saved` is what it would have cost more if none of its prompt had been cached at the provider.
    """

    request_id: str
    service: str
    provider: str | None
    attempts: int
    latency: float
    cost: Micros
    error: str | None = None
    detail: str | None = None
    tenant: str | None = None
    saved: Micros = ZERO


class BreakerOpened(Event, frozen=True, kw_only=True):
    """A provider is isolated: its gateway is stopped and requests are rerouted; it is probed after `wait` seconds.

    If its health check fails then, no probe is made, and this is not published again.
    """

    provider: str
    wait: float


class BreakerHalfOpened(Event, frozen=True, kw_only=True):
    """The gateway of an isolated provider was started again, for one probe."""

    provider: str


class BreakerClosed(Event, frozen=True, kw_only=True):
    """A provider is available again: its probe or its check succeeded, or it was released by hand."""

    provider: str


class HealthChecked(Event, frozen=True, kw_only=True):
    """The health of a provider was checked; `problem` is None if it is healthy."""

    provider: str
    problem: str | None = None


class Reconciled(Event, frozen=True, kw_only=True):
    """A call that may have been paid was reconciled: `found` is "Answered", "NeverRan" or "Lost".

    `output` is an answer that came late; if its request has ended, only subscribers to this event receive it.
    """

    request_id: str
    provider: str
    found: str
    cost: Micros
    output: Any = None


class Overcharged(Event, frozen=True, kw_only=True):
    """A call cost more than was reserved for it: `charged` instead of `quoted`, in micro-units, in each of `accounts`.

    An account is named before those above it.

    If the charge became known after the reservation was released, `quoted` is 0.
    """

    provider: str
    key: str
    quoted: Micros
    charged: Micros
    accounts: tuple[str, ...]


class CostUnreadable(Event, frozen=True, kw_only=True):
    """A call was answered, and what the provider stated as its cost is none: `settled`, which was reserved, is paid.

    `stated` is what it stated, in at most 100 characters: a negative number, for example, or no number at all.
    """

    request_id: str
    provider: str
    stated: str
    settled: Micros


class DearAnswer(Event, frozen=True, kw_only=True):
    """An answer cost more than its provider lists: `charged` instead of `listed`, in micro-units.

    From now on what is reserved for a call to the provider is the dearest charge of the last hour.
    """

    request_id: str
    provider: str
    listed: Micros
    charged: Micros


class ProviderLeft(Event, frozen=True, kw_only=True):
    """A provider is left alone for `wait` seconds, after which one call finds out; `ProviderBack` will follow.

    `concerns` is "key", "account", "region" or "name" if it refuses that, and "price" if it charged more than it lists;
    `what` says which, and `cause` tells a person why, and how it ends.
    """

    provider: str
    concerns: str
    what: str
    cause: str
    wait: float


class ProviderBack(Event, frozen=True, kw_only=True):
    """A provider is no longer left alone for `what`: it answered, was released, or is listed otherwise."""

    provider: str
    what: str


class HeldExpired(Event, frozen=True, kw_only=True):
    """A call that may have been paid counts as charged, because nothing was found out about it for too long.

    `amount` was held for it since `since`, in seconds since 1970. Nothing is known of its answer; `Resolve(reservation,
    ...)` corrects what it cost.
    """

    reservation: int
    provider: str
    key: str
    amount: Micros
    accounts: tuple[str, ...]
    since: float


class AlertRaised(Event, frozen=True, kw_only=True):
    """A rule is broken for `subject` since `at`, in loop time; `AlertCleared` will follow.

    `cause` tells a person why, if more is known than the value.
    """

    rule: str
    subject: str
    value: float
    threshold: float
    at: float
    cause: str | None = None


class AlertCleared(Event, frozen=True, kw_only=True):
    """An alert is over after `lasted` seconds; `value` is None if there is nothing to measure any more."""

    rule: str
    subject: str
    value: float | None
    lasted: float
