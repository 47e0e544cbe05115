"""`understudy providers`: show the market as a table, with a health check of every provider at the same time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
from rich import box
from rich.table import Table
from rich.text import Text

from actors.command.bad_input import one_line
from actors.errors.families import CallFailed
from actors.masking import escaped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from actors.market.listing import Listing
    from actors.market.market import Market


class CheckResult(msgspec.Struct, frozen=True):
    """A health check that took `latency` seconds; `problem` is None if the provider is healthy."""

    latency: float
    problem: str | None = None


async def check(listing: Listing, *, timeout: float) -> CheckResult:  # noqa: ASYNC109 - the transport bounds itself.
    """Check the health of one provider, within `timeout` seconds."""
    loop = asyncio.get_running_loop()
    transport = listing.transport()
    started = loop.time()
    problem: str | None = None
    try:
        await transport.check(timeout=timeout)
    except CallFailed as error:
        problem = one_line(str(error))
    except Exception as error:  # noqa: BLE001 - any error concerns this provider only, not the table.
        problem = escaped(one_line(f"{type(error).__name__}: {error}"))
    finally:
        latency = loop.time() - started
        await transport.aclose()
    return CheckResult(latency, problem)


async def check_all(market: Market) -> list[CheckResult]:
    """Check every provider of a market, all at the same time."""
    timeout = market.health.timeout
    return await asyncio.gather(*(check(listing, timeout=timeout) for listing in market.providers))


def show_providers(market: Market, console: Console) -> int:
    """Print the market with its health; return 0 if every provider is healthy, else 1."""
    results = asyncio.run(check_all(market))
    console.print(providers_table(market.providers, results))
    console.print(Text(tolerances(market)))
    return 0 if all(one.problem is None for one in results) else 1


def providers_table(listings: Sequence[Listing], results: Sequence[CheckResult]) -> Table:
    """Return a table with a row for each provider."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("provider")
    table.add_column("services")
    for heading in ("price", "reputation", "response"):
        table.add_column(heading, justify="right")
    table.add_column("limits")
    table.add_column("health now", overflow="fold")
    table.add_column("check", justify="right")
    for listing, checked in zip(listings, results, strict=True):
        provider = listing.provider
        healthy = checked.problem is None
        table.add_row(
            Text(provider.name),
            Text(", ".join(sorted(provider.services))),
            "by tariff" if listing.tariff is not None else str(provider.price) if provider.price else "free",
            f"{provider.reputation:g}",
            f"{provider.response_time:g} s",
            limits(listing),
            Text(checked.problem or "healthy", style="green" if healthy else "red"),
            f"{checked.latency * 1000:.0f} ms",
        )
    return table


def tolerances(market: Market) -> str:
    """Say which answers make a provider be left alone, and how that ends."""
    own = [
        f"{one.provider.name} {one.price_tolerance:g}" for one in market.providers if one.price_tolerance is not None
    ]
    of_some = f" ({', '.join(own)})" if own else ""
    return (
        f"A provider is left alone after an answer above {market.price_tolerance:g} times its price{of_some}, or three "
        "above it in 10 minutes; list another price to end that."
    )


def limits(listing: Listing) -> str:
    """Return the limits of a provider as text.

    >>> from actors import FunctionTransport, Listing, Provider
    >>> async def shout(call):
    ...     return call.input.upper()
    >>> provider = Provider(name="alder", services={"uppercase"})
    >>> transport = lambda: FunctionTransport(shout, paid=False, idempotent="repeatable")
    >>> limits(Listing(provider=provider, transport=transport, rate_limit=40, burst=5))
    '10 at once, 40/s (burst 5), 10 s a call'
    """
    rate = "" if listing.rate_limit is None else f"{listing.rate_limit:g}/s (burst {listing.burst}), "
    return f"{listing.max_concurrency} at once, {rate}{listing.timeout:g} s a call"
