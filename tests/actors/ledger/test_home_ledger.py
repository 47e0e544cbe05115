"""The ledger of a cluster has one home: its journal goes on with it, and no second one can spend its money."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest

from actors import Ledger
from actors.errors import BudgetExceeded
from actors.ledger import (
    BookCall,
    BudgetLessee,
    GetStatement,
    JournalFailed,
    MoreMoney,
    OpenAccount,
    Reservation,
    Reserve,
    home_ledger,
)
from runtime.cluster import AnswerLost, InProcessNetwork, JournalFolder, MemoryFolder, NeverDelivered

if TYPE_CHECKING:
    from pathlib import Path

    from runtime import ActorRef


def order(number: int, amount: str = "1") -> Reserve:
    return Reserve(key=f"order {number}", provider="alder", amount=amount, accounts=("run",))


async def reserve(money: ActorRef[Any], number: int, amount: str = "1") -> Reservation:
    return await money.ask(order(number, amount), timeout=20.0)


@pytest.mark.parametrize("where", ["memory", "files"])
async def test_what_was_reserved_when_the_home_died_is_held_by_its_next_life(where: str, tmp_path: Path) -> None:
    folder = MemoryFolder() if where == "memory" else JournalFolder(tmp_path)
    network = InProcessNetwork(notice=0.5, homes=("home",))
    async with network.node("a") as a:
        money = a.ref(home_ledger, key="money")
        async with network.node("home", journals=folder):
            await money.ask(OpenAccount(name="run", cap="5"), timeout=10.0)
            paid, lost = [await reserve(money, number) for number in range(2)]
            money.tell(BookCall(paid, charged="yes"))
            await money.ask(GetStatement("run"), timeout=10.0)
        await asyncio.sleep(1.0)
        with pytest.raises(NeverDelivered, match="its home 'home', which has its journal, is gone"):
            await reserve(money, 2)
        async with network.node("home", journals=folder):
            statement = await money.ask(GetStatement("run"), timeout=10.0)
            assert [str(one) for one in (statement.settled, statement.held)] == ["$1.00", "$1.00"]
            with pytest.raises(BudgetExceeded):
                await reserve(money, 3, "3.50")
            money.tell(BookCall(lost, charged="no"))
            await reserve(money, 4, "3.50")


async def test_a_second_ledger_over_the_same_journal_ends_the_first() -> None:
    folder = MemoryFolder()
    networks = [InProcessNetwork(homes=("home",)) for _ in range(2)]
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(network.node("home", journals=folder)) for network in networks]
        first, second = (node.ref(home_ledger, key="money") for node in nodes)
        await first.ask(OpenAccount(name="run", cap="5"), timeout=10.0)
        await reserve(first, 1, "3")
        (disk,) = folder.disks.values()
        disk.owner = None  # As on a file system that keeps no locks.
        statement = await second.ask(GetStatement("run"), timeout=10.0)
        assert str(statement.held) == "$3.00"
        end = asyncio.ensure_future(first.terminated())
        await asyncio.sleep(0)
        with pytest.raises(JournalFailed, match="belongs to a later owner: its epoch is 2, and this owner's is 1"):
            await reserve(first, 2, "1")
        await end
        await reserve(second, 3, "2")
        with pytest.raises(BudgetExceeded):
            await reserve(second, 4, "1")


async def test_what_a_node_leases_stays_reserved_or_held_while_the_home_is_lost_and_after() -> None:
    folder = MemoryFolder()
    network = InProcessNetwork(notice=0.5, homes=("home",))
    async with network.node("a") as a:
        money, more = a.ref(home_ledger, key="money"), MoreMoney("run")
        own = a.node.system.spawn(lambda: Ledger(accounts={"run": "0"}, on_exhausted=more))
        async with network.node("home", journals=folder):
            await money.ask(OpenAccount(name="run", cap="8"), timeout=10.0)
            more.lessee = a.node.system.spawn(lambda: BudgetLessee("run", home=money, own=own, nodes=1))
            a_call = await reserve(own, 1)
        with pytest.raises(AnswerLost):
            await money.ask(GetStatement("run"), timeout=10.0)
        await reserve(own, 2)  # Of its lease, half of what there is.
        async with network.node("home", journals=folder):
            statement = await money.ask(GetStatement("run"), timeout=10.0)
            assert str(statement.held) == "$4.00"
            with pytest.raises(BudgetExceeded):
                await reserve(money, 3, "5")
            own.tell(BookCall(a_call, charged="yes"))
            await reserve(money, 4, "4")
