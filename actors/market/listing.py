"""One entry of a market: a provider, how it is reached, and what it bears."""

from __future__ import annotations

import math
from collections.abc import Callable  # noqa: TC003 - whoever asks for a signature evaluates it.

import msgspec

from actors.limits.quota import REQUESTS, Quota, RateLimit, check_dimensions, quota_of
from actors.market.tables import MarketError as MarketError
from actors.money import Amount, to_micros, usd
from actors.providers.provider import Provider
from actors.transports.transport import Idempotent, Transport  # noqa: TC001 - likewise, and msgspec when it decodes.
from actors.validation import check_count


def check_positive(field: str, value: float, unit: str) -> None:
    """Raise for a setting that is not a finite number above 0."""
    if not isinstance(value, int | float):
        raise TypeError(f"{field} must be a number of {unit}, got {value!r:.100}")
    if not 0 < value < math.inf:
        raise ValueError(f"{field} must be > 0 {unit} and finite, got {value}")


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """One provider on the market: what it offers, how it is reached, how much it may be asked.

    `transport` makes a new `Transport`, and is called again when the provider's gateway restarts. `timeout` is
    for one attempt, in seconds; `max_concurrency` bounds the calls under way; `rate_limit` is in requests a
    second (None: not known), of which `burst` may come at once, and `limits` holds further ones, such as
    `per_minute("tokens", 90_000)`. The provider is called at `headroom` of its limits. `budget` caps what it is paid in
    all, in dollars as str, int or Decimal (None: no cap).

    >>> from actors.market import Market
    >>> from actors.transports import FunctionTransport
    >>> async def shout(call):
    ...     return call.input.upper()
    >>> listing = Listing(
    ...     provider=Provider(name="alder", services={"uppercase"}, price=to_micros("0.002")),
    ...     transport=lambda: FunctionTransport(shout, paid=True, idempotent="no"),
    ...     rate_limit=40,
    ... )
    >>> Market(providers=[listing]).providers[0].provider.name
    'alder'
    """

    provider: Provider
    transport: Callable[[], Transport]
    timeout: float = 10.0
    max_concurrency: int = 10
    rate_limit: float | None = None
    burst: int = 1
    limits: tuple[RateLimit, ...] = ()
    headroom: float = 0.8
    budget: Amount | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.provider, Provider):
            raise TypeError(f"provider must be a Provider, got {self.provider!r:.100}")
        if not callable(self.transport):
            raise TypeError(
                f"transport must be a function that makes one, such as lambda: FunctionTransport(...), "
                f"got {self.transport!r:.100}"
            )
        check_limits(self)
        canonical_budget(self, self.budget)

    def all_limits(self) -> tuple[RateLimit, ...]:
        """Return every limit that is known."""
        if self.rate_limit is None:
            return self.limits
        return (RateLimit(rate=self.rate_limit, burst=self.burst), *self.limits)

    def quota(self, *, after: Quota | None = None) -> Quota | None:
        """Return what the limits leave to be used; `after` is how much of it was used under those before."""
        limits = self.all_limits()
        if not limits:
            return None
        if after is None:
            return quota_of(*limits, headroom=self.headroom)
        return after.with_limits(*limits, headroom=self.headroom)


def check_limits(limits: Listing | Endpoint) -> None:
    """Raise for limits of a provider that cannot be."""
    check_positive("timeout", limits.timeout, "seconds")
    check_count("max_concurrency", limits.max_concurrency, unit="call")
    if limits.rate_limit is not None:
        check_positive("rate_limit", limits.rate_limit, "requests a second")
    check_count("burst", limits.burst, unit="request")
    if not 0 < limits.headroom <= 1:
        raise ValueError(f"headroom must be above 0 and at most 1 of the limits, got {limits.headroom}")
    known = (REQUESTS,) if limits.rate_limit is not None else ()
    if dimensions := (*known, *(limit.dimension for limit in limits.limits)):
        check_dimensions(dimensions)


def canonical_budget(capped: msgspec.Struct, budget: Amount | None) -> None:
    """Set the field `budget` of a frozen struct to its canonical text in dollars."""
    if budget is not None:
        msgspec.structs.force_setattr(capped, "budget", usd(to_micros(budget)))


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """The keys of a `[[providers]]` table which say how to reach the provider; the others are `Provider`'s.

    `health_path` is resolved against `url`; `headers` go with every request; the rest is as in `Listing`.
    """

    url: str
    health_path: str = "/health"
    headers: dict[str, str] = {}
    idempotent: Idempotent = "no"
    timeout: float = 10.0
    max_concurrency: int = 10
    rate_limit: float | None = None
    burst: int = 1
    limits: tuple[RateLimit, ...] = ()
    headroom: float = 0.8

    def __post_init__(self) -> None:
        check_limits(self)
