"""What is kept of the requests under callers' keys, and how it is given again to a second request. Pure."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from actors.errors.families import CallFailed, StreamCut, Unclassified
from actors.ledger.answers import decode, encode
from actors.ledger.errors import AlreadyPaid
from actors.ledger.receipt import PaidAnswer
from actors.money import micros_of
from actors.supervisor.payments.kept_pieces import given_pieces, kept_pieces, text_of
from actors.transports.reconciliation import Answered, Lost

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actors.ledger.receipt import KeyStatus, Purchase, Receipt, ReceiptState
    from actors.supervisor.payments.held_call import HeldCall, Resolution
    from actors.transports.transport import ProviderReply


class GivenAgain(NamedTuple):
    """An answer that was paid before: its output, what of its request was translated, and what its pieces were."""

    output: Any
    translated: tuple[str, ...]
    kept: Any


def answer_of(purchase: Purchase, reply: ProviderReply, *, paid_before: int, pieces: Sequence[Any] = ()) -> PaidAnswer:
    """Return what is kept of a reply, besides `paid_before` micro-units that its request had paid by then.

    `pieces` are those in which it came, if it came as a stream.
    """
    content = (reply.output, reply.translated)
    kept = kept_pieces(pieces)
    answer = _kept(purchase, "answered", content if kept is None else (*content, kept), paid_before)
    if answer.content is None and kept is not None:
        return _kept(purchase, "answered", content, paid_before)  # Its pieces cannot be kept; it can, maybe.
    return answer


def cut_of(
    purchase: Purchase, reply: ProviderReply | None, *, why: str, paid_before: int, pieces: Sequence[Any] = ()
) -> PaidAnswer:
    """Return what is kept of a stream that ended early: the reply that its pieces would be, and the pieces."""
    output, kept = None if reply is None else reply.output, kept_pieces(pieces)
    answer = _kept(purchase, "cut", (output, kept, why), paid_before)
    return answer if answer.content is not None else _kept(purchase, "cut", (None, None, why), paid_before)


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


def given_again(status: KeyStatus, receipt: Receipt, *, key: str, asked: Any) -> GivenAgain:
    """Return an answer that was paid before.

    Raises the error that was paid for instead, `StreamCut` with what came of a stream that ended early, or
    `AlreadyPaid` if nothing of it is kept. `key` is as its caller has it, and `asked` is its input.
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
            if receipt.state == "cut":
                raise _cut(status, receipt, content, key=key, asked=asked)
            output, translated, *kept = content
            return GivenAgain(output, translated, kept[0] if kept else None)
    raise AlreadyPaid(key, paid=receipt.cost, paid_to=receipt.provider, at=receipt.at, digest=receipt.digest, why=why)


def _cut(status: KeyStatus, receipt: Receipt, content: Any, *, key: str, asked: Any) -> StreamCut:
    output, kept, why = content
    cut = StreamCut(key, provider=receipt.provider, why=why, cost=receipt.cost, may_cost=status.held)
    cut.output, cut.pieces = output, given_pieces(kept, output, asked=asked, is_whole=False)
    cut.text = text_of(cut.pieces)
    return cut
