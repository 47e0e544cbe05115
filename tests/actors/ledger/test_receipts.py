"""Tests for receipts in memory: which are kept, which make room, and which key belongs to another request."""

from __future__ import annotations

from typing import Any

import pytest

from actors.ledger import KeyReused, LedgerConfig
from actors.ledger.fingerprint import fingerprint, request_fields
from actors.ledger.receipt import PaidAnswer, Purchase, Receipt
from actors.ledger.receipts import Receipts
from actors.money import Micros
from actors.providers import Requirement


def receipt(
    key: str, *, answer: bytes | None = b"x", state: Any = "answered", number: int = 1, at: float = 0
) -> Receipt:
    purchase = Purchase(key, b"", number)
    return Receipt(purchase=purchase, state=state, cost=Micros(5), provider="a", at=at, answer=answer)


def test_of_too_many_answers_the_oldest_go_and_of_too_many_keys_too():
    receipts = Receipts(max_keys=4, max_answers=2)
    for number in range(6):
        receipts.put(receipt(f"{number}"))
    known = [receipts.find(f"{number}") for number in range(6)]
    assert [one is not None for one in known] == [False, False, True, True, True, True]
    assert [one.answer for one in known if one is not None] == [None, None, b"x", b"x"]


def test_answers_take_no_more_bytes_than_allowed():
    receipts = Receipts(max_bytes=100)
    for number in range(9):
        receipts.put(receipt(f"{number}", answer=b"x" * 40))
        receipts.put(receipt("same", answer=b"y" * 10, number=number + 1))
    kept = [one.answer for number in range(9) if (one := receipts.find(f"{number}")) is not None]
    assert kept == [None] * 7 + [b"x" * 40] * 2
    receipts.put(receipt("large", answer=b"z" * 101))
    assert [receipts.find(key).answer for key in ("large", "8", "same")] == [None] * 3  # type: ignore[union-attr]


def test_an_answer_that_is_forgotten_makes_room_and_its_receipt_stays():
    receipts = Receipts(max_bytes=100)
    receipts.put(receipt("a", answer=b"x" * 60))
    receipts.forget("a")
    receipts.forget("other")
    receipts.put(receipt("b", answer=b"x" * 60))
    receipts.put(receipt("c", answer=b"x" * 40))
    assert [receipts.find(key).answer is None for key in "abc"] == [True, False, False]  # type: ignore[union-attr]
    assert receipts.find("a").cost == 5  # type: ignore[union-attr]


def test_an_answer_stands_and_a_newer_purchase_takes_its_place():
    receipts = Receipts()
    receipts.put(receipt("k", state="failed", at=1))
    receipts.put(receipt("k", state="failed", at=2))
    receipts.put(receipt("k", at=3))
    receipts.put(receipt("k", at=4))
    receipts.put(receipt("k", state="failed", at=5))
    assert receipts.find("k") == receipt("k", at=3)
    receipts.put(receipt("k", number=2, at=6))
    receipts.put(receipt("k", at=7))
    assert receipts.find("k") == receipt("k", number=2, at=6)


@pytest.mark.parametrize(("keep", "kept"), [("full", (True, True)), ("hash", (True, False)), ("none", (False, False))])
def test_as_much_is_kept_of_an_answer_as_is_said(keep: Any, kept: tuple[bool, bool]):
    receipts = Receipts()
    answer = PaidAnswer(Purchase("k", b""), "answered", b"x", Micros(3))
    receipts.keep(answer, cost=Micros(4), provider="a", at=1.0, keep=keep)
    found = receipts.find("k")
    assert found is not None
    assert (bool(found.digest), found.answer is not None) == kept
    assert (found.cost, found.provider, found.at) == (7, "a", 1.0)
    assert LedgerConfig(keep_answers=keep).keep_answers == keep


def test_a_ledger_refuses_to_keep_what_is_no_choice():
    with pytest.raises(ValueError, match="keep_answers"):
        LedgerConfig(keep_answers="some")  # type: ignore[arg-type]


def test_a_key_belongs_to_the_request_that_has_money_under_it_or_a_receipt():
    receipts = Receipts()
    one, other = (request_fields("s", text, Requirement()) for text in ("a", "b"))
    status = receipts.status("k", one, others=[None], is_paid=False)
    assert (status.receipt, status.is_paid) == (None, False)
    assert receipts.status("k", one, others=[status.fingerprint], is_paid=False) == status
    with pytest.raises(KeyReused, match="input") as reused:
        receipts.status("k", other, others=[status.fingerprint], is_paid=False)
    assert (reused.value.fields, reused.value.charged) == (("input",), "no")
    kept = Receipt(purchase=Purchase("k", status.fingerprint), state="answered", cost=Micros(5), provider="a", at=0.0)
    receipts.put(kept)
    assert receipts.status("k", one, others=[b"never"], is_paid=False).receipt == kept
    with pytest.raises(KeyReused):
        receipts.status("k", other, others=[], is_paid=True)
    assert fingerprint(one, secret=receipts.secret) != fingerprint(one, secret=Receipts().secret)
