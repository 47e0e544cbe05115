"""Who is served: tenants, with what each may spend and call, and how much of the door each may take."""

from __future__ import annotations

import msgspec

from actors.limits.class_queue import Priority, check_priority
from actors.limits.token_bucket import TokenBucket
from actors.serve.problems import Problem
from actors.validation import check_count, check_text


class Tenant(msgspec.Struct, frozen=True, kw_only=True):
    """One customer of the door: caps and permissions are the tenant's, whichever of its keys is used.

    `budget` is a cap in dollars as text, such as "5" or "5/day in Europe/Berlin" (None: none of its own). `models` are
    the models, or providers, that may be called (empty: all). `rate_limit` is in requests a second, of which `burst`
    may come at once, and at most `max_under_way` requests are answered at once (None: no bound); others wait in line.

    `token_limit` is what it may use in any minute, in tokens: each request reserves an estimate, which is corrected by
    what its answer used. At most `max_waiting` of its requests wait in its line, and as many for what is short at the
    market (None: as many as may in all). `priority` is the class in which its requests wait, "high", "normal" or "low";
    each may ask for a lower one.
    """

    budget: str | None = None
    models: tuple[str, ...] = ()
    rate_limit: float | None = None
    burst: int = 1
    max_under_way: int | None = None
    priority: Priority = "normal"
    max_waiting: int | None = None
    token_limit: int | None = None

    def __post_init__(self) -> None:
        for name in self.models:
            check_text("model of a tenant", name)
        check_count("burst", self.burst, unit="request")
        check_priority(self.priority, "priority of a tenant")
        if self.max_waiting is not None:
            check_count("max_waiting", self.max_waiting, least=0, unit="request")
        if self.token_limit is not None:
            check_count("token_limit", self.token_limit, unit="token")
        if self.rate_limit is not None:
            TokenBucket(rate=self.rate_limit, burst=self.burst)
        if self.max_under_way is not None:
            check_count("max_under_way", self.max_under_way, unit="request")

    @property
    def allowed(self) -> frozenset[str] | None:
        """The models that may be called; None is all."""
        return frozenset(self.models) if self.models else None


class TenantRates:
    """How often each tenant has asked lately."""

    def __init__(self) -> None:
        self._buckets: dict[str, TokenBucket] = {}

    def count(self, name: str, tenant: Tenant, *, now: float) -> None:
        """Count a request. Raises `Problem`, 429, if it comes too soon for the rate of its tenant."""
        rate = tenant.rate_limit
        if rate is None:
            return
        bucket = self._buckets.get(name)
        if bucket is None or (bucket.rate, bucket.burst) != (rate, tenant.burst):
            bucket = TokenBucket(rate=rate, burst=tenant.burst)
        taken = bucket.take(now)
        if not isinstance(taken, tuple):
            message = f"{name!r} may ask {rate:g} times a second; the next time is in {taken:.2f} s"
            raise Problem(429, message, code="rate_limit_exceeded", retry_after=taken)
        self._buckets[name] = taken[0]
