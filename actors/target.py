"""One provider as the supervisor sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.admission import TargetState
from actors.breaker import BreakerState, Closed, HalfOpen, Isolated, Open
from actors.requests import TargetStatus
from actors.token_bucket import TokenBucket

if TYPE_CHECKING:
    from actors.gateway import Call, CheckHealth, Health
    from actors.market import Listing
    from actors.transport import Idempotent
    from runtime import ActorRef


class Target:
    """One provider: the state that admissions look at, its gateway while it is not isolated, and its record."""

    def __init__(self, listing: Listing) -> None:
        bucket = None
        if listing.rate_limit is not None:
            bucket = TokenBucket(rate=listing.rate_limit, burst=listing.burst)
        self.listing = listing
        self.state = TargetState(bucket=bucket)
        self.gateway: ActorRef[Call | CheckHealth] | None = None
        self.started = 0
        self.idempotent: Idempotent = "no"
        self.health: Health | None = None
        self.calls = self.failures = self.trips = self.spent = 0

    @property
    def name(self) -> str:
        """The provider's name."""
        return self.listing.provider.name

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

    def __repr__(self) -> str:
        return f"<Target {self.name!r} {name_of_state(self.state.breaker)}, {self.state.under_way} calls under way>"


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
