"""What became of a call whose outcome is unknown: how a transport finds out, and what it can find.

A transport that can tell has `look_up`, one that can call a call off has `cancel`; whoever has neither leaves a paid
call that may have run as it is: held, reported, and paid to nobody else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

import msgspec

from actors.money import MAX_MICROS
from actors.transports.transport import ProviderReply

if TYPE_CHECKING:
    from actors.transports.transport import ProviderCall


class Answered(msgspec.Struct, frozen=True, tag=True):
    """It ran, and this is the answer that never arrived; `reply.cost` is what was charged."""

    reply: ProviderReply


class NeverRan(msgspec.Struct, frozen=True, tag=True):
    """It did not run, or was called off in time: nothing was charged, and nothing will be."""


class Lost(msgspec.Struct, frozen=True, tag=True):
    """It ran and was charged `cost` micro-units (None: what was reserved), and its answer is not to be had."""

    cost: int | None = None


class UnderWay(msgspec.Struct, frozen=True, tag=True):
    """It may still run, and its money is locked; before `until`, in loop time, asking again is no use (None: soon)."""

    until: float | None = None


Finding: TypeAlias = Answered | NeverRan | Lost | UnderWay
"""What is found of a call; a transport that cannot find out raises a member of `CallFailed`."""


def is_reply(answer: object) -> bool:
    """Tell whether what a transport returned is a reply that can be booked; one with a bug may return anything."""
    return isinstance(answer, ProviderReply) and _is_cost(answer.cost)


def is_finding(found: object) -> bool:
    """Tell the same of what a transport found."""
    match found:
        case Answered(reply):
            return is_reply(reply)
        case Lost(cost):
            return _is_cost(cost)
        case UnderWay(until):
            return until is None or isinstance(until, float | int)
        case _:
            return isinstance(found, NeverRan)


def _is_cost(cost: object) -> bool:
    return cost is None or (type(cost) is int and 0 <= cost <= MAX_MICROS)


@runtime_checkable
class LooksUp(Protocol):
    """A transport that can find out what became of a call."""

    async def look_up(self, call: ProviderCall, *, timeout: float) -> Finding:  # noqa: ASYNC109 - its own affair.
        """Find out within `timeout` seconds what became of `call`, which was made before; changes nothing."""
        ...


@runtime_checkable
class Cancels(Protocol):
    """A transport that can call off a call."""

    async def cancel(self, call: ProviderCall, *, timeout: float) -> Finding:  # noqa: ASYNC109 - its own affair.
        """Call off `call`, which was made before, within `timeout` seconds, and return what became of it."""
        ...
