"""`understudy prices`: show what a model costs, and by which price list."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from actors.command.bad_input import one_line
from actors.tariffs.price_list import price_list
from actors.tariffs.tariff import PRICES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from actors.tariffs.price_list import ModelPrice


def show_prices(console: Console, model: str | None, provider: str | None) -> int:
    """Print the prices of a model, and of which list they are; return 1 if it is not listed."""
    listed = price_list()
    problem: str | None = None
    if model is not None:
        try:
            for line in lines(listed.find(model, provider)):
                console.print(Text(line))
        except LookupError as error:
            problem = one_line(str(error))
            console.print(Text(problem))
    console.print(Text(f"Source: {listed.source}, SHA-256 {listed.sha256[:16]}. Prices are indicative."))
    return 0 if problem is None else 1


def lines(found: ModelPrice) -> Iterator[str]:
    """Yield what is told of a price, line by line."""
    tariff, since = found.tariff, "" if found.since is None else f", since {found.since}"
    yield f"{found.model} at {found.provider}{since}: dollars for a million tokens"
    for name in PRICES:
        if (price := getattr(tariff, name)) is not None:
            yield f"  {name:<15}{price}"
    if tariff.per_call != "0":
        yield f"  per call       {tariff.per_call}"
    for tier in tariff.tiers:
        told = ", ".join(f"{name} {price}" for name in PRICES if (price := getattr(tier, name)) is not None)
        yield f"  above {tier.above:,} tokens of input: {told}"
    yield f"Tariff {tariff.digest}"
