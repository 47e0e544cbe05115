"""Whatever is delayed, lost, repeated, cut or killed: mail arrives in order and once, or its sender knows."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest

from runtime import ActorCrashed, ActorStopped, AskTimeout, DeadLetter, RuntimeFault
from runtime.cluster import AnswerLost, InProcessNetwork, NetworkFaults, NeverDelivered, NodeLost, stream_of_batches
from runtime.simulation import ScenarioFailed, explore
from tests.proofs import repeated
from tests.runtime.cluster.cast import SEEN, Numbered, Receiver, Told

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime.cluster import Cluster
    from runtime.simulation import Simulation

NODES = ("a", "b", "c")
ROUNDS = 30
TAKE: Callable[..., list[Any]] = stream_of_batches.Incoming[Any].take


async def exchange(simulation: Simulation) -> None:
    """Three nodes send to each other while ways are cut and nodes die; each message's end is checked."""
    rng = simulation.random
    SEEN.clear()
    faults = NetworkFaults(delay=(0.0, rng.choice((0.001, 0.02, 0.2))), loss=rng.choice((0, 0.1)), repeats=0.1)
    network = InProcessNetwork(faults, notice=0.5, rng=random.Random(rng.random()))
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for name in NODES:
            group.create_task(live(network, name, rng, stop))
        group.create_task(trouble(network, rng, stop))
    for life, seen in SEEN.items():
        for sender in {sender for sender, _ in seen}:
            numbers = [number for one, number in seen if one == sender]
            assert numbers == sorted(set(numbers)), f"{life} got {numbers} of {sender}"


async def live(network: InProcessNetwork, name: str, rng: random.Random, stop: asyncio.Event) -> None:
    """Run a node through its lives, in each of which it sends to a receiver on another node."""
    life = 0
    while not stop.is_set():
        life += 1
        async with AsyncExitStack() as stack:
            cluster = await stack.enter_async_context(network.node(name))
            dead = asyncio.ensure_future(death(network, name, stop))
            sending = asyncio.ensure_future(send(cluster, f"{name}{life}", rng))
            await asyncio.wait((dead, sending), return_when=asyncio.FIRST_COMPLETED)
            if stop.is_set() or sending.done():
                await asyncio.wait((sending,))
                sending.result()
                await stop.wait()
            sending.cancel()
            dead.cancel()


async def death(network: InProcessNetwork, name: str, stop: asyncio.Event) -> None:
    while name in network.living and not stop.is_set():
        await network.change()


async def trouble(network: InProcessNetwork, rng: random.Random, stop: asyncio.Event) -> None:
    """Cut ways and kill nodes for a while, then leave them alone until what was sent has ended."""
    for _ in range(rng.randrange(6)):
        await asyncio.sleep(rng.uniform(0.0, 1.0))
        one, other = rng.sample(NODES, 2)
        if rng.random() < 0.4:
            network.kill(one)
        else:
            network.cut(one, other)
            await asyncio.sleep(rng.choice((0.1, 0.4, 2.0)))
            network.heal(one, other)
    await asyncio.sleep(30)
    stop.set()
    network.cut("", "")


async def send(cluster: Cluster, sender: str, rng: random.Random) -> None:
    """Tell and ask numbers in order, and check that what is said of each end is true."""
    me = cluster.node.life.name
    node = rng.choice([name for name in NODES if name != me])
    receiver = f"{sender} at {node}"
    dead: list[Any] = []
    cluster.node.system.events.subscribe(DeadLetter, dead.append)
    try:
        ref = await cluster.spawn(Receiver, receiver, node=node, timeout=5.0)
    except (NodeLost, ActorStopped, ActorCrashed, AskTimeout):
        return
    numbers = iter(range(10_000))
    ended: dict[int, int | Exception] = {}

    async def ask() -> None:
        number = next(numbers)
        try:
            ended[number] = await ref.ask(Numbered(sender, number), timeout=rng.choice((0.05, 5.0)))
        except RuntimeFault as error:
            ended[number] = error

    asking: list[asyncio.Task[None]] = []
    for _ in range(ROUNDS):
        if rng.random() < 0.5:
            ref.tell(Told(sender, next(numbers)))
        else:
            asking.append(asyncio.ensure_future(ask()))
        if rng.random() < 0.2:
            await asyncio.sleep(rng.uniform(0.0, 0.1))
    await asyncio.gather(*asking)
    handled = {number for _, number in SEEN.get(receiver, ())}
    for number, end in ended.items():
        if isinstance(end, int):
            assert end == number
            assert number in handled
        elif isinstance(end, NeverDelivered):
            assert number not in handled, f"{receiver} handled {number}, which is said to have never run"
        else:
            assert isinstance(end, AnswerLost | AskTimeout | ActorStopped), repr(end)
    never = {one.message.number for one in dead if one.reason.value == "stopped"}
    assert not never & handled, f"{never & handled} were handled, and are said never to have been"


def test_mail_is_in_order_and_once_or_its_sender_knows() -> None:
    seeds = range(repeated(2_000, part=40))
    assert explore(exchange, seeds=seeds).runs == len(seeds)


def take_as_it_comes(self: Any, number: int, batch: Any, *, replied: int) -> list[Any]:
    """Take each batch once, but in the order of arrival."""
    del replied
    if number in self.early:
        return []
    self.early[number] = None
    return [batch]


def take_again(self: Any, number: int, batch: Any, *, replied: int) -> list[Any]:
    """Take in order, but what comes again is taken again."""
    if number < self.expected:
        return [batch]
    return TAKE(self, number, batch, replied=replied)


@pytest.mark.parametrize("planted", [take_again, take_as_it_comes])
def test_a_fault_of_the_order_is_found(monkeypatch: pytest.MonkeyPatch, planted: Callable[..., Any]) -> None:
    monkeypatch.setattr(stream_of_batches.Incoming, "take", planted)
    with pytest.raises(ScenarioFailed, match="got"):
        explore(exchange, seeds=range(200), processes=1)
