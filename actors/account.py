"""Money under a cap: reserved before a call, then settled, released or held. Pure integer arithmetic."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from actors.errors import BudgetExceeded, Charged
from actors.money import Micros, usd

if TYPE_CHECKING:
    from collections.abc import Iterator


class Booking(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of the money of one call, in every account that it draws on.

    Of what was `reserved` for it, and of what `was_held` from an earlier call that it repeats, `cost` is spent and
    `held` stays held; the rest is free again.
    """

    reserved: Micros
    was_held: Micros = 0
    cost: Micros = 0
    held: Micros = 0


def booking_of_reply(cost: Micros | None, *, reserved: Micros, repeats: Micros = 0) -> Booking:
    """Book a call that was answered; a provider that states no `cost` is paid what was set aside for it.

    `repeats` is what was held for an earlier call under the same idempotency key, which is paid for only once.
    """
    return Booking(reserved=reserved, was_held=repeats, cost=reserved + repeats if cost is None else cost)


def booking_of_failure(charged: Charged, *, reserved: Micros, repeats: Micros = 0) -> Booking:
    """Book a call that was not answered; see `booking_of_reply` for `repeats`.

    A repetition that was not charged does not say whether the call before it was: that stays held.

    >>> booking_of_failure("held", reserved=5).held, booking_of_failure("no", reserved=0, repeats=5).held
    (5, 5)
    """
    if charged == "yes":
        return Booking(reserved=reserved, was_held=repeats, cost=reserved + repeats)
    return Booking(reserved=reserved, was_held=repeats, held=repeats + (reserved if charged == "held" else 0))


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """What may be spent under one cap, and what became of it; all amounts are micro-units.

    `reserved` is promised to calls under way, `held` belongs to calls whose fate is unknown, `settled` is spent.
    `reserved + held + settled <= cap` always, as long as no call costs more than was reserved for it. A cap of None
    allows anything.

    >>> account = Account(name="request", cap=500)
    >>> account = account.reserve(200).book(Booking(reserved=200, cost=150))
    >>> account.settled, account.available
    (150, 350)
    """

    name: str
    cap: Micros | None = None
    reserved: Micros = 0
    held: Micros = 0
    settled: Micros = 0

    @property
    def available(self) -> Micros | None:
        """What can still be reserved; None where there is no cap."""
        return None if self.cap is None else max(0, self.cap - self.reserved - self.held - self.settled)

    def allows(self, amount: Micros) -> bool:
        """Tell whether `amount` can be reserved now."""
        return self.cap is None or amount <= max(0, self.cap - self.reserved - self.held - self.settled)

    def may_allow_later(self, amount: Micros) -> bool:
        """Tell whether `amount` could be reserved if calls under way gave back what is reserved for them."""
        return self.cap is None or amount <= self.cap - self.held - self.settled

    def reserve(self, amount: Micros) -> Account:
        """Promise `amount` to a call; raises `BudgetExceeded` where the cap does not allow it."""
        if not self.allows(amount):
            raise BudgetExceeded(needed=amount, available=self.available or 0, cap=self.name)
        return msgspec.structs.replace(self, reserved=self.reserved + amount)

    def book(self, booking: Booking) -> Account:
        """Enter what became of the money of one call."""
        return msgspec.structs.replace(
            self,
            reserved=self.reserved - booking.reserved,
            held=self.held - booking.was_held + booking.held,
            settled=self.settled + booking.cost,
        )

    def __str__(self) -> str:
        cap = "no cap" if self.cap is None else f"cap ${usd(self.cap)}"
        return (
            f"{self.name}: {cap}, settled ${usd(self.settled)}, held ${usd(self.held)}, reserved ${usd(self.reserved)}"
        )


class Purse:
    """The one place where an account is kept while requests draw on it."""

    __slots__ = ("account", "requests")

    def __init__(self, account: Account) -> None:
        self.account = account
        self.requests = 0
        """The requests under way that draw on it."""

    def broken_invariants(self) -> Iterator[str]:
        """Name what does not hold although no request is under way: nothing may be reserved."""
        account = self.account
        if self.requests:
            yield f"{self.requests} requests never left account {account.name!r}"
        if account.reserved:
            yield f"{account.reserved} micro-units are still reserved in account {account.name!r}"
        if account.held < 0 or account.settled < 0:
            yield f"more was given back to account {account.name!r} than it had: {account}"

    def __repr__(self) -> str:
        return f"<Purse {self.account}; {self.requests} requests under way>"
