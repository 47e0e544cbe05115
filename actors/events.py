"""What happened to calls and requests, as facts on the event stream; monitors and progress bars live on them alone."""

from __future__ import annotations

from typing import Any

from actors.money import Micros  # noqa: TC001 - msgspec resolves the annotations below.
from runtime import Event


class CallEnded(Event, frozen=True, kw_only=True, gc=False):
    """One call to one provider has ended; `error` is the kind of failure, or None, and `detail` its text.

    `wire_calls` are the requests that went out for it: more than 1 where something below retries on its own.
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


class Retried(Event, frozen=True, kw_only=True):
    """A request is tried again with a provider that has failed it before."""

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
    """A request that costs nothing is also sent to another provider, because the first takes unusually long."""

    request_id: str
    provider: str
    beside: str
    attempt: int = 0


class RequestEnded(Event, frozen=True, kw_only=True):
    """A logical request has ended: by the answer of `provider`, or with `error`, the kind of failure."""

    request_id: str
    service: str
    provider: str | None
    attempts: int
    latency: float
    cost: Micros
    error: str | None = None
    detail: str | None = None


class BreakerOpened(Event, frozen=True, kw_only=True):
    """A provider is isolated: its gateway is stopped, and requests are rerouted; a probe follows in `wait` seconds."""

    provider: str
    wait: float


class BreakerHalfOpened(Event, frozen=True, kw_only=True):
    """The gateway of an isolated provider is started again, for one probe."""

    provider: str


class BreakerClosed(Event, frozen=True, kw_only=True):
    """A provider is back: its probe succeeded, or it was released by hand."""

    provider: str


class HealthChecked(Event, frozen=True, kw_only=True):
    """A provider was asked for its health; `problem` is None where it is well."""

    provider: str
    problem: str | None = None


class Reconciled(Event, frozen=True, kw_only=True):
    """It was found out what became of a call that may have been paid: `found` is Answered, NeverRan or Lost.

    `output` is an answer that came late; nobody may be left to take it but whoever hears this.
    """

    request_id: str
    provider: str
    found: str
    cost: Micros
    output: Any = None


class Overcharged(Event, frozen=True, kw_only=True):
    """A call cost more than was reserved for it: `charged` instead of `quoted`, in micro-units, in each of `accounts`.

    A charge that became known when the reservation had been released was quoted at 0.
    """

    provider: str
    key: str
    quoted: Micros
    charged: Micros
    accounts: tuple[str, ...]


class AlertRaised(Event, frozen=True, kw_only=True):
    """A rule does not hold for `subject` since `at`, seconds of the loop's time; `AlertCleared` will follow."""

    rule: str
    subject: str
    value: float
    threshold: float
    at: float


class AlertCleared(Event, frozen=True, kw_only=True):
    """What was raised is over; `value` is None where nothing happens any more, `lasted` is in seconds."""

    rule: str
    subject: str
    value: float | None
    lasted: float
