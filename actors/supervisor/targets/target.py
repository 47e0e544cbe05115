"""One provider as the supervisor sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from actors.limits.concurrency import ConcurrencyLimit
from actors.policies.breaker.circuit_breaker import BreakerState, Closed, HalfOpen, Isolated, Open
from actors.policies.retry_budget import RetryBudget
from actors.provider_gateway.messages import Call, InlineCall
from actors.supervisor.messages import TargetStatus
from actors.supervisor.targets.admission import TargetState
from actors.supervisor.targets.probe_check import ProbeCheck
from actors.transports.reconciliation import Cancels, LooksUp

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actors.market.listing import Listing
    from actors.provider_gateway.messages import CancelCall, CheckHealth, Health, LookUp
    from actors.transports.transport import Idempotent, Transport
    from runtime import ActorRef


DEFAULT_RETRIES = RetryBudget()


class Target:
    """One provider: the state that admissions look at, its gateway while it is not isolated, and its record."""

    def __init__(self, listing: Listing, *, retries: RetryBudget = DEFAULT_RETRIES) -> None:
        self.name = listing.provider.name
        self.listing = listing
        self.state = TargetState(quota=listing.quota(), limit=limit_of(listing), retries=retries)
        self.gateway: ActorRef[Call | CheckHealth | LookUp | CancelCall] | None = None
        self.paid = False
        self.idempotent: Idempotent = "no"
        self.call: type[Call] = Call
        """How its gateway is asked for one."""
        self.can_look_up = self.can_cancel = False
        """What its transport can do about a call whose outcome is unknown."""
        self.overpriced: int | None = None
        """The price it listed when it charged more; until it lists another, it is left."""
        self.health: Health | None = None
        self.probe_check = ProbeCheck()
        self.is_unwell = False
        """Whether the check before the last probe failed."""
        self.used_at = 0.0
        """When it was last listed anew, or called, in loop time."""
        self.calls = self.failures = self.trips = self.spent = 0

    @property
    def can_tell(self) -> bool:
        """Whether its transport may find out what became of a call."""
        return self.can_look_up or self.can_cancel

    def learn_of(self, transport: Transport) -> None:
        """Take note of what a transport says of itself."""
        self.paid, self.idempotent = transport.paid, transport.idempotent
        self.call = InlineCall if getattr(transport, "ends_when_cancelled", False) else Call
        self.can_look_up = isinstance(transport, LooksUp)
        self.can_cancel = isinstance(transport, Cancels)

    def relist(self, listing: Listing) -> None:
        """Take on what the registry says now; a quota that stays as it was goes on as it is."""
        before, self.listing = self.listing, listing
        if listing.max_concurrency != before.max_concurrency:
            self.state = msgspec.structs.replace(self.state, limit=limit_of(listing))
        if listing.all_limits() != before.all_limits() or listing.headroom != before.headroom:
            self.state = msgspec.structs.replace(self.state, quota=listing.quota(after=self.state.quota))

    def timeout(self, listing: Listing) -> float:
        """Return the seconds to give one attempt: what was configured, or less where a repetition costs nothing."""
        if (self.paid or listing.provider.price > 0) and self.idempotent == "no":
            # Cut off early, such a call may have been paid all the same, and then nobody knows.
            return listing.timeout
        return self.state.answers.seconds(configured=listing.timeout)

    def probed(self, *, is_answered: bool) -> None:
        """Take note of how a probe ended."""
        self.probe_check = self.probe_check.after_probe(check_failed=self.is_unwell, is_answered=is_answered)

    def status(self) -> TargetStatus:
        """Return the facts for a person."""
        return TargetStatus(
            provider=self.listing.provider,
            breaker=name_of_state(self.state.breaker),
            under_way=self.state.under_way,
            calls=self.calls,
            failures=self.failures,
            trips=self.trips,
            spent=self.spent,
            healthy=None if self.health is None else self.health.is_healthy,
            problem=None if self.health is None else self.health.problem,
        )

    def broken_invariants(self) -> Iterator[str]:
        """Name what does not hold although no call is under way."""
        state = self.state
        if state.under_way:
            yield f"{state.under_way} calls to {self.name!r} never gave their place back"
        if isinstance(state.breaker, HalfOpen):
            yield f"the breaker of {self.name!r} was left half-open, without a probe"
        if not 0 <= state.retries.tokens <= state.retries.max_tokens:
            yield f"{self.name!r} has {state.retries.tokens} retry tokens, of at most {state.retries.max_tokens}"
        for bucket in () if state.quota is None else state.quota.buckets:
            yield from bucket.broken_invariants(f"the quota of {self.name!r}")

    def __repr__(self) -> str:
        return f"<Target {self.name!r} {name_of_state(self.state.breaker)}, {self.state.under_way} calls under way>"


def limit_of(listing: Listing) -> ConcurrencyLimit:
    """Return the limit of a provider that nothing is known of but what it says."""
    return ConcurrencyLimit(listing.max_concurrency, declared=listing.provider.response_time)


def name_of_state(state: BreakerState) -> str:
    """Name a breaker's state as people do."""
    match state:
        case Closed():
            return "closed"
        case Open():
            return "open"
        case HalfOpen():
            return "half-open"
        case Isolated():
            return "isolated"
