"""Money under a cap, as arithmetic."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors import Account, BudgetExceeded
from actors.account import Booking, Purse, booking_of_failure, booking_of_reply

amounts = st.integers(min_value=0, max_value=100)


def test_what_is_reserved_can_be_reserved_only_once():
    account = Account(name="batch", cap=10).reserve(7)
    assert (account.available, account.allows(3), account.allows(4)) == (3, True, False)
    with pytest.raises(BudgetExceeded) as refused:
        account.reserve(4)
    assert (refused.value.needed, refused.value.available, refused.value.cap) == (4, 3, "batch")


def test_an_account_without_a_cap_allows_anything():
    account = Account(name="run").reserve(10**18)
    assert account.available is None
    assert account.allows(10**18)
    assert account.may_allow_later(10**18)


def test_what_is_reserved_may_come_back_and_what_is_held_or_settled_does_not():
    account = Account(name="batch", cap=10).reserve(6)
    assert (account.allows(5), account.may_allow_later(5)) == (False, True)
    held = account.book(booking_of_failure("held", reserved=6))
    assert (held.held, held.reserved, held.may_allow_later(5)) == (6, 0, False)
    settled = account.book(booking_of_reply(6, reserved=6))
    assert (settled.settled, settled.reserved, settled.may_allow_later(5)) == (6, 0, False)


@pytest.mark.parametrize(
    ("booking", "expected"),
    [
        (booking_of_reply(None, reserved=5), Booking(reserved=5, cost=5)),
        (booking_of_reply(3, reserved=5), Booking(reserved=5, cost=3)),
        (booking_of_reply(0, reserved=5), Booking(reserved=5, cost=0)),
        (booking_of_reply(None, reserved=0, repeats=5), Booking(reserved=0, was_held=5, cost=5)),
        (booking_of_reply(2, reserved=0, repeats=5), Booking(reserved=0, was_held=5, cost=2)),
        (booking_of_failure("no", reserved=5), Booking(reserved=5)),
        (booking_of_failure("yes", reserved=5), Booking(reserved=5, cost=5)),
        (booking_of_failure("held", reserved=5), Booking(reserved=5, held=5)),
        (booking_of_failure("no", reserved=0, repeats=5), Booking(reserved=0, was_held=5, held=5)),
        (booking_of_failure("held", reserved=0, repeats=5), Booking(reserved=0, was_held=5, held=5)),
        (booking_of_failure("yes", reserved=0, repeats=5), Booking(reserved=0, was_held=5, cost=5)),
    ],
)
def test_each_end_of_a_call_books_what_it_should(booking: Booking, expected: Booking):
    assert booking == expected


@given(cap=st.integers(min_value=0, max_value=500), steps=st.lists(st.tuples(amounts, amounts, st.integers(0, 4))))
def test_an_account_is_never_over_its_cap_and_nothing_is_ever_negative(cap: int, steps: list[tuple[int, int, int]]):
    account = Account(name="batch", cap=cap)
    open_calls: list[int] = []
    unknown: list[int] = []
    for amount, cost, what in steps:
        if what <= 1:
            if account.allows(amount):
                account = account.reserve(amount)
                open_calls.append(amount)
        elif what == 2 and open_calls:
            reserved = open_calls.pop(amount % len(open_calls))
            account = account.book(booking_of_reply(min(cost, reserved), reserved=reserved))
        elif what == 3 and open_calls:
            reserved = open_calls.pop(amount % len(open_calls))
            charged = ("no", "held", "yes")[cost % 3]
            account = account.book(booking_of_failure(charged, reserved=reserved))
            unknown += [reserved] if charged == "held" else []
        elif what == 4 and unknown:
            held = unknown.pop(amount % len(unknown))
            account = account.book(booking_of_reply(min(cost, held), reserved=0, repeats=held))
        assert account.reserved == sum(open_calls)
        assert account.held == sum(unknown)
        assert account.settled >= 0
        assert account.reserved + account.held + account.settled <= cap


def test_an_account_and_its_purse_tell_their_state():
    purse = Purse(Account(name="batch", cap=5_000_000, settled=1_000_000, held=250_000))
    assert "batch: cap $5" in str(purse.account)
    assert "settled $1" in repr(purse)
    assert "0 requests" in repr(purse)
