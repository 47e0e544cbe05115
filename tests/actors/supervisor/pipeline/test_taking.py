"""What a call consumes at its provider is taken before its money is asked for, and comes back if it is not made."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from actors import BudgetExceeded, CallFailed, Ledger, Market, Supervisor, Transient, smart_request
from actors.ledger import LedgerConfig
from actors.policies.breaker.states import Closed, HalfOpen, Open
from runtime import ActorSystem
from runtime.persistence import GroupCommit
from tests.actors.supervisor.stage import FRAGILE, STEADY, Script, offer, staged, steps
from tests.slow_disk import slow_disk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from actors import Listing
    from actors.supervisor.targets.target import Target

DISK = 0.005
"""The seconds that a commit takes."""


class Journalled:
    """A supervisor whose ledger keeps a journal on a slow disk."""

    def __init__(self, supervisor: Supervisor, ledger: Ledger) -> None:
        self.supervisor = supervisor
        self.ledger = ledger
        self.ref = supervisor.context.ref

    async def request(self, **options: Any) -> Any:
        return await smart_request(self.ref, **{"service": "s", "input": "x"} | options)

    async def to_the_disk(self, **options: Any) -> asyncio.Task[Any]:
        """Begin a request, and return it while its reservation is being written."""
        request = asyncio.create_task(self.request(**options))
        await steps(5)
        return request

    def target(self, name: str = "alder") -> Target:
        return self.supervisor.targets.by_name[name]

    async def assert_at_rest(self) -> None:
        await asyncio.sleep(1.0)  # What is told last is written.
        assert self.target().state.under_way == 0
        assert not list(self.target().stragglers.begun())
        assert len(self.supervisor.queues) == 0
        assert self.ledger.book.unsettled(is_held=False) == ()


@pytest.fixture
def journalled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    slow_disk(monkeypatch, lambda: DISK)
    monkeypatch.setattr(GroupCommit, "_may_write_on_loop", lambda _: False)

    @asynccontextmanager
    async def begun(*listings: Listing, **policies: Any) -> AsyncIterator[Journalled]:
        market = Market(providers=listings, **{"retry": STEADY} | policies)
        config = LedgerConfig(safety="power")
        async with ActorSystem("stage", seed=1) as system:
            ledger = Ledger(config, journal=str(tmp_path / "money.journal"))
            ref = system.spawn(lambda: ledger)
            supervisor = Supervisor(market, ledger=ref)
            system.spawn(lambda: supervisor)
            await steps(5)
            stage = Journalled(supervisor, ledger)
            await stage.request()
            yield stage
            await stage.assert_at_rest()

    return begun


@pytest.mark.parametrize("limits", [{}, {"rate_limit": 1e6}])
async def test_requests_that_wait_for_a_place_go_to_the_disk_together(limits: Any, journalled: Any):
    alder = Script(lasts=0.01)
    async with journalled(offer("alder", alder, price=10, max_concurrency=50, **limits)) as stage:
        await asyncio.gather(*(stage.request() for _ in range(500)))  # Until it is known to bear as many.
        began = asyncio.get_running_loop().time()
        await asyncio.gather(*(stage.request() for _ in range(500)))
        # Ten calls of 10 ms for each place, and as many commits; one after the other, they would take 2.5 s.
        assert asyncio.get_running_loop().time() - began < 0.5


async def test_a_burst_reserves_no_more_than_there_are_places(journalled: Any):
    async with journalled(offer("alder", Script(lasts=0.1), price=10, max_concurrency=4)) as stage:
        requests = [asyncio.create_task(stage.request()) for _ in range(40)]
        await steps(20)
        assert stage.target().state.under_way == 4
        assert len(stage.ledger.book.unsettled(is_held=False)) == 4
        await asyncio.gather(*requests)


@pytest.mark.parametrize("moment", range(6))
async def test_all_comes_back_if_the_caller_leaves_while_the_disk_is_waited_for(moment: int, journalled: Any):
    alder = offer("alder", Script(lasts=0.01), price=10, rate_limit=0.001, burst=10)
    async with journalled(alder) as stage:
        before = stage.target().state
        request = asyncio.create_task(stage.request())
        await steps(moment)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        assert stage.target().state is before
        assert stage.target().calls == 1


async def test_all_comes_back_beside_calls_that_are_made(journalled: Any):
    async with journalled(offer("alder", Script(lasts=0.01), price=10, rate_limit=0.001, burst=10)) as stage:
        leaving, staying = await stage.to_the_disk(), await stage.to_the_disk()
        leaving.cancel()
        await staying
        quota = stage.target().state.quota
        assert quota is not None
        taken = 0
        while not hasattr(granted := quota.take(asyncio.get_running_loop().time(), {}), "wait"):
            quota, taken = granted[0], taken + 1
        assert taken == 8  # Of ten, the first call has taken one, and that of the request that stayed.


async def test_a_probe_that_is_not_made_makes_room_for_another(journalled: Any):
    alder = Script("done", *[Transient("down")] * 5, "done")
    async with journalled(offer("alder", alder, price=10), breaker=FRAGILE) as stage:
        for _ in range(5):
            with pytest.raises(CallFailed):
                await stage.request(timeout=1.0)
            if isinstance(stage.target().state.breaker, Open):
                break
        await asyncio.sleep(60.0)
        probe = await stage.to_the_disk()
        assert isinstance(stage.target().state.breaker, HalfOpen)
        probe.cancel()
        await steps(5)
        assert not isinstance(stage.target().state.breaker, HalfOpen)
        await stage.request()
        assert isinstance(stage.target().state.breaker, Closed)


async def test_a_call_whose_breaker_opens_while_the_disk_is_waited_for_is_not_made(journalled: Any):
    alder = Script("done")
    async with journalled(offer("alder", alder, price=10)) as stage:
        request = await stage.to_the_disk(timeout=2.0)
        stage.target().become(Open(stage.target().state.breaker.epoch + 1, until=1e9), is_trip=True)
        with pytest.raises(CallFailed):
            await request
        assert len(alder.calls) == 1


async def test_the_time_of_a_call_does_not_count_that_of_the_disk(journalled: Any):
    async with journalled(offer("alder", Script(lasts=0.1), price=10)) as stage:
        for _ in range(20):
            await stage.request()
        assert stage.target().state.limit.usual_latency == pytest.approx(0.1)


async def test_nothing_is_taken_for_a_call_that_there_is_no_money_for():
    alder = offer("alder", Script(lasts=0.01), price=10, rate_limit=0.001, burst=10)
    async with staged(alder, budget="0.000010") as stage:
        await stage.request()
        before = stage.actor.targets.by_name["alder"].state
        with pytest.raises(BudgetExceeded):
            await stage.request()
        assert stage.actor.targets.by_name["alder"].state is before
        await stage.assert_at_rest()


async def test_a_request_keeps_its_place_in_line_if_there_is_no_money_for_it():
    order: list[str] = []

    async def answer(call: Any) -> str:
        order.append(call.input)
        await asyncio.sleep(1.0)
        return "done"

    alder = offer("alder", answer, price=10, max_concurrency=1)
    async with staged(alder) as stage:
        await stage.request(input="none")
        order.clear()
        requests = [asyncio.create_task(stage.request(input="first", timeout=60.0))]
        await steps(5)
        requests.append(asyncio.create_task(stage.request(input="poor", budget="0.000001", timeout=60.0)))
        requests += [asyncio.create_task(stage.request(input=name, timeout=60.0)) for name in ("second", "third")]
        await asyncio.wait(requests)
        assert isinstance(requests[1].exception(), BudgetExceeded)
        assert order == ["first", "second", "third"]
        await stage.assert_at_rest()
