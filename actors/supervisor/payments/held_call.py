"""A call that may have been paid, and what is kept for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from actors.transports.reconciliation import Answered, Lost, NeverRan

if TYPE_CHECKING:
    from actors.ledger.messages import Reservation
    from actors.supervisor.targets.target import Target
    from actors.transports.transport import ProviderCall

Resolution: TypeAlias = Answered | NeverRan | Lost
"""What became of a held call, once that is known."""


class HeldCall(NamedTuple):
    """A call that may have been paid: the provider it was made to, and the reservation that is kept for it."""

    target: Target
    call: ProviderCall
    reservation: Reservation
