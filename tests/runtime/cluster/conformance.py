"""What every port to other nodes keeps: order, answers, errors, ends and losses. Each check has nodes a, b and c."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import pytest

from runtime import ActorCrashed, ActorStopped, AskTimeout, Unhandled
from runtime.cluster import ANYWHERE, NeverDelivered, NodeLost, NotSendable, RemoteCrash, RemoteRefusal
from tests.runtime.cluster.cast import (
    Account,
    Break,
    Cancelled,
    Deposit,
    Garbled,
    GetNode,
    Host,
    Introduce,
    Listed,
    NotHandled,
    Odd,
    OpenPool,
    OpenRouter,
    Relay,
    Slow,
    TooMuch,
    Total,
    Watcher,
    Withdraw,
)
from tests.runtime.cluster.keyed_cast import GetBalance, Save, SaveSlowly, SavingsAccount

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from runtime import ActorRef
    from runtime.cluster import Cluster


class Nodes(Protocol):
    """Nodes a, b and c, seen from one that is none of them or a."""

    here: Cluster

    async def kill(self, node: str) -> None:
        """End a node without a word."""
        ...

    async def revive(self, node: str) -> None:
        """Have a node that was ended begin again, with the journals that it had."""
        ...


async def until(actor: ActorRef[Any], request: Any, answer: int) -> None:
    """Wait until an actor gives this answer, and see that it stays so."""
    async with asyncio.timeout(10):
        while await actor.ask(request, timeout=10) != answer:  # noqa: ASYNC110 - the actor is elsewhere.
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.3)
    assert await actor.ask(request, timeout=10) == answer


async def a_remote_actor_is_told_and_asked_as_a_near_one(nodes: Nodes) -> None:
    account = await nodes.here.spawn(Account, 5, node="b")
    account.tell(Deposit(2))
    assert await account.ask(Total(), timeout=10) == 7
    await account.send(Deposit(3), timeout=10)
    assert await account.ask(Withdraw(4), timeout=10) == 6


async def mail_arrives_once_and_in_order(nodes: Nodes) -> None:
    listed = await nodes.here.spawn(Listed, node="b")
    for number in range(2_000):
        listed.tell(Deposit(number))
    assert await listed.ask(Total(), timeout=60) == 2_000


async def refusals_come_back_as_their_type_and_crashes_with_their_words(nodes: Nodes) -> None:
    account = await nodes.here.spawn(Account, node="b")
    with pytest.raises(TooMuch, match="5 wanted, 0 left") as refused:
        await account.ask(Withdraw(5), timeout=10)
    assert (refused.value.wanted, refused.value.left) == (5, 0)
    with pytest.raises(ActorCrashed) as crash:
        await account.ask(Break(), timeout=10)
    assert isinstance(crash.value.__cause__, RemoteCrash)
    assert crash.value.__cause__.kind == "builtins:KeyError"
    with pytest.raises(Unhandled, match="Deposit, Garbled, GetNode, Odd, Relay, Slow"):
        await account.ask(NotHandled(), timeout=10)


async def an_asker_that_gives_up_cancels_the_handler(nodes: Nodes) -> None:
    account = await nodes.here.spawn(Account, node="b")
    with pytest.raises(AskTimeout, match=r"did not answer Slow within 0\.2 s"):
        await account.ask(Slow(60), timeout=0.2)
    asking = asyncio.ensure_future(account.ask(Slow(60), timeout=60))
    assert await account.ask(Slow(0.1), timeout=10) == "done"
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await until(account, Cancelled(), 2)


async def refs_work_after_travelling(nodes: Nodes) -> None:
    here = nodes.here
    near = here.node.system.spawn(lambda: Account(1))
    there = await here.spawn(Account, 2, node="b", name="there")
    elsewhere = await here.spawn(Account, 3, node="c")
    assert await there.ask(Relay(near), timeout=10) == 1
    assert await there.ask(Relay(elsewhere), timeout=10) == 3
    assert await elsewhere.ask(Relay(there), timeout=10) == 2
    assert await there.ask(Relay(there), timeout=10) == 2
    assert await here.find("there") is there  # An actor has one ref at each node.
    assert await here.find("nothing") is None


async def a_router_is_told_and_asked_from_afar_as_a_near_one(nodes: Nodes) -> None:
    here = nodes.here
    host = await here.spawn(Host, node="b")
    workers = await host.ask(OpenPool(3), timeout=10)
    # The pool need not be up before it has mail, and what comes after a request does not overtake it.
    first = asyncio.ensure_future(workers.ask(Total(), timeout=10))
    workers.tell(Deposit(2))
    assert await first == 0
    await workers.send(Deposit(2), timeout=10)
    assert await workers.ask(Slow(0.01), timeout=10) == "done"
    with pytest.raises(TooMuch, match="100 wanted"):
        await workers.ask(Withdraw(100), timeout=10)
    with pytest.raises(Unhandled, match="Deposit, Garbled, GetNode, Odd, Relay, Slow"):
        await workers.ask(NotHandled(), timeout=10)
    with pytest.raises(AskTimeout):
        await workers.ask(Slow(60), timeout=0.2)
    accounts = [await here.spawn(Account, number, node=node) for number, node in enumerate("abc")]
    spread = await host.ask(OpenRouter([*accounts, await host.ask(OpenRouter(accounts[2:]), timeout=10)]), timeout=10)
    assert [await spread.ask(Total(), timeout=10) for _ in range(8)] == [0, 1, 2, 2] * 2
    with pytest.raises(TooMuch, match="100 wanted, 0 left"):
        await spread.ask(Withdraw(100), timeout=10)
    with pytest.raises(Unhandled, match="Deposit, Garbled, GetNode, Odd, Relay, Slow"):
        await spread.ask(NotHandled(), timeout=10)
    workers.stop()
    await workers.terminated()
    with pytest.raises(ActorStopped):
        await workers.ask(Total(), timeout=10)


async def watchers_everywhere_learn_of_an_end_once(nodes: Nodes) -> None:
    account = await nodes.here.spawn(Account, node="b")
    watchers = [await nodes.here.spawn(Watcher, node=node) for node in "abc"]
    watchers.append(nodes.here.node.system.spawn(Watcher))
    for watcher in watchers:
        watcher.tell(Introduce(account))
        watcher.tell(Introduce(account))
        await watcher.ask(Total(), timeout=10)
    account.stop()
    assert (await account.terminated()).reason.value == "stopped"
    for watcher in watchers:
        await until(watcher, Total(), 1)
    with pytest.raises(ActorStopped):
        await account.ask(Total(), timeout=10)
    late = await nodes.here.spawn(Watcher, node="c")
    late.tell(Introduce(account))
    await until(late, Total(), 1)


async def what_is_odd_harms_nothing_else(nodes: Nodes) -> None:
    account = await nodes.here.spawn(Account, node="b")
    odd = Odd(0)
    msgspec.structs.force_setattr(odd, "number", -1)
    account.tell(odd)
    account.tell(Deposit(2))
    with pytest.raises(RemoteRefusal, match=r"half a character: \\ud83d"):
        await account.ask(Garbled(), timeout=10)
    for _ in range(20):  # More than there may be batches under way.
        account.tell(odd)
        assert await account.ask(Total(), timeout=10) == 2


async def what_cannot_travel_is_refused_in_words(nodes: Nodes) -> None:
    with pytest.raises(NotSendable, match="a lambda cannot be placed"):
        await nodes.here.spawn(lambda: Account(1), node="b")
    with pytest.raises(NotSendable, match="list cannot travel to another node: it holds <object"):
        await nodes.here.spawn(Account, object(), node="b")
    account = await nodes.here.spawn(Account, node="b")
    with pytest.raises(NotSendable, match="Deposit cannot travel"):
        account.tell(Deposit(object()))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="there is no node 'z' in this cluster, only a, b, c"):
        await nodes.here.spawn(Account, node="z")


async def the_death_of_a_node_tells_what_never_ran_from_what_may_have_run(nodes: Nodes) -> None:
    account = await nodes.here.spawn(Account, node="b")
    watcher = nodes.here.node.system.spawn(Watcher)
    watcher.tell(Introduce(account))
    under_way = asyncio.ensure_future(account.ask(Slow(60), timeout=60))
    await account.ask(Total(), timeout=10)
    await nodes.kill("b")
    with pytest.raises(ActorCrashed, match="whether it was handled is unknown"):
        await under_way
    with pytest.raises(ActorStopped, match="never left for b"):
        await account.ask(Total(), timeout=10)
    assert isinstance((await account.terminated()).error, NodeLost)
    await until(watcher, Total(), 1)


async def an_actor_placed_anywhere_goes_on_if_its_node_is_lost(nodes: Nodes) -> None:
    account = await nodes.here.spawn(Account, 5, node=ANYWHERE, timeout=30)
    while await account.ask(GetNode(), timeout=10) == "a":  # From which the others may be seen.
        account.stop()
        account = await nodes.here.spawn(Account, 5, node=ANYWHERE, timeout=30)
    node = await account.ask(GetNode(), timeout=10)
    relay = await nodes.here.spawn(Account, node="a")
    account.tell(Deposit(2))
    assert await relay.ask(Relay(account), timeout=10) == 7
    under_way = asyncio.ensure_future(account.ask(Slow(60), timeout=60))
    await account.ask(Total(), timeout=10)
    await nodes.kill(node)
    with pytest.raises(ActorCrashed, match="whether it was handled is unknown"):
        await under_way
    assert await account.ask(Total(), timeout=30) == 5
    assert await relay.ask(Relay(account), timeout=10) == 5
    await nodes.revive(node)


async def a_keyed_actor_outlives_its_home(nodes: Nodes) -> None:
    savings = nodes.here.ref(SavingsAccount, key="alice", home="c")
    assert await savings.ask(Save(5), timeout=30) == 5
    relay = await nodes.here.spawn(Account, node="a")
    assert await relay.ask(Relay(savings), timeout=10) == 5
    under_way = asyncio.ensure_future(savings.ask(SaveSlowly(100, seconds=60), timeout=60))
    await savings.ask(GetBalance(), timeout=10)
    await nodes.kill("c")
    with pytest.raises(ActorCrashed, match="whether it was handled is unknown"):
        await under_way
    await nodes.revive("c")
    balance = 0
    async with asyncio.timeout(30):
        while not balance:
            with suppress(NeverDelivered):
                balance = await savings.ask(Save(1), timeout=10)
    assert balance == 6
    assert await relay.ask(Relay(savings), timeout=10) == 6


CHECKS: tuple[Callable[[Nodes], Awaitable[None]], ...] = (
    a_remote_actor_is_told_and_asked_as_a_near_one,
    mail_arrives_once_and_in_order,
    refusals_come_back_as_their_type_and_crashes_with_their_words,
    an_asker_that_gives_up_cancels_the_handler,
    refs_work_after_travelling,
    a_router_is_told_and_asked_from_afar_as_a_near_one,
    watchers_everywhere_learn_of_an_end_once,
    what_is_odd_harms_nothing_else,
    what_cannot_travel_is_refused_in_words,
    the_death_of_a_node_tells_what_never_ran_from_what_may_have_run,
    an_actor_placed_anywhere_goes_on_if_its_node_is_lost,
    a_keyed_actor_outlives_its_home,
)
