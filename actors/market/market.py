"""The market: the providers that can be called, how each is reached, and the policies for calling them."""

from __future__ import annotations

import math
from collections.abc import Sequence  # noqa: TC003 - inspect.signature evaluates it.

import msgspec

from actors.ledger.periods import Renewal, take_cap
from actors.market.listing import Listing, SharedQuota, check_positive, check_switch, check_tolerance
from actors.market.tables import MarketError as MarketError
from actors.market.webhook import Webhook
from actors.money import ZERO, AmountField, OptionalAmountField, amount_default, take_amount
from actors.policies.breaker.config import BreakerConfig
from actors.policies.hedge import HedgeConfig
from actors.policies.retry import Retry
from actors.policies.retry_budget import RetryBudget
from actors.providers.health import WatchConfig
from actors.transports.own_reading import Classify, check_classify
from actors.transports.streaming import StreamConfig
from actors.validation import check_config, check_count

MAX_WAITING = 100_000
"""The requests of one supervisor that may wait if the market does not say how many."""


class DiscoveryConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How long discovery caches the offers of a service: `ttl` is from 300 to 900 seconds."""

    ttl: float = 600.0

    def __post_init__(self) -> None:
        if not 300 <= self.ttl <= 900:
            raise ValueError(f"ttl must be from 300 to 900 seconds, got {self.ttl}")


class HealthConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A health check takes at most `timeout` seconds; its result is used for `max_age` seconds."""

    timeout: float = 2.0
    max_age: float = 30.0

    def __post_init__(self) -> None:
        check_positive("timeout", self.timeout, "seconds")
        if not 0 <= self.max_age < math.inf:
            raise ValueError(f"max_age must be >= 0 seconds and finite, got {self.max_age}")


class Market(msgspec.Struct, frozen=True, kw_only=True):
    """Every provider that may be called, and the policies for calling them.

    `budget` caps what is spent on all requests together, in dollars as str, int or Decimal (None: no cap), or in each
    period if it renews: "20/day", "500/month in Europe/Berlin" (then `budget_renewal` says how). `risk` is
    what a request may leave to be paid twice if it does not say so itself (None: nothing), and `risk_total` bounds that
    for all requests together (None: no bound), in dollars too. Calls that cost nothing and may be repeated are hedged
    by `hedge` (None: never). Each provider has its own `retry_budget`, and `watch` says how discovery uses
    observations. A provider is left alone after an answer that costs more than `price_tolerance` times its price.

    `classify(error, call)` may return the `CallFailed` that a failed call means, or None to leave that to us. `error`
    is what the transport met, or its own `CallFailed` if it met an answer. If it raises, that is logged, and our
    reading holds. It is not asked about a transport that has a `classify` of its own.

    At most `max_waiting` requests of one supervisor wait for a place, a limit or a breaker; one more is refused with
    `TooManyWaiting`, which says when to come back. With 0, no request waits for any of these.

    `streams` says how long a stream waits for its provider, and for its consumer, if its request does not.

    `alerts` are the webhooks that are told of alerts; `understudy run` and `serve` do so, a program by `spawn_senders`.

    With `warmth`, a conversation stays at the provider that has the beginning of its prompt cached while that saves
    more than another provider would, as the usage of its last answer says.

    `quotas` are the limits, by name, on which several providers draw together: those whose `quota` is that name.

    Without providers it is for a supervisor that gets a `registry`. Raises ValueError if two providers have the same
    name, or if one draws on a quota that is not there.
    """

    providers: Sequence[Listing] = ()
    retry: Retry = Retry()
    breaker: BreakerConfig = BreakerConfig()
    discovery: DiscoveryConfig = DiscoveryConfig()
    health: HealthConfig = HealthConfig()
    budget: OptionalAmountField = amount_default(None)
    risk: OptionalAmountField = amount_default(None)
    risk_total: OptionalAmountField = amount_default(None)
    overdraft: AmountField = amount_default(ZERO)
    hedge: HedgeConfig | None = HedgeConfig()
    retry_budget: RetryBudget = RetryBudget()
    watch: WatchConfig = WatchConfig()
    classify: Classify | None = None
    price_tolerance: float = 2.0
    quotas: dict[str, SharedQuota] = {}
    max_waiting: int = MAX_WAITING
    streams: StreamConfig = StreamConfig()
    alerts: Sequence[Webhook] = ()
    warmth: bool = True
    budget_renewal: Renewal | None = None

    def __post_init__(self) -> None:
        take_amount(self, "overdraft")
        take_cap(self, "budget", "budget_renewal")
        for name in ("risk", "risk_total"):
            if getattr(self, name) is not None:
                take_amount(self, name)
        check_classify(self.classify)
        check_tolerance(self.price_tolerance)
        check_switch("warmth", self.warmth)
        check_count("max_waiting", self.max_waiting, least=0, unit="requests")
        msgspec.structs.force_setattr(self, "providers", tuple(self.providers))
        msgspec.structs.force_setattr(self, "alerts", tuple(self.alerts))
        for webhook in self.alerts:
            check_config("alerts", webhook, Webhook)
        for name, kind in POLICIES.items():
            policy: object = getattr(self, name)
            if name != "hedge" or policy is not None:
                check_config(name, policy, kind)
        names: set[str] = set()
        for listing in self.providers:
            if not isinstance(listing, Listing):
                raise TypeError(f"providers must be Listings, got {listing!r:.100}")
            if listing.provider.name in names:
                raise ValueError(f"two providers are named {listing.provider.name!r}; give each its own name")
            names.add(listing.provider.name)
            if listing.quota is not None and listing.quota not in self.quotas:
                there = ", ".join(sorted(self.quotas)) or "none"
                raise ValueError(
                    f"{listing.provider.name!r} draws on quota {listing.quota!r}; give it in quotas, there is {there}"
                )


POLICIES: dict[str, type[msgspec.Struct]] = {
    "retry": Retry,
    "breaker": BreakerConfig,
    "discovery": DiscoveryConfig,
    "health": HealthConfig,
    "hedge": HedgeConfig,
    "retry_budget": RetryBudget,
    "watch": WatchConfig,
    "streams": StreamConfig,
}
