"""One account in a book: what may be spent, and where every micro-unit that was ever reserved has gone.

A page is changed in place, because a call turns four of them twice; whoever asks gets a `Statement`, which is a value.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from actors.ledger.account import Account
from actors.money import Micros  # noqa: TC001 - msgspec resolves the annotations below.

if TYPE_CHECKING:
    from collections.abc import Iterator


class Statement(Account, frozen=True, kw_only=True):
    """The figures of an account at one moment, in micro-units; what was settled and so on counts since it was opened.

    `reserved_ever == settled - overcharged + released + held + reserved`: what was reserved was spent, is free again,
    is kept for calls whose outcome is unknown, or belongs to calls under way. `overcharged` is what calls cost beyond
    what was reserved for them.
    """

    reserved_ever: Micros = 0
    released: Micros = 0
    overcharged: Micros = 0
    is_closed: bool = False

    @property
    def used(self) -> Micros:
        """What counts against the cap."""
        return self.reserved + self.held + self.settled

    def broken_invariants(self) -> Iterator[str]:
        """Name what does not add up."""
        gone = self.settled - self.overcharged + self.released + self.held + self.reserved
        if self.reserved_ever != gone:
            yield f"{self.reserved_ever} micro-units were ever reserved in {self.name!r}, and {gone} accounted for"
        figures = (self.reserved, self.held, self.settled, self.released, self.overcharged, self.reserved_ever)
        if min(figures) < 0:
            yield f"a figure of account {self.name!r} is below zero: {self!r}"


class AccountState:
    """One account, as it is kept."""

    __slots__ = (
        "alert_at",
        "beyond",
        "cap",
        "held",
        "is_alerted",
        "is_closed",
        "limit",
        "name",
        "on_hold",
        "open",
        "overcharged",
        "released",
        "reserved",
        "reserved_ever",
        "settled",
        "used",
    )

    def __init__(self, name: str, cap: Micros | None, *, alert_percent: int = 80) -> None:
        self.name = name
        self.reserved = self.held = self.settled = self.used = 0
        self.reserved_ever = self.released = self.overcharged = 0
        self.open = self.on_hold = 0
        """How many reservations belong to calls under way, and how many are held."""
        self.beyond = 0
        """How far it may be over its cap beside what was overcharged: the cap was lowered, or a call charged late."""
        self.is_alerted = self.is_closed = False
        self.set_cap(cap, alert_percent=alert_percent)

    def set_cap(self, cap: Micros | None, *, alert_percent: int) -> None:
        """Let so much be spent from now on; less than is used already stops everything."""
        self.cap = cap
        self.limit: float = math.inf if cap is None else cap
        # Rounded up, and so the first micro-unit at which the part is reached.
        self.alert_at: float = math.inf if cap is None else max(1, -(-cap * alert_percent // 100))
        if cap is not None and self.used > cap:
            self.beyond = max(self.beyond, self.used - cap)

    def broken_invariants(self) -> Iterator[str]:
        """Name what does not add up, and the account that is over its cap for no good reason."""
        yield from self.statement().broken_invariants()
        if self.used > self.limit + self.overcharged + self.beyond:
            yield f"account {self.name!r} is over its cap: {self!r}"

    def may_allow_later(self, amount: Micros) -> bool:
        """Tell whether `amount` could be reserved if calls under way gave back what is reserved for them."""
        return self.used - self.reserved + amount <= self.limit

    @property
    def available(self) -> Micros:
        """What can be reserved, of an account that has a cap."""
        return max(0, (self.cap or 0) - self.used)

    def statement(self) -> Statement:
        """Return the figures as they are now."""
        return Statement(
            name=self.name,
            cap=self.cap,
            reserved=self.reserved,
            held=self.held,
            settled=self.settled,
            reserved_ever=self.reserved_ever,
            released=self.released,
            overcharged=self.overcharged,
            is_closed=self.is_closed,
        )

    def __repr__(self) -> str:
        return f"<Page {self.statement()}>"
