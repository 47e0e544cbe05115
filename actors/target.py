"""One provider as the supervisor sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from actors.admission import TargetState
from actors.breaker import BreakerState, Closed, HalfOpen, Isolated, Open
from actors.requests import TargetStatus
from actors.token_bucket import TokenBucket

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actors.gateway import Call, CheckHealth, Health
    from actors.market import Listing
    from actors.transport import Idempotent
    from runtime import ActorRef


class Target:
    """One provider: the state that admissions look at, its gateway while it is not isolated, and its record."""

    def __init__(self, listing: Listing) -> None:
        self.listing = listing
        self.state = TargetState(bucket=bucket_of(listing))
        self.gateway: ActorRef[Call | CheckHealth] | None = None
        self.idempotent: Idempotent = "no"
        self.health: Health | None = None
        self.calls = self.failures = self.trips = self.spent = 0

    def relist(self, listing: Listing) -> None:
        """Take on what the registry says now; a quota that stays as it was goes on as it is."""
        before, self.listing = self.listing, listing
        if (listing.rate_limit, listing.burst) != (before.rate_limit, before.burst):
            bucket = bucket_of(listing, after=self.state.bucket)
            self.state = msgspec.structs.replace(self.state, bucket=bucket)

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

    def broken_invariants(self) -> Iterator[str]:
        """Name what does not hold although no call is under way."""
        state = self.state
        if state.under_way:
            yield f"{state.under_way} calls to {self.name!r} never gave their place back"
        if isinstance(state.breaker, HalfOpen):
            yield f"the breaker of {self.name!r} was left half-open, without a probe"
        if not 0 <= state.retries.tokens <= state.retries.max_tokens:
            yield f"{self.name!r} has {state.retries.tokens} retry tokens, of at most {state.retries.max_tokens}"
        if state.bucket is not None and state.bucket.spent < 0:
            yield f"more tokens came back to the quota of {self.name!r} than were taken: {state.bucket}"

    def __repr__(self) -> str:
        return f"<Target {self.name!r} {name_of_state(self.state.breaker)}, {self.state.under_way} calls under way>"


def bucket_of(listing: Listing, *, after: TokenBucket | None = None) -> TokenBucket | None:
    """Return a full bucket for the rate limit of a listing, if it has one; grants of the one before it are not its."""
    if listing.rate_limit is None:
        return None
    serial = 0 if after is None else after.serial + 1
    return TokenBucket(rate=listing.rate_limit, burst=listing.burst, serial=serial, first_serial=serial)


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
