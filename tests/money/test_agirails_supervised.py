"""Whole requests to agents on AGIRAILS, with the real SDK: our books and the network's agree, whoever goes when."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from actors import Market, Micros, Retry, Supervisor, smart_request
from actors.ledger import AlreadyPaid, GetHeld, GetStatement, provider_key
from runtime import ActorSystem
from tests.actors.agirails.agirails_town import MINTED, PRICE, REQUESTER, Town, shout, town_in
from tests.real_time import FAR, skip

if TYPE_CHECKING:
    from runtime import ActorRef

pytestmark = [pytest.mark.real_time, pytest.mark.slow]

POINTS = 20
BUDGET = 10 * POINTS * PRICE


def market_of(town: Town, *names: str) -> Market:
    listings = [town.network.listing(town.provider(name), timeout=FAR) for name in names]
    return Market(providers=listings, budget=Micros(BUDGET), retry=Retry(max_retries=0))


async def request(supervisor: ActorRef[Any], key: str, **terms: Any) -> Any:
    return await smart_request(
        supervisor, service="shout", input="hello", idempotency_key=key, **{"timeout": FAR} | terms
    )


async def books_agree(town: Town, supervisor: ActorRef[Any]) -> None:
    """See that what our ledger has spent and holds is what left our balance and what is locked, to the micro-unit."""
    run = await supervisor.ask(GetStatement("run"), timeout=FAR)
    spent = MINTED - (await town.network.balances())[REQUESTER]
    assert run.reserved == 0
    assert run.settled + run.held == spent
    assert await town.is_even()


async def test_a_request_may_be_given_up_at_any_point_and_both_books_agree(tmp_path):
    async with town_in(tmp_path) as town, ActorSystem("town") as system:
        await town.open_shop("alder", shout)
        supervisor = system.spawn(lambda: Supervisor(market_of(town, "alder")))
        clock = asyncio.get_running_loop().time
        began = clock()
        assert (await request(supervisor, "whole")).output == "HELLO"
        whole = clock() - began
        for point in range(POINTS):
            asking = asyncio.create_task(request(supervisor, f"cut-{point}"))
            asyncio.get_running_loop().call_later(whole * point / POINTS, asking.cancel)
            await asyncio.wait([asking])
        # What may have been paid is looked up until it is known.
        while await supervisor.ask(GetHeld(), timeout=FAR):
            await town.network.locked()
        await books_agree(town, supervisor)
        for point in range(POINTS):
            with suppress(AlreadyPaid):  # Otherwise it never ran, or was cancelled.
                assert (await request(supervisor, f"cut-{point}")).output == "HELLO"
        await books_agree(town, supervisor)


async def test_what_an_agent_that_hangs_has_been_given_is_held_by_both_books_and_another_is_paid(tmp_path):
    async def hang(_text: str) -> None:
        await asyncio.Event().wait()

    async with town_in(tmp_path) as town, ActorSystem("town") as system:
        await town.open_shop("alder", hang)
        await town.open_shop("birch", shout)
        listings = [town.network.listing(town.provider(name), timeout=FAR) for name in ("alder", "birch")]
        market = Market(providers=listings, budget=Micros(BUDGET))
        supervisor = system.spawn(lambda: Supervisor(market))
        asking = asyncio.create_task(request(supervisor, "order", on_unknown="pay_again", timeout=3 * FAR))
        await town.until_states("IN_PROGRESS")
        await skip(FAR)
        result = await asking
        assert (result.output, result.provider, result.cost) == ("HELLO", "birch", PRICE)
        (held,) = await supervisor.ask(GetHeld(), timeout=FAR)
        (locked,) = await town.network.locked()
        assert (held.key, held.amount) == ("order", PRICE)
        assert (locked.key, locked.amount) == (provider_key("order"), PRICE)
        await books_agree(town, supervisor)
