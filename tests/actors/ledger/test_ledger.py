"""The ledger as an actor: what is booked, and what is left when holders, askers and instances go. In virtual time."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from actors.errors.families import BudgetExceeded, Permanent
from actors.ledger.book import Book
from actors.ledger.entries import MoneyReleased
from actors.ledger.errors import AlreadyPaid
from actors.ledger.ledger import Ledger
from actors.ledger.messages import GetHeld, GetStatement, MarkSent, OpenAccount, Reservation, Reserve, Resolve, SetCap
from actors.money import Micros
from runtime import Actor, ActorRestarted, ActorSystem, DeadLetter, Request, handles
from runtime.simulation import Crash, DuplicateMail, Simulation, explore
from tests.actors.ledger.bank import DOLLAR, Money, money, settle
from tests.proofs import repeated

if TYPE_CHECKING:
    from runtime import ActorRef


async def test_a_reservation_is_answered_at_once_and_settled_at_its_true_cost():
    async with money() as bank:
        reservation = await bank.reserve("k")
        assert await bank.figures() == (4 * DOLLAR, 0, 0)
        bank.tell(reservation, "yes", 3 * DOLLAR)
        assert await bank.figures() == (0, 0, 3 * DOLLAR)
        with pytest.raises(AlreadyPaid):
            await bank.reserve("k")


async def test_caps_are_given_as_people_write_them_and_never_as_floats():
    options = {"accounts": {"a": "0.20", "b": 2, "c": Decimal("0.0015"), "d": None}}
    async with money(**options) as bank:
        caps = [(await bank.ref.ask(GetStatement(name), timeout=1)).cap for name in "abcd"]
        assert caps == [200_000, 2_000_000, 1_500, None]
    with pytest.raises(TypeError, match="is a float"):
        Ledger(accounts={"a": 0.2})  # type: ignore[dict-item]


async def test_a_holder_that_is_no_actor_is_refused_and_harms_no_other():
    async with money() as bank:
        with pytest.raises(Permanent, match="holder must be the ref of an actor, got 'x'"):
            await bank.reserve("k", holder="x")
        assert await bank.figures() == (0, 0, 0)


async def test_what_is_told_twice_counts_once_and_what_was_never_reserved_is_a_dead_letter():
    async with money() as bank:
        reservation = await bank.reserve("k")
        bank.tell(reservation, "yes", 3)
        bank.tell(reservation, "yes", 3)
        bank.tell(reservation, "held")
        assert await bank.figures() == (0, 0, 3)
        assert bank.heard(DeadLetter) == []
        bank.tell(Reservation(reservation.number + 1, "k", "alder", Micros(5)))
        assert await bank.figures() == (0, 0, 3)
        await bank.reserve("mine", 2)
        bank.tell(Reservation(reservation.number + 1, "of another ledger", "alder", Micros(5)))
        assert await bank.figures() == (2, 0, 3)
        assert [letter.reason.value for letter in bank.heard(DeadLetter)] == ["refused"] * 2
        bank.tell(Reservation(reservation.number + 1, "mine", "alder", Micros(2)))


async def test_held_money_is_listed_until_it_is_resolved():
    async with money() as bank:
        for key in "ab":
            bank.tell(await bank.reserve(key, 3), "held")
        held = await bank.ref.ask(GetHeld(), timeout=1)
        assert [(one.key, one.provider, one.amount, one.accounts) for one in held] == [
            ("a", "alder", 3, ("run",)),
            ("b", "alder", 3, ("run",)),
        ]
        assert isinstance(await bank.ref.ask(Resolve(held[0].reservation, "no"), timeout=1), MoneyReleased)
        with pytest.raises(Permanent, match="not held, or no more"):
            await bank.ref.ask(Resolve(held[0].reservation, "no"), timeout=1)
        assert await bank.ref.ask(GetHeld("run"), timeout=1) == (held[1],)
        bank.tell(await bank.reserve("a", 3))


class Holder(Actor[Any]):
    """Makes a reservation when it is asked to, and has whatever happens to it."""


async def test_a_holder_that_ends_leaves_held_what_counts_as_sent_and_frees_the_rest():
    async with money() as bank:
        holder = bank.system.spawn(Holder)
        await bank.reserve("sent at once", 1, holder=holder)
        marked = await bank.reserve("marked", 2, holder=holder, is_sent=False)
        await bank.reserve("unsent", 3, holder=holder, is_sent=False)
        bank.tell(await bank.reserve("booked", 5, holder=holder))
        bank.ref.tell(MarkSent(marked))
        await bank.figures()
        holder.stop()
        await settle()
        assert await bank.figures() == (0, 3, 5)
        assert {one.key for one in await bank.ref.ask(GetHeld(), timeout=1)} == {"sent at once", "marked"}
        assert bank.instances[0].watched == set()


async def test_a_holder_that_is_restarted_leaves_held_what_its_last_instance_did_not_book():
    async with ActorSystem("bank") as system:
        bank = Money(system)
        holder = system.spawn(Holder, name="holder")
        await bank.reserve("k", 3, holder=holder)
        booked = await bank.reserve("booked", 3, holder=holder)
        cell: Any = holder.recipient
        bank.tell(booked, "no")
        cell.failed(RuntimeError("made to crash"), None)
        await asyncio.sleep(10)
        assert await bank.figures() == (0, 3, 0)
        await bank.reserve("of the next instance", 4, holder=holder)
        assert await bank.figures() == (4, 3, 0)
        holder.stop()
        await settle()
        assert await bank.figures() == (0, 7, 0)


async def test_a_holder_that_has_ended_before_it_reserves_holds_nothing_back():
    async with money() as bank:
        holder = bank.system.spawn(Holder)
        holder.stop()
        await holder.terminated()
        await bank.reserve("k", 3, holder=holder, is_sent=False)
        await settle()
        assert await bank.figures() == (0, 0, 0)


async def test_a_holder_is_watched_once_however_much_it_reserves():
    async with money() as bank:
        holder = bank.system.spawn(Holder)
        for number in range(3):
            bank.tell(await bank.reserve(f"{number}", 3, holder=holder))
        assert bank.instances[0].watched == {holder}


async def test_an_answer_that_its_asker_can_no_longer_take_releases_the_money():
    """G12."""
    async with money() as bank:
        first = await bank.reserve("a", 10 * DOLLAR)
        waiting = bank.start("b", wait=True)
        await settle()
        bank.tell(first, "no")
        # It is answered in this turn of the loop, and cancelled in the same.
        asyncio.get_running_loop().call_soon(waiting.cancel)
        await asyncio.gather(waiting, return_exceptions=True)
        await settle()
        assert await bank.figures() == (0, 0, 0)


async def test_a_reservation_that_was_told_and_not_asked_for_comes_back():
    async with money() as bank:
        bank.ref.tell(Reserve(key="k", provider="alder", amount=Micros(5), accounts=("run",)))
        bank.ref.tell(OpenAccount(name="unclaimed"))
        await settle()
        assert await bank.figures() == (0, 0, 0)
        assert not bank.instances[0].book.is_open("unclaimed")


class Cancelled(Request[None]):
    """Reserve and be cancelled."""


class Caller(Actor[Cancelled]):
    def __init__(self, ledger: ActorRef[Any]) -> None:
        self.ledger = ledger

    @handles(Cancelled, concurrent=10)
    async def call(self, message: Cancelled) -> None:
        await self.ledger.ask(
            Reserve(key="k", provider="p", amount=10 * DOLLAR, accounts=("run",), wait=True), timeout=9
        )


async def test_an_asker_cancelled_at_whatever_step_leaves_nothing_reserved():
    for turns in range(8):
        async with money() as bank:
            first = await bank.reserve("a", 10 * DOLLAR)
            caller = bank.system.spawn(lambda bank=bank: Caller(bank.ref))
            asking = asyncio.create_task(caller.ask(Cancelled(), timeout=5))
            await settle()
            bank.tell(first, "no")
            for _ in range(turns):
                await asyncio.sleep(0)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            await settle()
            reserved, held, _ = await bank.figures()
            if reserved:  # It was taken, and then is the caller's to book.
                (open_,) = bank.instances[0].book.unsettled()
                bank.tell(Reservation(open_.reservation, "k", "p", open_.amount), "no")
            assert held == 0


async def test_with_one_book_for_all_instances_a_restart_forgets_nothing():
    book = Book()
    async with ActorSystem("bank") as system:
        bank = Money(system, book=book)
        holder = system.spawn(Holder)
        reservation = await bank.reserve("k", holder=holder)
        waiting = bank.start("waits", 9 * DOLLAR, wait=True)
        await settle()
        crash(bank)
        assert isinstance((await asyncio.gather(waiting, return_exceptions=True))[0], Exception)
        await asyncio.sleep(10)
        assert len(bank.heard(ActorRestarted)) == 1
        assert await bank.figures() == (4 * DOLLAR, 0, 0)
        holder.stop()
        await settle()
        assert await bank.figures() == (0, 4 * DOLLAR, 0)
        bank.tell(reservation, "yes", 3)
        assert await bank.figures() == (0, 0, 3)
        bank.assert_idle()


async def test_a_cap_that_was_changed_outlives_a_restart_with_the_book():
    async with ActorSystem("bank") as system:
        bank = Money(system, book=Book())
        await bank.ref.ask(SetCap("run", Micros(50)), timeout=1)
        crash(bank)
        await asyncio.sleep(10)
        assert (await bank.ref.ask(GetStatement("run"), timeout=1)).cap == 50


async def test_without_one_a_booking_of_before_the_restart_is_not_taken_for_one_of_after():
    async with ActorSystem("bank") as system:
        bank = Money(system)
        reservation = await bank.reserve("k")
        crash(bank)
        await asyncio.sleep(10)
        assert len(bank.heard(ActorRestarted)) == 1
        await bank.reserve("other", 1)
        bank.tell(reservation)
        assert await bank.figures() == (1, 0, 0)


def crash(bank: Money) -> None:
    cell: Any = bank.ref.recipient
    cell.failed(RuntimeError("made to crash"), None)


def test_a_ledger_reads_its_book_from_one_place_only():
    with pytest.raises(ValueError, match="give either `journal` or `book`"):
        Ledger(book=Book(), journal="x.db")


async def test_a_ledger_tells_its_state():
    async with money() as bank:
        bank.tell(await bank.reserve("k", 1), "held")
        await bank.figures()
        assert repr(bank.instances[0]) == "<Ledger <Book 1 accounts, 0 reservations open, 1 held>, 0 waiting>"


async def a_ledger_whose_mail_comes_twice(simulation: Simulation) -> None:
    simulation.inject(DuplicateMail(actor="bank/ledger", rate=0.5))
    spent = 0
    async with ActorSystem("bank") as system:
        bank = Money(system)

        async def worker(number: int) -> None:
            nonlocal spent
            try:
                reservation = await bank.reserve(f"k{number}", DOLLAR, wait=True)
            except BudgetExceeded:
                return
            await asyncio.sleep(simulation.random.random())
            charged = simulation.random.choice(["yes", "no"])
            bank.tell(reservation, charged)
            spent += DOLLAR if charged == "yes" else 0

        await asyncio.gather(*(worker(number) for number in range(30)))
        await asyncio.sleep(1)
        assert await bank.figures() == (0, 0, spent)
        assert spent <= 10 * DOLLAR


def test_mail_that_comes_twice_books_nothing_twice():
    assert explore(a_ledger_whose_mail_comes_twice, seeds=range(repeated(50))).runs == repeated(50)


async def a_ledger_that_crashes(simulation: Simulation) -> None:
    simulation.inject(Crash(at=simulation.random.uniform(0, 5), actor="bank/ledger", times=3, every=1.5))
    book = Book()
    async with ActorSystem("bank") as system:
        bank = Money(system, book=book)

        async def worker(number: int) -> None:
            await asyncio.sleep(simulation.random.uniform(0, 5))
            try:
                reservation = await bank.reserve(f"k{number}", DOLLAR, wait=True, timeout=5.0)
            except Exception:  # noqa: BLE001 - the ledger crashed, or there is no money.
                return
            await asyncio.sleep(simulation.random.random())
            bank.tell(reservation)

        await asyncio.gather(*(worker(number) for number in range(30)))
        await asyncio.sleep(10)
        reserved, held, settled = await bank.figures()
        assert reserved == 0
        assert held + settled <= 10 * DOLLAR


def test_a_ledger_that_crashes_leaks_nothing_that_its_book_knows():
    assert explore(a_ledger_that_crashes, seeds=range(repeated(50))).runs == repeated(50)
