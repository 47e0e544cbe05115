"""What a limiter is asked and told: a permit, how its call ended, and a 429."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import msgspec

from actors.errors.families import checked_retry_after
from actors.limits.learned import LearnedGrant  # noqa: TC001 - msgspec resolves the annotations below.
from actors.limits.quota import NO_WEIGHTS, REQUESTS, QuotaGrant
from actors.limits.reported import ReportedLimit, check_reported
from actors.validation import check_count, check_text
from runtime import Message, Request

if TYPE_CHECKING:
    from collections.abc import Mapping


PermitOutcome: TypeAlias = Literal["served", "failed", "never_ran"]


PERMIT_OUTCOMES: tuple[PermitOutcome, ...] = get_args(PermitOutcome)


class LimiterGrant(msgspec.Struct, frozen=True, gc=False):
    """Leave to make one call, at loop time `at`; say with `Settle` what it really weighed, or that it never ran."""

    at: float
    number: int
    quota: QuotaGrant | None = None
    learned: LearnedGrant | None = None
    tenant: str = ""
    cost: float = 0.0
    period: int = -1


class Acquire(Request[LimiterGrant], frozen=True):
    """Ask for `weight` requests, and `weights` of other dimensions; answered when all are there.

    `tenant` is on whose behalf: each tenant's line is served in the order of asking, and the tenants in turn.
    """

    weight: int = 1
    weights: dict[str, int] = msgspec.field(default_factory=dict)
    tenant: str = "default"

    def __post_init__(self) -> None:
        check_count("weight", self.weight, unit="token")
        if self.weights:
            check_reported(self.weights, ())
        check_text("tenant", self.tenant)

    def drawn(self) -> Mapping[str, int]:
        """Return the weight in each dimension; what stands in `weights` goes before `weight`."""
        if self.weight == 1 and not self.weights:
            return NO_WEIGHTS
        return {REQUESTS: self.weight, **self.weights}


class Settle(Message, frozen=True, kw_only=True):
    """Tell how a call ended: its true `weights`, where they were not known before, and what the answer said of limits.

    A call that "never_ran" gives everything back. One that was answered with a 429 is told of by `ReportThrottled`.
    """

    grant: LimiterGrant
    outcome: PermitOutcome = "served"
    weights: dict[str, int] = msgspec.field(default_factory=dict)
    limits: tuple[ReportedLimit, ...] = ()

    def __post_init__(self) -> None:
        check_grant(self.grant)
        if self.outcome not in PERMIT_OUTCOMES:
            raise ValueError(f"outcome must be one of {', '.join(PERMIT_OUTCOMES)}, got {self.outcome!r}")
        check_reported(self.weights, self.limits)


class ReportThrottled(Message, frozen=True, kw_only=True):
    """Tell that the provider answered 429: all wait `retry_after` seconds, or as long as is learned if it is None.

    With the `grant` of that call it is known whether the 429 is news: those under way together count once.
    """

    retry_after: float | None = None
    grant: LimiterGrant | None = None
    limits: tuple[ReportedLimit, ...] = ()

    def __post_init__(self) -> None:
        if self.retry_after is not None:
            checked_retry_after(self.retry_after)
        if self.grant is not None:
            check_grant(self.grant)
        check_reported({}, self.limits)


def check_grant(grant: LimiterGrant) -> None:
    """Raise `TypeError` for what no limiter has given."""
    if type(grant) is not LimiterGrant:
        raise TypeError(f"grant must be what Acquire was answered with, got {grant!r:.100}")
