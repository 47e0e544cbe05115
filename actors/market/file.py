"""Reads a market from a TOML file; every mistake is reported with its key, line and provider."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Collection, Mapping, Sequence  # noqa: TC003 - inspect.signature evaluates it.
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import msgspec

from actors.ledger.periods import read_cap
from actors.limits.quota import RateLimit
from actors.market.environment import Expansion
from actors.market.listing import CallTerms, Endpoint, Listing, SharedQuota, check_tolerance
from actors.market.market import MAX_WAITING, DiscoveryConfig, HealthConfig, Market
from actors.market.model_entry import MODEL_KEYS, is_model, model_entry_listing
from actors.market.tables import MarketError as MarketError
from actors.market.tables import Places, Table, TableReader, toml_type
from actors.market.webhook import Webhook, read_webhooks
from actors.masking import Secrets, shown_url
from actors.money import ZERO, Micros, to_micros
from actors.policies.breaker.config import BreakerConfig
from actors.policies.hedge import HedgeConfig
from actors.policies.retry import Retry
from actors.policies.retry_budget import RetryBudget
from actors.providers.ejection import EjectionConfig
from actors.providers.health import WatchConfig
from actors.providers.observed import ObservedConfig
from actors.providers.provider import Provider
from actors.spelling import closest
from actors.transports.streaming import StreamConfig
from actors.transports.transport import Transport  # noqa: TC001 - inspect.signature evaluates it.
from actors.validation import check_count

S = TypeVar("S", bound=msgspec.Struct)


MARKET_KEYS = tuple(name for name in Market.__struct_fields__ if name not in {"budget_renewal", "classify"})
"""The keys of the file itself, which cannot hold a function, and has the renewal of a budget with the budget."""
DOOR_KEYS = ("aliases", "serve", "tenants")
"""The tables that only the front door reads."""
OFFER_KEYS = tuple(name for name in Provider.__struct_fields__ if name not in {"address", "model"})
"""The `url` as the file has it becomes the address of the provider; its transport has what that stands for. A
table with a `model` is read by model_entry.py."""
PROVIDER_KEYS = (*OFFER_KEYS, *Endpoint.__struct_fields__, "budget")
RETRY_BUDGET_KEYS = ("ratio", "min_per_second", "max_tokens")
HEADINGS: dict[str, tuple[str, ...]] = {
    "[[providers]]": PROVIDER_KEYS,
    "[[providers.limits]]": RateLimit.__struct_fields__,
    "[[alerts]]": Webhook.__struct_fields__,
    "[quotas.NAME]": SharedQuota.__struct_fields__,
    "[retry]": Retry.__struct_fields__,
    "[breaker]": BreakerConfig.__struct_fields__,
    "[discovery]": DiscoveryConfig.__struct_fields__,
    "[health]": HealthConfig.__struct_fields__,
    "[retry_budget]": RETRY_BUDGET_KEYS,
    "[hedge]": HedgeConfig.__struct_fields__,
    "[streams]": StreamConfig.__struct_fields__,
    "[watch]": WatchConfig.__struct_fields__,
    "[watch.observed]": ObservedConfig.__struct_fields__,
    "[watch.ejection]": EjectionConfig.__struct_fields__,
}
"""The keys under each heading, for the error about one that stands under another."""


class Surroundings(NamedTuple):
    """What a file is read with: the environment ({} if it is none of its business), and the secrets put in from it."""

    environ: Mapping[str, str]
    secrets: Collection[str]


def load_market(path: str | Path) -> Market:
    """Read a market file.

    In the values of `url`, `base_url`, `health_path`, `api_key` and `headers`, and of `url` and `secret` of [[alerts]],
    `${NAME}` stands for the environment variable of that name, and `$${` for the text `${`. What a variable holds is a
    secret: no error and no `repr` shows it. A provider with a `kind` is a model; without `api_key`, its key is what the
    variable of its preset holds.

    Raises `MarketError` if the file cannot be used or variables are not set, and ImportError without the extra `http`,
    which every provider in a file needs. Prices are strings in dollars; calls to a provider with a price above 0 are
    paid.
    """
    return parse_market(read_text(path), path=str(path), environ=os.environ)


def parse_market(text: str, *, path: str = "market", environ: Mapping[str, str] | None = None) -> Market:
    """Return the market that `text` describes; `path` is its name in errors. Raises as `load_market` does.

    `${NAME}` stands for a variable of `environ`. Without one it is plain text: what comes from elsewhere has no
    business in the environment.

    >>> market = parse_market('''
    ...     [[providers]]
    ...     name = "alder"
    ...     services = ["uppercase"]
    ...     price = "0.002"
    ...     url = "http://127.0.0.1:8001/"
    ... ''')
    >>> market.providers[0].provider.price, market.retry.max_retries
    (Micros(2000), 3)
    """
    return _market(text, path, environ)


def read_document(text: str, path: str) -> Table:
    """Return the document that a text in TOML is. Raises `MarketError` if it is none."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        what, _, position = str(error).partition(" (at ")
        end = f"line {len(text.splitlines())}"
        position = position.removesuffix(")").replace("end of document", end)
        raise MarketError(path, position, f"not valid TOML: {what}") from error
    except (ValueError, RecursionError) as error:
        raise MarketError(path, "", f"cannot be read: {type(error).__name__}: {error}") from error


def _market(text: str, path: str, environ: Mapping[str, str] | None) -> Market:
    document = read_document(text, path)
    places = Places(text, document)
    reader = TableReader(path, places, HEADINGS)
    reader.refuse_unknown(document, "", (*MARKET_KEYS, *DOOR_KEYS))
    as_written = document.get("providers")
    expansion = Expansion(environ or {}, path, places)
    if environ is not None:
        document = expansion.document(document)
    quotas = _quotas(reader, document)
    surroundings = Surroundings(environ or {}, expansion.values)
    listings = _listings(reader, document.get("providers"), as_written, surroundings, quotas=quotas)
    _refuse_unused(reader, quotas, listings)
    return Market(
        providers=listings,
        quotas=quotas,
        retry=_section(reader, document, "retry", Retry),
        breaker=_section(reader, document, "breaker", BreakerConfig),
        discovery=_section(reader, document, "discovery", DiscoveryConfig),
        health=_section(reader, document, "health", HealthConfig),
        budget=_budget(reader, document),
        risk=_amount(reader, document, "risk"),
        risk_total=_amount(reader, document, "risk_total"),
        overdraft=_amount(reader, document, "overdraft") or ZERO,
        retry_budget=_retry_budget(reader, document),
        watch=_watch(reader, document),
        price_tolerance=_tolerance(reader, document),
        max_waiting=_max_waiting(reader, document),
        warmth=_warmth(reader, document),
        streams=_section(reader, document, "streams", StreamConfig),
        alerts=read_webhooks(reader, document.get("alerts")),
        hedge=None if document.get("hedge") is False else _section(reader, document, "hedge", HedgeConfig),
    )


def read_text(path: str | Path) -> str:
    """Return what a market file says. Raises `MarketError` if it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise MarketError(str(path), "", f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise MarketError(str(path), f"line {line}", "not valid TOML: the text is not UTF-8") from error


def _listings(
    reader: TableReader, entries: Any, as_written: Any, surroundings: Surroundings, *, quotas: Collection[str]
) -> list[Listing]:
    if entries is None or entries == []:
        raise reader.error("providers", "expected at least one [[providers]] table")
    if not isinstance(entries, list):
        raise reader.error("providers", "expected a list of tables, each under [[providers]]")
    listings: dict[str, Listing] = {}
    for position, entry in enumerate(cast("list[Any]", entries)):
        key = f"providers[{position}]"
        table = reader.table(entry, key, "[[providers]]")
        if is_model(table):
            listing = _model(reader, table, key, surroundings)
        else:
            address = as_written[position].get("url")
            listing = _listing(reader, table, key, address=address, secrets=surroundings.secrets)
        name = listing.provider.name
        if listing.quota is not None and listing.quota not in quotas:
            meant = closest(listing.quota, quotas)
            hint = f"; did you mean {meant!r}?" if meant is not None else "; state its limits in one"
            raise reader.error(f"{key}.quota", f"there is no table [quotas.{listing.quota}]{hint}")
        if name in listings:
            owner = reader.places.shown(f"providers[{list(listings).index(name)}]")
            raise reader.error(
                f"{key}.name", f"{name!r} is already the name of {owner}; give each provider its own name"
            )
        listings[name] = listing
    return list(listings.values())


def _quotas(reader: TableReader, document: Table) -> dict[str, SharedQuota]:
    quotas: dict[str, SharedQuota] = {}
    for name, entry in reader.table(document.get("quotas", {}), "quotas", "[quotas]").items():
        key = f"quotas.{name}"
        table = reader.table(entry, key, f"[{key}]")
        reader.refuse_unknown(table, key, SharedQuota.__struct_fields__)
        _refuse_unknown_limits(reader, table, key)
        quotas[name] = reader.convert(table, key, SharedQuota)
    return quotas


def _refuse_unused(reader: TableReader, quotas: Collection[str], listings: Sequence[Listing]) -> None:
    """Refuse a quota on which no provider draws: its limits would hold for no call."""
    unused = next((name for name in quotas if all(listing.quota != name for listing in listings)), None)
    if unused is not None:
        meant = closest(unused, {listing.quota for listing in listings if listing.quota is not None})
        hint = "" if meant is None else f"did you mean {meant!r}? Otherwise "
        raise reader.error(
            f"quotas.{unused}",
            f'no provider draws on it; {hint}write quota = "{unused}" under the [[providers]] that share it, '
            "or delete the table",
        )


def _refuse_unknown_limits(reader: TableReader, table: Table, key: str) -> None:
    limits = table.get("limits")
    for position, limit in enumerate(cast("list[Any]", limits) if isinstance(limits, list) else []):
        if isinstance(limit, dict):
            reader.refuse_unknown(cast("Table", limit), f"{key}.limits[{position}]", RateLimit.__struct_fields__)


def _section(reader: TableReader, document: Table, name: str, struct: type[S]) -> S:
    table = reader.table(document.get(name, {}), name, f"[{name}]")
    reader.refuse_unknown(table, name, struct.__struct_fields__)
    return reader.convert(table, name, struct)


def _retry_budget(reader: TableReader, document: Table) -> RetryBudget:
    name = "retry_budget"
    table = reader.table(document.get(name, {}), name, f"[{name}]")
    reader.refuse_unknown(table, name, RETRY_BUDGET_KEYS)
    # It begins with the default number of tokens, or full if it holds fewer.
    most = table.get("max_tokens")
    begin = {"tokens": most} if isinstance(most, int | float) and 1 <= most < RetryBudget().tokens else {}
    return reader.convert(table | begin, name, RetryBudget)


def _watch(reader: TableReader, document: Table) -> WatchConfig:
    table = reader.table(document.get("watch", {}), "watch", "[watch]")
    for name, struct in (("observed", ObservedConfig), ("ejection", EjectionConfig)):
        inner = reader.table(table.get(name, {}), f"watch.{name}", f"[watch.{name}]")
        reader.refuse_unknown(inner, f"watch.{name}", struct.__struct_fields__)
    return _section(reader, document, "watch", WatchConfig)


def _model(reader: TableReader, entry: Table, key: str, surroundings: Surroundings) -> Listing:
    reader.refuse_unknown(entry, key, MODEL_KEYS)
    _refuse_unknown_limits(reader, entry, key)
    money: dict[str, Any] = {"price": _price(reader, entry["price"], f"{key}.price")} if "price" in entry else {}
    money |= {"budget": _budget(reader, entry, f"{key}.budget")} if "budget" in entry else {}
    environ, secrets = surroundings
    return model_entry_listing(reader, entry, key, money=money, environ=environ, secrets=secrets)


def _listing(reader: TableReader, entry: Table, key: str, *, address: Any, secrets: Collection[str]) -> Listing:
    reader.refuse_unknown(entry, key, PROVIDER_KEYS)
    _refuse_unknown_limits(reader, entry, key)
    offered = {name: value for name, value in entry.items() if name in OFFER_KEYS}
    offered["price"] = _price(reader, entry.get("price", "0"), f"{key}.price")
    reached = {name: value for name, value in entry.items() if name in Endpoint.__struct_fields__}
    endpoint = reader.convert(reached, key, Endpoint)
    provider = reader.convert(offered | {"address": shown_url(address)}, key, Provider)
    if not provider.services:
        raise reader.error(f"{key}.services", "expected at least one service")
    terms = {name: getattr(endpoint, name) for name in CallTerms.__struct_fields__}
    return Listing(
        provider=provider,
        transport=_transport(reader, provider, endpoint, key, secrets),
        budget=_budget(reader, entry, f"{key}.budget"),
        **terms,
    )


def _amount(reader: TableReader, table: Table, name: str) -> Micros | None:
    return _price(reader, table[name], name) if name in table else None


def _budget(reader: TableReader, table: Table, key: str = "budget") -> str | None:
    """Return a budget as it is written, once it is known that it can be read."""
    if "budget" not in table:
        return None
    written = table["budget"]
    if not isinstance(written, str) or "/" not in written:
        _price(reader, written, key)
    try:
        read_cap(written)
    except ValueError as error:
        raise reader.error(key, str(error)) from error
    return written


def _tolerance(reader: TableReader, document: Table) -> float:
    key = "price_tolerance"
    tolerance: Any = document.get(key, 2.0)
    if type(tolerance) not in {int, float}:
        raise reader.error(key, f"expected float, got {toml_type(tolerance)}")
    try:
        check_tolerance(tolerance)
    except ValueError as error:
        raise reader.error(key, str(error)) from error
    return tolerance


def _max_waiting(reader: TableReader, document: Table) -> int:
    key = "max_waiting"
    count: Any = document.get(key, MAX_WAITING)
    if type(count) is not int:
        raise reader.error(key, f"expected integer, got {toml_type(count)}")
    try:
        check_count(key, count, least=0, unit="requests")
    except ValueError as error:
        raise reader.error(key, str(error)) from error
    return count


def _warmth(reader: TableReader, document: Table) -> bool:
    warmth: Any = document.get("warmth", True)
    if not isinstance(warmth, bool):
        raise reader.error("warmth", f"expected boolean, got {toml_type(warmth)}")
    return warmth


def _price(reader: TableReader, price: Any, key: str) -> Micros:
    if not isinstance(price, str):
        why = " (a float cannot hold most cents exactly)" if isinstance(price, float) else ""
        raise reader.error(key, f'expected a string such as "0.002", got {toml_type(price)}{why}')
    try:
        return to_micros(price)
    except ValueError as error:
        raise reader.error(key, str(error)) from error


class MakeHttp:
    """Makes the transport of one provider of a file. Its `repr` shows no secret."""

    def __init__(self, provider: Provider, endpoint: Endpoint, secrets: Collection[str]) -> None:
        self._provider = provider
        self._endpoint = endpoint
        self._secrets = tuple(sorted(secrets))

    def __repr__(self) -> str:
        return f"MakeHttp({self._provider.name} at {self._provider.address})"

    def __call__(self) -> Transport:
        # Imported here, so that a market made in Python does not need aiohttp.
        from actors.transports.http import HttpTransport  # noqa: PLC0415

        endpoint = self._endpoint
        return HttpTransport(
            self._provider.name,
            endpoint.url,
            paid=self._provider.price > 0 or endpoint.tariff is not None,
            idempotent=endpoint.idempotent,
            health_path=endpoint.health_path,
            max_connections=endpoint.max_concurrency,
            max_reply_bytes=endpoint.max_reply_bytes,
            charges_errors=endpoint.charges_errors,
            headers=endpoint.headers,
            secrets=self._secrets,
        )


def _transport(
    reader: TableReader, provider: Provider, endpoint: Endpoint, key: str, secrets: Collection[str]
) -> Callable[[], Transport]:
    make = MakeHttp(provider, endpoint, secrets)
    try:
        make()  # It opens nothing until it is used; but a bad URL is reported here, and not at the first call.
    except ValueError as error:
        # An error may quote what was put in, and so would its traceback.
        raise reader.error(key, Secrets(secrets).mask(str(error))) from None
    return make
