"""What is told of an account: its figures at one moment, as a value."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from actors.ledger.account import Account
from actors.ledger.periods import Renewal  # noqa: TC001 - msgspec resolves the annotations below.
from actors.money import ZERO, Micros

if TYPE_CHECKING:
    from collections.abc import Iterator


class CapPeriod(msgspec.Struct, frozen=True, kw_only=True):
    """What counts against a cap that renews: the period, in seconds since 1970, and its figures.

    Of a window that rolls, `start` is that of the earliest slice that counts, and `end` when the next slice begins.
    """

    start: float
    end: float
    reserved: Micros = ZERO
    held: Micros = ZERO
    settled: Micros = ZERO

    @property
    def used(self) -> Micros:
        """What counts against the cap."""
        return self.reserved + self.held + self.settled


class Statement(Account, frozen=True, kw_only=True):
    """The figures of an account at one moment; `settled` and the like count since it was opened.

    `reserved_ever == settled - overcharged + released + held + reserved`: what was reserved was spent, is free again,
    is kept for calls whose outcome is unknown, or belongs to calls under way. `overcharged` is what calls cost beyond
    what was reserved for them. `estimated` is the part of `settled` whose cost is not known, and that a later figure
    may correct. `overdraft` is how far the cap may be passed by calls for which only their estimate was left.
    What draws on the account draws on its `parent` too. Nothing can be reserved in one that `is_paused`.

    If the cap renews, `renewal` says when, and `period` has what counts against it now; then `available` and `used` go
    by that. `question` is the number of the one that its owner was asked, as long as there is no answer.
    """

    reserved_ever: Micros = ZERO
    released: Micros = ZERO
    overcharged: Micros = ZERO
    estimated: Micros = ZERO
    overdraft: Micros = ZERO
    parent: str | None = None
    is_closed: bool = False
    is_paused: bool = False
    renewal: Renewal | None = None
    period: CapPeriod | None = None
    question: int | None = None

    @property
    def used(self) -> Micros:
        """What counts against the cap."""
        return self.reserved + self.held + self.settled if self.period is None else self.period.used

    @property
    def available(self) -> Micros | None:
        """What can still be reserved; None if there is no cap."""
        return None if self.cap is None else max(ZERO, self.cap - self.used)

    def __str__(self) -> str:
        if self.period is None:
            return super().__str__()
        return f"{super().__str__()}; {self.used} used of {self.cap}/{self.renewal}"

    def broken_invariants(self) -> Iterator[str]:
        """Name what does not add up."""
        accounted = self.settled - self.overcharged + self.released + self.held + self.reserved
        if self.reserved_ever != accounted:
            yield f"{self.reserved_ever} was ever reserved in {self.name!r}, and {accounted} accounted for"
        figures = (self.reserved, self.held, self.settled, self.released, self.overcharged, self.reserved_ever)
        if not 0 <= self.estimated <= self.settled:
            yield f"{self.estimated} of {self.settled} settled in {self.name!r} is estimated"
        if min(figures) < 0:
            yield f"a figure of account {self.name!r} is below zero: {self!r}"
