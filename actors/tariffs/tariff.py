"""A tariff: what a provider takes for each token and each call, and what a call costs by it, exactly."""

from __future__ import annotations

import functools
import hashlib
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import msgspec

from actors.money import MAX_MICROS, Micros, micros_of

if TYPE_CHECKING:
    from actors.tariffs.demand import Demand
    from actors.tariffs.usage import Usage

TOKENS = 1_000_000
"""Prices of tokens are in dollars for so many of them."""
DECIMALS = 18
"""The most decimals of a price; the longest in the price lists that are known have as many."""
UNITS_PER_MICRO = 10**DECIMALS
"""Sums are made in whole units of 10**-24 dollars: a price of so many decimals for a million tokens, for one token."""
MAX_PRICE_TEXT = 40
MAX_PRICE_DIGITS = 12
"""The most digits before the point: no price of a million tokens, or of a call, is a trillion dollars."""
DIGEST_LENGTH = 16
MOST_OUTPUT = 2**40
"""No answer has so many tokens: what output that costs nothing is bounded by."""

PRICES = ("input", "output", "cache_read", "cache_write", "cache_write_1h", "reasoning")

if TYPE_CHECKING:
    Price: TypeAlias = str | int | Decimal
    """A price as it is given: dollars as text ("0.25"), a whole number or a Decimal. Never a float."""
else:
    Price: TypeAlias = str | int  # What msgspec decodes.


class Tier(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The prices of a call with more than `above` tokens of input, cached ones included; None is as without the tier.

    They count for all tokens of that call, and not only for those above the bound, as providers do it.
    """

    above: int
    input: Price | None = None
    output: Price | None = None
    cache_read: Price | None = None
    cache_write: Price | None = None
    cache_write_1h: Price | None = None
    reasoning: Price | None = None

    def __post_init__(self) -> None:
        above: object = self.above
        if type(above) is not int or above < 0:
            raise ValueError(f"above must be a whole number of tokens >= 0, got {above!r:.100}")
        _take_prices(self)


class TokenPrices(msgspec.Struct, frozen=True, gc=False):
    """The prices of one token of each kind, in units."""

    input: int
    output: int
    cache_read: int
    cache_write: int
    cache_write_1h: int
    reasoning: int

    @property
    def dearest_input(self) -> int:
        """The most that a token of the input can cost, wherever it comes from or goes to."""
        return max(self.input, self.cache_read, self.cache_write, self.cache_write_1h)

    @property
    def dearest_output(self) -> int:
        """The most that a token of the output can cost."""
        return max(self.output, self.reasoning)


class Tariff(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What a provider takes, in dollars for a million tokens of each kind; and `per_call`, in dollars for each call.

    A price is text, a whole number or a Decimal, with up to 18 decimals. What is not given costs as much as what it is
    a kind of: `cache_read` and `cache_write` as `input`, `cache_write_1h` as `cache_write`, `reasoning` as `output`.
    `tiers` are the prices of large calls. Raises TypeError or ValueError for a price that is none.

    >>> from actors.tariffs import Usage
    >>> tariff = Tariff(input="0.25", output="2.00", cache_read="0.025")
    >>> print(tariff.cost(Usage(input=1_000, cache_read=3_000, output=200)))
    $0.000725
    >>> print(tariff.cost(Usage(input=1)))  # A quarter of a micro-unit: what a call costs is rounded up, once.
    $0.000001
    """

    input: Price
    output: Price = "0"
    cache_read: Price | None = None
    cache_write: Price | None = None
    cache_write_1h: Price | None = None
    reasoning: Price | None = None
    per_call: Price = "0"
    tiers: tuple[Tier, ...] = ()

    def __post_init__(self) -> None:
        _take_prices(self)
        _take_price(self, "per_call")
        if type(self.tiers) is not tuple or not all(type(tier) is Tier for tier in self.tiers):
            raise TypeError(f"tiers must be a tuple of Tier, got {self.tiers!r:.100}")
        bounds = [tier.above for tier in self.tiers]
        if bounds != sorted(set(bounds)):
            raise ValueError(f"tiers must have growing bounds, got above={bounds}; list the lowest first, each once")

    @property
    def digest(self) -> str:
        """What tells it from every other tariff: 16 hexadecimal digits, the same for equal prices."""
        return digest_of(self)

    def rates(self, input_tokens: int) -> TokenPrices:
        """Return the prices of a call with so many tokens of input, in units of 10**-24 dollars for a token."""
        base, tiers = _compiled(self)
        for above, rates in tiers:
            if input_tokens > above:
                return rates
        return base

    def cost(self, usage: Usage) -> Micros:
        """Return what a call that used so much costs: exactly, and then rounded up to the next micro-unit."""
        rates = self.rates(usage.all_input)
        return self._rounded_up(
            usage.input * rates.input
            + usage.cache_read * rates.cache_read
            + usage.cache_write * rates.cache_write
            + usage.cache_write_1h * rates.cache_write_1h
            + usage.output * rates.output
            + usage.reasoning * rates.reasoning
        )

    def cache_saving(self, cached: int, *, input_tokens: int) -> Micros:
        """Return how much less `cached` tokens cost than other input, in a call with so many; rounded down.

        >>> print(Tariff(input="2.50", cache_read="0.25").cache_saving(10_000, input_tokens=12_000))
        $0.0225
        """
        rates = self.rates(input_tokens)
        return micros_of(min(max(0, cached * (rates.input - rates.cache_read)) // UNITS_PER_MICRO, int(MAX_MICROS)))

    def most(self, demand: Demand) -> Micros:
        """Return the most that a call can cost: every token at the dearest price of its kind, in any tier."""
        base, tiers = _compiled(self)
        most_input, most_output = demand.input_bound, demand.output_bound or 0
        if not tiers:
            return self._rounded_up(most_input * base.dearest_input + most_output * base.dearest_output)
        reachable = [base, *(rates for above, rates in tiers if most_input > above)]
        return self._rounded_up(
            max(most_input * rates.dearest_input + most_output * rates.dearest_output for rates in reachable)
        )

    def estimate(self, demand: Demand) -> Micros:
        """Return what a call costs presumably: nothing of its input cached, and no reasoning apart."""
        rates = self.rates(demand.input_estimate)
        return self._rounded_up(demand.input_estimate * rates.input + demand.output_estimate * rates.output)

    def most_output(self, demand: Demand, money: Micros) -> int:
        """Return how many tokens of output, over all its answers, `money` buys besides the whole input of a call."""
        base, tiers = _compiled(self)
        left = int(money) * UNITS_PER_MICRO - _units(self.per_call) * TOKENS
        bought: list[int] = []
        for rates in (base, *(rates for above, rates in tiers if demand.input_bound > above)):
            for_output = left - demand.input_bound * rates.dearest_input
            price = rates.dearest_output
            bought.append(-1 if for_output < 0 else for_output // price if price else MOST_OUTPUT)
        return max(0, min(*bought, MOST_OUTPUT))

    def _rounded_up(self, units: int) -> Micros:
        micros = -(-(units + _units(self.per_call) * TOKENS) // UNITS_PER_MICRO)
        return micros_of(min(micros, int(MAX_MICROS)))


@functools.lru_cache(maxsize=1024)
def digest_of(tariff: Tariff) -> str:
    """Return the digest of a tariff: of all its prices as they count, whatever was left out."""
    base, tiers = _compiled(tariff)
    told = (msgspec.structs.astuple(base), [(above, msgspec.structs.astuple(one)) for above, one in tiers])
    text = repr((*told, _units(tariff.per_call)))
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_LENGTH]


@functools.lru_cache(maxsize=1024)
def _compiled(tariff: Tariff) -> tuple[TokenPrices, tuple[tuple[int, TokenPrices], ...]]:
    """Return the prices of a tariff in units, and those of its tiers, the highest bound first."""
    base = _rates(tariff, tariff)
    return base, tuple((tier.above, _rates(tier, tariff)) for tier in reversed(tariff.tiers))


def _rates(given: Tariff | Tier, tariff: Tariff) -> TokenPrices:
    """Fill in what a tier does not give, and then what the tariff does not."""

    def price(name: str, otherwise: Price) -> str:
        of_tier: Price | None = getattr(given, name)
        of_tariff: Price | None = getattr(tariff, name)
        if of_tier is not None:
            return cast("str", of_tier)
        return cast("str", otherwise if of_tariff is None else of_tariff)

    own_input, own_output = price("input", "0"), price("output", "0")
    cache_write = price("cache_write", own_input)
    return TokenPrices(
        input=_units(own_input),
        output=_units(own_output),
        cache_read=_units(price("cache_read", own_input)),
        cache_write=_units(cache_write),
        cache_write_1h=_units(price("cache_write_1h", cache_write)),
        reasoning=_units(price("reasoning", own_output)),
    )


def _take_prices(struct: Tariff | Tier) -> None:
    for name in PRICES:
        if getattr(struct, name) is not None:
            _take_price(struct, name)


def _take_price(struct: Tariff | Tier, name: str) -> None:
    """Keep a price as the shortest text that means it, so that equal tariffs are equal; raise if it is none."""
    given: Any = getattr(struct, name)
    what = f"{name} of a {type(struct).__name__.lower()}"
    if type(given) is bool or not isinstance(given, str | int | Decimal):
        raise TypeError(
            f'{what} must be dollars as text, such as "0.25", a whole number or a Decimal, got {given!r:.100}'
        )
    if isinstance(given, Micros):
        raise TypeError(f'{what} is in dollars for a million tokens, and no amount; give it as text, such as "0.25"')
    text = str(given).strip() if not isinstance(given, int) or abs(given) < TOKENS else ""
    try:
        value = Decimal(text) if 0 < len(text) <= MAX_PRICE_TEXT else None
    except InvalidOperation:
        value = None
    if value is None or not value.is_finite() or value < 0 or value.adjusted() >= MAX_PRICE_DIGITS:
        raise ValueError(
            f'{what} must be a number of dollars >= 0, such as "0.25" for a million tokens, got {given!r:.100}'
        )
    msgspec.structs.force_setattr(struct, name, _shortest(value, what))


def _shortest(value: Decimal, what: str) -> str:
    """Write a price without needless zeros, by its digits alone: decimal arithmetic would round to its context."""
    _, digits, exponent = value.as_tuple()
    shift = int(exponent)
    text = "".join(map(str, digits)).lstrip("0")
    if not text:
        return "0"
    whole, fraction = (text + "0" * shift, "") if shift >= 0 else (text[:shift], text[shift:].rjust(-shift, "0"))
    fraction = fraction.rstrip("0")
    if len(fraction) > DECIMALS:
        raise ValueError(f"{what} has more than {DECIMALS} decimals: {value}")
    return f"{whole or '0'}.{fraction}" if fraction else whole


@functools.lru_cache(maxsize=1024)
def _units(price: Price) -> int:
    """Return the price of one token in units, of the price of a million in dollars as `_shortest` writes it."""
    whole, _, fraction = cast("str", price).partition(".")
    return int(whole) * UNITS_PER_MICRO + int(fraction.ljust(DECIMALS, "0") or 0)
