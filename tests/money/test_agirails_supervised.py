"""Whole requests to agents on AGIRAILS, with the real SDK: our books and the network's agree, whatever ends when."""

from __future__ import annotations

import asyncio
import importlib.util
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from actors import Market, Retry, Supervisor, smart_request, usd
from actors.ledger import AlreadyPaid, GetHeld, GetStatement
from runtime import ActorSystem

if TYPE_CHECKING:
    from runtime import ActorRef

pytestmark = [pytest.mark.real_time, pytest.mark.slow]

found = importlib.util.spec_from_file_location(
    "agirails_town", Path(__file__).parents[1] / "actors/agirails/agirails_town.py"
)
assert found is not None
assert found.loader is not None
agirails_town: Any = importlib.util.module_from_spec(found)
found.loader.exec_module(agirails_town)
PRICE, MINTED, REQUESTER = agirails_town.PRICE, agirails_town.MINTED, agirails_town.REQUESTER
POINTS = 20
BUDGET = 10 * POINTS * PRICE


def market_of(town: Any, *names: str) -> Market:
    listings = [town.network.listing(town.provider(name), timeout=5.0) for name in names]
    return Market(providers=listings, budget=usd(BUDGET), retry=Retry(max_retries=0))


async def request(supervisor: ActorRef[Any], key: str, **terms: Any) -> Any:
    return await smart_request(
        supervisor, service="shout", input="hello", idempotency_key=key, **{"timeout": 10.0} | terms
    )


async def books_agree(town: Any, supervisor: ActorRef[Any]) -> None:
    """See that what our ledger has spent and holds is what left our balance and what is locked, to the micro-unit."""
    run = await supervisor.ask(GetStatement("run"), timeout=5.0)
    spent = MINTED - (await town.network.balances())[REQUESTER]
    assert run.reserved == 0
    assert run.settled + run.held == spent
    assert await town.is_even()


async def test_a_request_may_be_given_up_at_any_point_and_both_books_agree(tmp_path):
    async with agirails_town.town_in(tmp_path) as town, ActorSystem("town") as system:
        await town.open_shop("alder", agirails_town.shout)
        supervisor = system.spawn(lambda: Supervisor(market_of(town, "alder")))
        clock = asyncio.get_running_loop().time
        began = clock()
        assert (await request(supervisor, "whole")).output == "HELLO"
        whole = clock() - began
        for point in range(POINTS):
            asking = asyncio.create_task(request(supervisor, f"cut-{point}"))
            asyncio.get_running_loop().call_later(whole * point / POINTS, asking.cancel)
            await asyncio.wait([asking])
        async with asyncio.timeout(30.0):
            # What may have been paid is looked up until it is known.
            while await supervisor.ask(GetHeld(), timeout=5.0):
                await asyncio.wait_for(town.network.locked(), timeout=5.0)
        await books_agree(town, supervisor)
        for point in range(POINTS):
            with suppress(AlreadyPaid):  # Otherwise it never ran, or was called off.
                assert (await request(supervisor, f"cut-{point}")).output == "HELLO"
        await books_agree(town, supervisor)


async def test_what_an_agent_that_hangs_has_been_given_is_held_by_both_books_and_another_is_paid(tmp_path):
    async def hang(_text: str) -> None:
        await asyncio.Event().wait()

    async with agirails_town.town_in(tmp_path) as town, ActorSystem("town") as system:
        await town.open_shop("alder", hang)
        await town.open_shop("birch", agirails_town.shout)
        listings = [town.network.listing(town.provider(name), timeout=3.0) for name in ("alder", "birch")]
        market = Market(providers=listings, budget=usd(BUDGET))
        supervisor = system.spawn(lambda: Supervisor(market))
        result = await request(supervisor, "order", on_unknown="pay_again", timeout=20.0)
        assert (result.output, result.provider, result.cost) == ("HELLO", "birch", PRICE)
        (held,) = await supervisor.ask(GetHeld(), timeout=5.0)
        (locked,) = await town.network.locked()
        assert (held.key, held.amount) == (locked.key, locked.amount) == ("order", PRICE)
        await books_agree(town, supervisor)
