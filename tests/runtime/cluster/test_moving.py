"""Actors that are started again on another node: their refs go with them, and nothing is handled twice."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from runtime import ActorCrashed, ActorRestarted, ActorStopped, NameTaken, RestartIntensity
from runtime.cluster import ANYWHERE, AnswerLost, InProcessNetwork, NodeLost, RemoteCrash
from tests.runtime.cluster.cast import (
    SEEN,
    Account,
    Break,
    Deposit,
    Introduce,
    Numbered,
    Receiver,
    Relay,
    Slow,
    Told,
    Total,
    Watcher,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from runtime import ActorRef
    from runtime.cluster import Cluster


class Machines:
    """A network of nodes that can be lost one by one; `here` is where actors are spawned, and takes none."""

    def __init__(self, network: InProcessNetwork, here: Cluster, names: list[str]) -> None:
        self.network = network
        self.here = here
        here.nodes = names

    async def spawn(self, factory: Any = Account, *args: Any, **options: Any) -> ActorRef[Any]:
        return await self.here.spawn(factory, *args, node=ANYWHERE, **options)


@asynccontextmanager
async def machines(names: str = "abc") -> AsyncGenerator[Machines]:
    network = InProcessNetwork(notice=0.5)
    async with AsyncExitStack() as stack:
        here = await stack.enter_async_context(network.node("here"))
        for name in names:
            await stack.enter_async_context(network.node(name))
        yield Machines(network, here, list(names))


async def test_its_ref_finds_it_on_the_next_node() -> None:
    async with machines() as joined:
        account = await joined.spawn(Account, 5, name="alice")
        restarts: list[Any] = []
        joined.here.node.system.events.subscribe(ActorRestarted, restarts.append)
        account.tell(Deposit(2))
        assert await account.ask(Total(), timeout=5) == 7
        for lost, name in enumerate("ab", 1):
            under_way = asyncio.ensure_future(account.ask(Slow(60), timeout=60))
            await account.ask(Total(), timeout=5)
            joined.network.kill(name)
            with pytest.raises(AnswerLost):
                await under_way
            account.tell(Deposit(1))
            assert await account.ask(Total(), timeout=5) == 6  # It begins as it was spawned.
            assert [(one.ref, one.attempt, type(one.cause)) for one in restarts] == [
                (account, attempt, NodeLost) for attempt in range(1, lost + 1)
            ]
        assert await joined.here.find("alice") == account


async def test_mail_waits_in_its_order_until_there_is_a_node() -> None:
    SEEN.clear()
    async with machines("a") as joined:
        receiver = await joined.spawn(Receiver, "moving")
        assert await receiver.ask(Numbered("me", 0), timeout=5) == 0
        joined.network.kill("a")
        await asyncio.sleep(1)
        SEEN.clear()
        asked: list[asyncio.Future[int]] = []
        for number in range(1, 11, 2):
            receiver.tell(Told("me", number))
            asked.append(asyncio.ensure_future(receiver.ask(Numbered("me", number + 1), timeout=20)))
            await asyncio.sleep(0)
        await asyncio.sleep(5)
        assert not SEEN
        joined.here.nodes = ["b"]
        async with joined.network.node("b"):
            assert await asyncio.gather(*asked) == [2, 4, 6, 8, 10]
        assert {"moving": [("me", number) for number in range(1, 11)]} == SEEN


async def test_its_end_is_told_to_its_watchers_and_a_move_is_none() -> None:
    async with machines() as joined:
        account = await joined.spawn()
        watcher = joined.here.node.system.spawn(Watcher)
        far = await joined.here.spawn(Watcher, node="c")
        for one in (watcher, far):
            one.tell(Introduce(account))
        await account.ask(Total(), timeout=5)
        joined.network.kill("a")
        await asyncio.sleep(1)
        assert await account.ask(Total(), timeout=5) == 0
        assert [await one.ask(Total(), timeout=5) for one in (watcher, far)] == [0, 0]
        account.stop()
        assert (await account.terminated()).error is None
        await asyncio.sleep(0.1)
        assert [await one.ask(Total(), timeout=5) for one in (watcher, far)] == [1, 1]
        with pytest.raises(ActorStopped):
            await account.ask(Total(), timeout=5)


async def test_it_ends_if_more_nodes_are_lost_than_its_intensity_tolerates() -> None:
    async with machines("abcd") as joined:
        account = await joined.spawn(intensity=RestartIntensity(max_restarts=2, within=60.0))
        for name in "abc":
            await account.ask(Total(), timeout=5)
            joined.network.kill(name)
            await asyncio.sleep(1)
        end = await account.terminated()
        assert isinstance(end.error, NodeLost)
        with pytest.raises(ActorStopped):
            await account.ask(Total(), timeout=5)
        assert await (await joined.here.spawn(Account, 3, node="d")).ask(Total(), timeout=5) == 3


async def test_a_crash_is_a_restart_on_its_node() -> None:
    async with machines() as joined:
        account = await joined.spawn(Account, 5)
        account.tell(Deposit(2))
        with pytest.raises(ActorCrashed):
            await account.ask(Break(), timeout=5)
        assert await account.ask(Total(), timeout=5) == 5


async def test_its_life_ends_with_its_ref_and_with_the_node_that_supervises_it() -> None:
    async with machines("a") as joined:
        a = joined.network.living["a"]
        for end in ("stop", "kill"):
            account = await joined.spawn()
            getattr(account, end)()
            await account.terminated()
            await asyncio.sleep(0.1)
            assert "Account" not in {one.actor for one in a.system.snapshot().walk()}
        await joined.spawn()
        joined.network.isolate("here")
        await asyncio.sleep(1)
        assert "Account" not in {one.actor for one in a.system.snapshot().walk()}


async def test_refs_of_it_work_after_travelling_and_after_a_move() -> None:
    async with machines() as joined:
        account = await joined.spawn(Account, 5)
        relay = await joined.here.spawn(Account, node="c")
        assert await relay.ask(Relay(account), timeout=5) == 5
        joined.network.kill("a")
        await asyncio.sleep(1)
        assert await relay.ask(Relay(account), timeout=5) == 5


async def test_what_cannot_be_started_is_refused_and_leaves_nothing() -> None:
    async with machines("a") as joined:
        with pytest.raises(RemoteCrash):
            await joined.spawn(Account, 1, 2, 3)
        await joined.spawn(name="alice")
        with pytest.raises(NameTaken):
            await joined.spawn(name="alice")
        await asyncio.sleep(0.1)
        a = joined.network.living["a"]
        assert sum(one.actor == "Account" for one in a.system.snapshot().walk()) == 1
