"""A receipt as a journal has it, in few bytes, with the answer beside it.

As long as an answer is kept, what it was asked for is beside it too, in full; the receipt has but a few bytes of that.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

import msgspec

from actors.ledger.fingerprint import brief
from actors.ledger.receipt import Purchase, Receipt
from actors.money import micros_of

if TYPE_CHECKING:
    from actors.ledger.receipt import ReceiptState
    from runtime.persistence import KeptRow


class KeptReceipt(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A receipt without its answer; it `is_paid` if its cost is what was paid under its key in all.

    It has an answer (`is_answered`), an error, or for None what came of a stream that ended early.
    """

    is_answered: bool | None
    is_paid: bool
    fingerprint: bytes
    digest: bytes
    number: int
    cost: int
    provider: str


class FiledAnswer(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """An answer, and the fingerprint of the request that it was given to."""

    fingerprint: bytes
    content: bytes


IS_ANSWERED: dict[ReceiptState, bool | None] = {"answered": True, "failed": False, "cut": None}
STATES: dict[bool | None, ReceiptState] = {value: state for state, value in IS_ANSWERED.items()}
_encode = msgspec.msgpack.Encoder().encode
_receipts = msgspec.msgpack.Decoder(KeptReceipt)
_answers = msgspec.msgpack.Decoder(FiledAnswer)


def packed(receipt: Receipt, *, is_paid: bool) -> tuple[bytes, bytes | None]:
    """Return the head and the body under which a journal keeps a receipt."""
    print_, body = receipt.purchase.fingerprint, None
    if receipt.answer is not None:
        print_, body = brief(print_), _encode(FiledAnswer(print_, receipt.answer))
    digest, cost = bytes.fromhex(receipt.digest), int(receipt.cost)
    is_answered, number = IS_ANSWERED[receipt.state], receipt.purchase.number
    return _encode(KeptReceipt(is_answered, is_paid, print_, digest, number, cost, receipt.provider)), body


def head_of(row: KeptRow) -> KeptReceipt:
    """Return a receipt without its answer."""
    return _receipts.decode(row.head)


def unpacked(row: KeptRow, key: str) -> Receipt:
    """Return the receipt of a key, without its answer if that is too old, or if it cannot be read; `problem` says."""
    head, answer, problem = _receipts.decode(row.head), None, row.problem
    print_ = head.fingerprint
    if row.body is not None:
        kept = _answers.decode(row.body)
        if brief(kept.fingerprint) == head.fingerprint and digest_of(kept.content) == head.digest.hex():
            print_, answer = kept.fingerprint, kept.content
        else:
            problem = "it is not the one that was paid for: its digest is another"
    return Receipt(
        purchase=Purchase(key, print_, head.number),
        state=STATES[head.is_answered],
        cost=micros_of(head.cost),
        provider=head.provider,
        at=float(row.at),
        digest=head.digest.hex(),
        answer=answer,
        problem=problem,
    )


def digest_of(answer: bytes) -> str:
    """Return the digest by which an answer is known."""
    return blake2b(answer, digest_size=16).hexdigest()
