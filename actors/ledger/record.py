"""One reservation as a book keeps it, and the entries by which its money can go on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from actors.ledger.entries import MoneyHeld, MoneyReleased, MoneySettled
from actors.ledger.messages import Reservation, Unsettled
from actors.ledger.page import AccountState  # noqa: TC001 - msgspec resolves the annotations below.
from actors.money import ZERO, Micros, micros_of

if TYPE_CHECKING:
    from actors.ledger.messages import Costing


class KeyRecord(msgspec.Struct, eq=False, gc=False):
    """One reservation, as long as it may still be booked; its amounts are plain integers of micro-units."""

    number: int
    key: str
    provider: str
    amount: int
    accounts: tuple[str, ...]
    states: tuple[AccountState, ...]
    """The accounts that it draws on, and the total."""
    since: float
    attempt: int = 1
    is_held: bool = False
    is_told: bool = False
    """Whether the outcome of the last call was told, and not inferred because its holder ended."""
    was_held: int = 0
    """What is held again if a repetition tells nothing new of the call before it."""
    is_sent: bool = True
    holder: Any = None
    must_hold: bool = False
    """Whether no other call under its key may pass it over while it is held."""
    is_passed_over: bool = False
    """Whether another call under its key was made besides while it was held, so that both may be paid."""
    is_doubled: bool = False
    """Whether another call under its key was charged since it was passed over."""
    risk_account: AccountState | None = None
    """The account that bounds what may be paid twice, which it draws on too once it is passed over."""
    held_for: float | None = None
    """Seconds that it is held at most; None is as the ledger says."""
    held_since: float | None = None
    """When it was first held, or was last known to be under way, in seconds since 1970; None if it never was."""
    born: float | None = None
    """The same in loop time, once it is known in this run."""
    is_under_way: bool = False
    """Whether its provider says that it is under way, although it is held."""
    overdrawn: int = 0
    """What it may cost beyond its amount, within the overdraft of its accounts."""
    is_estimated: bool = False
    """Whether it is settled, at a cost that is not known."""
    fingerprint: bytes | None = None
    """What the request under its key asks for."""
    if_killed: int | None = None
    """What its call counts as having cost if the program is killed meanwhile; None holds its money then."""
    handle: str | None = None
    """That by which its call can be taken up again."""

    def reservation(self) -> Reservation:
        """Return what its asker gets."""
        return Reservation(
            self.number, self.key, self.provider, micros_of(self.amount), self.attempt, micros_of(self.overdrawn)
        )

    def unsettled(self) -> Unsettled:
        """Return what `GetHeld` lists of it."""
        return Unsettled(
            reservation=self.number,
            key=self.key,
            provider=self.provider,
            amount=micros_of(self.amount),
            accounts=self.accounts,
            is_held=self.is_held,
            since=self.since,
            is_passed_over=self.is_passed_over,
        )

    def settled(
        self,
        cost: Micros | None,
        costing: Costing | None = None,
        *,
        is_late: bool = False,
        corrects: int = 0,
        is_expired: bool = False,
        at: float,
    ) -> MoneySettled:
        """Return the entry for a call that was paid; a cost of None is what was reserved."""
        amount = self.amount
        paid = amount + self.overdrawn if cost is None else int(cost)
        return MoneySettled(
            reservation=self.number,
            key=self.key,
            provider=self.provider,
            accounts=self.accounts,
            cost=micros_of(paid),
            released=micros_of(amount - paid) if paid < amount else ZERO,
            overcharged=micros_of(paid - amount) if paid > amount else ZERO,
            is_late=is_late,
            is_expired=is_expired,
            corrects=micros_of(corrects) if corrects else ZERO,
            basis=None if costing is None else costing.basis,
            usage=None if costing is None else costing.usage,
            tariff=None if costing is None or costing.tariff is None else costing.tariff.digest,
            overdrawn=micros_of(min(paid - amount, self.overdrawn)) if paid > amount and self.overdrawn else ZERO,
            at=at,
        )

    def released(self, *, is_told: bool, corrects: int = 0, at: float) -> MoneyReleased:
        """Return the entry for a call that cost nothing."""
        return MoneyReleased(
            reservation=self.number,
            key=self.key,
            provider=self.provider,
            accounts=self.accounts,
            released=micros_of(self.amount),
            is_told=is_told,
            corrects=micros_of(corrects) if corrects else ZERO,
            at=at,
        )

    def held(self, keep: int, *, is_told: bool, at: float) -> MoneyHeld:
        """Return the entry for a call whose outcome is unknown, and for which this amount is kept."""
        return MoneyHeld(
            reservation=self.number,
            key=self.key,
            provider=self.provider,
            accounts=self.accounts,
            held=micros_of(keep),
            released=micros_of(self.amount - keep),
            is_told=is_told,
            at=at,
        )

    def __repr__(self) -> str:
        return f"<KeyRecord {self.reservation()}{' held' if self.is_held else ''}>"
