"""What every port to other nodes keeps: order, answers, errors, ends and losses."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from runtime import ActorCrashed, ActorStopped, AskTimeout, Unhandled
from runtime.cluster import InProcessNetwork, NetworkFaults, NodeLost, NotSendable, RemoteCrash
from tests.runtime.cluster.cast import (
    Account,
    Break,
    Deposit,
    Introduce,
    Listed,
    NotHandled,
    Relay,
    Slow,
    TooMuch,
    Total,
    Watcher,
    Withdraw,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from runtime import ActorRef
    from runtime.cluster import Cluster

ROUGH = NetworkFaults(delay=(0.001, 0.02), loss=0.1, repeats=0.1)
NETWORKS = {"quiet": NetworkFaults(), "rough": ROUGH}


@asynccontextmanager
async def nodes(faults: NetworkFaults, *names: str) -> AsyncGenerator[tuple[InProcessNetwork, list[Cluster]]]:
    network = InProcessNetwork(faults, notice=0.5)
    async with AsyncExitStack() as stack:
        yield network, [await stack.enter_async_context(network.node(name)) for name in names]


async def until_total(actor: ActorRef[Any], total: int) -> None:
    """Wait until an actor answers with this total, and see that it stays so."""
    async with asyncio.timeout(5):
        while await actor.ask(Total(), timeout=5) != total:
            await asyncio.sleep(0.01)
    await asyncio.sleep(1)
    assert await actor.ask(Total(), timeout=5) == total


@pytest.fixture(params=NETWORKS, name="faults")
def _faults(request: pytest.FixtureRequest) -> NetworkFaults:
    return NETWORKS[request.param]


async def test_a_remote_actor_is_told_and_asked_as_a_near_one(faults: NetworkFaults) -> None:
    async with nodes(faults, "a", "b") as (_, (a, _)):
        account = await a.spawn(Account, 5, node="b", name="alice")
        account.tell(Deposit(2))
        assert await account.ask(Total(), timeout=5) == 7
        await account.send(Deposit(3), timeout=5)
        assert await account.ask(Withdraw(4), timeout=5) == 6


async def test_mail_arrives_once_and_in_order(faults: NetworkFaults) -> None:
    async with nodes(faults, "a", "b") as (_, (a, _)):
        listed = await a.spawn(Listed, node="b")
        for number in range(2_000):
            listed.tell(Deposit(number))
        assert await listed.ask(Total(), timeout=30) == 2_000


async def test_refusals_come_back_as_their_own_type_and_crashes_with_their_words(faults: NetworkFaults) -> None:
    async with nodes(faults, "a", "b") as (_, (a, _)):
        account = await a.spawn(Account, node="b")
        with pytest.raises(TooMuch, match="5 wanted, 0 left") as refused:
            await account.ask(Withdraw(5), timeout=5)
        assert (refused.value.wanted, refused.value.left) == (5, 0)
        with pytest.raises(ActorCrashed) as crash:
            await account.ask(Break(), timeout=5)
        assert isinstance(crash.value.__cause__, RemoteCrash)
        assert crash.value.__cause__.kind == "builtins:KeyError"
        with pytest.raises(Unhandled, match="Deposit, Relay, Slow"):
            await account.ask(NotHandled(), timeout=5)


async def test_an_asker_that_gives_up_cancels_the_handler(faults: NetworkFaults) -> None:
    async with nodes(faults, "a", "b") as (_, (a, b)):
        account = await a.spawn(Account, node="b", name="alice")
        with pytest.raises(AskTimeout, match="b:b/alice did not answer Slow"):
            await account.ask(Slow(60), timeout=0.2)
        asking = asyncio.ensure_future(account.ask(Slow(60), timeout=60))
        assert await account.ask(Slow(0.1), timeout=5) == "done"
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        actor: Any = b.node.named("alice")
        async with asyncio.timeout(5):
            while actor.recipient.actor.cancelled < 2:
                await asyncio.sleep(0.01)


async def test_refs_work_after_travelling(faults: NetworkFaults) -> None:
    async with nodes(faults, "a", "b", "c") as (_, (a, b, c)):
        near = a.node.system.spawn(lambda: Account(1))
        there = await a.spawn(Account, 2, node="b", name="there")
        elsewhere = await a.spawn(Account, 3, node="c")
        assert await there.ask(Relay(near), timeout=5) == 1
        assert await there.ask(Relay(elsewhere), timeout=5) == 3
        assert await elsewhere.ask(Relay(there), timeout=5) == 2
        assert await there.ask(Relay(there), timeout=5) == 2
        found = await c.find("there")
        assert found is not None
        assert await found.ask(Total(), timeout=5) == 2
        assert await a.find("there") is there  # An actor has one ref at each node.
        assert await b.find("nothing") is None


async def test_watchers_everywhere_learn_of_an_end_once(faults: NetworkFaults) -> None:
    async with nodes(faults, "a", "b", "c") as (_, (a, _, _)):
        account = await a.spawn(Account, node="b")
        watchers = [await a.spawn(Watcher, node=node) for node in "abc"]
        for watcher in watchers:
            watcher.tell(Introduce(account))
            watcher.tell(Introduce(account))
            await watcher.ask(Total(), timeout=5)
        account.stop()
        assert (await account.terminated()).reason.value == "stopped"
        for watcher in watchers:
            await until_total(watcher, 1)
        with pytest.raises(ActorStopped):
            await account.ask(Total(), timeout=5)
        late = await a.spawn(Watcher, node="c")
        late.tell(Introduce(account))
        await until_total(late, 1)


async def test_the_death_of_a_node_tells_what_never_ran_from_what_may_have_run(faults: NetworkFaults) -> None:
    async with nodes(faults, "a", "b") as (network, (a, _)):
        account = await a.spawn(Account, node="b")
        watcher = a.node.system.spawn(Watcher)
        watcher.tell(Introduce(account))
        under_way = asyncio.ensure_future(account.ask(Slow(60), timeout=60))
        await account.ask(Total(), timeout=5)
        network.kill("b")
        with pytest.raises(ActorCrashed, match="whether it was handled is unknown"):
            await under_way
        with pytest.raises(ActorStopped, match="never left for b"):
            await account.ask(Total(), timeout=5)
        exit_ = await account.terminated()
        assert isinstance(exit_.error, NodeLost)
        assert await watcher.ask(Total(), timeout=5) == 1


async def test_a_second_life_of_a_node_is_another_node(faults: NetworkFaults) -> None:
    network = InProcessNetwork(faults, notice=0.5)
    async with network.node("a") as a:
        async with network.node("b"):
            first = await a.spawn(Account, 1, node="b")
            assert await first.ask(Total(), timeout=5) == 1
        async with network.node("b"):
            second = await a.spawn(Account, 2, node="b")
            assert await second.ask(Total(), timeout=5) == 2
            with pytest.raises(ActorStopped):
                await first.ask(Total(), timeout=5)


async def test_a_cut_way_ends_conversations_and_a_healed_one_begins_new_ones() -> None:
    async with nodes(NetworkFaults(), "a", "b") as (network, (a, b)):
        account = await a.spawn(Account, node="b", name="alice")
        await account.ask(Total(), timeout=5)
        network.cut("a", "b")
        with pytest.raises(ActorCrashed, match="unknown"):
            await account.ask(Total(), timeout=60)
        network.heal("a", "b")
        again = await a.find("alice")
        assert again is not None
        assert again != account
        assert await again.ask(Total(), timeout=5) == 0
        assert b.node.named("alice") is not None


async def test_what_cannot_travel_is_refused_in_words() -> None:
    async with nodes(NetworkFaults(), "a", "b") as (_, (a, _)):
        with pytest.raises(NotSendable, match="a lambda cannot be placed"):
            await a.spawn(lambda: Account(), node="b")
        with pytest.raises(NotSendable, match="list cannot travel to another node: it holds <object"):
            await a.spawn(Account, object(), node="b")
        account = await a.spawn(Account, node="b")
        with pytest.raises(NotSendable, match="Deposit cannot travel"):
            account.tell(Deposit(object()))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        with pytest.raises(ValueError, match="there is no node 'z' in this cluster, only a, b"):
            await a.spawn(Account, node="z")
