"""Who offers what on AGIRAILS, asked of its public list: a `Registry` for `Discovery`.

What the list says of a provider is its word: price, capabilities, reputation, how fast and how reliably it has worked.
Whether it is there is not in it, and is left to what calls show.
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
from actors.money import Amount, Micros, to_micros
from actors.providers.provider import Provider
from runtime import logger_for

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE, MAX_PAGES = 100, 20
"""The providers that are asked for at once, and how often for one service."""
MAX_PAGE_BYTES = 2 * 1024 * 1024
"""What one answer may be at most: to read it, the loop stands still."""
LEFT_ALONE = 3600.0
"""Seconds that a list is left alone at most, whatever it asks for."""
PER_CALL = frozenset({None, "call", "job", "request", "task", "transaction"})
"""The units that are a price for each call; any other says nothing of what a call costs."""

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
    """One provider as the list has it; a field that is not named here is not needed."""

    slug: str
    wallet_address: str
    published_config: _Config
    stats: _Stats | None = None


class AgirailsRegistry:
    """Looks up the providers of a service in the list at `url`, and has each made a listing by `list_as`.

    `list_as` is mostly `AgirailsNetwork.listing`. A row that cannot be used is left out, with a line in the log that
    says why; so is who wants another currency, another way of payment, or a price that is not for a call. A provider
    without any transaction is listed without a record: with the reputation and success rate that `Provider` assumes.

    A list that asks to be left alone is, for as long as its `Retry-After` says: look-ups fail meanwhile without being
    sent. Raises a member of `CallFailed` where the list cannot be had within `timeout` seconds a page; needs the
    extra `http` or `agirails`.
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
            raise ValueError(f"url must be like https://agirails.app/api/v1/discover, without a query, got {url!r}")
        self._list_as = list_as
        self._url = url
        self._timeout = timeout
        self._leave_alone_until = 0.0

    def __repr__(self) -> str:
        return f"AgirailsRegistry({self._url!r})"

    async def __call__(self, service: str) -> list[Listing]:
        """Return who offers `service`, in the order of the list."""
        left = self._leave_alone_until - asyncio.get_running_loop().time()
        if left > 0:
            raise Throttled(f"{self._url} asks to be left alone for {left:.1f} s more", retry_after=left)
        listings: dict[str, Listing] = {}
        addresses: set[str] = set()
        for page in range(MAX_PAGES):
            rows, total = await self._page(service, offset=page * PAGE)
            for row in rows[:PAGE]:
                listing = self._listed(row, service)
                # What was bought is known by the address: two names at one would be one purchase.
                if listing is not None and listing.provider.address.lower() not in addresses:
                    addresses.add(listing.provider.address.lower())
                    listings.setdefault(listing.provider.name, listing)
            if not rows or (page + 1) * PAGE >= total:
                break
        return list(listings.values())

    async def _page(self, service: str, *, offset: int) -> tuple[list[Any], int]:
        """Return so many rows, as they came, and how many there are in all."""
        # Imported here, so that whoever does not look anything up does not need httpx.
        from actors.transports.http import HttpTransport  # noqa: PLC0415

        query = urlencode({"capability": service, "limit": PAGE, "offset": offset}, errors="replace")
        door = HttpTransport(
            "agirails", f"{self._url}?{query}", paid=False, idempotent="repeatable", max_reply_bytes=MAX_PAGE_BYTES
        )
        try:
            body = await door.fetch(timeout=self._timeout)
        except CallFailed as error:
            until = asyncio.get_running_loop().time() + min(error.retry_after or 0.0, LEFT_ALONE)
            self._leave_alone_until = max(self._leave_alone_until, until)
            raise
        finally:
            await door.aclose()
        return _rows_in(body, service)

    def _listed(self, row: Any, service: str) -> Listing | None:
        try:
            provider = provider_of(row)
            if service not in provider.services:
                return None  # The list searches more widely than we do.
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
    ('alder', 100000, 91.5, 0.75)
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
    """Return what a call costs, and no less than what AGIRAILS lets anybody pay."""
    if pricing is None or pricing.amount is None:
        raise ValueError("it names no price")
    if pricing.currency not in {None, "USDC"}:
        raise ValueError(f"it wants to be paid in {pricing.currency!r}, not in USDC")
    if pricing.unit not in PER_CALL:
        raise ValueError(f"its price is for a {pricing.unit!r}, not for a call")
    return max(MIN_PRICE, to_micros(cast("Amount", pricing.amount)))


def _record(stats: _Stats) -> Iterator[tuple[str, Any]]:
    """Yield what a provider's record says, field by field, of what is known."""
    ended = stats.completed_transactions + stats.failed_transactions
    if min(stats.completed_transactions, stats.failed_transactions) < 0:
        raise ValueError("it counts less than no transaction")
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
    """Read a number exactly, as a float could not; one beyond reading stays a text, and spoils its row alone."""
    try:
        return Decimal(text)
    except InvalidOperation:
        return text


def _int(text: str) -> int | str:
    try:
        return int(text)
    except ValueError:  # It has thousands of digits.
        return text
