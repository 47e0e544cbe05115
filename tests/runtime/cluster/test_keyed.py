"""Keyed actors: found from every node, alive again from their journals, and written by one activation at most."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from runtime import ActorCrashed, ActorRef
from runtime.cluster import (
    AnswerLost,
    ContactLost,
    ContactRegained,
    InProcessNetwork,
    NetworkFaults,
    NeverDelivered,
    NodeLost,
    adopt,
    hosting,
)
from runtime.cluster.homes import Keyed, home_of, journal_name
from runtime.cluster.journals import JournalFolder, MemoryFolder
from runtime.cluster.placing import factory_name
from runtime.persistence import MemoryDisk, NotRecorded
from tests.runtime.cluster.cast import Account, Introduce, Relay, Total, Watcher
from tests.runtime.cluster.keyed_cast import GetBalance, GetNotes, Save, SaveSlowly, SavingsAccount, broken

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

HOMES = ("a", "b", "c")
ALICE = Keyed(factory_name(SavingsAccount), "alice")


def key_at(home: str, number: int = 0) -> str:
    """Return a key that has this home."""
    factory = factory_name(SavingsAccount)
    keys = (f"key {n}" for n in range(1_000))
    return [key for key in keys if home_of(Keyed(factory, key), HOMES) == home][number]


@asynccontextmanager
async def joined(faults: NetworkFaults | None = None, **folders: Any) -> AsyncGenerator[Any]:
    """Join nodes a, b and c, each with a folder in memory; yield the network and the nodes."""
    network = InProcessNetwork(faults, notice=1.5, homes=HOMES)
    async with AsyncExitStack() as stack:
        nodes = [
            await stack.enter_async_context(network.node(name, journals=folders.get(name) or MemoryFolder()))
            for name in HOMES
        ]
        yield network, *nodes


async def test_a_key_names_one_actor_from_every_node() -> None:
    async with joined() as (_, *nodes):
        for number, home in enumerate(HOMES):
            key = key_at(home, number)
            for count, node in enumerate(nodes, 1):
                account = node.ref(SavingsAccount, key=key)
                assert await account.ask(Save(5), timeout=10) == 5 * count


async def test_mail_goes_to_it_in_order_while_it_is_activated() -> None:
    async with joined(NetworkFaults(delay=(0.001, 0.05), loss=0.1, repeats=0.1)) as (_, a, *_):
        account = a.ref(SavingsAccount, key=key_at("b"))
        asked: list[asyncio.Future[int]] = []
        for number in range(10):
            account.tell(Save(1, f"told {number}"))
            asked.append(asyncio.ensure_future(account.ask(Save(1, f"asked {number}"), timeout=30)))
            await asyncio.sleep(0)
        assert [await one for one in asked] == [2 * number + 2 for number in range(10)]
        notes = await account.ask(GetNotes(), timeout=30)
        assert notes == [f"{how} {number}" for number in range(10) for how in ("told", "asked")]


async def test_what_it_recorded_is_there_after_its_home_has_ended_and_begun_again(tmp_path: Path) -> None:
    network = InProcessNetwork(notice=0.5, homes=("b",))
    async with network.node("a") as a:
        account = a.ref(SavingsAccount, key="alice")
        for life in range(1, 3):
            async with network.node("b", journals=tmp_path):
                assert await account.ask(Save(5), timeout=10) == 5 * life
                end = asyncio.ensure_future(account.terminated())
                await asyncio.sleep(0)
            assert isinstance((await end).error, NodeLost)
            with pytest.raises(NeverDelivered, match="its home 'b', which has its journal, is gone: it does not run"):
                await account.ask(GetBalance(), timeout=10)
    assert JournalFolder(tmp_path).epoch(journal_name(ALICE)) == 2


async def test_what_cannot_be_activated_is_refused_in_words() -> None:
    network = InProcessNetwork(homes=("a", "b"))
    async with network.node("a", journals=MemoryFolder()) as a, network.node("b"):
        with pytest.raises(NeverDelivered, match="'b' was given no folder for journals"):
            await a.ref(SavingsAccount, key="alice", home="b").ask(GetBalance(), timeout=10)
        with pytest.raises(
            NeverDelivered, match="broken makes no actor of it at 'a': ValueError: no account for alice"
        ):
            await a.ref(broken, key="alice", home="a").ask(GetBalance(), timeout=10)
        with pytest.raises(ValueError, match="'x' is no home in this cluster, only a, b"):
            a.ref(SavingsAccount, key="alice", home="x")
        with pytest.raises(ValueError, match="key must not be empty"):
            a.ref(SavingsAccount, key="")
    async with InProcessNetwork().node("a") as a:
        with pytest.raises(ValueError, match="no homes are declared"):
            a.ref(SavingsAccount, key="alice")


# At most one activation may write.


async def test_a_second_activation_fails_at_the_fence() -> None:
    """G13."""
    folder = MemoryFolder()
    first_network, second_network = (InProcessNetwork(homes=("b",)) for _ in range(2))
    async with first_network.node("b", journals=folder) as first, second_network.node("b", journals=folder) as second:
        accounts = [one.ref(SavingsAccount, key="alice") for one in (first, second)]
        assert await accounts[0].ask(Save(5), timeout=10) == 5
        with pytest.raises(NeverDelivered, match="is in use by"):
            await accounts[1].ask(Save(1), timeout=10)
        (disk,) = folder.disks.values()
        disk.owner = None  # As on a file system that keeps no locks.
        assert await accounts[1].ask(Save(1), timeout=10) == 6
        with pytest.raises(NotRecorded, match="its epoch is 2, and this owner's is 1"):
            await accounts[0].ask(Save(7), timeout=10)
        assert await accounts[1].ask(Save(1), timeout=10) == 7
        assert len(disk.entries) == 3


async def test_a_home_without_contact_ends_its_actors_and_closes_their_journals() -> None:
    """G13."""
    folder = MemoryFolder()
    async with joined(b=folder) as (network, a, b, _):
        account, near = (one.ref(SavingsAccount, key=key_at("b")) for one in (a, b))
        facts: list[Any] = []
        for kind in (ContactLost, ContactRegained):
            b.node.system.events.subscribe(kind, facts.append)
        assert await account.ask(Save(5), timeout=10) == 5
        (disk,) = folder.disks.values()
        asking = asyncio.ensure_future(near.ask(SaveSlowly(100, seconds=5.0), timeout=10))
        await asyncio.sleep(0.1)
        network.isolate("b")
        await asyncio.sleep(0.7)
        assert disk.owner is not None
        await asyncio.sleep(0.35)
        assert (disk.owner, facts) == (None, [ContactLost("b")])
        with pytest.raises(ActorCrashed):
            await asking
        with pytest.raises(NeverDelivered, match="has not heard from the cluster for 1 s"):
            await near.ask(Save(7), timeout=10)
        await asyncio.sleep(1.0)
        with pytest.raises((NeverDelivered, AnswerLost)):
            await account.ask(Save(7), timeout=10)
        network.rejoin("b")
        await asyncio.sleep(1.0)
        assert facts == [ContactLost("b"), ContactRegained("b")]
        assert await account.ask(Save(1), timeout=10) == 6
        assert await near.ask(Save(1), timeout=10) == 7


async def test_a_new_life_of_a_home_waits_until_the_one_before_has_let_go() -> None:
    """G13."""
    folder = MemoryFolder()
    network = InProcessNetwork(homes=("b",))
    async with network.node("a") as a, network.node("c") as c, network.node("b", journals=folder) as orphan:
        account = a.ref(SavingsAccount, key="alice")
        assert await account.ask(Save(5), timeout=10) == 5
        network.kill("b")  # Its process goes on.
        async with network.node("b", journals=folder):
            begin = asyncio.get_running_loop().time()
            asking = asyncio.ensure_future(c.ref(SavingsAccount, key="alice").ask(GetBalance(), timeout=10))
            assert await orphan.ref(SavingsAccount, key="alice").ask(Save(1), timeout=10) == 6
            assert await asking == 6
            assert asyncio.get_running_loop().time() - begin >= 1.5
            with pytest.raises(NeverDelivered):
                await orphan.ref(SavingsAccount, key="alice").ask(Save(1), timeout=10)


# Ends and beginnings.


async def test_many_keys_keep_no_more_journals_open_than_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosting, "MAX_ACTIVE", 5)
    folder = MemoryFolder()
    network = InProcessNetwork(homes=("b",))
    async with network.node("a") as a, network.node("b", journals=folder):
        accounts = [a.ref(SavingsAccount, key=f"key {number}") for number in range(20)]
        for count in range(1, 4):
            for account in accounts:
                assert await account.ask(Save(1), timeout=10) == 2 * count - 1
                account.tell(Save(1))  # Also to one that has been ended meanwhile.
        await asyncio.sleep(1)
        assert [await account.ask(GetBalance(), timeout=10) for account in accounts] == [6] * 20
        assert sum(disk.owner is not None for disk in folder.disks.values()) <= 5


async def test_a_ref_of_it_works_after_travelling_and_after_its_home_began_again() -> None:
    folder = MemoryFolder()
    network = InProcessNetwork(notice=0.5, homes=("c",))
    async with network.node("a") as a, network.node("b"):
        account = a.ref(SavingsAccount, key="alice")
        watcher = await a.spawn(Watcher, node="b")
        relay = await a.spawn(Account, node="b")
        async with network.node("c", journals=folder):
            assert await account.ask(Save(5), timeout=10) == 5
            watcher.tell(Introduce(account))
            assert await relay.ask(Relay(account), timeout=10) == 5
        await asyncio.sleep(1)
        assert await watcher.ask(Total(), timeout=10) == 1
        async with network.node("c", journals=folder):
            assert await relay.ask(Relay(account), timeout=10) == 5
            assert await account.ask(Save(1), timeout=10) == 6
        assert await watcher.ask(Total(), timeout=10) == 1


async def test_a_crash_is_followed_by_a_life_from_the_journal() -> None:
    async with joined() as (_, a, *_):
        account = a.ref(SavingsAccount, key=key_at("c"))
        assert await account.ask(Save(5), timeout=10) == 5
        with pytest.raises(ActorCrashed):
            await account.ask(Save(-6), timeout=10)
        assert await account.ask(Save(1), timeout=10) == 6


# Moved to another home.


def copy_to(other: MemoryFolder, folder: MemoryFolder) -> None:
    """Copy what is on the disk of a machine that is gone, and adopt it."""
    for name, disk in folder.disks.items():
        copied = other.disks[name] = MemoryDisk()
        copied.entries, copied.epoch = list(disk.entries), disk.epoch
        journal = other.open(name)
        adopt(journal)
        journal.close()


async def test_an_adopted_journal_goes_on_at_its_new_home_and_nowhere_else() -> None:
    """G13."""
    north, south = MemoryFolder(), MemoryFolder()
    network = InProcessNetwork(notice=0.5, homes=("north", "south"))
    key = next(f"key {n}" for n in range(100) if home_of(Keyed(ALICE.factory, f"key {n}"), network.homes) == "south")
    async with network.node("a") as a, network.node("b") as b:
        async with network.node("north", journals=north):
            account = a.ref(SavingsAccount, key=key)
            async with network.node("south", journals=south):
                assert await account.ask(Save(5), timeout=10) == 5
            await asyncio.sleep(1)
            with pytest.raises(NeverDelivered, match="its home 'south', which has its journal, is gone"):
                await account.ask(Save(1), timeout=10)
            copy_to(north, south)
            assert await account.ask(Save(1), timeout=10) == 6
            async with network.node("south", journals=south):  # It is back, with what it had.
                assert await b.ref(SavingsAccount, key=key).ask(Save(1), timeout=10) == 7
                assert await account.ask(Save(1), timeout=10) == 8
            async with network.node("south", journals=MemoryFolder()):  # Or without.
                assert await b.ref(SavingsAccount, key=key).ask(Save(1), timeout=10) == 9
        await asyncio.sleep(1)
        async with network.node("south", journals=south):
            for why in ("its home 'north', which has its journal, is gone", "is of epoch 1, and 1000000001 was seen"):
                with pytest.raises(NeverDelivered, match=why):
                    await account.ask(GetBalance(), timeout=10)
        assert [disk.epoch for disk in (*south.disks.values(), *north.disks.values())] == [1, 1_000_000_001]


async def test_a_node_that_is_not_the_home_makes_no_journal() -> None:
    folder = MemoryFolder()
    async with joined(c=folder) as (_, a, *_):
        await a.ref(SavingsAccount, key=key_at("b")).ask(Save(5), timeout=10)
        assert folder.disks == {}


async def test_a_key_stays_where_its_journal_is_if_homes_are_added() -> None:
    folders = {name: MemoryFolder() for name in "abc"}
    moves = next(f"key {n}" for n in range(100) if home_of(Keyed(ALICE.factory, f"key {n}"), "abc") == "c")
    for life, homes in enumerate(("ab", "abc"), 1):
        network = InProcessNetwork(homes=tuple(homes))
        async with AsyncExitStack() as stack:
            a, *_ = [await stack.enter_async_context(network.node(name, journals=folders[name])) for name in "abc"]
            assert await a.ref(SavingsAccount, key=moves).ask(Save(5), timeout=10) == 5 * life
    assert folders["c"].disks == {}


async def test_two_journals_of_one_key_are_both_left_alone() -> None:
    folders = {name: MemoryFolder() for name in "ab"}
    for name in "ab":
        async with InProcessNetwork(homes=(name,)).node(name, journals=folders[name]) as alone:
            await alone.ref(SavingsAccount, key="alice").ask(Save(5), timeout=10)
    network = InProcessNetwork(homes=("a", "b"))
    async with network.node("a", journals=folders["a"]) as a, network.node("b", journals=folders["b"]):
        with pytest.raises(NeverDelivered, match="both have a journal of it: adopt the right one"):
            await a.ref(SavingsAccount, key="alice").ask(GetBalance(), timeout=10)


async def test_a_node_that_has_left_begins_nothing_new() -> None:
    """G9."""
    async with joined() as (_, a, *_):
        far = await a.spawn(Account, node="b")
        account = a.ref(SavingsAccount, key=key_at("b"))
        met = a.node.codec.encode(far)
        await a.node.aclose()
        before = asyncio.all_tasks()
        again = a.node.codec.decode(met, ActorRef)
        for ref, request in ((far, Total()), (again, Total()), (account, GetBalance())):
            with pytest.raises(NeverDelivered, match="this node has left the cluster"):
                await ref.ask(request, timeout=10)
        assert asyncio.all_tasks() == before
