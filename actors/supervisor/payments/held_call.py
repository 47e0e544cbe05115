"""A call that may have been paid, and what is kept for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import msgspec

from actors.errors.families import PossibleCharge
from actors.ledger.keys import provider_key, purchase_of
from actors.ledger.messages import Costing
from actors.ledger.receipt import Purchase
from actors.money import ZERO
from actors.supervisor.payments.charge import NOTHING, Charge, charge_for
from actors.supervisor.targets.quote import UNKNOWN, TokenQuote
from actors.transports.reconciliation import NOT_KEPT, Answered, Lost, NeverRan
from actors.transports.transport import CallNotes, ProviderCall, ProviderReply

if TYPE_CHECKING:
    from actors.ledger.entries import CostBasis
    from actors.ledger.messages import HeldHandle, Reservation
    from actors.money import Micros
    from actors.supervisor.targets.target import Target

Resolution: TypeAlias = Answered | NeverRan | Lost
"""What became of a held call, once that is known."""


class HeldCall(msgspec.Struct, eq=False):
    """A call that may have been paid: the provider it was made to, and the reservation that is kept for it."""

    target: Target
    call: ProviderCall
    reservation: Reservation
    tokens: TokenQuote | None = None
    """What its tokens cost by the tariff that was in force when it was sent."""
    found: Resolution | None = None
    """What became of it, once this supervisor has found out."""
    is_settled: bool = False
    """Whether it was settled as estimated, so that what is found out corrects that."""
    purchase: Purchase | None = None
    """What it pays for, if it is under a caller's key."""
    paid_before: int = 0
    """What its request had paid before it, in micro-units."""
    is_under_way: bool = False
    """Whether its provider has said that it is under way when it was asked last."""

    @property
    def handle(self) -> str | None:
        """The handle by which it can be taken up; None if its provider has given none."""
        return self.call.notes.handle if self.target.can_resume else None

    @property
    def asked_after(self) -> tuple[float, ...]:
        """The seconds after its end at which its provider is asked what it cost, if it can tell no more than that."""
        return () if self.handle is not None else self.target.asked_after

    @property
    def can_be_asked(self) -> bool:
        """Whether it may still be found out what became of it."""
        if self.handle is not None:
            return True
        if self.target.asked_after:
            return self.call.notes.reference is not None
        return self.target.can_tell


def call_of_handle(target: Target, held: HeldHandle) -> HeldCall:
    """Return a call of an earlier life of the program, of which its handle is known and not what it asked for.

    It has no request in this life, so it is told apart by the key that its provider was told. It costs what it says by
    the tariff that is in force now, or what was reserved.
    """
    reservation, tariff = held.reservation, target.listing.tariff
    told_key = provider_key(reservation.key)
    call = ProviderCall(
        service="",
        input=NOT_KEPT,
        request_id=told_key,
        idempotency_key=told_key,
        max_cost=reservation.amount,
        timeout=target.listing.timeout,
        provider=target.name,
        notes=CallNotes(handle=held.handle),
    )
    key, number = purchase_of(reservation.key)
    return HeldCall(
        target,
        call,
        reservation,
        None if tariff is None else TokenQuote(tariff, UNKNOWN, UNKNOWN, reservation.amount, reservation.amount),
        purchase=None if held.fingerprint is None else Purchase(key, held.fingerprint, number),
        paid_before=int(held.paid_before),
    )


def charge_found(held: HeldCall, found: Resolution) -> Charge:
    """Return what a held call was charged, now that this is known."""
    if isinstance(found, Answered):
        return charge_for(found.reply, held.tokens)
    if isinstance(found, NeverRan):
        return NOTHING
    if found.cost is None and found.usage is not None:
        return charge_for(ProviderReply(output=None, usage=found.usage), held.tokens)
    if held.tokens is None and not held.asked_after:
        return Charge("yes", found.cost)
    basis: CostBasis = "estimated" if found.cost is None else "provider"
    tariff = None if held.tokens is None else held.tokens.tariff
    return Charge("yes", found.cost, Costing(basis=basis, tariff=tariff))


class PassedOver(msgspec.Struct, frozen=True, eq=False):
    """A held call besides which a request goes on: `held` is None if its provider is not listed any more."""

    reservation: Reservation
    held: HeldCall | None = None

    @property
    def is_open(self) -> bool:
        """Whether it is still unknown what became of it."""
        return self.held is None or self.held.found is None

    @property
    def at_risk(self) -> Micros:
        """How much may be paid twice because of it, or was: all that it holds, unless it is known not to be charged."""
        is_free = self.held is not None and isinstance(self.held.found, NeverRan)
        return ZERO if is_free else self.reservation.amount


def possible_charge(reservation: Reservation, *, key: str) -> PossibleCharge:
    """Return what a caller is told of a call that may have been charged, under its own `key`."""
    return PossibleCharge(
        provider=reservation.provider,
        amount=reservation.amount,
        key=key,
        reservation=reservation.number,
    )
