"""Messages that make no sense are refused where they are made."""

from __future__ import annotations

from typing import Any

import pytest

from actors.ledger.ledger import Ledger
from actors.ledger.messages import (
    BookCall,
    CloseAccount,
    GetHeld,
    GetStatement,
    MarkSent,
    OpenAccount,
    Reservation,
    Reserve,
    Resolve,
    SetCap,
)
from actors.money import Micros


@pytest.mark.parametrize(
    "wrong",
    [
        {"amount": -1},
        {"amount": 1.5},
        {"accounts": "run"},
        {"accounts": ["run"]},
        {"amount": 2**63},
        {"accounts": ([],)},
        {"accounts": (7,)},
        {"budget": 0.5},
        {"budget": -1},
        {"key": "\ud800"},
        {"key": b"k"},
        {"key": 7},
        {"provider": None},
    ],
)
def test_a_reservation_that_makes_no_sense_is_refused_where_it_is_made(wrong: Any):
    with pytest.raises((TypeError, ValueError), match=r"must be|amount: |budget: |cannot be encoded as UTF-8"):
        Reserve(**{"key": "k", "provider": "p", "amount": 1, **wrong})


def test_a_booking_that_makes_no_sense_is_refused_where_it_is_made():
    reservation = Reservation(1, "k", "p", Micros(1))
    for message in (
        lambda: BookCall(reservation, "no", Micros(5)),
        lambda: BookCall(reservation, "paid"),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        lambda: Resolve(1, "held"),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        lambda: BookCall(reservation, "yes", Micros(-5)),
        lambda: Resolve(1, "no", Micros(5)),
        lambda: SetCap("run", Micros(-1)),
    ):
        with pytest.raises(ValueError, match=r"cost|cap|charged"):
            message()


@pytest.mark.parametrize(
    "make",
    [
        lambda: OpenAccount(name=7),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        lambda: OpenAccount(name="\ud800"),
        lambda: CloseAccount(name=None),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        lambda: GetStatement(["run"]),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        lambda: GetHeld(["run"]),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        lambda: SetCap(["run"], Micros(5)),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        lambda: Resolve([1], "yes"),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        lambda: BookCall(1),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        lambda: MarkSent(1),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        lambda: Ledger(accounts={7: "1"}),  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
        lambda: Ledger(journal=""),
    ],
)
def test_what_would_crash_a_ledger_or_spoil_its_journal_is_refused_where_it_is_made(make: Any):
    with pytest.raises((TypeError, ValueError), match=r"must be|cannot be encoded as UTF-8"):
        make()
