"""Who is served: tenants, with what each may spend and call, and how much of the door each may take."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from actors.limits.class_queue import Priority, check_priority
from actors.limits.token_bucket import TokenBucket
from actors.serve.problems import Problem
from actors.validation import check_count, check_text

if TYPE_CHECKING:
    from collections.abc import Generator

BUSY_WAIT = 1.0
"""Seconds after which a tenant that has all its requests under way may ask again."""


class Tenant(msgspec.Struct, frozen=True, kw_only=True):
    """One customer of the door: caps and permissions are the tenant's, whichever of its keys is used.

    `budget` is a cap in dollars as text, such as "5" or "5/day in Europe/Berlin" (None: none of its own). `models` are
    the models, or providers, that may be called (empty: all). `rate_limit` is in requests a second, of which `burst`
    may come at once, and `max_under_way` bounds the requests that are being answered (None: no bound).

    `token_limit` is what it may use in any minute, in tokens: each request reserves an estimate, which is corrected by
    what its answer used. At most `max_waiting` of its requests wait for what is short (None: as many as the market lets
    wait). `priority` is the class in which its requests wait, "high", "normal" or "low"; each may ask for a lower one.
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


class TenantLoads:
    """How much of the door each tenant takes at the moment."""

    def __init__(self) -> None:
        self._under_way: dict[str, int] = {}
        self._buckets: dict[str, TokenBucket] = {}

    @contextmanager
    def admitted(self, name: str, tenant: Tenant, *, now: float) -> Generator[None]:
        """Count a request within the block. Raises `Problem`, 429, if it is too much for its tenant at `now`."""
        count = self._under_way.get(name, 0)
        if tenant.max_under_way is not None and count >= tenant.max_under_way:
            message = f"{count} requests of {name!r} are under way, its max_under_way"
            raise Problem(429, message, code="too_many_under_way", retry_after=BUSY_WAIT)
        if tenant.rate_limit is not None:
            self._take(name, tenant, tenant.rate_limit, now=now)
        self._under_way[name] = count + 1
        try:
            yield
        finally:
            left = self._under_way[name] - 1
            if left:
                self._under_way[name] = left
            else:
                del self._under_way[name]

    def _take(self, name: str, tenant: Tenant, rate: float, *, now: float) -> None:
        bucket = self._buckets.get(name)
        if bucket is None or (bucket.rate, bucket.burst) != (rate, tenant.burst):
            bucket = TokenBucket(rate=rate, burst=tenant.burst)
        taken = bucket.take(now)
        if not isinstance(taken, tuple):
            message = f"{name!r} may ask {rate:g} times a second; the next time is in {taken:.2f} s"
            raise Problem(429, message, code="rate_limit_exceeded", retry_after=taken)
        self._buckets[name] = taken[0]
