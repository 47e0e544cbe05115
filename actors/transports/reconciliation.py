"""Reconciles a call whose outcome is unknown: how a transport looks it up or cancels it, and what it can find.

A transport that can tell the outcome has `look_up`; one that can cancel a call has `cancel`; one whose provider gives
a handle before the answer has `resume`. If it has none of them, a paid call that may have run stays as it is: its money
is held and reported, and paid to no other provider.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol, TypeAlias, runtime_checkable

import msgspec

from actors.money import OptionalAmountField, amount_default
from actors.tariffs.usage import Usage  # noqa: TC001 - msgspec resolves the annotations below.
from actors.transports.transport import ProviderReply, take_cost

if TYPE_CHECKING:
    from actors.transports.transport import ProviderCall


class InputNotKept:
    """The input of a call of an earlier life of the program, of which no more is known than its key and its handle."""

    def __repr__(self) -> str:
        return "NOT_KEPT"


NOT_KEPT: Final = InputNotKept()


class Answered(msgspec.Struct, frozen=True, tag=True):
    """The call ran, and this is the answer that had not arrived; `reply.cost` is what was charged."""

    reply: ProviderReply


class NeverRan(msgspec.Struct, frozen=True, tag=True):
    """The call did not run, or was cancelled in time: nothing was charged, and nothing will be."""


class Lost(msgspec.Struct, frozen=True, tag=True):
    """The call ran and was charged `cost`, but its answer cannot be had.

    `cost` is in dollars as str, int or Decimal; None is what its `usage` costs, if that was told and the provider has a
    tariff, else what was reserved. One that is no cost is read as in a `ProviderReply`: what was reserved is paid, and
    `unread_cost` says what was stated.
    """

    cost: OptionalAmountField = amount_default(None)
    unread_cost: str | None = None
    usage: Usage | None = None

    def __post_init__(self) -> None:
        if self.cost is not None:
            wrong = take_cost(self)
            if wrong is not None:
                raise type(wrong)(f"cost: {wrong}")


class UnderWay(msgspec.Struct, frozen=True, tag=True):
    """The call may still run, and its money is locked; ask again at `until`, in loop time (None: soon), not before."""

    until: float | None = None


Finding: TypeAlias = Answered | NeverRan | Lost | UnderWay
"""What a transport found out about a call; if it cannot find out, it raises a member of `CallFailed`."""


def is_reply(answer: object) -> bool:
    """Tell whether `answer` is a reply; a transport with a bug may return anything."""
    return isinstance(answer, ProviderReply)


def is_finding(found: object) -> bool:
    """Tell whether `found` is a `Finding` with valid fields; a transport with a bug may return anything."""
    match found:
        case Answered(reply):
            return is_reply(reply)
        case UnderWay(until):
            return until is None or isinstance(until, float | int)
        case _:
            return isinstance(found, NeverRan | Lost)


@runtime_checkable
class LooksUp(Protocol):
    """A transport that can look up what became of a call.

    If it can only tell what a call cost, and only some time after its end, it may declare so by an attribute
    `asked_after`: a tuple of seconds. A call that may have been paid is then asked about so long after its end, and
    counts as charged whole if the last time tells nothing; a request waits for that for half of its time left at most.
    """

    async def look_up(self, call: ProviderCall, *, timeout: float) -> Finding:  # noqa: ASYNC109 - the transport bounds itself.
        """Find out, within `timeout` seconds, what became of an earlier `call`; changes nothing."""
        ...


@runtime_checkable
class Cancels(Protocol):
    """A transport that can cancel a call at its provider."""

    async def cancel(self, call: ProviderCall, *, timeout: float) -> Finding:  # noqa: ASYNC109 - the transport bounds itself.
        """Cancel an earlier `call` within `timeout` seconds, and return what became of it."""
        ...


@runtime_checkable
class Resumes(Protocol):
    """A transport that can take a call up again by a handle that its provider gives before the answer.

    It tells the handle by `call.notes.begun(handle)` while it makes the call. The ledger writes it beside what was
    reserved. If the answer does not come, be it that the connection is lost, the caller cancelled or this program
    ended, the call is taken up by its handle, and not paid again.

    One that can do so without what the call asked for may declare so by an attribute `resumes_alone = True`. Its calls
    that are held when a program starts are then taken up at once, and not only by a request under their keys: with
    `NOT_KEPT` as their input, and "" as their service.
    """

    async def resume(self, handle: str, call: ProviderCall) -> Finding:
        """Wait for the answer to an earlier call, for `call.timeout` seconds at most, and return what became of it.

        That is `UnderWay` if there is no answer by then; a very short time is a look. Raises a member of `CallFailed`
        if that cannot be found out.
        """
        ...
