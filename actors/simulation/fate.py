"""What happens to one call, decided from the faults that last and the draws. Pure: no clock, no waits, no books."""

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
"""The status and the body by which providers say that their bill has not been paid."""


class Draws(NamedTuple):
    """What one call leaves to chance: numbers from [0, 1), all drawn for each call, whatever becomes of it."""

    latency: float
    refused: float
    wrong: float
    lost: float


class Breaks(msgspec.Struct, frozen=True):
    """The transport raises what it must not."""


class Unreachable(msgspec.Struct, frozen=True):
    """The connection is refused."""


class Hangs(msgspec.Struct, frozen=True):
    """No answer ever comes, and nothing is done."""


class Refuses(msgspec.Struct, frozen=True):
    """The answer is an error, and nothing is done."""

    status: int
    body: str = ""
    retry_after: float | None = None


class Works(msgspec.Struct, frozen=True):
    """The work is done and charged; it takes `extra` seconds more than usual."""

    extra: float = 0.0
    wrong: WrongAnswers | None = None
    is_lost: bool = False

    def output(self, right: Any) -> Any:
        """Return what is answered, where `right` would be."""
        return right if self.wrong is None else self.wrong.output


Fate: TypeAlias = Breaks | Unreachable | Hangs | Refuses | Works

WORKS = Works()


def fate_of_call(faults: Sequence[ProviderFault], *, now: float, draws: Draws) -> Fate:
    """Return what happens to a call at `now`; what strikes it first on its way decides.

    >>> fate_of_call([Hanging(provider="a"), Outage(provider="a")], now=0.0, draws=Draws(0.5, 0.5, 0.5, 0.5))
    Unreachable()
    """
    if not faults:
        return WORKS
    before = fate_on_the_way(faults, now=now)
    if before is not None:
        return before
    if storms := of_kind(faults, ThrottleStorm):
        return Refuses(429, "Too many requests.", storms[-1].retry_after)
    if unpaid := of_kind(faults, OutOfQuota):
        return Refuses(*UNPAID[unpaid[-1].dialect])
    if any(draws.refused < fault.rate for fault in of_kind(faults, BrownOut)):
        return Refuses(HTTPStatus.SERVICE_UNAVAILABLE)
    return Works(
        extra=sum(fault.latency for fault in of_kind(faults, SlowLoris)),
        wrong=next((fault for fault in of_kind(faults, WrongAnswers) if draws.wrong < fault.rate), None),
        is_lost=any(draws.lost < fault.rate for fault in of_kind(faults, LostReplies)),
    )


def fate_of_check(faults: Sequence[ProviderFault], *, now: float, draws: Draws) -> Fate:
    """Return what happens to a health check at `now`: it is neither metered nor charged, and knows no right answer."""
    before = fate_on_the_way(faults, now=now)
    if before is not None:
        return before
    if any(draws.refused < fault.rate for fault in of_kind(faults, BrownOut)):
        return Refuses(HTTPStatus.SERVICE_UNAVAILABLE)
    return Works(extra=sum(fault.latency for fault in of_kind(faults, SlowLoris)))


def fate_on_the_way(faults: Sequence[ProviderFault], *, now: float) -> Fate | None:
    """Return what happens before the provider looks at a call; None where it arrives."""
    if of_kind(faults, Bug):
        return Breaks()
    if of_kind(faults, Outage) or any(fault.is_down(now) for fault in of_kind(faults, Flapping)):
        return Unreachable()
    return Hangs() if of_kind(faults, Hanging) else None


def of_kind(faults: Sequence[ProviderFault], kind: type[F]) -> list[F]:
    """Return the faults of one kind."""
    return [fault for fault in faults if isinstance(fault, kind)]
