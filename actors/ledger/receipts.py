"""What came of the requests under callers' keys: their answers, or the errors for which they were charged.

Answers are kept for a while, and keys for longer: of those it is known when they were paid, and to which provider.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from typing import TYPE_CHECKING

import msgspec

from actors.ledger.errors import KeyReused
from actors.ledger.fingerprint import differing_fields, fingerprint, is_same
from actors.ledger.kept_receipt import digest_of, unpacked
from actors.ledger.receipt import KeyStatus, Receipt
from actors.money import micros_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from actors.ledger.fingerprint import Fields
    from actors.ledger.journal import MoneyJournal
    from actors.ledger.receipt import KeepAnswers, PaidAnswer
    from actors.money import Micros

MAX_ANSWERS = 10_000
MAX_BYTES = 64 * 2**20
"""The answers that are kept in memory at most, and the bytes that they take; of more, the oldest are dropped."""


class Receipts:
    """The receipts of one ledger; in memory if it has no journal, the newest last.

    >>> from actors.ledger.receipt import Purchase
    >>> from actors.money import Micros
    >>> receipts = Receipts()
    >>> paid = Receipt(purchase=Purchase("k", b""), state="answered", cost=Micros(5), provider="a", at=0.0, answer=b"x")
    >>> receipts.put(paid)
    >>> receipts.find("k").answer
    b'x'
    """

    def __init__(self, *, max_keys: int = 100_000, max_answers: int = MAX_ANSWERS, max_bytes: int = MAX_BYTES) -> None:
        self.secret = os.urandom(32)
        self._max = (max_keys, max_answers, max_bytes)
        self._by_key: OrderedDict[str, Receipt] = OrderedDict()
        self._sizes: OrderedDict[str, int] = OrderedDict()
        """The bytes of the answers that are kept, by key."""
        self._bytes = 0

    def find(self, key: str) -> Receipt | None:
        """Return the receipt under a key, as the ledger has the key."""
        return self._by_key.get(key)

    def put(self, receipt: Receipt, *, pays: bool = False) -> None:
        """Keep a receipt, unless there is an answer to the same purchase, or a newer purchase, under its key.

        What came of a stream that ended early is kept whatever its request failed with at last. It takes no place of
        an answer that was paid before; only the number of the purchase is kept then. A receipt `pays` if its whole cost
        is booked next.
        """
        known, number = self.find(receipt.purchase.key), receipt.purchase.number
        if known is not None:
            is_same = known.purchase.number == number
            if known.purchase.number > number or (is_same and known.state == "answered"):
                return
            if is_same and known.state == "cut" and receipt.state == "failed":
                receipt = msgspec.structs.replace(known, cost=max(known.cost, receipt.cost))
            elif known.state == "answered" and receipt.state == "cut":
                receipt = msgspec.structs.replace(known, purchase=receipt.purchase)
        self._store(receipt, pays=pays)

    def _store(self, receipt: Receipt, *, pays: bool) -> None:
        key = receipt.purchase.key
        self._by_key.pop(key, None)
        self._drop(key)
        self._by_key[key] = receipt
        if receipt.answer is not None:
            self._sizes[key] = len(receipt.answer)
            self._bytes += len(receipt.answer)
        max_keys, max_answers, max_bytes = self._max
        while len(self._sizes) > max_answers or self._bytes > max_bytes:
            oldest = next(iter(self._sizes))
            self._drop(oldest)
            self._by_key[oldest] = msgspec.structs.replace(self._by_key[oldest], answer=None)
        while len(self._by_key) > max_keys:
            self._drop(self._by_key.popitem(last=False)[0])

    def forget(self, key: str) -> None:
        """Let go of the answer under a key, as the ledger has the key; the rest of its receipt stays."""
        self._drop(key)
        if (receipt := self._by_key.get(key)) is not None:
            self._by_key[key] = msgspec.structs.replace(receipt, answer=None)

    def _drop(self, key: str) -> None:
        self._bytes -= self._sizes.pop(key, 0)

    def keep(self, answer: PaidAnswer, *, cost: Micros, provider: str, at: float, keep: KeepAnswers) -> None:
        """Keep what came of a request, with as much of it as `keep` says; its last call `cost` so much."""
        content = answer.content
        self.put(
            Receipt(
                purchase=answer.purchase,
                state=answer.state,
                cost=micros_of(int(answer.paid_before) + int(cost)),
                provider=provider,
                at=at,
                digest="" if content is None or keep == "none" else digest_of(content),
                answer=content if keep == "full" else None,
            ),
            pays=cost > 0 and not answer.paid_before,
        )

    def status(self, key: str, fields: Fields, *, others: Iterable[bytes | None], is_paid: bool) -> KeyStatus:
        """Return what is known of a key; raises `KeyReused` if it belongs to another request.

        `others` are the fingerprints of the requests that have money reserved under it, None if that is not known.
        """
        own, receipt = fingerprint(fields, secret=self.secret), self.find(key)
        known = [one for one in others if one is not None] if receipt is None else [receipt.purchase.fingerprint]
        for other in known:
            if not is_same(own, other):
                raise KeyReused(key, fields=differing_fields(fields, other, secret=self.secret))
        return KeyStatus(own, receipt, is_paid or receipt is not None)

    def __len__(self) -> int:
        return len(self._by_key)

    def __repr__(self) -> str:
        return f"<Receipts of {len(self._by_key)} keys, {len(self._sizes)} answers, {self._bytes:,} bytes>"


class JournalReceipts(Receipts):
    """The receipts of a ledger that has a journal, where each is written in one transaction with its payment."""

    def __init__(self, journal: MoneyJournal) -> None:
        super().__init__()
        self.secret = journal.store.secret
        self._journal = journal

    def find(self, key: str) -> Receipt | None:
        """Return the receipt under a key, whether it is written yet or not; without its answer if that is too old."""
        row = self._journal.receipt_row(key)
        return None if row is None else unpacked(row, key)

    def forget(self, key: str) -> None:
        """Let go of the answer under a key; it is gone with the next commit."""
        self._journal.forget_answer(key)

    def _store(self, receipt: Receipt, *, pays: bool) -> None:
        self._journal.put_receipt(receipt, pays=pays)

    def __repr__(self) -> str:
        return f"<JournalReceipts in {self._journal!r}>"
