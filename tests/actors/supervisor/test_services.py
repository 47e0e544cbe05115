"""Actors of a supervisor that are stopped or killed from outside: replaced, and nothing is lost; in virtual time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from actors import Market, Supervisor, smart_request
from actors.errors.families import CallFailed, LedgerDown, RegistryDown
from actors.ledger.messages import CloseAccount, GetStatement, OpenAccount
from actors.market import SharedQuota
from actors.money import Micros
from actors.simulation import SimulatedProvider
from runtime import ActorSystem, RuntimeFault
from tests.actors.supervisor.stage import Script, offer, staged, steps
from tests.proofs import repeated

if TYPE_CHECKING:
    from runtime import ActorRef
    from runtime.simulation import Simulation

SEEDS = repeated(100)
QUOTA = SharedQuota(rate_limit=20.0, burst=2, headroom=1.0)


def child(supervisor: Supervisor, kind: str) -> ActorRef[Any]:
    return next(ref for name, ref in supervisor.context.children.items() if name.startswith(kind))


def end(ref: ActorRef[Any], how: str) -> None:
    ref.kill() if how == "kill" else ref.stop()


@pytest.mark.parametrize("how", ["kill", "stop"])
@pytest.mark.parametrize("kind", ["discovery", "ledger", "shared-quota", "gateway"])
async def test_a_service_that_is_ended_from_outside_is_replaced(kind: str, how: str):
    async with staged(offer("a", Script(), price=5, quota="org"), quotas={"org": QUOTA}) as stage:
        await stage.request()
        before = child(stage.actor, kind)
        end(before, how)
        assert (await stage.request()).output == "done"
        await before.terminated()
        assert child(stage.actor, kind) is not before
        assert (await stage.request()).output == "done"
        assert (await stage.account(None)).settled == 15  # type: ignore[arg-type]
        await stage.assert_at_rest()


async def test_requests_under_way_go_on_when_the_ledger_is_killed():
    script = Script(lasts=1.0)
    async with staged(offer("a", script, price=5)) as stage:
        await stage.ref.ask(OpenAccount(name="a", cap=Micros(5)), timeout=1)
        asked = [asyncio.create_task(stage.request(account="a", timeout=30)) for _ in range(2)]
        await asyncio.sleep(0.5)
        stage.ledger.context.ref.kill()
        done = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(one).__name__ for one in done] == ["SmartResult", "BudgetExceeded"]
        assert (await stage.account("a")).settled == 5
        await stage.assert_at_rest()


async def test_what_the_ledger_was_told_while_it_ended_is_booked_by_the_next():
    for turns in range(20):
        async with staged(offer("a", Script(lasts=1.0), price=5)) as stage:
            asked = asyncio.create_task(stage.request())
            await steps(10)
            await asyncio.sleep(1.0)
            await steps(turns)
            stage.ledger.context.ref.kill()
            await asked
            await steps(5)
            assert (await stage.account(None)).settled == 5  # type: ignore[arg-type]
            await stage.assert_at_rest()


async def test_an_account_that_is_being_closed_is_answered_by_the_next_ledger():
    for pause in (0.0, 0.3):
        async with staged(offer("a", Script(lasts=1.0), price=5)) as stage:
            await stage.ref.ask(OpenAccount(name="a"), timeout=1)
            asked = asyncio.create_task(stage.request(account="a"))
            await asyncio.sleep(1.0 - pause)
            closing = asyncio.create_task(stage.ref.ask(CloseAccount(name="a"), timeout=5))
            await steps(3)
            stage.ledger.context.ref.kill()
            await asked
            assert (await closing).settled == 5
            await stage.assert_at_rest()


async def test_a_service_that_is_killed_again_and_again_fails_the_supervisor():
    made: list[Supervisor] = []
    market = Market(providers=[offer("a", Script())])

    def make() -> Supervisor:
        made.append(Supervisor(market))
        return made[-1]

    async with ActorSystem("killed") as system:
        system.spawn(make, name="supervisor")
        await steps(3)
        for _ in range(4):
            assert len(made) == 1
            child(made[0], "discovery").kill()
            await steps(5)
        await asyncio.sleep(1.0)
        assert len(made) == 2


async def test_a_service_is_not_replaced_while_its_supervisor_stops():
    async with staged(offer("a", Script(lasts=2.0))) as stage:
        asked = asyncio.create_task(stage.request())
        await steps(10)
        stage.ref.stop()
        child(stage.actor, "ledger").kill()
        await asyncio.wait([asked])
        await stage.ref.terminated()


@pytest.mark.simulate(seeds=SEEDS)
async def test_no_money_and_no_permit_is_lost_or_counted_twice_whatever_is_killed(simulation: Simulation):
    dice = simulation.random
    providers = [
        SimulatedProvider(
            simulation, name, services={"s"}, price="0.01", latency=(0.0, 1.0), idempotent=dice.choice(["no", "key"])
        )
        for name in ("alder", "birch")
    ]
    market = Market(
        providers=[one.listing(quota="org", max_concurrency=4) for one in providers],
        quotas={"org": QUOTA},
        budget=dice.choice([None, "0.25"]),
    )
    made: list[Supervisor] = []
    async with ActorSystem("killed") as system:

        def make() -> Supervisor:
            made.append(Supervisor(market))
            return made[-1]

        supervisor = system.spawn(make, name="supervisor")

        async def killer() -> None:
            for _ in range(dice.randint(1, 6)):
                await asyncio.sleep(dice.uniform(0.0, 3.5))
                kind = dice.choice(["discovery", "ledger", "ledger", "ledger", "shared-quota"])
                end(child(made[-1], kind), dice.choice(["kill", "stop"]))

        async def customer(number: int) -> None:
            await asyncio.sleep(dice.uniform(0, 10))
            asking = smart_request(supervisor, service="s", input=number, timeout=dice.uniform(1, 20))
            try:
                async with asyncio.timeout(dice.choice([0.0, 0.5, 3.0, None, None, None])):
                    await asking
            except (LedgerDown, RegistryDown):
                assert len(made) > 1, "a request failed because a service was being replaced"
            except (CallFailed, RuntimeFault, TimeoutError):
                pass

        await asyncio.gather(killer(), *(customer(number) for number in range(40)))
        await asyncio.sleep(5.0)
        book = made[-1].context.kept["book"]
        assert list(book.broken_invariants()) == []
        assert book.unsettled(is_held=False) == ()
        total = await supervisor.ask(GetStatement(None), timeout=5)
        charged = sum(sum(them) for one in providers for them in one.charged.values())
        at = sorted(at for one in providers for at in one.called_at)
        for first, begun in enumerate(at):
            assert all(at[n] - begun >= (n - first + 1 - 2) / 20.0 - 1e-3 for n in range(first, len(at)))
        if len(made) == 1:
            assert total.settled <= charged <= total.settled + total.held, (total, charged)
