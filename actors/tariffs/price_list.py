"""What models cost by the price list that comes with the package: the data of genai-prices, read when it is first used.

That data is kept by hand, and indicative: its own authors warn that it may be wrong or late. Its package is not used to
read it, because importing that takes 0.3 s and 25 MiB, and it calculates in the caller's decimal context.
"""

from __future__ import annotations

import functools
import re
from datetime import UTC, date, datetime
from importlib import resources
from typing import Any, TypeAlias

import msgspec

from actors.tariffs.tariff import Tariff

Clause: TypeAlias = tuple[str, Any]
"""How names are matched, as data: ("starts_with", "gpt-"), or ("or", clauses)."""


class ListedPrice(msgspec.Struct, frozen=True):
    """A tariff of a model, and from which date on it counts; some count at times of the day only.

    The `tariff` is decoded when it is asked for: there are thousands, and a program needs a few.
    """

    tariff: msgspec.Raw
    since: str | None = None
    at_times: bool = False

    def decoded(self) -> Tariff:
        """Return the tariff."""
        return msgspec.json.decode(self.tariff, type=Tariff)


class ListedModel(msgspec.Struct, frozen=True):
    """One model of a provider: `window` is how many tokens it takes, if that is listed."""

    id: str
    match: Clause
    prices: tuple[ListedPrice, ...]
    window: int | None = None

    def price(self, on: date) -> ListedPrice | None:
        """Return the price that counts on a date; of prices that change within a day, the dearest."""
        day = on.isoformat()
        begun = [one for one in self.prices if one.since is None or one.since <= day]
        first = max((index for index, one in enumerate(begun) if not one.at_times), default=0)
        return max(begun[first:], key=lambda one: one.decoded().rates(0).dearest_output, default=None)


class ListedProvider(msgspec.Struct, frozen=True):
    """One provider: its models, and whose models it sells besides."""

    id: str
    models: tuple[ListedModel, ...]
    provider_match: Clause | None = None
    model_match: Clause | None = None
    fallback: tuple[str, ...] = ()


class ModelPrice(msgspec.Struct, frozen=True):
    """What a model costs at a provider, by a price list: `since` is the date from which on it does, if that is told."""

    model: str
    provider: str
    tariff: Tariff
    since: str | None = None
    window: int | None = None


class PriceList(msgspec.Struct, frozen=True):
    """A price list: its `source`, and the SHA-256 of what it was made of."""

    source: str
    sha256: str
    providers: tuple[ListedProvider, ...]

    def find(self, model: str, provider: str | None = None, *, on: date | None = None) -> ModelPrice:
        """Return what a model costs on a date (None: today, in UTC); raises LookupError if it is not listed.

        Without a provider, it is the one whose own models have such names.

        >>> found = price_list().find("gpt-5-mini", on=date(2026, 1, 1))
        >>> found.provider, found.tariff.input, found.tariff.output, found.tariff.cache_read
        ('openai', '0.25', '2', '0.025')
        """
        day = datetime.now(UTC).date() if on is None else on
        seller = self._provider(model, provider)
        makers = [one for name in seller.fallback for one in self.providers if one.id == name]
        for listed in (seller, *makers):
            for one in listed.models:
                if matches(one.match, model) and (price := one.price(day)) is not None:
                    return ModelPrice(one.id, seller.id, price.decoded(), price.since, one.window)
        raise LookupError(
            f"no price of model {model!r} at {seller.id} on {day}; give its listing a tariff, "
            'such as Tariff(input="0.25", output="2")'
        )

    def _provider(self, model: str, provider: str | None) -> ListedProvider:
        if provider is None:
            found = (one for one in self.providers if one.model_match and matches(one.model_match, model))
            asked = f"model {model!r}"
        else:
            name = provider.lower()
            by_name = [one for one in self.providers if one.id == name]
            found = iter(by_name or [one for one in self.providers if matches(one.provider_match, name)])
            asked = f"provider {provider!r}"
        if (first := next(found, None)) is None:
            raise LookupError(f"{asked} is in no price list; give its listing a tariff")
        return first


def matches(clause: Clause | None, name: str) -> bool:
    """Tell whether a name matches; letters count the same in either case, but in a regex."""
    if clause is None:
        return False
    word, given = clause
    if word == "or":
        return any(matches(one, name) for one in given)
    if word == "and":
        return all(matches(one, name) for one in given)
    if word == "regex":
        return re.search(given, name) is not None
    lower, wanted = name.lower(), given.lower()
    match word:
        case "starts_with":
            return lower.startswith(wanted)
        case "ends_with":
            return lower.endswith(wanted)
        case "contains":
            return wanted in lower
        case _:
            return lower == wanted


@functools.cache
def price_list() -> PriceList:
    """Return the price list that comes with the package; its file is read at the first call."""
    data = resources.files("actors.tariffs").joinpath("data", "prices.json").read_bytes()
    return msgspec.json.decode(data, type=PriceList)
