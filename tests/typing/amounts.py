"""What is given as dollars is read as Micros, and neither a float nor a plain int is taken for Micros."""

from __future__ import annotations

from decimal import Decimal
from typing import assert_type

from actors import FunctionTransport, Listing, Market, Micros, Provider, ProviderFilter, ProviderReply, SmartRequest
from actors.ledger import BookCall, Reservation, SetCap
from actors.tariffs import Tariff, Usage
from actors.tariffs.usage import read_usage
from actors.transports import Lost

alder = Provider(name="alder", services={"s"}, price="0.02")
assert_type(alder.price, Micros)
Provider(name="alder", services={"s"}, price=2)
Provider(name="alder", services={"s"}, price=Decimal("0.02"))
Provider(name="alder", services={"s"}, price=alder.price)
Provider(name="alder", services={"s"})
Provider(name="alder", services={"s"}, price=0.02)  # error: pyright, mypy
alder.price = "0.02"  # error: pyright, mypy

assert_type(ProviderFilter(max_price="1").max_price, Micros | None)
ProviderFilter(max_price=1.0)  # error: pyright, mypy
assert_type(SmartRequest(service="s", input=1, timeout=1.0, budget="1").budget, Micros | None)
SmartRequest(service="s", input=1, timeout=1.0, budget=1.0)  # error: pyright, mypy
assert_type(ProviderReply(output=1, cost="0.02").cost, Micros | None)
ProviderReply(output=1, cost=0.02)  # error: pyright, mypy
assert_type(Lost("0.02").cost, Micros | None)
assert_type(SetCap("run", None).cap, Micros | None)
SetCap("run", 0.02)  # error: pyright, mypy


async def shout(call: object) -> str:
    return f"{call}!"


listing = Listing(
    provider=alder, transport=lambda: FunctionTransport(shout, paid=True, idempotent="no"), budget=Decimal(5)
)
assert_type(listing.budget, Micros | None)
assert_type(Market(providers=[listing], budget="20").budget, Micros | None)

reservation = Reservation(1, "key", "alder", Micros(20_000))
Reservation(1, "key", "alder", 20_000)  # error: pyright, mypy
BookCall(reservation, "yes", reservation.amount)
BookCall(reservation, "yes", "0.02")
micros: Micros = 5  # error: pyright, mypy

assert_type(alder.price + alder.price, Micros)
assert_type(alder.price - 5, Micros)
assert_type(alder.price * 3, Micros)
assert_type(-alder.price, Micros)
assert_type(alder.price // 3, Micros)
assert_type(alder.price // alder.price, int)
assert_type(alder.price / 3, float)
assert_type(max(alder.price, reservation.amount), Micros)
assert_type(sum([alder.price, reservation.amount], Micros(0)), Micros)

tariff = Tariff(input="0.25", output=2, reasoning=Decimal("0.5"))
Tariff(input=0.25)  # error: pyright, mypy
Tariff("0.25")  # error: pyright, mypy
assert_type(tariff.cost(Usage(input=1, cost="0.02")), Micros)
assert_type(Usage().cost, Micros | None)
assert_type(read_usage({}, "anthropic"), Usage | None)
ProviderReply(output=1, usage={"input": 1})  # error: pyright, mypy
Listing(provider=alder, transport=listing.transport, tariff=tariff, max_output=100)
Listing(provider=alder, transport=listing.transport, tariff="0.25")  # error: pyright, mypy
