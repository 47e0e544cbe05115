"""Whether a call to a provider may be made now, and what it gives back when it has ended. Pure.

All or nothing: what an admission would change is returned as new values, and nothing is consumed unless all agree.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from actors.breaker import (
    BreakerConfig,
    BreakerState,
    Closed,
    HalfOpen,
    Permit,
    Refused,
    after_cancellation,
    after_failure,
    after_success,
)
from actors.breaker import admit as admit_by_breaker
from actors.errors import (
    BreakerOpen,
    BudgetExceeded,
    BulkheadFull,
    CallFailed,
    DeadlineTooShort,
    NotAdmitted,
    RateLimited,
    Throttled,
)
from actors.retry import RetryBudget
from actors.waiting import Line  # noqa: TC001 - msgspec resolves this annotation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actors.account import Account
    from actors.market import Listing
    from actors.token_bucket import Grant, TokenBucket

THROTTLED_FOR = 1.0
"""Seconds to leave a provider alone that answered 429 without a `Retry-After`."""


class TargetState(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about one provider that an admission looks at and may change."""

    breaker: BreakerState = Closed()
    bucket: TokenBucket | None = None
    retries: RetryBudget = RetryBudget()
    under_way: int = 0
    gated_until: float = -math.inf
    """A provider that answered 429 is left alone, by all callers, until then."""


class Admitted(msgspec.Struct, frozen=True, kw_only=True):
    """Leave to make one call: what the target and the accounts become, and what has to be handed back."""

    state: TargetState
    accounts: tuple[Account, ...]
    permit: Permit
    grant: Grant | None
    amount: int
    """The micro-units reserved in each account."""


class Later(msgspec.Struct, frozen=True, kw_only=True):
    """Not now, but maybe at loop time `at`, or whenever somebody before in `line` gives back what is short."""

    refusal: NotAdmitted
    line: Line
    at: float = math.inf
    is_sooner_possible: bool = False
    """Whether a call under way may decide it before `at`."""

    def is_in_time(self, deadline: float) -> bool:
        """Tell whether it may become possible before `deadline`."""
        return self.is_sooner_possible or self.at < deadline


class Never(msgspec.Struct, frozen=True):
    """Not for this request."""

    refusal: NotAdmitted


Admission: TypeAlias = Admitted | Later | Never


def admit(
    listing: Listing,
    state: TargetState,
    accounts: Sequence[Account],
    *,
    amount: int,
    is_retry: bool,
    now: float,
    deadline: float,
    breaker: BreakerConfig,
) -> Admission:
    """Decide on one call at `now`: time left, money, breaker, throttling, concurrency, rate, retry budget.

    `amount` is what to reserve in each account; 0 for a repetition whose money is held already.
    """
    name = listing.provider.name
    line = line_of(name)
    if deadline <= now:
        return Never(DeadlineTooShort(needed=listing.provider.response_time, left=0.0, provider=name))
    refusal = _refused_by_money(accounts, amount, name)
    if refusal is not None:
        return refusal
    permission = admit_by_breaker(state.breaker, now=now, config=breaker)
    if isinstance(permission, Refused):
        return _refused_by_breaker(state.breaker, permission, name, now)
    if state.gated_until > now:
        gated = RateLimited(name, retry_after=state.gated_until - now, provider=name)
        return Later(refusal=gated, line=line, at=state.gated_until)
    if state.under_way >= listing.max_concurrency:
        full = BulkheadFull(name, max_concurrency=listing.max_concurrency)
        return Later(refusal=full, line=line, is_sooner_possible=True)
    taken = state.bucket.take(now) if state.bucket is not None else (None, None)
    if not isinstance(taken, tuple):
        return Later(refusal=RateLimited(name, retry_after=taken, provider=name), line=line, at=now + taken)
    retries = state.retries.withdraw(now) if is_retry else state.retries.deposit(now)
    if retries is None:
        return _refused_by_retry_budget(state.retries, name, now)
    next_breaker, permit = permission
    bucket, grant = taken
    after = TargetState(
        breaker=next_breaker,
        bucket=bucket,
        retries=retries,
        under_way=state.under_way + 1,
        gated_until=state.gated_until,
    )
    reserved = tuple(account.reserve(amount) for account in accounts) if amount else tuple(accounts)
    return Admitted(state=after, accounts=reserved, permit=permit, grant=grant, amount=amount)


def settle(
    state: TargetState,
    admitted: Admitted,
    error: CallFailed | None,
    *,
    answered: bool,
    now: float,
    breaker: BreakerConfig,
    random: float,
) -> TargetState:
    """Return the state after an admitted call has ended: answered, failed with `error`, or neither: cancelled.

    Its place is free again, and so are the tokens of a call that never ran. `random` is a draw from [0, 1).
    """
    permit, bucket, gated_until = admitted.permit, state.bucket, state.gated_until
    if answered:
        after = after_success(state.breaker, permit, now=now, config=breaker, random=random)
    elif error is not None and error.blames_provider:
        after = after_failure(state.breaker, permit, now=now, config=breaker, random=random)
    else:
        after = after_cancellation(state.breaker, permit, now=now)
    if isinstance(error, NotAdmitted) and admitted.grant is not None and bucket is not None:
        bucket = bucket.refund(admitted.grant)
    if isinstance(error, Throttled):
        gated_until = max(gated_until, now + (THROTTLED_FOR if error.retry_after is None else error.retry_after))
    return TargetState(
        breaker=after,
        bucket=bucket,
        retries=state.retries,
        under_way=state.under_way - 1,
        gated_until=gated_until,
    )


def line_of(provider: str) -> Line:
    """Return the line of those who wait for a provider: for a place, for tokens, or for its breaker."""
    return ("provider", provider)


def line_for_money(account: str) -> Line:
    """Return the line of those who wait for money that is reserved in an account."""
    return ("account", account)


def _refused_by_money(accounts: Sequence[Account], amount: int, name: str) -> Later | Never | None:
    later: Later | None = None
    for account in accounts:
        if not account.allows(amount):
            refusal = BudgetExceeded(needed=amount, available=account.available or 0, cap=account.name, provider=name)
            if not account.may_allow_later(amount):
                return Never(refusal)
            later = Later(refusal=refusal, line=line_for_money(account.name), is_sooner_possible=True)
    return later


def _refused_by_breaker(state: BreakerState, refused: Refused, name: str, now: float) -> Later | Never:
    refusal = BreakerOpen(name, retry_after=refused.retry_after)
    if refused.retry_after is None:
        return Never(refusal)
    # A half-open breaker is decided by its probe, which may end at any time.
    return Later(
        refusal=refusal,
        line=line_of(name),
        at=now + refused.retry_after,
        is_sooner_possible=isinstance(state, HalfOpen),
    )


def _refused_by_retry_budget(retries: RetryBudget, name: str, now: float) -> Later | Never:
    wait = retries.wait(now)
    refusal = RateLimited(f"retries of {name}", retry_after=wait, provider=name)
    return Never(refusal) if wait == math.inf else Later(refusal=refusal, line=("retries", name), at=now + wait)
