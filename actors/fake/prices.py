"""What a call costs, in exact fractions of a dollar: a computation of its own, to check others against."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

MILLION = 1_000_000
NAMES = ("input", "cache_read", "cache_write", "cache_write_1h", "output", "reasoning", "per_call")
PARENTS = {"cache_read": "input", "cache_write": "input", "cache_write_1h": "cache_write", "reasoning": "output"}
"""What a kind of token costs as much as, unless it has a price of its own."""


class FakeUsage(msgspec.Struct, frozen=True, kw_only=True):
    """The tokens of one call. The four kinds of input are apart from one another; reasoning is part of the output."""

    input: int = 0
    """Input tokens that no cache served or stored."""
    cache_read: int = 0
    cache_write: int = 0
    cache_write_1h: int = 0
    output: int = 0
    """All output tokens, those of reasoning included."""
    reasoning: int = 0

    @property
    def all_input(self) -> int:
        """All input tokens, cached or not."""
        return self.input + self.cache_read + self.cache_write + self.cache_write_1h

    def after(self, output: int) -> FakeUsage:
        """Return the usage of a call that ended after so many tokens of output."""
        if output >= self.output:
            return self
        return msgspec.structs.replace(self, output=output, reasoning=min(output, self.reasoning))


class FakeTier(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Prices for the whole of a call with more than `above` input tokens; what is absent is as in the price."""

    above: int
    input: str | None = None
    output: str | None = None
    cache_read: str | None = None
    cache_write: str | None = None
    cache_write_1h: str | None = None
    reasoning: str | None = None
    per_call: str | None = None


class FakePrice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Dollars for a million tokens of each kind, as decimal text, and dollars `per_call`.

    Without a price of their own, cached tokens cost as other input does, and reasoning as other output does.
    """

    input: str = "0"
    output: str = "0"
    cache_read: str | None = None
    cache_write: str | None = None
    cache_write_1h: str | None = None
    reasoning: str | None = None
    per_call: str = "0"
    tiers: tuple[FakeTier, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what is no price."""
        FakeRates(self)


class FakeRates:
    """A price made ready for computing: whole multiples of one small unit, so that sums are exact and quick."""

    def __init__(self, price: FakePrice) -> None:
        """Raises ValueError for texts that are no decimal numbers from 0 up."""
        tiers = sorted(price.tiers, key=lambda tier: tier.above)
        rows = [(-1, _fractions(price, None)), *((tier.above, _fractions(price, tier)) for tier in tiers)]
        self._unit = math.lcm(*(one.denominator for _, row in rows for one in row))
        self._rows = [(above, [int(one * self._unit) for one in row]) for above, row in reversed(rows)]

    def charge(self, usage: FakeUsage) -> Fraction:
        """Return the dollars that a call costs.

        >>> rates = FakeRates(FakePrice(input="0.25", output="2", cache_read="0.025"))
        >>> rates.charge(FakeUsage(input=100, cache_read=1024, output=30))
        Fraction(553, 5000000)
        """
        total = usage.all_input
        row = next(row for above, row in self._rows if total > above)
        counts = (
            usage.input,
            usage.cache_read,
            usage.cache_write,
            usage.cache_write_1h,
            usage.output - usage.reasoning,
            usage.reasoning,
            1,
        )
        return Fraction(sum(rate * count for rate, count in zip(row, counts, strict=True)), self._unit)


def _fractions(price: FakePrice, tier: FakeTier | None) -> Sequence[Fraction]:
    """Return the dollars for one unit of each of `NAMES`."""
    return [_amount(name, _text(name, price, tier)) / (1 if name == "per_call" else MILLION) for name in NAMES]


def _text(name: str, price: FakePrice, tier: FakeTier | None) -> str:
    told = None if tier is None else getattr(tier, name)
    if told is None:
        told = getattr(price, name)
    return _text(PARENTS[name], price, tier) if told is None else told


def _amount(name: str, text: str) -> Fraction:
    try:
        amount = Fraction(text)
    except (ValueError, ZeroDivisionError):
        amount = Fraction(-1)
    if amount < 0:
        raise ValueError(f"price {name}: expected decimal text from 0 up, such as '0.25', got {text!r}")
    return amount


def micro_text(dollars: Fraction) -> str:
    """Return an amount in micro-dollars: exact decimal text, or a fraction where no decimal is exact.

    >>> micro_text(Fraction(693, 6250000)), micro_text(Fraction(1, 3_000_000))
    ('110.88', '1/3')
    """
    micros = dollars * MILLION
    denominator = micros.denominator
    for prime in (2, 5):
        while denominator % prime == 0:
            denominator //= prime
    if denominator != 1:
        return str(micros)
    places = 0
    while (micros * 10**places).denominator != 1:
        places += 1
    digits = f"{int(micros * 10**places):0{places + 1}d}"
    return digits if places == 0 else f"{digits[:-places]}.{digits[-places:]}"
