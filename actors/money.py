"""Amounts of money: given as dollars, kept and read as integers of micro-units, so that sums and caps are exact."""

from __future__ import annotations

import functools
from decimal import Decimal, InvalidOperation
from enum import IntEnum
from typing import TYPE_CHECKING, Any, TypeAlias, overload

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

    _IntBase = int
else:
    # msgspec writes and reads the members of an enumeration as plain integers, and those of no other subclass of int.
    # With this base an amount in a message needs no hooks, in the codecs of a caller either.
    _IntBase = IntEnum

_new_int = int.__new__


class Micros(_IntBase):
    """An amount of money, in micro-units (millionths of a dollar): what is read; `Amount` is what is given.

    It is an int that prints as dollars. Sums, differences, and multiples by a whole number are Micros again; so is what
    `//` and `%` by a whole number give, in whole micro-units. `//` by another amount counts how often that is in it,
    and `/` gives a float, which no amount takes.

    >>> price = Micros(20_000)
    >>> print(price, price * 3, sum([price, price]), -price)
    $0.02 $0.06 $0.04 -$0.02
    >>> price, price + price, price // 3, price // Micros(5_000)
    (Micros(20000), Micros(40000), Micros(6666), 4)
    """

    if not TYPE_CHECKING:
        ZERO = 0

        @classmethod
        def _missing_(cls, value: Any) -> Micros:
            """Make any other amount; they are too many to be listed."""
            if type(value) is not int:
                raise TypeError(
                    f"Micros takes a whole number of micro-units, got {value!r:.100}; to_micros takes dollars"
                )
            return _new_int(cls, value)

    def __add__(self, other: int) -> Micros:
        return _micros(int.__add__(self, other), other)

    def __radd__(self, other: int) -> Micros:
        return _micros(int.__radd__(self, other), other)

    def __sub__(self, other: int) -> Micros:
        return _micros(int.__sub__(self, other), other)

    def __rsub__(self, other: int) -> Micros:
        return _micros(int.__rsub__(self, other), other)

    def __mul__(self, other: int) -> Micros:
        return _micros(int.__mul__(self, other), other)

    def __rmul__(self, other: int) -> Micros:
        return _micros(int.__rmul__(self, other), other)

    @overload
    def __floordiv__(self, other: Micros) -> int: ...  # type: ignore[overload-overlap]
    @overload
    def __floordiv__(self, other: int) -> Micros: ...
    def __floordiv__(self, other: int) -> int:
        times = int.__floordiv__(self, other)
        return times if isinstance(other, Micros) else _micros(times)

    def __mod__(self, other: int) -> Micros:
        return _micros(int.__mod__(self, other), other)

    def __divmod__(self, other: int) -> tuple[int, Micros]:
        times, rest = int.__divmod__(self, other)
        return times if isinstance(other, Micros) else _micros(times), _micros(rest)

    def __round__(self, ndigits: Any = None) -> Micros:
        return _micros(int.__round__(self, *(() if ndigits is None else (ndigits,))))

    def __neg__(self) -> Micros:
        return _micros(int.__neg__(self))

    def __pos__(self) -> Micros:
        return self

    def __abs__(self) -> Micros:
        return _micros(int.__abs__(self))

    def __str__(self) -> str:
        return f"{'-' if self < 0 else ''}${usd(abs(self))}"

    def __format__(self, format_spec: str) -> str:
        return format(str(self), format_spec)

    def __repr__(self) -> str:
        return f"Micros({int.__repr__(self)})"


if TYPE_CHECKING:
    Amount: TypeAlias = str | int | Decimal
    """An amount as it is given: "0.20", 2 (whole dollars, at most 1,000), Decimal("0.20") or Micros. Never a float."""

    class AmountField:
        """The type of a field of a Struct that is given as an `Amount` and read as `Micros`."""

        def __get__(self, instance: object, owner: object = None) -> Micros: ...
        def __set__(self, instance: object, value: Amount) -> None: ...

    class OptionalAmountField:
        """The same for a field that may be None."""

        def __get__(self, instance: object, owner: object = None) -> Micros | None: ...
        def __set__(self, instance: object, value: Amount | None) -> None: ...
else:
    Micros._value_ = property(int)  # What msgspec and pickle write of a member.
    # What msgspec decodes. It knows no union of str and Decimal: both are strings on the wire. A whole number in an
    # encoded Struct is what a Micros was written as, and so it means micro-units there.
    Amount: TypeAlias = str | int
    AmountField: TypeAlias = str | Micros
    OptionalAmountField: TypeAlias = str | Micros | None

AMOUNT_TYPES: tuple[type, ...] = (str, int, Decimal)
MICROS_PER_DOLLAR = 1_000_000
MAX_MICROS = Micros(2**63 - 1)
"""The largest signed 64-bit integer: 9.2 trillion dollars."""
MAX_BARE_DOLLARS = 1_000
"""Above this, a plain int is more likely micro-units by mistake than dollars."""
MAX_AMOUNT_TEXT = 1_000
"""Characters of the longest text that is read as an amount."""
MAX_CACHED_TEXT = 40
"""Characters of the longest text whose amount is remembered; the texts of providers are of any length."""
ZERO = Micros(0)


def _micros(number: int, other: object = None) -> Micros:
    """Return an int as Micros, and what is no int, such as NotImplemented, as it is.

    Raises TypeError if `other` is a Decimal: the sum or product would be micro-units, which every amount takes for
    dollars.
    """
    if type(number) is int:
        return _new_int(Micros, number)
    if isinstance(other, Decimal):
        raise TypeError(f"Micros and Decimal cannot be mixed; {other} dollars are to_micros({other!r})")
    return number  # type: ignore[return-value]  # pyright: ignore[reportReturnType]


micros_of: Callable[[int], Micros] = functools.partial(_new_int, Micros)
"""Returns a whole number of micro-units as Micros, without a check: the fast way for figures of our own."""


def to_micros(amount: Amount) -> Micros:
    """Return `amount` in micro-units, exactly; an int means whole dollars, and Micros is what it is.

    Raises TypeError for a float or a bool, and ValueError for an amount that is not a number, negative, not
    finite, finer than 6 decimals or above `MAX_MICROS`; also for a plain int above 1,000, which may mean either.

    >>> to_micros("0.20"), to_micros(2), to_micros(Decimal("0.0015")), to_micros(Micros(5_000))
    (Micros(200000), Micros(2000000), Micros(1500), Micros(5000))
    >>> to_micros(5_000)
    Traceback (most recent call last):
    ValueError: 5000 as dollars is $5,000.00; as micro-units it is $0.005; write "5000" or Micros(5000)
    """
    if type(amount) is str and len(amount) <= MAX_CACHED_TEXT:
        return _micros_of_text(amount)
    return _read(amount, rounds_up=False)


def cost_of(cost: Amount) -> Micros:
    """Return what a call cost in micro-units. A cost that is finer than a micro-unit rounds up; raises as `to_micros`.

    >>> cost_of("0.0000301"), cost_of("1e-9")
    (Micros(31), Micros(1))
    """
    if type(cost) is str and len(cost) <= MAX_CACHED_TEXT:
        return _cost_of_text(cost)
    return _read(cost, rounds_up=True)


def take_amount(struct: msgspec.Struct, field: str) -> None:
    """Convert what a field of a new struct was given to Micros; raises as `to_micros`, and names the field."""
    given: Any = getattr(struct, field)
    if type(given) is Micros and 0 <= given <= MAX_MICROS:
        return  # As in most messages between actors.
    try:
        amount = _micros_of_text(given) if type(given) is str and len(given) <= MAX_CACHED_TEXT else to_micros(given)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{field}: {error}") from None
    msgspec.structs.force_setattr(struct, field, amount)


def amount_default(amount: Micros | None) -> Any:
    """Return the default of an `AmountField`, which a type checker takes for the field itself."""
    return amount


@functools.lru_cache(maxsize=1024)
def _micros_of_text(amount: str) -> Micros:
    """Cache the result: most programs give every request the same budget."""
    return _read(amount, rounds_up=False)


@functools.lru_cache(maxsize=1024)
def _cost_of_text(cost: str) -> Micros:
    """Cache the result: many calls cost the same."""
    return _read(cost, rounds_up=True)


def _read(amount: Amount, *, rounds_up: bool) -> Micros:
    if isinstance(amount, Micros):
        if not 0 <= amount <= MAX_MICROS:
            raise ValueError(
                f"amount {amount!r} is {'negative' if amount < 0 else 'too large'}; give one from 0 to {MAX_MICROS}"
            )
        return amount
    if isinstance(amount, float):
        raise TypeError(
            f"amount {amount!r} is a float, which cannot hold most cents exactly; "
            f'write it as a string, "{amount!r}", or as a Decimal'
        )
    if type(amount) is bool or not isinstance(amount, AMOUNT_TYPES):
        raise TypeError(f"amount must be a str, int (whole dollars), Decimal or Micros, got {amount!r:.100}")
    if isinstance(amount, str) and len(amount) > MAX_AMOUNT_TEXT:
        raise ValueError(f'amount {amount!r:.100} has {len(amount)} characters; write it like "0.20"')
    try:
        value = Decimal(amount)
    except InvalidOperation:
        raise ValueError(f'amount {amount!r:.100} is not a decimal number; write it like "0.20"') from None
    micros = _scaled(value, amount, rounds_up=rounds_up)
    if isinstance(amount, int) and amount > MAX_BARE_DOLLARS:
        raise ValueError(
            f"{amount} as dollars is ${amount:,}.00; as micro-units it is {Micros(amount)}; "
            f'write "{amount}" or Micros({amount})'
        )
    return micros


def _scaled(value: Decimal, amount: Amount, *, rounds_up: bool) -> Micros:
    """Scale by digits and exponent, exactly; Decimal arithmetic would round to its context."""
    if not value.is_finite():
        raise ValueError(f"amount {amount!r:.100} is not finite; give a number of dollars")
    if value == 0:
        return ZERO
    if value < 0:
        raise ValueError(f"amount {amount!r:.100} is negative; give an amount of at least 0")
    # Both checks of magnitude come before a power of ten is computed: "1e999999999" is a short string.
    if value.adjusted() > 13:
        raise ValueError(f"amount {amount!r:.100} is above the largest amount, {MAX_MICROS}")
    too_fine = f"amount {amount!r:.100} has more than 6 decimals; a micro-unit is the smallest amount"
    if value.adjusted() < -6:
        if rounds_up:
            return micros_of(1)
        raise ValueError(too_fine)
    _, digits, exponent = value.as_tuple()
    shift = int(exponent) + 6
    whole, finer = (digits, ()) if shift >= 0 else (digits[:shift], digits[shift:])
    micros = int("".join(map(str, whole)) or "0") * int(10 ** max(0, shift))
    if any(finer):
        if not rounds_up:
            raise ValueError(too_fine)
        micros += 1
    if micros > MAX_MICROS:
        raise ValueError(f"amount {amount!r:.100} is above the largest amount, {MAX_MICROS}")
    return micros_of(micros)


def usd(micros: int) -> str:
    """Return the exact decimal text of `micros`: at least cents, and no trailing zeros beyond them.

    >>> usd(200_000), usd(1_500), usd(12_000_000), usd(-50_000)
    ('0.20', '0.0015', '12.00', '-0.05')
    """
    dollars, fraction = divmod(abs(int(micros)), MICROS_PER_DOLLAR)
    decimals = f"{fraction:06d}".rstrip("0").ljust(2, "0")
    return f"{'-' if micros < 0 else ''}{dollars}.{decimals}"
