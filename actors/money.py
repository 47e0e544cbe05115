"""Amounts of money as integers of micro-units (millionths of a dollar), so that sums and caps are exact."""

from __future__ import annotations

import functools
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, TypeAlias

Micros: TypeAlias = int
"""An amount of money in micro-units: 200_000 is $0.20."""

if TYPE_CHECKING:
    Amount: TypeAlias = str | int | Decimal
    """An amount as a caller writes it: "0.20", 2 (whole dollars) or Decimal("0.20"). Never a float."""
else:
    # msgspec cannot decode a union of str and Decimal: both are strings on the wire. A Struct with an Amount
    # stores its canonical text (`usd(to_micros(amount))`).
    Amount: TypeAlias = str | int

AMOUNT_TYPES: tuple[type, ...] = (str, int, Decimal)
MICROS_PER_DOLLAR = 1_000_000
MAX_MICROS: Micros = 2**63 - 1  # The largest signed 64-bit integer: 9.2 trillion dollars.


def to_micros(amount: Amount) -> Micros:
    """Return `amount` in micro-units, exactly; an int means whole dollars.

    Raises TypeError for a float or a bool, and ValueError for an amount that is not a number, negative, not
    finite, finer than 6 decimals or above `MAX_MICROS`.

    >>> to_micros("0.20"), to_micros(2), to_micros(Decimal("0.0015"))
    (200000, 2000000, 1500)
    """
    if type(amount) is str:
        return _micros_of_text(amount)
    if isinstance(amount, float):
        raise TypeError(
            f"amount {amount!r} is a float, which cannot hold most cents exactly; "
            f'write it as a string, "{amount!r}", or as a Decimal'
        )
    if type(amount) is bool or not isinstance(amount, AMOUNT_TYPES):
        raise TypeError(f"amount must be a str, int (whole dollars) or Decimal, got {amount!r}")
    return _micros_of(amount)


def _micros_of(amount: Amount) -> Micros:
    try:
        value = Decimal(amount)
    except InvalidOperation:
        raise ValueError(f'amount {amount!r} is not a decimal number; write it like "0.20"') from None
    return _exact_micros(value, amount)


@functools.lru_cache(maxsize=1024)
def _micros_of_text(amount: str) -> Micros:
    """Cache the result: most programs give every request the same budget."""
    return _micros_of(amount)


def _exact_micros(value: Decimal, amount: Amount) -> Micros:
    """Scale by digits and exponent, exactly; Decimal arithmetic would round to its context."""
    if not value.is_finite():
        raise ValueError(f"amount {amount!r} is not finite; give a number of dollars")
    if value == 0:
        return 0
    if value < 0:
        raise ValueError(f"amount {amount!r} is negative; give an amount of at least 0")
    # Both checks of magnitude come before a power of ten is computed: "1e999999999" is a short string.
    if value.adjusted() > 13:
        raise ValueError(f"amount {amount!r} is above the largest amount, {usd(MAX_MICROS)}")
    too_fine = f"amount {amount!r} has more than 6 decimals; a micro-unit is the smallest amount"
    if value.adjusted() < -6:
        raise ValueError(too_fine)
    _, digits, exponent = value.as_tuple()
    shift = int(exponent) + 6
    unscaled = int("".join(map(str, digits)))
    scale: int = 10 ** abs(shift)
    micros, rest = (unscaled * scale, 0) if shift >= 0 else divmod(unscaled, scale)
    if rest:
        raise ValueError(too_fine)
    if micros > MAX_MICROS:
        raise ValueError(f"amount {amount!r} is above the largest amount, {usd(MAX_MICROS)}")
    return micros


def usd(micros: Micros) -> str:
    """Return the exact decimal text of `micros`: at least cents, and no trailing zeros beyond them.

    >>> usd(200_000), usd(1_500), usd(12_000_000), usd(-50_000)
    ('0.20', '0.0015', '12.00', '-0.05')
    """
    dollars, fraction = divmod(abs(micros), MICROS_PER_DOLLAR)
    decimals = f"{fraction:06d}".rstrip("0").ljust(2, "0")
    return f"{'-' if micros < 0 else ''}{dollars}.{decimals}"
