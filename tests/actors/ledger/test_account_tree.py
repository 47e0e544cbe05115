"""Accounts below accounts: a call draws on the whole path to the root, and each account on it has to have enough."""

from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from actors import Market, ProviderCall, Supervisor, provider, smart_request
from actors.errors.families import BudgetExceeded, Permanent
from actors.events import Overcharged
from actors.ledger.account_table import MAX_DEPTH
from actors.ledger.book import Book, InsufficientFunds
from actors.ledger.entries import MoneyReserved
from actors.ledger.ledger import Ledger
from actors.ledger.messages import BookCall, CloseAccount, GetStatement, OpenAccount, Reservation, Reserve, SetCap
from actors.money import Micros
from runtime import ActorSystem
from tests.proofs import repeated

if TYPE_CHECKING:
    from pathlib import Path

    from runtime import ActorRef


async def open_tree(ledger: ActorRef[Any]) -> None:
    """Open run -> agent -> helper, and agent 2 beside agent."""
    for name, cap, parent in (
        ("run", "1.00", None),
        ("agent", "0.60", "run"),
        ("helper", "5.00", "agent"),
        ("agent 2", None, "run"),
    ):
        await ledger.ask(OpenAccount(name=name, cap=cap, parent=parent), timeout=1.0)


async def reserve(ledger: ActorRef[Any], key: str, amount: str, *accounts: str, **more: Any) -> Reservation:
    wish = Reserve(key=key, provider="alder", amount=amount, accounts=accounts, **more)
    return await ledger.ask(wish, timeout=5.0)


async def used(ledger: ActorRef[Any], *accounts: str) -> list[str]:
    return [str((await ledger.ask(GetStatement(name), timeout=1.0)).used) for name in accounts]


async def test_a_call_draws_on_every_account_up_to_the_root_and_on_each_once():
    async with ActorSystem("shop", log=False) as system:
        ledger = system.spawn(Ledger)
        await open_tree(ledger)
        first = await reserve(ledger, "1", "0.20", "helper", "agent", "run")  # As many as are named, each once.
        await reserve(ledger, "2", "0.30", "agent 2")
        assert await used(ledger, "helper", "agent", "agent 2", "run") == ["$0.20", "$0.20", "$0.30", "$0.50"]
        ledger.tell(BookCall(first, charged="yes", cost="0.05"))
        assert await used(ledger, "helper", "agent", "agent 2", "run") == ["$0.05", "$0.05", "$0.30", "$0.35"]
        assert (await ledger.ask(GetStatement("helper"), timeout=1.0)).parent == "agent"


async def test_a_cap_above_that_of_the_parent_allows_no_more_than_the_parent_has():
    async with ActorSystem("shop", log=False) as system:
        ledger = system.spawn(Ledger)
        await open_tree(ledger)
        with pytest.raises(BudgetExceeded) as refused:
            await reserve(ledger, "1", "0.70", "helper")  # Its own cap is $5.
        assert (refused.value.cap, str(refused.value.available)) == ("agent", "$0.60")
        await reserve(ledger, "2", "0.50", "agent 2")
        with pytest.raises(BudgetExceeded) as refused:
            await reserve(ledger, "3", "0.55", "helper")
        assert (refused.value.cap, str(refused.value.available)) == ("run", "$0.50")
        assert await used(ledger, "helper", "agent", "run") == ["$0.00", "$0.00", "$0.50"]


async def test_a_request_that_waits_for_the_parent_is_served_in_its_turn():
    async with ActorSystem("shop", log=False) as system:
        ledger = system.spawn(Ledger)
        await open_tree(ledger)
        first = await reserve(ledger, "1", "0.60", "helper")
        waiting = [
            asyncio.ensure_future(reserve(ledger, key, "0.30", account, wait=True))
            for key, account in (("2", "agent"), ("3", "helper"))
        ]
        await asyncio.sleep(0.1)
        assert not any(one.done() for one in waiting)
        ledger.tell(BookCall(first, charged="yes", cost="0.30"))
        assert (await waiting[0]).key == "2"
        assert not waiting[1].done()
        await ledger.ask(SetCap("agent", "0.90"), timeout=1.0)
        assert (await waiting[1]).key == "3"


async def test_an_overrun_is_booked_on_the_whole_path_and_names_the_leaf_first():
    told: list[Overcharged] = []
    async with ActorSystem("shop", log=False) as system:
        system.events.subscribe(Overcharged, told.append)
        ledger = system.spawn(Ledger)
        await open_tree(ledger)
        ledger.tell(BookCall(await reserve(ledger, "1", "0.50", "helper"), charged="yes", cost="0.70"))
        assert await used(ledger, "helper", "agent", "run") == ["$0.70", "$0.70", "$0.70"]
        assert [event.accounts for event in told] == [("helper", "agent", "run")]
        with pytest.raises(BudgetExceeded):
            await reserve(ledger, "2", "0.01", "agent")


async def test_closing_an_account_closes_those_below_it_and_waits_for_their_calls():
    async with ActorSystem("shop", log=False) as system:
        ledger = system.spawn(Ledger)
        await open_tree(ledger)
        reservation = await reserve(ledger, "1", "0.20", "helper")
        closing = asyncio.ensure_future(ledger.ask(CloseAccount(name="agent"), timeout=5.0))
        await asyncio.sleep(0.1)
        assert not closing.done()
        for name in ("helper", "agent"):
            with pytest.raises(Permanent, match="there is no open account"):
                await reserve(ledger, "2", "0.01", name)
        ledger.tell(BookCall(reservation, charged="yes", cost="0.10"))
        assert str((await closing).settled) == "$0.10"
        assert await used(ledger, "run", "agent 2") == ["$0.10", "$0.00"]


async def test_what_cannot_stand_below_is_refused_with_a_reason():
    async with ActorSystem("shop", log=False) as system:
        ledger = system.spawn(Ledger)
        with pytest.raises(Permanent, match="there is no open account 'nothing'; open it first"):
            await ledger.ask(OpenAccount(name="a", parent="nothing"), timeout=1.0)
        with pytest.raises(TypeError, match="parent must be"):
            OpenAccount(name="a", parent=5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        above = None
        for depth in range(MAX_DEPTH):
            above = await ledger.ask(OpenAccount(name=f"level {depth}", parent=above), timeout=1.0)
        with pytest.raises(Permanent, match="is 16 deep already"):
            await ledger.ask(OpenAccount(name="one more", parent=above), timeout=1.0)
        await reserve(ledger, "1", "0.01", f"level {MAX_DEPTH - 1}")
        assert await used(ledger, "level 0") == ["$0.01"]


async def test_the_tree_outlives_the_program(tmp_path: Path):
    path = tmp_path / "money.journal"
    async with ActorSystem("shop", log=False) as system:
        ledger = system.spawn(lambda: Ledger(journal=path))
        await open_tree(ledger)
        ledger.tell(BookCall(await reserve(ledger, "1", "0.20", "helper"), charged="yes"))
        await ledger.ask(CloseAccount(name="agent 2"), timeout=1.0)
    async with ActorSystem("shop", log=False) as system:
        ledger = system.spawn(lambda: Ledger(journal=path))
        with pytest.raises(Permanent, match="account 'agent' is below 'run' since an earlier run"):
            await ledger.ask(OpenAccount(name="agent", cap="0.60"), timeout=1.0)
        await ledger.ask(OpenAccount(name="agent", cap="0.50", parent="run"), timeout=1.0)
        await reserve(ledger, "2", "0.10", "helper")
        assert await used(ledger, "helper", "agent", "run") == ["$0.30", "$0.30", "$0.30"]
        with pytest.raises(BudgetExceeded):
            await reserve(ledger, "3", "0.25", "helper")


@pytest.mark.parametrize("seed", range(repeated(200)))
def test_whatever_happens_each_account_has_what_was_drawn_at_it_and_below(seed: int):
    rng, book, drawn = Random(seed), Book(), dict[int, tuple[str, int, Reservation]]()
    parents: dict[str, str | None] = {}
    for number in range(12):
        parent = rng.choice([None, *parents])
        parents[f"a{number}"] = parent
        book.open(f"a{number}", cap=rng.choice((None, Micros(300), Micros(1_000))), parent=parent, at=0.0)
    for step in range(60):
        if drawn and rng.random() < 0.4:
            name, _, reservation = drawn.pop(rng.choice(list(drawn)))
            book.book(reservation, rng.choice(("no", "yes")), at=0.0)
        else:
            name, amount = rng.choice(list(parents)), rng.randrange(1, 200)
            accounts = book.accounts.with_parents((name,))
            wish = Reserve(key=f"k{step}", provider="alder", amount=Micros(amount), accounts=accounts)
            made = book.reserve(wish, at=0.0)
            if isinstance(made, MoneyReserved):
                drawn[made.reservation] = (name, amount, book.reservation(made.reservation))
            else:
                assert isinstance(made, InsufficientFunds)
                assert made.account in accounts
        assert list(book.broken_invariants()) == []
        for name in parents:
            below = [state.name for state in book.accounts.below(name)]
            assert book.statement(name).reserved == sum(
                amount for at, amount, _ in drawn.values() if at == name or at in below
            )


async def test_a_request_draws_on_the_path_of_its_account():
    async def upper(call: ProviderCall) -> str:
        return call.input.upper()

    listing = provider("upper", upper, price="0.02", service="uppercase")
    async with ActorSystem("shop", log=False) as system:
        supervisor = system.spawn(lambda: Supervisor(Market(providers=[listing])))
        await open_tree(supervisor)
        await smart_request(supervisor, service="uppercase", input="a", account="helper")
        assert await used(supervisor, "helper", "agent", "run", "agent 2") == ["$0.02", "$0.02", "$0.02", "$0.00"]
