"""Several limits of one provider (requests, tokens, cost); a call takes everything that it needs, or nothing. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from actors.limits.token_bucket import Grant, TokenBucket
from actors.validation import check_count

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

REQUESTS = "requests"
"""The dimension of which every call takes 1, unless it says otherwise."""
NO_WEIGHTS: Mapping[str, int] = {}


class RateLimit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`rate` units of `dimension` per second, of which `burst` may come at once.

    A unit is what the dimension counts: "requests", "tokens", or micro-units of money for "cost". No call may
    weigh more than `burst`.
    """

    dimension: str = REQUESTS
    rate: float
    burst: int = 1

    def __post_init__(self) -> None:
        if not self.dimension:
            raise ValueError('dimension must name what is limited, such as "requests" or "tokens"')
        if not 0 < self.rate < math.inf:
            raise ValueError(f"rate of {self.dimension} must be > 0 per second and finite, got {self.rate}")
        check_count(f"burst of {self.dimension}", self.burst)


def per_minute(dimension: str, amount: float, *, burst: int | None = None) -> RateLimit:
    """Return a limit of `amount` a minute; by default a fifth of it (at least 1) may come at once.

    A token bucket lets `burst` plus a minute's rate through in one minute. With that burst and a headroom of 0.8,
    that is 0.2 + 0.8 of `amount`: no minute sees more than the provider allows, however it counts minutes.

    >>> per_minute("tokens", 30_000)
    RateLimit(dimension='tokens', rate=500.0, burst=6000)
    """
    if not 0 < amount < math.inf:
        raise ValueError(f"amount of {dimension} must be > 0 a minute and finite, got {amount}")
    return RateLimit(
        dimension=dimension, rate=amount / 60, burst=max(1, math.floor(amount / 5)) if burst is None else burst
    )


# Each call makes several of the values below. They hold no cycles, so the garbage collector may skip them (gc=False).


class QuotaGrant(msgspec.Struct, frozen=True, gc=False):
    """What one call has taken of each dimension, in the order of its quota; None if it took nothing of it.

    Use it once: give it back with `refund`, or settle it with `correct`.
    """

    at: float
    dimensions: tuple[str, ...]
    grants: tuple[Grant | None, ...]

    def weight_of(self, dimension: str) -> int:
        """Return what was taken of a dimension."""
        pairs = zip(self.dimensions, self.grants, strict=True)
        return sum(grant.weight for name, grant in pairs if name == dimension and grant is not None)


class QuotaRefusal(msgspec.Struct, frozen=True, gc=False):
    """Nothing was taken: `dimension` is the one that is short for longest, for `wait` seconds.

    An infinite `wait` means that it is short for ever.
    """

    wait: float
    dimension: str

    @property
    def never(self) -> bool:
        """Whether the call weighs more than the burst of the dimension, so that no wait is long enough."""
        return self.wait == math.inf


class Quota(msgspec.Struct, frozen=True, gc=False):
    """Token buckets from which a call takes together; an immutable value. Make one with `quota_of`.

    A weight that is not given is 1 for "requests" and 0 for every other dimension; weights of dimensions that are not
    limited here are ignored. A call waits while any dimension is in debt, even one of which it takes nothing: its true
    weight may not be known before it has ended.
    """

    dimensions: tuple[str, ...]
    buckets: tuple[TokenBucket, ...]

    def take(self, now: float, weights: Mapping[str, int] = NO_WEIGHTS) -> tuple[Quota, QuotaGrant] | QuotaRefusal:
        """Take all weights at `now`, or tell what is short and for how long. Raises ValueError for a negative weight.

        >>> quota = quota_of(per_minute("requests", 60, burst=2), per_minute("tokens", 600, burst=100))
        >>> quota, grant = quota.take(0.0, {"tokens": 90})
        >>> quota.take(0.0, {"tokens": 30})
        QuotaRefusal(wait=2.0, dimension='tokens')
        >>> quota.take(0.0, {"tokens": 101})
        QuotaRefusal(wait=inf, dimension='tokens')
        """
        dimensions = self.dimensions
        if len(dimensions) == 1:
            # Most quotas have one limit; they do not pay for a loop.
            dimension, bucket = dimensions[0], self.buckets[0]
            weight = weights.get(dimension, 1 if dimension == REQUESTS else 0)
            if 1 <= weight <= bucket.burst:
                taken = bucket.take(now, weight)
                if isinstance(taken, tuple):
                    bucket, grant = taken
                    return Quota(dimensions, (bucket,)), QuotaGrant(now, dimensions, (grant,))
                return QuotaRefusal(taken, dimension)
        return self._take_each(now, weights)

    def refund(self, grant: QuotaGrant) -> Quota:
        """Return the quota after a call that never ran has given back all that it took; see `TokenBucket.refund`."""
        if grant.dimensions != self.dimensions:
            return self.correct(grant, dict.fromkeys(grant.dimensions, 0), grant.at)
        parts = grant.grants
        if len(parts) == 1 and parts[0] is not None:
            return Quota(self.dimensions, (self.buckets[0].refund(parts[0]),))
        pairs = zip(self.buckets, parts, strict=True)
        buckets = [bucket if part is None else bucket.refund(part) for bucket, part in pairs]
        return Quota(self.dimensions, tuple(buckets))

    def correct(self, grant: QuotaGrant, actual: Mapping[str, int], now: float) -> Quota:
        """Return the quota after a call turned out to weigh `actual`; dimensions not named weighed what was taken.

        An excess comes back as by `TokenBucket.refund`: in full, but never above the burst, and never so that the rate
        could be exceeded. A shortfall is charged at `now`, into debt if need be; the calls that follow wait until that
        debt is paid.

        >>> quota = quota_of(per_minute("tokens", 600, burst=100))
        >>> quota, grant = quota.take(0.0, {"tokens": 50})
        >>> quota.correct(grant, {"tokens": 150}, 0.0).take(0.0, {"tokens": 10})
        QuotaRefusal(wait=6.0, dimension='tokens')
        """
        taken = dict(zip(grant.dimensions, grant.grants, strict=True))
        buckets: list[TokenBucket] = []
        for dimension, bucket in zip(self.dimensions, self.buckets, strict=True):
            part = taken.get(dimension)
            estimate = 0 if part is None else part.weight
            weight = actual.get(dimension, estimate)
            if weight < 0:
                raise ValueError(f"the weight of a call in {dimension!r} must be >= 0, got {weight}")
            if weight > estimate:
                bucket = bucket.charge(now, weight - estimate)  # noqa: PLW2901 - the bucket after the charge.
            elif part is not None and weight < estimate:
                bucket = bucket.refund(part, estimate - weight)  # noqa: PLW2901 - the bucket after the refund.
            buckets.append(bucket)
        return Quota(self.dimensions, tuple(buckets))

    def with_limits(self, *limits: RateLimit, headroom: float = 1.0, now: float = math.inf) -> Quota:
        """Return the quota under other limits: a limit that has not changed keeps its bucket, a new one begins full.

        One that has changed at `now` begins without what was taken from it lately, so that no change gives a second
        burst. Grants of a replaced bucket give nothing back to the bucket in its place.

        >>> quota, _ = quota_of(RateLimit(rate=1.0, burst=2)).take(0.0, {REQUESTS: 2})
        >>> quota.with_limits(RateLimit(rate=2.0, burst=4), now=0.0).take(0.0, {REQUESTS: 4})
        QuotaRefusal(wait=1.0, dimension='requests')
        """
        before = dict(zip(self.dimensions, self.buckets, strict=True))
        fresh = quota_of(*limits, headroom=headroom)
        buckets: list[TokenBucket] = []
        for dimension, bucket in zip(fresh.dimensions, fresh.buckets, strict=True):
            old = before.get(dimension)
            if old is None:
                buckets.append(bucket)
            elif (old.rate, old.burst) == (bucket.rate, bucket.burst):
                buckets.append(old)
            else:
                serial = old.serial + 1
                bucket = msgspec.structs.replace(bucket, serial=serial, first_serial=serial)  # noqa: PLW2901 - as above.
                missing = min(old.missing(now), bucket.burst)
                buckets.append(bucket.charge(now, missing) if missing else bucket)
        return Quota(fresh.dimensions, tuple(buckets))

    def dominant_share(self, weights: Mapping[str, int] = NO_WEIGHTS) -> float:
        """Return the dominant share of a call: the seconds for which it uses up its scarcest dimension.

        Source: A. Ghodsi et al., "Dominant Resource Fairness", NSDI 2011.
        """
        return max(
            weight_in(weights, dimension) / bucket.rate
            for dimension, bucket in zip(self.dimensions, self.buckets, strict=True)
        )

    def _take_each(self, now: float, weights: Mapping[str, int]) -> tuple[Quota, QuotaGrant] | QuotaRefusal:
        buckets: list[TokenBucket] = []
        grants: list[Grant | None] = []
        longest, scarcest = 0.0, ""
        for dimension, bucket in zip(self.dimensions, self.buckets, strict=True):
            weight = weight_in(weights, dimension)
            if weight < 0:
                raise ValueError(f"the weight of a call in {dimension!r} must be >= 0, got {weight}")
            if weight == 0:
                wait, after, grant = bucket.debt(now), bucket, None
            elif weight > bucket.burst:
                return QuotaRefusal(math.inf, dimension)
            elif isinstance(taken := bucket.take(now, weight), tuple):
                wait, (after, grant) = 0.0, taken
            else:
                wait, after, grant = taken, bucket, None
            if wait > longest:
                longest, scarcest = wait, dimension
            buckets.append(after)
            grants.append(grant)
        if longest > 0:
            return QuotaRefusal(longest, scarcest)
        return Quota(self.dimensions, tuple(buckets)), QuotaGrant(now, self.dimensions, tuple(grants))


def quota_of(*limits: RateLimit, headroom: float = 1.0) -> Quota:
    """Return a quota that starts full, each dimension paced at `headroom` (above 0, at most 1) of its rate.

    For the known limit of a provider, 0.8 leaves room for what is not counted here: its clock, other clients, and
    estimates that were too low. Raises ValueError for a headroom out of range, if no limit is given, and if two limits
    have the same dimension.
    """
    if not 0 < headroom <= 1:
        raise ValueError(f"headroom must be above 0 and at most 1 of the limit, got {headroom}")
    dimensions = tuple(limit.dimension for limit in limits)
    check_dimensions(dimensions)
    return Quota(dimensions, tuple(TokenBucket(rate=one.rate * headroom, burst=one.burst) for one in limits))


def check_dimensions(dimensions: Sequence[str]) -> None:
    """Raise ValueError if `dimensions` is empty, or names one twice."""
    if not dimensions:
        raise ValueError("a quota needs at least one limit, such as RateLimit(rate=5.0)")
    if len(set(dimensions)) < len(dimensions):
        raise ValueError(f"give each dimension one limit, got limits for {', '.join(dimensions)}")


def weight_in(weights: Mapping[str, int], dimension: str) -> int:
    """Return the weight of a call in one dimension; not given, it is 1 for "requests" and 0 for any other."""
    return weights.get(dimension, 1 if dimension == REQUESTS else 0)
