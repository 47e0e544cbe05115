"""What is kept of the requests under callers' keys, and how it is given again to a second request. Pure."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from actors.errors.families import CallFailed, Unclassified
from actors.ledger.answers import decode, encode
from actors.ledger.errors import AlreadyPaid
from actors.ledger.receipt import PaidAnswer
from actors.money import micros_of
from actors.transports.reconciliation import Answered, Lost

if TYPE_CHECKING:
    from actors.ledger.receipt import Purchase, Receipt, ReceiptState
    from actors.supervisor.payments.held_call import HeldCall, Resolution
    from actors.transports.transport import ProviderReply


def answer_of(purchase: Purchase, reply: ProviderReply, *, paid_before: int) -> PaidAnswer:
    """Return what is kept of a reply, besides `paid_before` micro-units that its request had paid by then."""
    return _kept(purchase, "answered", (reply.output, reply.translated), paid_before)


def failure_of(purchase: Purchase, error: CallFailed, *, paid: int) -> PaidAnswer:
    """Return what is kept of the error of a request that has paid so many micro-units."""
    return _kept(purchase, "failed", error, paid)


def found_answer(held: HeldCall, found: Resolution) -> PaidAnswer | None:
    """Return what is kept of a held call, now that it is known what became of it; None if that is nothing."""
    if held.purchase is None:
        return None
    match found:
        case Answered(reply):
            return answer_of(held.purchase, reply, paid_before=held.paid_before)
        case Lost():
            return failure_of(held.purchase, lost_answer(held.target.name), paid=held.paid_before)
        case _:
            return None


def lost_answer(name: str) -> Unclassified:
    """Return the error of a call that was paid, and whose answer the provider has no more."""
    return Unclassified(f"{name!r} was paid, and its answer is lost", provider=name, charged="yes")


def _kept(purchase: Purchase, state: ReceiptState, content: Any, paid_before: int) -> PaidAnswer:
    encoded: bytes | None = None
    with suppress(TypeError):  # Then it is kept that it was paid, and nothing else.
        encoded = encode(content)
    return PaidAnswer(purchase, state, encoded, micros_of(paid_before))


def given_again(receipt: Receipt, *, key: str) -> tuple[Any, tuple[str, ...]]:
    """Return the output of an answer that was paid before, and what of its request was translated.

    Raises the error that was paid for instead, or `AlreadyPaid` if nothing of it is kept. `key` is as its caller has
    it.
    """
    why = f"cannot be read: {receipt.problem}" if receipt.problem else "was not kept, or is not kept any more"
    if receipt.answer is not None:
        try:
            content = decode(receipt.answer)
        except TypeError as error:
            why = f"cannot be read: {error}"
        else:
            if isinstance(content, CallFailed):
                content.replayed = True
                raise content
            output, translated = content
            return output, translated
    raise AlreadyPaid(key, paid=receipt.cost, paid_to=receipt.provider, at=receipt.at, digest=receipt.digest, why=why)
