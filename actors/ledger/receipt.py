"""The receipt of a request under a caller's key: what came of it, what it cost, and the request that it belongs to."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from actors.money import ZERO, Micros

KeepAnswers: TypeAlias = Literal["full", "hash", "none"]
"""What is kept of an answer: all of it, its digest, or nothing but that it was paid."""
ReceiptState: TypeAlias = Literal["answered", "failed", "cut"]
"""What came of a request: its answer, its error, or a part of a stream that ended early."""


class Purchase(msgspec.Struct, frozen=True, gc=False):
    """A request under a caller's key: the key in its scope, what it asks for, and the how manyth it is that is paid."""

    key: str
    fingerprint: bytes
    number: int = 1


class PaidAnswer(msgspec.Struct, frozen=True, gc=False):
    """What a request is answered, or fails with, as bytes; None if it cannot be kept.

    `paid_before` is what the request had paid before the call that it comes from.
    """

    purchase: Purchase
    state: ReceiptState
    content: bytes | None
    paid_before: Micros = ZERO


class Receipt(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What came of a request under a key: what it `cost` in all, the provider, and when (seconds since 1970).

    `answer` is None if it is not kept, or no more, or if it cannot be read, as `problem` says; `digest` is a BLAKE2b of
    it, "" if nothing of it was kept.
    """

    purchase: Purchase
    state: ReceiptState
    cost: Micros
    provider: str
    at: float
    digest: str = ""
    answer: bytes | None = None
    problem: str = ""


class KeyStatus(msgspec.Struct, frozen=True, gc=False):
    """What the ledger knows of a key: the fingerprint of the request that asks, and the receipt, if there is one.

    It `is_paid` also if there is no receipt for it. What is `held` may be charged for a stream that ended early.
    """

    fingerprint: bytes
    receipt: Receipt | None
    is_paid: bool
    held: Micros = ZERO
