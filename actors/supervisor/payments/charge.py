"""What a call is charged, as far as its outcome tells. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from actors.errors.families import CallFailed, Charged
    from actors.money import Micros
    from actors.transports.transport import ProviderReply


class Charge(NamedTuple):
    """What a call was charged: "yes", "no", or "held" while that is unknown.

    `cost` is what the provider said it cost, in micro-units; None if it did not, and what was reserved is taken for it.
    """

    charged: Charged
    cost: Micros | None = None


NOTHING = Charge("no")


def charge_of(
    reply: ProviderReply | None, error: CallFailed | None, *, sent: bool, reserved: Micros, paid: bool
) -> Charge:
    """Return the charge of a call that ended with `reply`, with `error`, or with neither: cancelled.

    `sent` says whether it was handed to its transport, `reserved` what was reserved for it, in micro-units, and `paid`
    whether its provider is ever paid. There are three cases:

    1. It was answered, be it in part or to no use: it is charged, at the cost that the reply states.
    2. It failed: the error says what was charged.
    3. It was cancelled: once it was sent, how far it came is unknown.

    Nothing is held for a call that costs nothing at a provider that is never paid.
    """
    if error is not None and error.charged == "yes" and error.answer is not None:
        reply = error.answer
    if reply is not None:
        return Charge("yes", reply.cost)
    charged: Charged = error.charged if error is not None else "held" if sent else "no"
    if charged == "held" and not (reserved or paid):
        return NOTHING
    return Charge(charged)
