"""The market: who can be called, how each is reached, and the policies; from Python, or from a TOML file."""

from __future__ import annotations

import functools
import math
import tomllib
from collections.abc import Callable, Sequence  # noqa: TC003 - whoever asks for a signature evaluates it.
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec

from actors.breaker import BreakerConfig
from actors.checks import check_count
from actors.ejection import EjectionConfig
from actors.hedge import HedgeConfig
from actors.market_reader import MarketError as MarketError
from actors.market_reader import Table, TableReader, toml_type
from actors.money import Amount, to_micros, usd
from actors.observed import ObservedConfig
from actors.provider import Provider
from actors.provider_watch import WatchConfig
from actors.quota import REQUESTS, Quota, RateLimit, check_dimensions, quota_of
from actors.retry import Retry
from actors.retry_budget import RetryBudget
from actors.transport import Idempotent, Transport  # noqa: TC001 - likewise, and msgspec when it decodes.

S = TypeVar("S", bound=msgspec.Struct)


RETRY_BUDGET_KEYS = ("ratio", "min_per_second", "max_tokens")


def _check_positive(field: str, value: float, unit: str) -> None:
    if not isinstance(value, int | float):
        raise TypeError(f"{field} must be a number of {unit}, got {value!r:.100}")
    if not 0 < value < math.inf:
        raise ValueError(f"{field} must be > 0 {unit} and finite, got {value}")


class DiscoveryConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How long discovery believes what it found: `ttl` is from 300 to 900 seconds."""

    ttl: float = 600.0

    def __post_init__(self) -> None:
        if not 300 <= self.ttl <= 900:
            raise ValueError(f"ttl must be from 300 to 900 seconds, got {self.ttl}")


class HealthConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A health check takes `timeout` seconds at most; its answer is believed for `max_age` seconds."""

    timeout: float = 2.0
    max_age: float = 30.0

    def __post_init__(self) -> None:
        _check_positive("timeout", self.timeout, "seconds")
        if not 0 <= self.max_age < math.inf:
            raise ValueError(f"max_age must be >= 0 seconds and finite, got {self.max_age}")


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """One provider on the market: what it offers, how it is reached, how much it may be asked.

    `transport` makes a new `Transport`, and is called again when the provider's gateway restarts. `timeout` is
    for one attempt, in seconds; `max_concurrency` bounds the calls under way; `rate_limit` is in requests a
    second (None: not known), of which `burst` may come at once, and `limits` holds further ones, such as
    `per_minute("tokens", 90_000)`. The provider is called at `headroom` of its limits. `budget` caps what it is paid in
    all, in dollars as str, int or Decimal (None: no cap).

    >>> from actors.transport import FunctionTransport
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
        _check_limits(self)
        _canonical_budget(self)

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
        return after.relimited(*limits, headroom=self.headroom)


class Market(msgspec.Struct, frozen=True, kw_only=True):
    """Every provider that may be called, and the policies for calling them.

    `budget` caps what is spent on all requests together, in dollars as str, int or Decimal (None: no cap). Calls that
    cost nothing and may be repeated are hedged by `hedge` (None: never). Each provider has a `retry_budget` of its own,
    and `watch` is what discovery makes of observations.

    Raises ValueError when there is no provider, or when two have the same name.
    """

    providers: Sequence[Listing]
    retry: Retry = Retry()
    breaker: BreakerConfig = BreakerConfig()
    discovery: DiscoveryConfig = DiscoveryConfig()
    health: HealthConfig = HealthConfig()
    budget: Amount | None = None
    hedge: HedgeConfig | None = HedgeConfig()
    retry_budget: RetryBudget = RetryBudget()
    watch: WatchConfig = WatchConfig()

    def __post_init__(self) -> None:
        _canonical_budget(self)
        msgspec.structs.force_setattr(self, "providers", tuple(self.providers))
        if not self.providers:
            raise ValueError("a market needs at least one provider")
        for name, kind in POLICIES.items():
            policy: object = getattr(self, name)
            if not isinstance(policy, kind) and not (name == "hedge" and policy is None):
                raise TypeError(f"{name} must be a {kind.__name__}, got {policy!r:.100}")
        names: set[str] = set()
        for listing in self.providers:
            if not isinstance(listing, Listing):
                raise TypeError(f"a market is made of Listings, got {listing!r:.100}")
            if listing.provider.name in names:
                raise ValueError(f"two providers are named {listing.provider.name!r}; names must differ")
            names.add(listing.provider.name)


POLICIES: dict[str, type] = {
    "retry": Retry,
    "breaker": BreakerConfig,
    "discovery": DiscoveryConfig,
    "health": HealthConfig,
    "hedge": HedgeConfig,
    "retry_budget": RetryBudget,
    "watch": WatchConfig,
}


def _canonical_budget(capped: Market | Listing) -> None:
    if capped.budget is not None:
        msgspec.structs.force_setattr(capped, "budget", usd(to_micros(capped.budget)))


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
        _check_limits(self)


def _check_limits(limits: Listing | Endpoint) -> None:
    _check_positive("timeout", limits.timeout, "seconds")
    check_count("max_concurrency", limits.max_concurrency, unit="call")
    if limits.rate_limit is not None:
        _check_positive("rate_limit", limits.rate_limit, "requests a second")
    check_count("burst", limits.burst, unit="request")
    if not 0 < limits.headroom <= 1:
        raise ValueError(f"headroom must be above 0 and at most 1 of the limits, got {limits.headroom}")
    known = (REQUESTS,) if limits.rate_limit is not None else ()
    if dimensions := (*known, *(limit.dimension for limit in limits.limits)):
        check_dimensions(dimensions)


def load_market(path: str | Path) -> Market:
    """Read a market file.

    Raises `MarketError` for whatever makes it unusable, and ImportError without the extra `http`, which every
    provider in a file needs. Prices are strings of dollars; a provider with a price above 0 is paid.
    """
    return parse_market(_read(Path(path)), path=str(path))


def parse_market(text: str, *, path: str = "market") -> Market:
    """Return the market that `text` describes; `path` is what errors call it. Raises as `load_market` does.

    >>> market = parse_market('''
    ...     [[providers]]
    ...     name = "alder"
    ...     services = ["uppercase"]
    ...     price = "0.002"
    ...     url = "http://127.0.0.1:8001/"
    ... ''')
    >>> market.providers[0].provider.price, market.retry.max_retries
    (2000, 3)
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        what, _, where = str(error).partition(" (at ")
        end = f"line {len(text.splitlines())}"
        where = where.removesuffix(")").replace("end of document", end)
        raise MarketError(path, where, f"not valid TOML: {what}") from error
    except (ValueError, RecursionError) as error:
        raise MarketError(path, "", f"beyond what can be read: {type(error).__name__}: {error}") from error
    reader = TableReader(path)
    reader.refuse_unknown(document, "", Market.__struct_fields__)
    return Market(
        providers=_listings(reader, document.get("providers")),
        retry=_section(reader, document, "retry", Retry),
        breaker=_section(reader, document, "breaker", BreakerConfig),
        discovery=_section(reader, document, "discovery", DiscoveryConfig),
        health=_section(reader, document, "health", HealthConfig),
        budget=_budget(reader, document, "budget"),
        retry_budget=_retry_budget(reader, document),
        watch=_watch(reader, document),
        hedge=None if document.get("hedge") is False else _section(reader, document, "hedge", HedgeConfig),
    )


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise MarketError(str(path), "", f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise MarketError(str(path), f"line {line}", "not valid TOML: the text is not UTF-8") from error


def _listings(reader: TableReader, entries: Any) -> list[Listing]:
    if entries is None or entries == []:
        raise reader.error("providers", "expected at least one [[providers]] table")
    if not isinstance(entries, list):
        raise reader.error("providers", "expected a list of tables, each under [[providers]]")
    listings: dict[str, Listing] = {}
    for position, entry in enumerate(cast("list[Any]", entries)):
        key = f"providers[{position}]"
        listing = _listing(reader, reader.table(entry, key, "[[providers]]"), key)
        name = listing.provider.name
        if name in listings:
            owner = f"providers[{list(listings).index(name)}]"
            raise reader.error(f"{key}.name", f"{name!r} is the name of {owner} already; names must differ")
        listings[name] = listing
    return list(listings.values())


def _section(reader: TableReader, document: Table, name: str, struct: type[S]) -> S:
    table = reader.table(document.get(name, {}), name, f"[{name}]")
    reader.refuse_unknown(table, name, struct.__struct_fields__)
    return reader.convert(table, name, struct)


def _retry_budget(reader: TableReader, document: Table) -> RetryBudget:
    name = "retry_budget"
    table = reader.table(document.get(name, {}), name, f"[{name}]")
    reader.refuse_unknown(table, name, RETRY_BUDGET_KEYS)
    # It begins with what it usually begins with, or full where that is less.
    most = table.get("max_tokens")
    begin = {"tokens": most} if isinstance(most, int | float) and 1 <= most < RetryBudget().tokens else {}
    return reader.convert(table | begin, name, RetryBudget)


def _watch(reader: TableReader, document: Table) -> WatchConfig:
    table = reader.table(document.get("watch", {}), "watch", "[watch]")
    for name, struct in (("observed", ObservedConfig), ("ejection", EjectionConfig)):
        inner = reader.table(table.get(name, {}), f"watch.{name}", f"[watch.{name}]")
        reader.refuse_unknown(inner, f"watch.{name}", struct.__struct_fields__)
    return _section(reader, document, "watch", WatchConfig)


def _listing(reader: TableReader, entry: Table, key: str) -> Listing:
    # The file's `url` becomes the provider's address.
    offer = tuple(name for name in Provider.__struct_fields__ if name != "address")
    reader.refuse_unknown(entry, key, (*offer, *Endpoint.__struct_fields__, "budget"))
    offered = {name: value for name, value in entry.items() if name in offer}
    offered["price"] = _price(reader, entry.get("price", "0"), f"{key}.price")
    reached = {name: value for name, value in entry.items() if name in Endpoint.__struct_fields__}
    endpoint = reader.convert(reached, key, Endpoint)
    provider = reader.convert(offered | {"address": endpoint.url}, key, Provider)
    if not provider.services:
        raise reader.error(f"{key}.services", "expected at least one service")
    return Listing(
        provider=provider,
        transport=_transport(reader, provider, endpoint, key),
        timeout=endpoint.timeout,
        max_concurrency=endpoint.max_concurrency,
        rate_limit=endpoint.rate_limit,
        burst=endpoint.burst,
        limits=endpoint.limits,
        headroom=endpoint.headroom,
        budget=_budget(reader, entry, f"{key}.budget"),
    )


def _budget(reader: TableReader, table: Table, key: str) -> str | None:
    return usd(_price(reader, table["budget"], key)) if "budget" in table else None


def _price(reader: TableReader, price: Any, key: str) -> int:
    if not isinstance(price, str):
        why = " (a float cannot hold most cents exactly)" if isinstance(price, float) else ""
        raise reader.error(key, f'expected a string such as "0.002", got {toml_type(price)}{why}')
    try:
        return to_micros(price)
    except ValueError as error:
        raise reader.error(key, str(error)) from error


def _transport(reader: TableReader, provider: Provider, endpoint: Endpoint, key: str) -> Callable[[], Transport]:
    # Imported here, so that a market made in Python does not need httpx.
    from actors.http_transport import HttpTransport  # noqa: PLC0415

    make = functools.partial(
        HttpTransport,
        provider.name,
        endpoint.url,
        paid=provider.price > 0,
        idempotent=endpoint.idempotent,
        health_path=endpoint.health_path,
        max_connections=endpoint.max_concurrency,
        headers=endpoint.headers,
    )
    try:
        make()  # It opens nothing until it is used; a bad URL shows here and not at the first call.
    except ValueError as error:
        raise reader.error(key, str(error)) from error
    return make
