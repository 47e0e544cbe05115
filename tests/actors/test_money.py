import copy
import operator
import pickle
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors import Micros, ProviderReply
from actors.money import MAX_MICROS, to_micros, usd
from actors.transports.transport import UnreadableCost


@pytest.mark.parametrize(
    ("amount", "micros"),
    [
        ("0.20", 200_000),
        ("0", 0),
        ("-0", 0),
        (2, 2_000_000),
        ("0.000001", 1),
        ("1e-6", 1),
        ("2E+3", 2_000_000_000),
        (Decimal("0.0015"), 1_500),
        ("0.1000000", 100_000),
    ],
)
def test_an_amount_becomes_its_exact_number_of_micro_units(amount, micros):
    assert to_micros(amount) == micros


@given(st.integers(min_value=0, max_value=MAX_MICROS))
def test_micro_units_survive_the_way_through_text_and_back(micros):
    assert to_micros(usd(micros)) == micros
    assert to_micros(Decimal(usd(micros))) == micros


@given(st.integers(min_value=-MAX_MICROS, max_value=MAX_MICROS))
def test_the_text_is_the_exact_value_with_cents_and_no_zeros_beyond(micros):
    text = usd(micros)
    decimals = text.split(".")[1]
    assert Decimal(text) * 1_000_000 == micros
    assert 2 <= len(decimals) <= 6
    assert len(decimals) == 2 or not decimals.endswith("0")


def test_a_float_is_refused_with_the_reason_and_what_to_write():
    with pytest.raises(TypeError, match=r"0\.2 is a float, which cannot hold .*write it as a string, \"0\.2\""):
        to_micros(0.2)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("amount", [True, None, b"1", [1]])
def test_what_is_no_amount_at_all_is_a_type_error(amount: Any):
    with pytest.raises(TypeError, match="str, int"):
        to_micros(amount)


@pytest.mark.parametrize(
    ("amount", "why"),
    [
        ("-0.01", "negative"),
        (-1, "negative"),
        ("NaN", "not finite"),
        ("sNaN", "not finite"),
        ("-Infinity", "not finite"),
        ("0.0000001", "more than 6 decimals"),
        ("1.0000001", "more than 6 decimals"),
        ("1e-999999", "more than 6 decimals"),
        ("1e999999", "above the largest"),
        ("9223372036854.775808", "above the largest"),
        ("0,20", "not a decimal number"),
        ("", "not a decimal number"),
    ],
)
def test_an_impossible_amount_is_named_in_the_error(amount, why):
    with pytest.raises(ValueError, match=why) as caught:
        to_micros(amount)
    assert repr(amount) in str(caught.value)


def test_the_precision_of_the_decimal_context_does_not_matter():
    assert to_micros("9223372036854.775807") == MAX_MICROS
    assert to_micros("0.20" + "0" * 100) == 200_000


def test_what_rounding_and_divmod_give_is_an_amount_too():
    price = Micros(500)
    assert [type(one) for one in (round(price), round(price, -2), *divmod(price, 3))] == [Micros] * 4
    times, rest = divmod(price, Micros(300))
    assert (type(times), times, type(rest), rest) == (int, 1, Micros, 200)
    assert divmod(price, 3) == (166, 2)


def test_the_error_of_an_unreadable_cost_can_be_copied_and_sent():
    with pytest.raises(UnreadableCost) as caught:
        ProviderReply(output="a", cost=0.5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    for copied in (copy.copy(caught.value), pickle.loads(pickle.dumps(caught.value))):  # noqa: S301 - our own.
        assert (str(copied), copied.reply) == (str(caught.value), caught.value.reply)


@pytest.mark.parametrize("operate", [operator.add, operator.sub, operator.mul, operator.mod])
def test_a_decimal_is_no_operand_because_the_result_would_be_taken_for_dollars(operate):
    with pytest.raises(TypeError, match=r"to_micros\(Decimal\('1.1'\)\)"):
        operate(Micros(20_000), Decimal("1.1"))
