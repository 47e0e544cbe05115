"""One entry of a market: a provider, how it is reached, and how much it may be called."""

from __future__ import annotations

import math
from collections.abc import Callable  # noqa: TC003 - inspect.signature evaluates it.
from typing import Literal

import msgspec

from actors.ledger.periods import Renewal, take_cap
from actors.limits.quota import REQUESTS, Quota, RateLimit, check_dimensions, quota_of
from actors.market.tables import MarketError as MarketError
from actors.masking import MASK, HidesSecrets, shown_callable, shown_url
from actors.money import Micros, OptionalAmountField, amount_default
from actors.providers.provider import Provider
from actors.tariffs.estimate import TYPICAL_CALL
from actors.tariffs.tariff import Tariff
from actors.transports.transport import Idempotent, Transport  # noqa: TC001 - inspect.signature and msgspec evaluate them.
from actors.validation import check_count, check_text, checked_held_for

LEAST_WEIGHT, MAX_WEIGHT = 1e-6, 1e6
"""The bounds of a weight above 0: so far apart that sums over thousands of providers still tell the least one."""


def check_positive(field: str, value: float, unit: str) -> None:
    """Raise TypeError or ValueError if `value` is not a finite number above 0."""
    if not isinstance(value, int | float):
        raise TypeError(f"{field} must be a number of {unit}, got {value!r:.100}")
    if not 0 < value < math.inf:
        raise ValueError(f"{field} must be > 0 {unit} and finite, got {value}")


def check_tolerance(tolerance: float) -> None:
    """Raise TypeError or ValueError if an answer could not cost `tolerance` times its price."""
    check_positive("price_tolerance", tolerance, "times the price")
    if tolerance < 1:
        raise ValueError(f"price_tolerance must be at least 1 times the price, got {tolerance}")


def check_switch(field: str, value: object) -> None:
    """Raise TypeError if `value` is no bool."""
    if not isinstance(value, bool):
        raise TypeError(f"{field} must be True or False, got {value!r:.100}")


def check_weight(weight: float) -> None:
    """Raise TypeError or ValueError if this can be no weight of a provider."""
    if not isinstance(weight, int | float) or isinstance(weight, bool):
        raise TypeError(f"weight must be a number, got {weight!r:.100}")
    if not (weight == 0 or LEAST_WEIGHT <= weight <= MAX_WEIGHT):
        raise ValueError(f"weight must be 0, or from {LEAST_WEIGHT:g} to {MAX_WEIGHT:g}, got {weight}")


class CallLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How much a provider may be called; raises ValueError or TypeError for limits that cannot be.

    `timeout` is for one attempt, in seconds; `max_concurrency` bounds the calls under way. `rate_limit` is in requests
    a second (None: not known), of which `burst` may come at once, and `limits` holds further ones, such as
    `per_minute("tokens", 90_000)`. `quota` names one of the market's `quotas`, on which it draws too (None: on none).
    The provider is called at the part `headroom` of its limits. It is left alone after an answer that costs more than
    `price_tolerance` times its price (None: as the market says). Limits that are not stated are learned from its 429s
    and the headers of its answers, unless `learning` is False: then each call that was refused waits for its own
    `Retry-After`, and no other, nor is a shared quota told of it.
    """

    timeout: float = 10.0
    max_concurrency: int = 10
    rate_limit: float | None = None
    burst: int = 1
    limits: tuple[RateLimit, ...] = ()
    headroom: float = 0.8
    learning: bool = True
    price_tolerance: float | None = None
    quota: str | None = None

    def __post_init__(self) -> None:
        check_positive("timeout", self.timeout, "seconds")
        check_count("max_concurrency", self.max_concurrency, unit="call")
        if self.rate_limit is not None:
            check_positive("rate_limit", self.rate_limit, "requests a second")
        check_count("burst", self.burst, unit="request")
        check_switch("learning", self.learning)
        if not 0 < self.headroom <= 1:
            raise ValueError(f"headroom must be above 0 and at most 1 of the limits, got {self.headroom}")
        if self.price_tolerance is not None:
            check_tolerance(self.price_tolerance)
        if self.quota is not None:
            check_text("quota", self.quota)
        known = (REQUESTS,) if self.rate_limit is not None else ()
        if dimensions := (*known, *(limit.dimension for limit in self.limits)):
            check_dimensions(dimensions)


class CallTerms(CallLimits, frozen=True, kw_only=True):
    """How much a provider may be called, by which weight, and what is done about calls whose outcome is unknown.

    With `on_unknown="hold"`, no other provider is paid besides a call to this one that may have been charged, whatever
    risk a request allows. What is held for such a call counts as charged after `held_for` seconds (None: as the ledger
    says, which is for ever by default).

    With a `tariff`, a call costs what its tokens cost. `max_output` bounds the tokens of each answer if the request
    does not (None: at 4,096).

    With the strategy "weighted", its share of the requests is its `weight` among those of the providers that can be
    called; one of weight 0 gets requests only if there is no other. It keeps the beginning of a prompt cached for
    `cache_window` seconds after it was last used (0: not).
    """

    on_unknown: Literal["hold"] | None = None
    held_for: float | None = None
    tariff: Tariff | None = None
    max_output: int | None = None
    weight: float = 1.0
    cache_window: float = 300.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_weight(self.weight)
        if not 0 <= self.cache_window < math.inf:
            raise ValueError(f"cache_window must be >= 0 seconds and finite, got {self.cache_window!r:.100}")
        if self.on_unknown not in {None, "hold"}:
            raise ValueError(f'on_unknown of a listing must be "hold" or None, got {self.on_unknown!r:.100}')
        if self.held_for is not None:
            msgspec.structs.force_setattr(self, "held_for", checked_held_for(self.held_for))
        if self.tariff is not None and not isinstance(self.tariff, Tariff):
            raise TypeError(
                f'tariff must be a Tariff, such as Tariff(input="0.25", output="2"), got {self.tariff!r:.100}'
            )
        if self.max_output is not None:
            check_count("max_output", self.max_output, unit="token")


class Listing(HidesSecrets, CallTerms, frozen=True, kw_only=True):
    """One provider on the market: what it offers, how it is reached, and how it may be called (`CallTerms`).

    `transport` makes a new `Transport`. It is called again when the provider's gateway restarts, or is needed again
    after it was closed because it was idle. `budget` caps what the provider is paid in all, in dollars as str, int or
    Decimal (None: no cap), or in each period if it renews ("5/day"; then `budget_renewal` says how).

    >>> from actors.market import Market
    >>> from actors.transports import FunctionTransport
    >>> async def shout(call):
    ...     return call.input.upper()
    >>> listing = Listing(
    ...     provider=Provider(name="alder", services={"uppercase"}, price="0.002"),
    ...     transport=lambda: FunctionTransport(shout, paid=True, idempotent="no"),
    ...     rate_limit=40,
    ... )
    >>> Market(providers=[listing]).providers[0].provider.name
    'alder'
    """

    provider: Provider
    transport: Callable[[], Transport]
    budget: OptionalAmountField = amount_default(None)
    budget_renewal: Renewal | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.provider, Provider):
            raise TypeError(f"provider must be a Provider, got {self.provider!r:.100}")
        if not callable(self.transport):
            raise TypeError(
                f"transport must be a function that makes a transport, such as lambda: FunctionTransport(...), "
                f"got {self.transport!r:.100}"
            )
        super().__post_init__()
        take_cap(self, "budget", "budget_renewal")

    def shown_instead(self) -> dict[str, object]:
        return {"transport": shown_callable(self.transport)}

    @property
    def may_cost(self) -> bool:
        """Whether a call costs anything by what is listed."""
        return self.tariff is not None or self.provider.price > 0

    @property
    def typical_price(self) -> Micros:
        """What a call of usual size costs (`TYPICAL_CALL`): the price of a call, unless there is a tariff."""
        if self.tariff is None:
            return self.provider.price
        return max(self.tariff.estimate(TYPICAL_CALL), self.provider.price)

    def all_limits(self) -> tuple[RateLimit, ...]:
        """Return every known limit of its own, that of `rate_limit` first."""
        if self.rate_limit is None:
            return self.limits
        return (RateLimit(rate=self.rate_limit, burst=self.burst), *self.limits)

    def stated_rate(self) -> float:
        """Return the requests a second that may be made by the known limits, headroom left; 0.0 if none is known."""
        rates = [limit.rate for limit in self.all_limits() if limit.dimension == REQUESTS]
        return self.headroom * min(rates, default=0.0)

    def own_quota(self, *, after: Quota | None = None, now: float = math.inf) -> Quota | None:
        """Return the quota of the known limits, or None; `after` is the quota used until `now`, under other limits."""
        limits = self.all_limits()
        if not limits:
            return None
        if after is None:
            return quota_of(*limits, headroom=self.headroom)
        return after.with_limits(*limits, headroom=self.headroom, now=now)


class SharedQuota(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The limits of one account, on which several providers draw, such as the models of one organization.

    The fields mean what they mean for a listing (`CallLimits`). Raises ValueError if no limit is given.
    """

    rate_limit: float | None = None
    burst: int = 1
    limits: tuple[RateLimit, ...] = ()
    headroom: float = 0.8

    def __post_init__(self) -> None:
        quota_of(*self.all_limits(), headroom=self.headroom)

    def all_limits(self) -> tuple[RateLimit, ...]:
        """Return every limit, that of `rate_limit` first."""
        if self.rate_limit is None:
            return self.limits
        return (RateLimit(rate=self.rate_limit, burst=self.burst), *self.limits)


class Endpoint(HidesSecrets, CallTerms, frozen=True, kw_only=True):
    """The keys of a `[[providers]]` table that say how to reach a provider; the other keys are those of `Provider`.

    `health_path` is resolved against `url`; `headers` are sent with every request. A reply of more than
    `max_reply_bytes` is malformed. With `charges_errors = false` the provider does not charge for an error that it
    answers itself.
    """

    url: str
    health_path: str = "/health"
    headers: dict[str, str] = {}
    idempotent: Idempotent = "no"
    max_reply_bytes: int = 4 * 1024 * 1024
    charges_errors: bool = True

    def shown_instead(self) -> dict[str, object]:
        return {
            "url": shown_url(self.url),
            "health_path": shown_url(self.health_path),
            "headers": dict.fromkeys(self.headers, MASK),
        }
