"""The interface of a transport, which makes calls to one provider: one call out, one reply or classified error back.

A transport knows how to reach one provider and nothing else: no retry, no breaker, no budget. Its owner decides about
those, by what the transport declares about itself and by the errors that it raises.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

import msgspec

from actors.limits.reported import ReportedLimit, check_reported
from actors.money import AmountField, OptionalAmountField, amount_default, take_amount

Idempotent = Literal["key", "repeatable", "no"]
"""Whether a call whose outcome is unknown may be repeated.

"key": yes, and it is charged once, because the provider honours idempotency keys. "repeatable": yes, because doing the
work twice does no harm, though a repetition may be charged again. "no": it has to be reconciled first.
"""


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

    def __post_init__(self) -> None:
        """Raise ValueError for a call that could never succeed."""
        take_amount(self, "max_cost")
        if not self.timeout > 0:
            raise ValueError(f"timeout must be > 0 seconds, got {self.timeout}")


class ProviderReply(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of a provider, and the cost that it states, in dollars as str, int or Decimal; None if it states none.

    `weights` is what the call used of the provider's limits, such as `{"tokens": 870}`, if that is known, and `limits`
    are the limits that the provider reported. `wire_calls` is the number of requests sent for this one attempt: more
    than 1 if a layer below the transport retries on its own, 0 if the answer came from a cache.
    """

    output: Any
    cost: OptionalAmountField = amount_default(None)
    wire_calls: int = 1
    weights: dict[str, int] = {}
    limits: tuple[ReportedLimit, ...] = ()

    def __post_init__(self) -> None:
        if self.cost is not None:
            take_amount(self, "cost")
        if type(self.wire_calls) is not int or self.wire_calls < 0:
            raise ValueError(f"wire_calls must be >= 0 and a whole number of requests, got {self.wire_calls!r}")
        if self.weights or self.limits or type(self.weights) is not dict or type(self.limits) is not tuple:
            check_reported(self.weights, self.limits)


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
        """Return if the provider is healthy, within `timeout` seconds; raises a member of `CallFailed` if not."""
        ...

    async def aclose(self) -> None:
        """Close every connection. Safe to call twice; calls made after it are bugs."""
        ...
