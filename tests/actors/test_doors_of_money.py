"""One unit wherever an amount is given: dollars, converted once, and read as Micros."""

from __future__ import annotations

import copy
import json
import pickle
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from actors import (
    FunctionTransport,
    Listing,
    Market,
    Provider,
    ProviderCall,
    ProviderFilter,
    ProviderReply,
    RequestOptions,
    SmartRequest,
)
from actors.command.requests_file import parse_requests
from actors.ledger.entries import Entry, MoneyReserved
from actors.ledger.ledger import Ledger
from actors.ledger.messages import BookCall, OpenAccount, Reservation, Reserve, Resolve, SetCap
from actors.ledger.statement import Statement
from actors.market.file import parse_market
from actors.money import MAX_MICROS, Micros, to_micros
from actors.monitor.rules import BudgetRule
from actors.simulation.faults import PriceChange
from actors.simulation.provider import SimulatedProvider
from actors.transports.reconciliation import Lost
from runtime.simulation import Simulation

if TYPE_CHECKING:
    from collections.abc import Callable

ALDER = Provider(name="alder", services={"s"})
RESERVATION = Reservation(1, "k", "alder", Micros(5))


def transport() -> Any:
    async def answer(call: ProviderCall) -> Any:
        return call.input

    return FunctionTransport(answer, paid=True, idempotent="no")


def call(max_cost: Any) -> ProviderCall:
    return ProviderCall(service="s", input=1, request_id="r", idempotency_key="k", max_cost=max_cost, timeout=1.0)


LISTING = Listing(provider=ALDER, transport=transport)
DOORS: dict[str, Callable[[Any], Any]] = {
    "Provider.price": lambda amount: Provider(name="alder", services={"s"}, price=amount).price,
    "ProviderFilter.max_price": lambda amount: ProviderFilter(max_price=amount).max_price,
    "Listing.budget": lambda amount: Listing(provider=ALDER, transport=transport, budget=amount).budget,
    "Market.budget": lambda amount: Market(providers=[LISTING], budget=amount).budget,
    "SmartRequest.budget": lambda amount: SmartRequest(service="s", input=1, timeout=1.0, budget=amount).budget,
    "RequestOptions.budget": lambda amount: RequestOptions(budget=amount).request("s", 1).budget,
    "smart_request(budget=)": lambda amount: RequestOptions().changed(budget=amount).budget,
    "Ledger(accounts=)": lambda amount: Ledger(accounts={"run": amount}).caps["run"].amount,
    "OpenAccount.cap": lambda amount: OpenAccount(cap=amount).cap,
    "SetCap.cap": lambda amount: SetCap("run", amount).cap,
    "Reserve.amount": lambda amount: Reserve(key="k", provider="alder", amount=amount).amount,
    "Reserve.budget": lambda amount: Reserve(key="k", provider="alder", amount=0, budget=amount).budget,
    "BookCall.cost": lambda amount: BookCall(RESERVATION, "yes", amount).cost,
    "Resolve.cost": lambda amount: Resolve(1, "yes", amount).cost,
    "ProviderCall.max_cost": lambda amount: call(amount).max_cost,
    "ProviderReply.cost": lambda amount: ProviderReply(output=1, cost=amount).cost,
    "Lost.cost": lambda amount: Lost(amount).cost,
    "BudgetRule.cap": lambda amount: BudgetRule(cap=amount).cap,
    "PriceChange.price": lambda amount: PriceChange(provider="a", at=1.0, price=amount).price,
    "SimulatedProvider(price=)": lambda amount: (
        SimulatedProvider(Simulation(1), "a", services={"s"}, price=amount).price
    ),
}
doors = pytest.mark.parametrize("door", DOORS.values(), ids=DOORS.keys())


@doors
@pytest.mark.parametrize(
    ("amount", "micros"),
    [
        ("0.02", 20_000),
        (1, 1_000_000),
        (1_000, 10**9),
        (Decimal("0.0015"), 1_500),
        (Micros(7), 7),
        (Micros(10**7), 10**7),
    ],
)
def test_every_door_takes_dollars_and_gives_micros(door, amount, micros):
    read = door(amount)
    assert type(read) is Micros
    assert read == micros
    assert door(read) == read, "what was read can be given again"


@doors
@pytest.mark.parametrize("amount", [1_001, 5_000, 20_000])
def test_an_int_that_may_be_meant_either_way_is_refused_with_both_readings(door, amount):
    with pytest.raises(
        ValueError, match=rf"{amount} as dollars is \${amount:,}\.00; as micro-units it is \$0\."
    ) as caught:
        door(amount)
    assert f'write "{amount}" or Micros({amount})' in str(caught.value)


@doors
@pytest.mark.parametrize("amount", [0.02, True])
def test_no_door_takes_a_float_or_a_bool(door, amount):
    with pytest.raises(TypeError, match="amount"):
        door(amount)


def test_files_are_written_in_dollars():
    market = parse_market(
        'budget = "2"\n[[providers]]\nname = "a"\nservices = ["s"]\nprice = "0.02"\nbudget = "0.5"\n'
        'url = "http://127.0.0.1/"\n'
    )
    assert [str(one) for one in (market.budget, market.providers[0].budget, market.providers[0].provider.price)] == [
        "$2.00",
        "$0.50",
        "$0.02",
    ]
    (line,) = parse_requests(b'{"id": 1, "service": "s", "input": 1, "budget": 2, "where": {"max_price": 1}}')
    assert (line.budget, line.where.max_price) == (to_micros(2), to_micros(1))
    with pytest.raises(Exception, match=r"where\.max_price: 5000 as dollars is \$5,000\.00"):
        parse_requests(b'{"id": 1, "service": "s", "input": 1, "where": {"max_price": 5000}}')


# What is read.


def test_micros_print_as_dollars_and_show_what_they_are():
    price = Micros(20_000)
    assert (str(price), f"{price}", f"{price:>8}", repr(price)) == (
        "$0.02",
        "$0.02",
        "   $0.02",
        "Micros(20000)",
    )
    assert (str(Micros(0)), str(-price), str(MAX_MICROS)) == ("$0.00", "-$0.02", "$9223372036854.775807")
    assert eval(repr(price), {"Micros": Micros}) == price  # noqa: S307 - that is what a repr is for.
    assert isinstance(price, int)
    assert {20_000: "a"}[price] == "a"


def test_arithmetic_keeps_the_unit():
    price = Micros(20_000)
    same = [price + 5, 5 + price, price - 5, 5 - price, price * 3, 3 * price, -price, +price, abs(-price)]
    same += [sum([price, price]), min(price, Micros(3)), max(price, Micros(3)), price // 3, price % 3]
    assert {type(one) for one in same} == {Micros}
    assert same == [
        20_005,
        20_005,
        19_995,
        -19_995,
        60_000,
        60_000,
        -20_000,
        20_000,
        20_000,
        40_000,
        3,
        20_000,
        6_666,
        2,
    ]
    assert (type(price // Micros(6_000)), price // Micros(6_000)) == (int, 3)
    assert (type(price / 8), price / 8, price / Micros(40_000)) == (float, 2_500.0, 0.5)
    with pytest.raises(TypeError):
        price + "1"  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue, reportUnusedExpression]


def test_micros_take_whole_numbers_of_micro_units_only():
    for wrong in ("0.02", 0.5, True, None):
        with pytest.raises(TypeError, match="whole number of micro-units"):
            Micros(wrong)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("amount", [Micros(0), Micros(1), Micros(-5), MAX_MICROS], ids=repr)
def test_micros_survive_every_way_of_writing_them_down(amount):
    for encode, decode in (
        (msgspec.msgpack.encode, msgspec.msgpack.decode),
        (msgspec.json.encode, msgspec.json.decode),
    ):
        assert repr(decode(encode(amount), type=Micros)) == repr(amount)
        assert decode(encode({"a": [amount]})) == {"a": [int(amount)]}
    assert repr(pickle.loads(pickle.dumps(amount))) == repr(amount)  # noqa: S301 - it was written just now.
    assert [repr(one) for one in (copy.copy(amount), copy.deepcopy(amount))] == [repr(amount)] * 2
    assert json.dumps(amount) == str(int(amount))


def test_structs_with_amounts_survive_msgpack_and_json():
    structs: list[tuple[Any, Any]] = [
        (Provider(name="a", services={"s"}, price="0.02"), Provider),
        (ProviderFilter(max_price="5000"), ProviderFilter),
        (SmartRequest(service="s", input=1, timeout=1.0, budget="0.05"), SmartRequest),
        (RequestOptions(budget="0.05"), RequestOptions),
        (ProviderReply(output=1, cost="0.02"), ProviderReply),
        (RESERVATION, Reservation),
        (BookCall(RESERVATION, "yes", "0.02"), BookCall),
        (Statement(name="run", cap=Micros(20_000), settled=Micros(5)), Statement),
        (
            MoneyReserved(reservation=1, key="k", provider="a", accounts=("run",), amount=Micros(9), at=1.0),
            Entry,
        ),
    ]
    for struct, kind in structs:
        for codec in (msgspec.msgpack, msgspec.json):
            decoded = codec.decode(codec.encode(struct), type=kind)
            assert decoded == struct
            assert repr(decoded) == repr(struct)
