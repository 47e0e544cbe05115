"""What it costs to be looked at, counted: Python calls of a request, and how much is asked for and made at once."""

from __future__ import annotations

import asyncio
import sys
from itertools import pairwise

import pytest

from actors import Supervisor, smart_request
from actors.dashboard import Watcher
from actors.dashboard.board import MAX_ACCOUNTS
from actors.dashboard.watcher import ACCOUNTS_AT_ONCE, SLICES
from actors.ledger import Reserve
from actors.money import Micros
from benchmarks.resilience.calls import no_op_market, nothing
from runtime import ActorSystem
from tests.actors.dashboard.stage import looked_at
from tests.actors.dashboard.test_view import Parent

MAX_ADDED = 20
"""The Python calls that a watcher adds to a request that is answered by its first call."""


async def calls_of(operation, *, times=20):
    made = 0

    def count(_frame, event, _arg):
        nonlocal made
        made += event == "call"

    await operation()
    sys.setprofile(count)
    try:
        for _ in range(times):
            await operation()
    finally:
        sys.setprofile(None)
    return made / times


@pytest.mark.parametrize("actors", [10, 2_000])
async def test_a_watcher_adds_few_calls_to_a_request_however_many_actors_there_are(actors):
    figures = []
    for is_watched in (False, True):
        async with ActorSystem("shop", log=False) as system:
            system.spawn(lambda: Parent(actors), name="crowd")
            if is_watched:
                system.spawn(lambda system=system: Watcher(system))
            supervisor = system.spawn(lambda: Supervisor(no_op_market()))
            await asyncio.sleep(0)

            def request(supervisor=supervisor):
                return smart_request(supervisor, service="benchmark", input=nothing, budget="0.20")

            figures.append(await calls_of(request))
    assert 0 < figures[1] - figures[0] <= MAX_ADDED


async def test_many_accounts_that_change_at_once_are_told_some_at_a_time_and_each_in_its_turn():
    names = [f"account-{number}" for number in range(2 * ACCOUNTS_AT_ONCE * SLICES)]
    async with looked_at(accounts=dict.fromkeys(names, "1")) as stage:
        await stage.look()
        assert len(stage.view.accounts) == len(names) + 2  # That of the stage, and all together.
        for name in names:
            wish = Reserve(key=f"k {name}", provider="alder", amount=Micros(1), accounts=(name,))
            await stage.ledger.ask(wish, timeout=5.0)
        told = [0]
        while told[-1] < len(names) and len(told) < 10:
            await stage.look()
            told.append(sum(bool(one.reserved) for one in stage.view.accounts.values() if one.name))
        assert told[-1] == len(names)
        assert all(later - before <= ACCOUNTS_AT_ONCE * SLICES for before, later in pairwise(told))
        total = next(one for one in stage.view.accounts.values() if not one.name)
        assert total.reserved == len(names)


async def test_of_more_accounts_than_are_shown_only_those_are_asked_for_and_all_are_counted():
    names = [f"account-{number}" for number in range(MAX_ACCOUNTS + 500)]
    async with looked_at(accounts=dict.fromkeys(names, "1")) as stage:
        await stage.look()
        shown = {one.name for one in stage.view.accounts.values()}
        assert len(shown) == MAX_ACCOUNTS
        hidden = next(name for name in names if name not in shown)
        wish = Reserve(key="k", provider="alder", amount=Micros(7), accounts=(hidden,))
        await stage.ledger.ask(wish, timeout=5.0)
        await stage.look()
        total = next(one for one in stage.view.accounts.values() if not one.name)
        assert (total.reserved, len(stage.view.accounts)) == (7, MAX_ACCOUNTS)
        assert stage.view.totals[""].accounts == len(names) + 1
