"""What operators can do to a running system, that it is recorded, and that they can do nothing without the right."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from actors import BudgetExceeded, GetStatus, Micros, Transient
from actors.dashboard import Act, ActDone
from actors.dashboard.acts import ACTS
from actors.errors.families import Permanent
from actors.ledger import GetHeld, GetStatement, SetCap
from actors.ledger.beside import ListValues
from tests.actors.dashboard.stage import looked_at


async def act(stage, kind, subject, **how):
    return await stage.watcher.ask(Act(who="ann", kind=kind, subject=subject, **how), timeout=5.0)


def key_of(table, name):
    return next(key for key, row in table.items() if row.name == name)


async def test_a_provider_is_isolated_and_released():
    async with looked_at("alder", "birch", may_act=True) as stage:
        await stage.look()
        alder = key_of(stage.view.providers, "alder")
        for kind, breaker in (("isolate", "isolated"), ("release", "closed")):
            await act(stage, kind, alder)
            statuses = await stage.supervisor.ask(GetStatus(), timeout=5.0)
            assert {one.provider.name: one.breaker for one in statuses}["alder"] == breaker
            await stage.look()
            assert stage.view.providers[alder].breaker == breaker


@pytest.mark.parametrize(
    ("charged", "cost", "settled"), [("yes", None, 20_000), ("yes", "0.01", 10_000), ("no", None, 0)]
)
async def test_a_held_call_is_resolved(charged, cost, settled):
    async with looked_at("alder", may_act=True) as stage:
        stage.failing["alder"] = Transient("perhaps", charged="held")
        await stage.request(account="batch")
        await stage.look()
        (held,) = stage.view.held
        await act(stage, "resolve", held, charged=charged, cost=cost)
        await stage.look()
        assert stage.view.held == {}
        assert stage.view.accounts[key_of(stage.view.accounts, "batch")].settled == Micros(settled)
        assert await stage.supervisor.ask(GetHeld(), timeout=5.0) == ()
        with pytest.raises(Permanent, match="no held call"):
            await act(stage, "resolve", held, charged="yes")


async def test_an_account_is_paused_and_resumed():
    async with looked_at("alder", may_act=True) as stage:
        await stage.look()
        batch = key_of(stage.view.accounts, "batch")
        await act(stage, "pause", batch)
        assert isinstance(await stage.request(account="batch"), BudgetExceeded)
        await stage.look()
        assert (stage.view.accounts[batch].paused_cap, stage.view.accounts[batch].cap) == ("$1.00", 1_000_000)
        with pytest.raises(Permanent, match="is paused already"):
            await act(stage, "pause", batch)
        await act(stage, "resume", batch)
        assert (await stage.request(account="batch")).output == "answer"
        await stage.look()
        assert (stage.view.accounts[batch].paused_cap, stage.view.accounts[batch].cap) == (None, 1_000_000)
        with pytest.raises(Permanent, match="is not paused"):
            await act(stage, "resume", batch)


@pytest.mark.real_time
async def test_a_pause_outlives_the_program_and_acts_are_kept_in_the_journal(tmp_path):
    async with looked_at("alder", may_act=True, journal=tmp_path / "journal") as stage:
        await stage.look()
        await act(stage, "pause", key_of(stage.view.accounts, "batch"))
    async with looked_at("alder", may_act=True, journal=tmp_path / "journal") as stage:
        await stage.look()
        batch = key_of(stage.view.accounts, "batch")
        assert stage.view.accounts[batch].paused_cap == "$1.00"
        await act(stage, "resume", batch)
        assert (await stage.ledger.ask(GetStatement("batch"), timeout=5.0)).cap == Micros(1_000_000)
        kept = await stage.ledger.ask(ListValues(ACTS), timeout=5.0)
        acts = [msgspec.json.decode(head, type=ActDone) for head in kept.heads.values()]
        assert [(one.who, one.kind) for one in sorted(acts, key=lambda one: one.at)] == [
            ("ann", "pause"),
            ("ann", "resume"),
        ]


async def test_an_account_whose_cap_is_changed_while_it_is_paused_stays_so_until_it_is_resumed():
    async with looked_at("alder", may_act=True) as stage:
        await stage.look()
        batch = key_of(stage.view.accounts, "batch")
        await act(stage, "pause", batch)
        await stage.ledger.ask(SetCap("batch", "3"), timeout=5.0)
        assert isinstance(await stage.request(account="batch"), BudgetExceeded)
        await stage.look()
        assert stage.view.accounts[batch].paused_cap == "$3.00"
        assert await act(stage, "resume", batch) == "resumed; its cap is $3.00"
        assert (await stage.request(account="batch")).output == "answer"


async def test_an_actor_is_restarted_and_stopped():
    async with looked_at("alder", may_act=True) as stage:
        path = stage.supervisor.path
        await act(stage, "restart", path)
        await stage.look()
        assert (await stage.request()).output == "answer"
        (total,) = stage.view.totals.values()
        assert total.restarts == 1
        await act(stage, "stop", path)
        await asyncio.sleep(1)
        assert stage.system.find(path) is None
        for gone in (path, "shop", stage.watcher.path):
            with pytest.raises(Permanent, match="there is no actor"):
                await act(stage, "stop", gone)


async def test_without_the_right_nothing_is_done_and_the_attempt_is_recorded():
    async with looked_at("alder") as stage:
        done = []
        stage.system.events.subscribe(ActDone, done.append)
        await stage.look()
        with pytest.raises(Permanent, match="acts are switched off"):
            await act(stage, "isolate", key_of(stage.view.providers, "alder"))
        assert done[0].outcome.startswith("refused: ")
        assert (await stage.supervisor.ask(GetStatus(), timeout=5.0))[0].breaker == "closed"
        await stage.look()
        assert any(row.kind == "act" for row in stage.view.events.values())
