"""The money under one cap, as figures that add up."""

from __future__ import annotations

import msgspec

from actors.money import ZERO, Micros


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """What may be spent under one cap, and what became of it.

    `reserved` is promised to calls under way, `held` is kept for calls whose outcome is unknown, `settled` is spent.
    `reserved + held + settled <= cap` always, as long as no call costs more than was reserved for it. A cap of None
    allows anything.

    >>> str(Account(name="batch", cap=Micros(500), settled=Micros(150)))
    'batch: cap $0.0005, settled $0.00015, held $0.00, reserved $0.00'
    """

    name: str
    cap: Micros | None = None
    reserved: Micros = ZERO
    held: Micros = ZERO
    settled: Micros = ZERO

    @property
    def available(self) -> Micros | None:
        """What can still be reserved; None if there is no cap."""
        return None if self.cap is None else max(ZERO, self.cap - self.reserved - self.held - self.settled)

    def __str__(self) -> str:
        cap = "no cap" if self.cap is None else f"cap {self.cap}"
        return f"{self.name}: {cap}, settled {self.settled}, held {self.held}, reserved {self.reserved}"
