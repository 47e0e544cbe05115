"""What is asked of the cast has the type of its answer, and nobody takes what is not his, for both checkers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, assert_type

from actors import Ledger, Market, RequestOptions, SmartRequest, SmartResult, Supervisor, smart_request
from actors.ledger import BookCall, GetHeld, GetStatement, Reservation, Reserve, Resolve, Statement, Unsettled
from actors.money import Micros

if TYPE_CHECKING:
    from runtime import ActorSystem


async def money(system: ActorSystem, market: Market) -> None:
    ledger = system.spawn(Ledger)
    reservation = await ledger.ask(Reserve(key="k", provider="alder", amount=Micros(5)), timeout=1.0)
    assert_type(reservation, Reservation)
    assert_type(await ledger.ask(GetStatement("run"), timeout=1.0), Statement)
    assert_type(await ledger.ask(GetHeld(), timeout=1.0), tuple[Unsettled, ...])
    ledger.tell(BookCall(reservation, "yes", Micros(5)))
    ledger.tell(BookCall(5, "yes"))  # error: pyright, mypy
    ledger.tell(BookCall(reservation, "maybe"))  # error: pyright, mypy
    await ledger.ask(Resolve(reservation.number, "held"), timeout=1.0)  # error: pyright, mypy
    await ledger.ask(SmartRequest(service="s", input=1, timeout=1.0), timeout=1.0)  # error: pyright, mypy

    supervisor = system.spawn(lambda: Supervisor(market))
    assert_type(await supervisor.ask(SmartRequest(service="s", input=1, timeout=1.0), timeout=1.0), SmartResult)
    assert_type(await supervisor.ask(GetStatement("run"), timeout=1.0), Statement)
    supervisor.tell(BookCall(reservation))  # error: pyright, mypy
    result = await smart_request(
        supervisor, service="s", input=1, budget="0.20", options=RequestOptions(on_unknown="pay_again")
    )
    assert_type(result, SmartResult)
    assert_type(result.output, Any)
    await smart_request(supervisor, service="s", input=1, budget=0.2)  # error: pyright, mypy
    RequestOptions(on_unknown="forget")  # error: pyright, mypy
