"""A `Registry` for `Discovery` that reads the providers of a service from the public list of AGIRAILS.

The list has what providers claim: price, capabilities, reputation, response time and success rate. It does not say
whether a provider is available; that shows in calls.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, TypeAlias, cast
from urllib.parse import urlencode, urlsplit

import msgspec

from actors.agirails.transport import MIN_PRICE
from actors.errors.families import CallFailed, RegistryDown, Throttled
from actors.market.listing import Listing
from actors.masking import shown_url
from actors.money import Amount, Micros, to_micros
from actors.providers.provider import Provider
from runtime import logger_for

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE, MAX_PAGES = 100, 20
"""The providers on one page of the list, and the most pages that are read for one service."""
MAX_PAGE_BYTES = 2 * 1024 * 1024
"""The largest page that is accepted, because the event loop stands still while one is parsed."""
MAX_RETRY_AFTER = 3600.0
"""The most seconds without look-ups that a list can ask for by `Retry-After`."""
PER_CALL = frozenset({None, "call", "job", "request", "task", "transaction"})
"""The units of a price for each call; a price in another unit does not tell the cost of a call."""

ListAs: TypeAlias = Callable[[Provider], Listing]


class _Pricing(msgspec.Struct, frozen=True):
    amount: Any = None
    currency: str | None = None
    unit: str | None = None


class _Config(msgspec.Struct, frozen=True):
    capabilities: frozenset[str] = frozenset()
    pricing: _Pricing | None = None
    payment_mode: str | None = None


class _Stats(msgspec.Struct, frozen=True):
    """`reputation_score` is from 0 to 10,000, `success_rate` from 0 to 100."""

    reputation_score: float = 0.0
    completed_transactions: int = 0
    failed_transactions: int = 0
    success_rate: float = 0.0
    avg_completion_time_seconds: float | None = None


class _Row(msgspec.Struct, frozen=True):
    """One provider on the list; fields that are not named here are not needed."""

    slug: str
    wallet_address: str
    published_config: _Config
    stats: _Stats | None = None


class AgirailsRegistry:
    """Looks up the providers of a service in the list at `url`, and makes each a listing by `list_as`.

    `list_as` is usually `AgirailsNetwork.listing`. A row that cannot be used is left out, with a log line that says
    why; so is a provider with another currency, another way of payment, or a price that is not for a call. A provider
    without any transaction has no record, and is listed with the reputation and success rate that `Provider` assumes.

    After an answer with `Retry-After`, look-ups fail for that time without being sent. Raises a subclass of
    `CallFailed` if a page of the list cannot be read within `timeout` seconds. Needs the extra `http` or `agirails`.
    """

    def __init__(
        self,
        list_as: ListAs,
        *,
        url: str = "https://agirails.app/api/v1/discover",
        timeout: float = 15.0,
    ) -> None:
        if not 0 < timeout < math.inf:
            raise ValueError(f"timeout must be > 0 seconds and finite, got {timeout}")
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
            raise ValueError(
                f"url must be like https://agirails.app/api/v1/discover, without a query, got {shown_url(url)!r}"
            )
        self._list_as = list_as
        self._url = url
        self._timeout = timeout
        self._retry_at = 0.0

    def __repr__(self) -> str:
        return f"AgirailsRegistry({shown_url(self._url)!r})"

    async def __call__(self, service: str) -> list[Listing]:
        """Return the listings of the providers of `service`, in the order of the list."""
        left = self._retry_at - asyncio.get_running_loop().time()
        if left > 0:
            raise Throttled(
                f"{shown_url(self._url)} takes no requests for {left:.1f} s more (Retry-After)", retry_after=left
            )
        listings: dict[str, Listing] = {}
        addresses: set[str] = set()
        for page in range(MAX_PAGES):
            rows, total = await self._page(service, offset=page * PAGE)
            for row in rows[:PAGE]:
                listing = self._listed(row, service)
                # A purchase is identified by the address, so two names at one address would share their purchases.
                if listing is not None and listing.provider.address.lower() not in addresses:
                    addresses.add(listing.provider.address.lower())
                    listings.setdefault(listing.provider.name, listing)
            if not rows or (page + 1) * PAGE >= total:
                break
        return list(listings.values())

    async def _page(self, service: str, *, offset: int) -> tuple[list[Any], int]:
        """Return the rows of one page, unparsed, and the number of rows on all pages."""
        # Imported here, so that aiohttp is needed only for look-ups.
        from actors.transports.http import HttpTransport  # noqa: PLC0415

        query = urlencode({"capability": service, "limit": PAGE, "offset": offset}, errors="replace")
        transport = HttpTransport(
            "agirails", f"{self._url}?{query}", paid=False, idempotent="repeatable", max_reply_bytes=MAX_PAGE_BYTES
        )
        try:
            body = await transport.fetch(timeout=self._timeout)
        except CallFailed as error:
            until = asyncio.get_running_loop().time() + min(error.retry_after or 0.0, MAX_RETRY_AFTER)
            self._retry_at = max(self._retry_at, until)
            raise
        finally:
            await transport.aclose()
        return _rows_in(body, service)

    def _listed(self, row: Any, service: str) -> Listing | None:
        try:
            provider = provider_of(row)
            if service not in provider.services:
                return None  # The list also returns providers of similar services.
            return self._list_as(provider)
        except (msgspec.ValidationError, ValueError, TypeError, ArithmeticError) as error:
            fields = cast("dict[str, Any]", row) if isinstance(row, dict) else {}
            name, why = fields.get("slug", row), str(error)
            logger_for("agirails").warning(
                "{!r:.100} is on the list of AGIRAILS and cannot be used: {:.200}", name, why
            )
            return None


def provider_of(row: Any) -> Provider:
    """Return the provider that a row of the list describes; its numbers are ints and Decimals. Raises ValueError.

    >>> provider = provider_of(
    ...     {
    ...         "slug": "alder",
    ...         "wallet_address": "0x" + "5" * 40,
    ...         "published_config": {"capabilities": ["translation"], "pricing": {"amount": Decimal("0.1")}},
    ...         "stats": {"reputation_score": 9150, "completed_transactions": 3, "failed_transactions": 1},
    ...     }
    ... )
    >>> provider.name, provider.price, provider.reputation, provider.success_rate
    ('alder', Micros(100000), 91.5, 0.75)
    """
    known = msgspec.convert(row, _Row, strict=False)
    config = known.published_config
    if config.payment_mode not in {None, "actp"}:
        raise ValueError(f"it is paid by {config.payment_mode!r}, not through an escrow")
    record = dict(_record(known.stats)) if known.stats is not None else {}
    return Provider(
        name=known.slug,
        services=config.capabilities,
        capabilities=config.capabilities,
        price=_price(config.pricing),
        address=known.wallet_address,
        **record,
    )


def _price(pricing: _Pricing | None) -> Micros:
    """Return the cost of a call, which is at least the smallest payment that AGIRAILS accepts."""
    if pricing is None or pricing.amount is None:
        raise ValueError("it has no price")
    if pricing.currency not in {None, "USDC"}:
        raise ValueError(f"its price is in {pricing.currency!r}, not in USDC")
    if pricing.unit not in PER_CALL:
        raise ValueError(f"its price is for a {pricing.unit!r}, not for a call")
    return max(MIN_PRICE, to_micros(cast("Amount", pricing.amount)))


def _record(stats: _Stats) -> Iterator[tuple[str, Any]]:
    """Yield the fields of `Provider` that the record of a provider gives, with their values."""
    ended = stats.completed_transactions + stats.failed_transactions
    if min(stats.completed_transactions, stats.failed_transactions) < 0:
        raise ValueError("its counts of transactions are negative")
    if ended > 0:
        yield "success_rate", stats.completed_transactions / ended
    elif stats.success_rate > 0:
        yield "success_rate", stats.success_rate / 100
    if ended > 0 or stats.reputation_score > 0:
        yield "reputation", stats.reputation_score / 100
    if stats.avg_completion_time_seconds is not None:
        yield "response_time", stats.avg_completion_time_seconds


def _rows_in(body: bytes, service: str) -> tuple[list[Any], int]:
    try:
        answer: Any = json.loads(body, parse_float=_decimal, parse_int=_int)
        rows = answer["agents"]
        total = answer.get("total", len(rows))
        if not isinstance(rows, list) or not isinstance(total, int):
            raise TypeError("agents must be a list, total a number")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = f"its list cannot be read: {type(error).__name__}: {error}: {body[:200]!r}"
        raise RegistryDown(service, reason) from error
    return cast("list[Any]", rows), total


def _decimal(text: str) -> Decimal | str:
    """Return a number exactly, as a float could not; one beyond the range stays a text, and fails its row only."""
    try:
        return Decimal(text)
    except InvalidOperation:
        return text


def _int(text: str) -> int | str:
    try:
        return int(text)
    except ValueError:  # The number has thousands of digits.
        return text
