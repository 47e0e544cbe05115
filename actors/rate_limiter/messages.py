"""The messages of a rate limiter: acquire a permit, settle it, report a 429, lease a part."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias, get_args

import msgspec

from actors.errors.families import Permanent, RateLimited, checked_retry_after
from actors.limits.class_queue import Priority, check_priority
from actors.limits.learned import LearnedGrant  # noqa: TC001 - msgspec resolves the annotations below.
from actors.limits.quota import NO_WEIGHTS, REQUESTS, QuotaGrant, RateLimit, quota_of
from actors.limits.rate_lease import RateLease
from actors.limits.reported import ReportedLimit, check_reported
from actors.validation import check_count, check_text
from runtime import Message, Refusal, Request

if TYPE_CHECKING:
    from collections.abc import Mapping


PermitOutcome: TypeAlias = Literal["served", "failed", "never_ran"]


PERMIT_OUTCOMES: tuple[PermitOutcome, ...] = get_args(PermitOutcome)


class LimiterGrant(msgspec.Struct, frozen=True, gc=False):
    """The permit for one call, from loop time `at`; settle it with its true weights, or as a call that never ran."""

    at: float
    number: int
    quota: QuotaGrant | None = None
    learned: LearnedGrant | None = None
    tenant: str = ""
    cost: float = 0.0
    period: int = -1
    priority: Priority = "normal"


class Acquire(Request[LimiterGrant], frozen=True):
    """Ask for `weight` requests, and `weights` of other dimensions; answered when all are due.

    `tenant` is the tenant on whose behalf the caller asks: the requests of one tenant are served in the order of
    asking, and the tenants in turn. `priority` is its class, "high", "normal" or "low". With `at_once` it is refused
    with `RateLimited` instead of having to wait. `asker` names the request, so that `ForecastGrants` can tell when it
    is due.
    """

    refusals: ClassVar[tuple[type[Refusal], ...]] = (RateLimited, Permanent)

    weight: int = 1
    weights: dict[str, int] = msgspec.field(default_factory=dict)
    tenant: str = "default"
    at_once: bool = False
    priority: Priority = "normal"
    asker: str = ""

    def __post_init__(self) -> None:
        check_count("weight", self.weight, unit="token")
        if self.weights:
            check_reported(self.weights, ())
        check_text("tenant", self.tenant)
        if self.priority != "normal":
            check_priority(self.priority)

    def total_weights(self) -> Mapping[str, int]:
        """Return the weight in each dimension; for "requests", an entry in `weights` takes precedence over `weight`."""
        if self.weight == 1 and not self.weights:
            return NO_WEIGHTS
        return {REQUESTS: self.weight, **self.weights}


class ForecastGrants(Request[dict[str, float]], frozen=True):
    """Ask when the requests that wait will presumably be granted, in loop time, by their `asker`; the first 1,000."""


class Settle(Message, frozen=True, kw_only=True):
    """Report how a call ended: its true `weights`, if they were not known before, and the `limits` of its answer.

    A call that "never_ran" gives everything back. Report a call that was answered with a 429 by `ReportThrottled`.
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


class SetLimits(Message, frozen=True, kw_only=True):
    """Change the `limits` of a quota, of which calls are made at the part `headroom`.

    A limit that stays as it was goes on as it is. A request that could never be served any more is refused.
    """

    limits: tuple[RateLimit, ...]
    headroom: float = 1.0

    def __post_init__(self) -> None:
        quota_of(*self.limits, headroom=self.headroom)


class ReportThrottled(Message, frozen=True, kw_only=True):
    """Report that the provider answered 429: all wait `retry_after` seconds; if it is None, as long as is learned.

    The `grant` of that call tells whether the 429 is new: those of calls that were under way together count once.
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


class AskLease(Request[RateLease], frozen=True, kw_only=True):
    """Ask for a lease of a rate: the `node` wants so many calls a second, and uses its lease of number `holds` now."""

    node: str
    wanted: float
    holds: int = 0

    def __post_init__(self) -> None:
        check_text("node", self.node)
        if not 0 <= self.wanted < math.inf:
            raise ValueError(f"wanted must be >= 0 calls a second and finite, got {self.wanted}")


class ConfirmLease(Message, frozen=True, kw_only=True):
    """Tell that a node uses its lease of number `holds`, which is less than before."""

    node: str
    holds: int


class HoldBack(Message, frozen=True):
    """Tell that the provider has answered a node with a 429, which said to wait `seconds`."""

    seconds: float

    def __post_init__(self) -> None:
        checked_retry_after(self.seconds)


def check_grant(grant: LimiterGrant) -> None:
    """Raise `TypeError` if `grant` is not a grant of a limiter."""
    if type(grant) is not LimiterGrant:
        raise TypeError(f"grant must be the answer to an Acquire, got {grant!r:.100}")
