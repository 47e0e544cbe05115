"""What a call is charged, as far as its outcome tells. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from actors.ledger.messages import Costing
from actors.supervisor.targets.quote import told_cost

if TYPE_CHECKING:
    from actors.errors.families import CallFailed, Charged
    from actors.money import Micros
    from actors.supervisor.targets.quote import TokenQuote
    from actors.transports.transport import ProviderReply


class Charge(msgspec.Struct, frozen=True, gc=False):
    """What a call was charged: "yes", "no", or "held" while that is unknown.

    `cost` is what it cost, in micro-units, and `costing` how that is known; None if the provider did not say, and what
    was reserved is taken for it.
    """

    charged: Charged
    cost: Micros | None = None
    costing: Costing | None = None


NOTHING = Charge("no")
AS_STATED = Costing(basis="provider")


def charge_of(
    reply: ProviderReply | None,
    error: CallFailed | None,
    *,
    sent: bool,
    reserved: Micros,
    paid: bool,
    tokens: TokenQuote | None = None,
) -> Charge:
    """Return the charge of a call that ended with `reply`, with `error`, or with neither: cancelled.

    `sent` says whether it was handed to its transport, `reserved` what was reserved for it, in micro-units, and `paid`
    whether its provider is ever paid; `tokens` is what it costs by its tariff, if it has one. There are three cases:

    1. It was answered, be it in part or to no use: it is charged, at the cost that the reply states, or by its usage.
    2. It failed: the error says what was charged.
    3. It was cancelled: once it was sent, how far it came is unknown.

    Nothing is held for a call that costs nothing at a provider that is never paid.
    """
    if error is not None and error.charged == "yes" and error.answer is not None:
        reply = error.answer
    if reply is not None:
        return charge_for(reply, tokens)
    charged: Charged = error.charged if error is not None else "held" if sent else "no"
    if charged == "held" and not (reserved or paid):
        return NOTHING
    if charged == "yes" and tokens is not None:
        # No more is known than what was reserved for it.
        return Charge("yes", None, Costing(basis="estimated", tariff=tokens.tariff))
    return Charge(charged)


def charge_for(reply: ProviderReply, tokens: TokenQuote | None) -> Charge:
    """Return the charge of a call that was answered, also if the answer was found only later."""
    if tokens is None and reply.usage is None:
        return Charge("yes", reply.cost, None if reply.cost is None else AS_STATED)
    cost, basis = told_cost(reply, tokens)
    if basis is None:
        return Charge("yes", cost)
    tariff = None if tokens is None else tokens.tariff
    return Charge("yes", cost, Costing(basis=basis, usage=reply.usage, tariff=tariff))
