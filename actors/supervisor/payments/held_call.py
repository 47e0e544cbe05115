"""A call that may have been paid, and what is kept for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from actors.ledger.messages import Reservation
    from actors.supervisor.targets.target import Target
    from actors.transports.transport import ProviderCall


class HeldCall(NamedTuple):
    """A call that may have been paid, to whom it was made, and what is kept for it."""

    target: Target
    call: ProviderCall
    reservation: Reservation
