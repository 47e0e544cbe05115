"""Whether a call to a provider may be made now: one decision over everything it would consume. Pure.

All or nothing: what a decision would change is returned as new values, and nothing is consumed unless all agree.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from actors.breaker import BreakerConfig, BreakerState, Closed, HalfOpen, Permit, Refused
from actors.breaker import admit as admit_by_breaker
from actors.errors import (
    BreakerOpen,
    BudgetExceeded,
    BulkheadFull,
    DeadlineTooShort,
    NotAdmitted,
    RateLimited,
)
from actors.retry import RetryBudget

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actors.account import Account
    from actors.market import Listing
    from actors.token_bucket import Grant, TokenBucket


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


class Later(msgspec.Struct, frozen=True):
    """Not now, but maybe at loop time `at`; infinity where it depends on a call under way, not on the clock."""

    at: float
    refusal: NotAdmitted


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
    """Decide on one call at `now`: time left, money, throttling, concurrency, rate, retry budget, breaker.

    `amount` is what to reserve in each account; 0 for a repetition whose money is held already.
    """
    name = listing.provider.name
    if deadline <= now:
        return Never(DeadlineTooShort(needed=listing.timeout, left=0.0, provider=name))
    refusal = _refused_by_money(accounts, amount, name)
    if refusal is not None:
        return refusal
    if state.gated_until > now:
        return Later(state.gated_until, RateLimited(name, retry_after=state.gated_until - now, provider=name))
    if state.under_way >= listing.max_concurrency:
        return Later(math.inf, BulkheadFull(name, max_concurrency=listing.max_concurrency))
    taken = state.bucket.take(now) if state.bucket is not None else (None, None)
    if not isinstance(taken, tuple):
        return Later(now + taken, RateLimited(name, retry_after=taken, provider=name))
    retries = state.retries.withdraw(now) if is_retry else state.retries.deposit(now)
    if retries is None:
        return _refused_by_retry_budget(state.retries, name, now)
    permission = admit_by_breaker(state.breaker, now=now, config=breaker)
    if isinstance(permission, Refused):
        return _refused_by_breaker(state.breaker, permission, name, now)
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


def _refused_by_money(accounts: Sequence[Account], amount: int, name: str) -> Later | Never | None:
    for account in accounts:
        if not account.allows(amount):
            refusal = BudgetExceeded(needed=amount, available=account.available or 0, cap=account.name, provider=name)
            return Later(math.inf, refusal) if account.may_allow_later(amount) else Never(refusal)
    return None


def _refused_by_breaker(state: BreakerState, refused: Refused, name: str, now: float) -> Later | Never:
    refusal = BreakerOpen(name, retry_after=refused.retry_after)
    if refused.retry_after is None:
        return Never(refusal)
    # A half-open breaker is decided by its probe, which may end at any time.
    return Later(math.inf if isinstance(state, HalfOpen) else now + refused.retry_after, refusal)


def _refused_by_retry_budget(retries: RetryBudget, name: str, now: float) -> Later | Never:
    refill = retries.min_per_second
    refusal = RateLimited(f"retries of {name}", retry_after=1 / refill if refill else math.inf, provider=name)
    return Later(now + 1 / refill, refusal) if refill else Never(refusal)
