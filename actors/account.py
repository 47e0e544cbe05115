"""Money under a cap: reserved before a call, then settled, released or held. Pure integer arithmetic."""

from __future__ import annotations

import msgspec

from actors.errors import BudgetExceeded
from actors.money import Micros, usd


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """What may be spent under one cap, and what became of it; all amounts are micro-units.

    `reserved` is promised to calls under way, `held` belongs to calls whose fate is unknown, `settled` is spent.
    `reserved + held + settled <= cap` always, as long as no call costs more than was reserved for it. A cap of None
    allows anything.

    >>> account = Account(name="request", cap=500)
    >>> account = account.reserve(200).settle(200, cost=150)
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
        return self.available is None or amount <= self.available

    def may_allow_later(self, amount: Micros) -> bool:
        """Tell whether `amount` could be reserved if calls under way gave back what is reserved for them."""
        return self.cap is None or amount <= self.cap - self.held - self.settled

    def reserve(self, amount: Micros) -> Account:
        """Promise `amount` to a call; raises `BudgetExceeded` where the cap does not allow it."""
        if not self.allows(amount):
            raise BudgetExceeded(needed=amount, available=self.available or 0, cap=self.name)
        return msgspec.structs.replace(self, reserved=self.reserved + amount)

    def settle(self, amount: Micros, *, cost: Micros) -> Account:
        """Spend `cost` of a reserved `amount`; the rest is free again."""
        return msgspec.structs.replace(self, reserved=self.reserved - amount, settled=self.settled + cost)

    def release(self, amount: Micros) -> Account:
        """Free a reserved `amount`: nothing was spent."""
        return msgspec.structs.replace(self, reserved=self.reserved - amount)

    def hold(self, amount: Micros) -> Account:
        """Keep a reserved `amount`, because nobody knows whether it was spent."""
        return msgspec.structs.replace(self, reserved=self.reserved - amount, held=self.held + amount)

    def settle_held(self, amount: Micros, *, cost: Micros) -> Account:
        """Spend `cost` of a held `amount`, now that its fate is known."""
        return msgspec.structs.replace(self, held=self.held - amount, settled=self.settled + cost)

    def __str__(self) -> str:
        cap = "no cap" if self.cap is None else f"cap ${usd(self.cap)}"
        return (
            f"{self.name}: {cap}, settled ${usd(self.settled)}, held ${usd(self.held)}, reserved ${usd(self.reserved)}"
        )
