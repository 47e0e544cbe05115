"""Whatever is cut off, killed or lives on: each command of a keyed actor is in its journal once, or its asker knows."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from runtime import ActorCrashed, ActorStopped, AskTimeout
from runtime.cluster import InProcessNetwork, NetworkFaults, NeverDelivered, adopt, contact
from runtime.cluster.homes import Keyed, journal_name
from runtime.cluster.placing import factory_name
from runtime.persistence import MemoryDisk, MemoryJournal, NotRecorded
from runtime.simulation import ScenarioFailed, explore
from tests.proofs import repeated
from tests.runtime.cluster.keyed_cast import Save, Saved, SavingsAccount
from tests.runtime.cluster.unlocked import UnlockedFolder

if TYPE_CHECKING:
    from runtime.cluster import Cluster
    from runtime.simulation import Simulation

NODES = ("a", "b", "c")
KEYS = ("alice", "bob")


class Town:
    """Three machines, whose nodes are cut off, die, live on for a while and begin again."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        faults = NetworkFaults(delay=(0.0, rng.choice((0.001, 0.02, 0.2))), loss=rng.choice((0, 0.1)), repeats=0.1)
        self.network = InProcessNetwork(faults, notice=1.5, rng=random.Random(rng.random()), homes=NODES)
        self.folders = {name: UnlockedFolder() for name in NODES}
        self.gone: set[str] = set()
        """Machines that do not come back."""
        self.stop = asyncio.Event()
        self.saved: dict[tuple[str, str], int | Exception] = {}
        """By key and note: the balance, or why there is none."""
        self._count = 0

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for name in NODES:
                group.create_task(self._live(name, group))
            group.create_task(self._trouble())

    async def _live(self, name: str, group: asyncio.TaskGroup) -> None:
        """Run the lives of a node; one that is killed may go on, beside the next."""
        while not self.stop.is_set() and name not in self.gone:
            killed = asyncio.Event()
            group.create_task(self._one_life(name, killed))
            await killed.wait()
            await asyncio.sleep(self.rng.choice((0.0, 0.3, 3.0)))

    async def _one_life(self, name: str, killed: asyncio.Event) -> None:
        async with AsyncExitStack() as stack:
            cluster = await stack.enter_async_context(self.network.node(name, journals=self.folders[name]))
            clients = [asyncio.ensure_future(self._save(cluster, key)) for key in KEYS]
            while self.network.is_alive(cluster.node.life) and not self.stop.is_set():
                await self.network.change()
            killed.set()
            if not self.stop.is_set():
                await asyncio.sleep(self.rng.choice((0.0, 0.5, 5.0)))
                for client in clients:
                    client.cancel()
            await asyncio.gather(*clients, return_exceptions=True)

    async def _save(self, cluster: Cluster, key: str) -> None:
        account = cluster.ref(SavingsAccount, key=key)
        while not self.stop.is_set():
            self._count += 1
            note = f"{cluster.node.life.name} {self._count}"
            self.saved[key, note] = AskTimeout(key, note, timeout=0.0)  # If it is cancelled.
            try:
                self.saved[key, note] = await account.ask(Save(1, note), timeout=self.rng.choice((0.05, 1.0, 5.0)))
            except (ActorStopped, ActorCrashed, AskTimeout, NotRecorded) as error:
                self.saved[key, note] = error
            await asyncio.sleep(self.rng.choice((0.05, 0.5)))

    async def _trouble(self) -> None:
        rng, network = self.rng, self.network
        for _ in range(rng.randrange(1, 6)):
            await asyncio.sleep(rng.uniform(0.0, 3.0))
            one, other = rng.sample(NODES, 2)
            match rng.randrange(4):
                case 0:
                    network.kill(one)
                case 1:
                    network.cut(one, other)
                    await asyncio.sleep(rng.choice((0.4, 2.0)))
                    network.heal(one, other)
                case 2:
                    network.isolate(one)
                    await asyncio.sleep(rng.choice((0.4, 1.2, 4.0)))
                    network.rejoin(one)
                case _ if not self.gone:
                    await self._move(one, other)
                case _:
                    pass
        await asyncio.sleep(7.0)
        self.stop.set()
        network.cut("", "")

    async def _move(self, one: str, other: str) -> None:
        """Give a machine up, which may live on for a while, and adopt a copy of what is on its disk elsewhere."""
        self.gone.add(one)
        self.network.isolate(one)
        self.network.kill(one)
        await asyncio.sleep(contact.TAKEOVER)
        for name, disk in self.folders[one].disks.items():
            if name not in self.folders[other].disks:
                copied = self.folders[other].disks[name] = MemoryDisk()
                copied.entries, copied.epoch = list(disk.entries), disk.epoch
                adopt(self.folders[other].open(name))

    def check(self) -> None:
        for key in KEYS:
            name = journal_name(Keyed(factory_name(SavingsAccount), key))
            disks = [folder.disks[name] for folder in self.folders.values() if name in folder.disks]
            if disks:
                notes = notes_in(max(disks, key=lambda disk: disk.epoch))
                assert len(notes) == len(set(notes)), f"{key} has a note twice: {notes}"
                for (of, note), end in self.saved.items():
                    if of == key:
                        check_end(key, note, end, notes)


def notes_in(disk: MemoryDisk) -> list[str]:
    """Return the notes of a journal in their order."""
    disk.owner = None
    return [msgspec.msgpack.decode(content, type=Saved).note for content in MemoryJournal(disk).replay()]


def check_end(key: str, note: str, end: int | Exception, notes: list[str]) -> None:
    """Check that what its asker was told of a command is true."""
    if isinstance(end, int):
        assert note in notes, f"{key} has lost {note!r}, which was answered with {end}"
        assert notes[end - 1] == note, f"{key} answered {note!r} with {end}, and has it elsewhere"
    elif isinstance(end, NeverDelivered | NotRecorded):
        assert note not in notes, f"{key} has {note!r}, which is said never to have run: {end!r}"


async def split(simulation: Simulation) -> None:
    town = Town(simulation.random)
    await town.run()
    town.check()
    assert town.gone or any(isinstance(end, int) for end in town.saved.values())


def test_each_command_is_in_the_journal_once_or_its_asker_knows() -> None:
    """G13."""
    seeds = range(repeated(10_000, part=500))
    assert explore(split, seeds=seeds).runs == len(seeds)


def always(*_: Any) -> bool:
    return True


def never(*_: Any) -> None:
    """Let whoever writes write."""


def test_homes_that_never_let_go_and_have_no_fence_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contact.Contact, "holds", always)
    monkeypatch.setattr(MemoryJournal, "_check_epoch", never)
    with pytest.raises(ScenarioFailed, match=r"alice|bob|damaged"):
        explore(split, seeds=range(100), processes=1)


def test_a_home_that_does_not_let_go_before_its_journal_is_adopted_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contact.Contact, "holds", always)
    with pytest.raises(ScenarioFailed, match="has lost"):
        explore(split, seeds=range(200), processes=1)
