"""The door between the cast and a provider: one call out, one reply or one classified error back.

A transport knows how to reach one provider and nothing else: no retry, no breaker, no budget. Whoever owns it
decides those, from what the transport declares about itself and from the error that it raises.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

import msgspec

from actors.limits.reported import ReportedLimit, check_reported

Idempotent = Literal["key", "repeatable", "no"]
"""Whether a call whose fate is unknown may be repeated.

"key": yes, and it is charged once, because the provider honours idempotency keys. "repeatable": yes, because doing the
work twice harms nobody, though a repetition may be charged again. "no": it has to be reconciled first.
"""


class ProviderCall(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt at one logical request.

    `request_id` and `idempotency_key` stay the same over all attempts at a request; `max_cost` is what is reserved
    for this attempt, in micro-units; `timeout` is for the whole attempt, in seconds. `provider` is the name by which
    whoever is called is listed.
    """

    service: str
    input: Any
    request_id: str
    idempotency_key: str
    max_cost: int
    timeout: float
    provider: str | None = None

    def __post_init__(self) -> None:
        """Refuse a call that could never succeed."""
        if self.max_cost < 0:
            raise ValueError(f"max_cost must be >= 0 micro-units, got {self.max_cost}")
        if not self.timeout > 0:
            raise ValueError(f"timeout must be > 0 seconds, got {self.timeout}")


class ProviderReply(msgspec.Struct, frozen=True, kw_only=True):
    """What the provider answered, and what it says it charged in micro-units; None where it does not say.

    `weights` is what the call used of the provider's limits, such as `{"tokens": 870}`, and `limits` what the provider
    says of those, where they are told. `wire_calls` are the requests that went out for this one attempt: more than 1
    where what lies below the transport retries on its own, 0 where it answered from a cache.
    """

    output: Any
    cost: int | None = None
    wire_calls: int = 1
    weights: dict[str, int] = {}
    limits: tuple[ReportedLimit, ...] = ()

    def __post_init__(self) -> None:
        if self.cost is not None and type(self.cost) is not int:
            raise TypeError(f"cost must be a whole number of micro-units or None, got {self.cost!r}; see to_micros")
        if type(self.wire_calls) is not int or self.wire_calls < 0:
            raise ValueError(f"wire_calls must be >= 0 requests, and whole, got {self.wire_calls!r}")
        if self.weights or self.limits or type(self.weights) is not dict or type(self.limits) is not tuple:
            check_reported(self.weights, self.limits)


def check_declared(paid: object, idempotent: object) -> None:
    """Raise for what a transport cannot declare of itself: on it depends whether somebody is paid twice."""
    if not isinstance(paid, bool):
        raise TypeError(f"paid must be True or False, got {paid!r}")
    if idempotent not in {"key", "repeatable", "no"}:
        raise ValueError(f'idempotent must be "key", "repeatable" or "no", got {idempotent!r}')


class Transport(Protocol):
    """The way to one provider. Implement it to speak a protocol that this package does not know."""

    @property
    def paid(self) -> bool:
        """Whether a call that ran is charged."""
        ...

    @property
    def idempotent(self) -> Idempotent:
        """Whether a call whose fate is unknown may be repeated, and why."""
        ...

    async def call(self, call: ProviderCall) -> ProviderReply:
        """Make one attempt within `call.timeout` seconds. Raises members of `CallFailed` only; others are bugs.

        A transport that ends soon after it is cancelled, whatever it waits for, may say so by an attribute
        `ends_when_cancelled = True`: its calls then need no task of their own, and whoever gives one up waits for its
        end. By default a call that will not end is left behind.
        """
        ...

    async def check(self, *, timeout: float) -> None:  # noqa: ASYNC109 - how long is the transport's own affair.
        """Return if the provider is healthy, within `timeout` seconds; raises a member of `CallFailed` if not."""
        ...

    async def aclose(self) -> None:
        """Close every connection. Safe to call twice; calls made after it are bugs."""
        ...
