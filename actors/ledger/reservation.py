"""The leave to spend money on one call."""

from __future__ import annotations

import msgspec

from actors.money import ZERO, Micros


class Reservation(msgspec.Struct, frozen=True, gc=False):
    """Leave to spend `amount` on one call; `BookCall` must tell what became of the call, whatever that is.

    `attempt` counts the calls that have shared the reservation, as repetitions under one key do. The call may cost
    `overdrawn` more, within the overdraft of its accounts.
    """

    number: int
    key: str
    provider: str
    amount: Micros
    attempt: int = 1
    overdrawn: Micros = ZERO
