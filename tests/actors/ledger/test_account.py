"""The figures of money under a cap."""

from __future__ import annotations

from actors.ledger import Account
from actors.money import Micros


def test_what_is_available_is_what_the_cap_leaves_and_never_below_zero():
    assert Account(name="batch", cap=Micros(10), reserved=Micros(2), held=Micros(3), settled=Micros(4)).available == 1
    assert Account(name="batch", cap=Micros(10), settled=Micros(15)).available == 0
    assert Account(name="batch").available is None


def test_an_account_states_its_figures_in_dollars():
    account = Account(
        name="batch", cap=Micros(2_000_000), reserved=Micros(1), held=Micros(20_000), settled=Micros(500_000)
    )
    assert str(account) == "batch: cap $2.00, settled $0.50, held $0.02, reserved $0.000001"
