"""What happens to one call of a simulated provider, given its faults and random draws. Pure: no clock, no waits."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

import msgspec

from actors.simulation.faults import (
    BrownOut,
    Bug,
    Dialect,
    Flapping,
    Hanging,
    LostReplies,
    Outage,
    OutOfQuota,
    SlowLoris,
    ThrottleStorm,
    WrongAnswers,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actors.simulation.faults import ProviderFault

F = TypeVar("F", bound="ProviderFault")

UNPAID: dict[Dialect, tuple[int, str]] = {
    "429": (429, '{"error": {"code": "insufficient_quota", "message": "You exceeded your current quota."}}'),
    "402": (402, '{"error": {"message": "Payment required."}}'),
    "403": (403, '{"error": {"code": "insufficient_quota"}}'),
    "400": (400, '{"error": {"message": "Your credit balance is too low to access the API."}}'),
}
"""The status and body with which providers say that their bill has not been paid."""


class Draws(NamedTuple):
    """The random numbers of one call, from [0, 1). All are drawn for each call, whatever its outcome."""

    latency: float
    refused: float
    wrong: float
    lost: float


class BrokenTransport(msgspec.Struct, frozen=True):
    """The transport raises an error that no transport should raise."""


class ConnectionRefused(msgspec.Struct, frozen=True):
    """The connection is refused."""


class NoReply(msgspec.Struct, frozen=True):
    """No answer ever comes, and nothing is done."""


class ErrorReply(msgspec.Struct, frozen=True):
    """The answer is an error status, and nothing is done."""

    status: int
    body: str = ""
    retry_after: float | None = None


class Served(msgspec.Struct, frozen=True):
    """The work is done and charged; it takes `extra` seconds more than usual."""

    extra: float = 0.0
    wrong: WrongAnswers | None = None
    is_lost: bool = False

    def output(self, right: Any) -> Any:
        """Return the output that is answered instead of `right`, or `right` itself."""
        return right if self.wrong is None else self.wrong.output


Unserved: TypeAlias = BrokenTransport | ConnectionRefused | NoReply | ErrorReply
SimulatedOutcome: TypeAlias = Unserved | Served

SERVED = Served()


def outcome_of_call(faults: Sequence[ProviderFault], *, now: float, draws: Draws) -> SimulatedOutcome:
    """Return what happens to a call at `now`; the fault that it meets first on its way decides.

    >>> outcome_of_call([Hanging(provider="a"), Outage(provider="a")], now=0.0, draws=Draws(0.5, 0.5, 0.5, 0.5))
    ConnectionRefused()
    """
    if not faults:
        return SERVED
    before = outcome_before_arrival(faults, now=now)
    if before is not None:
        return before
    if storms := of_kind(faults, ThrottleStorm):
        return ErrorReply(429, "Too many requests.", storms[-1].retry_after)
    if unpaid := of_kind(faults, OutOfQuota):
        return ErrorReply(*UNPAID[unpaid[-1].dialect])
    if any(draws.refused < fault.rate for fault in of_kind(faults, BrownOut)):
        return ErrorReply(HTTPStatus.SERVICE_UNAVAILABLE)
    return Served(
        extra=sum(fault.latency for fault in of_kind(faults, SlowLoris)),
        wrong=next((fault for fault in of_kind(faults, WrongAnswers) if draws.wrong < fault.rate), None),
        is_lost=any(draws.lost < fault.rate for fault in of_kind(faults, LostReplies)),
    )


def outcome_of_check(faults: Sequence[ProviderFault], *, now: float, draws: Draws) -> SimulatedOutcome:
    """Return what happens to a health check at `now`; rate limits, bills and wrong answers do not concern it."""
    before = outcome_before_arrival(faults, now=now)
    if before is not None:
        return before
    if any(draws.refused < fault.rate for fault in of_kind(faults, BrownOut)):
        return ErrorReply(HTTPStatus.SERVICE_UNAVAILABLE)
    return Served(extra=sum(fault.latency for fault in of_kind(faults, SlowLoris)))


def outcome_before_arrival(faults: Sequence[ProviderFault], *, now: float) -> SimulatedOutcome | None:
    """Return what happens to a call before it reaches the provider; None if it does."""
    if of_kind(faults, Bug):
        return BrokenTransport()
    if of_kind(faults, Outage) or any(fault.is_down(now) for fault in of_kind(faults, Flapping)):
        return ConnectionRefused()
    return NoReply() if of_kind(faults, Hanging) else None


def of_kind(faults: Sequence[ProviderFault], kind: type[F]) -> list[F]:
    """Return the faults of one kind."""
    return [fault for fault in faults if isinstance(fault, kind)]
