"""The ledger as an actor: who waits, who is asked, and what is left when somebody goes. In virtual time."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from actors.errors.families import BudgetExceeded, Permanent
from actors.events import AlertCleared, AlertRaised, Overcharged
from actors.ledger.book import Book
from actors.ledger.config import LedgerConfig
from actors.ledger.entries import Entry, MoneyHeld, MoneyReleased, MoneyReserved, MoneySettled
from actors.ledger.errors import AlreadyPaid, StillUnsettled
from actors.ledger.ledger import Ledger
from actors.ledger.messages import (
    BookCall,
    CloseAccount,
    GetHeld,
    GetStatement,
    MarkSent,
    OpenAccount,
    Reservation,
    Reserve,
    Resolve,
    SetCap,
)
from runtime import Actor, ActorFailed, ActorRestarted, ActorSystem, AskTimeout, DeadLetter, Event, Request, handles
from runtime.simulation import Crash, DuplicateMail, Simulation, explore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from runtime import ActorRef

DOLLAR = 1_000_000


class Money:
    """A ledger that runs, with its books to be looked into, and everything that was published."""

    def __init__(self, system: ActorSystem, **options: Any) -> None:
        self.instances: list[Ledger] = []
        self.events: list[Event] = []
        self.system = system

        def make() -> Ledger:
            self.instances.append(Ledger(**{"accounts": {"run": 10}, **options}))
            return self.instances[-1]

        self.ref: ActorRef[Any] = system.spawn(make, name="ledger")
        system.events.subscribe(Event, self.events.append)

    async def reserve(self, key: str, amount: int = 4 * DOLLAR, *, timeout: float = 1e6, **more: Any) -> Reservation:  # noqa: ASYNC109 - a deadline.
        asked = Reserve(**{"key": key, "provider": "alder", "amount": amount, "accounts": ("run",), **more})
        return await self.ref.ask(asked, timeout=timeout)

    def start(self, key: str, *args: Any, **more: Any) -> asyncio.Task[Reservation]:
        return asyncio.create_task(self.reserve(key, *args, **more), name=key)

    def tell(self, reservation: Reservation, charged: Any = "yes", cost: int | None = None) -> None:
        self.ref.tell(BookCall(reservation, charged, cost))

    async def figures(self, account: str | None = "run") -> tuple[int, int, int]:
        statement = await self.ref.ask(GetStatement(account), timeout=1)
        return statement.reserved, statement.held, statement.settled

    def heard(self, *kinds: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kinds)]

    def assert_idle(self) -> None:
        actor = self.instances[-1]
        assert list(actor.broken_invariants()) == []
        assert len(actor.approvals) == 0


@asynccontextmanager
async def money(**options: Any) -> AsyncIterator[Money]:
    async with ActorSystem("bank") as system:
        kept = Money(system, **options)
        yield kept
        await settle()
        kept.assert_idle()
        assert kept.heard(ActorFailed) == []


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


# Reserving and booking.


async def test_a_reservation_is_answered_at_once_and_settled_at_its_true_cost():
    async with money() as bank:
        reservation = await bank.reserve("k")
        assert await bank.figures() == (4 * DOLLAR, 0, 0)
        bank.tell(reservation, "yes", 3 * DOLLAR)
        assert await bank.figures() == (0, 0, 3 * DOLLAR)
        with pytest.raises(AlreadyPaid):
            await bank.reserve("k")


async def test_every_movement_is_an_event():
    async with money() as bank:
        first, second, third = [await bank.reserve(key, 10) for key in "abc"]
        bank.tell(first, "yes", 7)
        bank.tell(second, "no")
        bank.tell(third, "held")
        await bank.ref.ask(Resolve(third.number, "yes", 9), timeout=1)
        heard = bank.heard(MoneyReserved, MoneySettled, MoneyReleased, MoneyHeld)
        assert [type(one).__name__ for one in heard] == [
            *["MoneyReserved"] * 3,
            "MoneySettled",
            "MoneyReleased",
            "MoneyHeld",
            "MoneySettled",
        ]
        total = await bank.ref.ask(GetStatement(), timeout=1)
        assert (total.reserved_ever, total.settled, total.released) == (30, 16, 14)


async def test_caps_are_given_as_people_write_them_and_never_as_floats():
    options = {"accounts": {"a": "0.20", "b": 2, "c": Decimal("0.0015"), "d": None}}
    async with money(**options) as bank:
        caps = [(await bank.ref.ask(GetStatement(name), timeout=1)).cap for name in "abcd"]
        assert caps == [200_000, 2_000_000, 1_500, None]
    with pytest.raises(TypeError, match="is a float"):
        Ledger(accounts={"a": 0.2})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    "wrong",
    [
        {"amount": -1},
        {"amount": 1.5},
        {"accounts": "run"},
        {"accounts": ["run"]},
        {"amount": 2**63},
        {"accounts": ([],)},
        {"accounts": (7,)},
        {"budget": 0.5},
        {"budget": -1},
        {"key": "\ud800"},
        {"key": b"k"},
        {"key": 7},
        {"provider": None},
    ],
)
def test_a_reservation_that_makes_no_sense_is_refused_where_it_is_made(wrong: Any):
    with pytest.raises((TypeError, ValueError), match=r"must be|cannot be written down"):
        Reserve(**{"key": "k", "provider": "p", "amount": 1, **wrong})


def test_a_booking_that_makes_no_sense_is_refused_where_it_is_made():
    reservation = Reservation(1, "k", "p", 1)
    for message in (
        lambda: BookCall(reservation, "no", 5),
        lambda: BookCall(reservation, "paid"),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        lambda: Resolve(1, "held"),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        lambda: BookCall(reservation, "yes", -5),
        lambda: Resolve(1, "no", 5),
        lambda: SetCap("run", -1),
    ):
        with pytest.raises(ValueError, match=r"cost|cap|charged"):
            message()


@pytest.mark.parametrize(
    "make",
    [
        lambda: OpenAccount(name=7),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        lambda: OpenAccount(name="\ud800"),
        lambda: CloseAccount(name=None),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        lambda: GetStatement(["run"]),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        lambda: GetHeld(["run"]),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        lambda: SetCap(["run"], 5),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        lambda: Resolve([1], "yes"),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        lambda: BookCall(1),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        lambda: MarkSent(1),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        lambda: Ledger(accounts={7: "1"}),  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
        lambda: Ledger(journal=""),
    ],
)
def test_what_would_crash_a_ledger_or_spoil_its_journal_is_refused_where_it_is_made(make: Any):
    with pytest.raises((TypeError, ValueError), match=r"must be|cannot be written down"):
        make()


async def test_a_holder_that_is_no_actor_is_refused_and_harms_nobody():
    async with money() as bank:
        with pytest.raises(Permanent, match="holder must be the ref of an actor, got 'x'"):
            await bank.reserve("k", holder="x")
        assert await bank.figures() == (0, 0, 0)


async def test_what_is_told_twice_counts_once_and_what_nobody_reserved_is_a_dead_letter():
    async with money() as bank:
        reservation = await bank.reserve("k")
        bank.tell(reservation, "yes", 3)
        bank.tell(reservation, "yes", 3)
        bank.tell(reservation, "held")
        assert await bank.figures() == (0, 0, 3)
        assert bank.heard(DeadLetter) == []
        bank.tell(Reservation(reservation.number + 1, "k", "alder", 5))
        assert await bank.figures() == (0, 0, 3)
        await bank.reserve("mine", 2)
        bank.tell(Reservation(reservation.number + 1, "of another ledger", "alder", 5))
        assert await bank.figures() == (2, 0, 3)
        assert [letter.reason.value for letter in bank.heard(DeadLetter)] == ["refused"] * 2
        bank.tell(Reservation(reservation.number + 1, "mine", "alder", 2))


async def test_an_overcharge_is_booked_told_of_and_stops_its_accounts():
    async with money() as bank:
        bank.tell(await bank.reserve("k"), "yes", 12 * DOLLAR)
        assert await bank.figures() == (0, 0, 12 * DOLLAR)
        (event,) = bank.heard(Overcharged)
        assert (event.provider, event.quoted, event.charged) == ("alder", 4 * DOLLAR, 12 * DOLLAR)
        with pytest.raises(BudgetExceeded):
            await bank.reserve("other", 0)


async def test_a_charge_that_became_known_late_is_told_of_as_one_that_nobody_quoted():
    async with money() as bank:
        reservation = await bank.reserve("k")
        bank.tell(reservation, "no")
        bank.tell(reservation, "yes", 1)
        assert await bank.figures() == (0, 0, 1)
        assert [(one.quoted, one.charged) for one in bank.heard(Overcharged)] == [(0, 1)]


async def test_an_alert_is_raised_once_at_80_percent_and_cleared_below():
    async with money() as bank:
        first = await bank.reserve("a", 5 * DOLLAR)
        second = await bank.reserve("b", 3 * DOLLAR)
        third = await bank.reserve("c", 1 * DOLLAR)
        (alert,) = bank.heard(AlertRaised)
        assert (alert.rule, alert.subject, alert.value, alert.threshold) == ("cap", "run", 0.8, 0.8)
        await asyncio.sleep(7)
        bank.tell(third, "no")
        bank.tell(second, "no")
        bank.tell(first)
        await bank.figures()
        (cleared,) = bank.heard(AlertCleared)
        assert (cleared.subject, cleared.lasted) == ("run", pytest.approx(7))
        assert len(bank.heard(AlertRaised)) == 1


# Waiting.


async def test_an_asker_waits_for_what_calls_under_way_may_give_back_in_order():
    async with money() as bank:
        first = await bank.reserve("a", 10 * DOLLAR)
        tasks = [bank.start(key, 6 * DOLLAR, wait=True) for key in "bcd"]
        await settle()
        small = bank.start("small", 1 * DOLLAR, wait=True)
        await settle()
        bank.tell(first, "yes", 3 * DOLLAR)
        await settle()
        assert [task.done() for task in (*tasks, small)] == [True, False, False, False], "nobody overtakes"
        bank.tell(await tasks[0], "no")
        second = await tasks[1]
        bank.tell(second, "yes", 2 * DOLLAR)
        # 5 are spent; 6 will not be there any more, and the one behind is not held up by it.
        with pytest.raises(BudgetExceeded) as refused:
            await tasks[2]
        assert (refused.value.needed, refused.value.available) == (6 * DOLLAR, 5 * DOLLAR)
        bank.tell(await small)


async def test_without_wait_an_asker_is_refused_at_once_also_where_others_wait_for_what_there_is():
    async with money() as bank:
        first = await bank.reserve("a", 6 * DOLLAR)
        with pytest.raises(BudgetExceeded) as refused:
            await bank.reserve("b", 5 * DOLLAR)
        assert (refused.value.cap, refused.value.available) == ("run", 4 * DOLLAR)
        waiting = bank.start("c", 5 * DOLLAR, wait=True)
        await settle()
        with pytest.raises(BudgetExceeded):
            await bank.reserve("d", 1 * DOLLAR)
        bank.tell(first, "no")
        bank.tell(await waiting)


async def test_one_who_gives_up_leaves_the_line_and_the_next_may_want_less():
    async with money() as bank:
        first = await bank.reserve("a", 6 * DOLLAR)
        large = bank.start("large", 9 * DOLLAR, wait=True, timeout=5.0)
        await settle()
        small = bank.start("small", 3 * DOLLAR, wait=True)
        with pytest.raises(AskTimeout):
            await large
        bank.tell(await small)
        cancelled = bank.start("cancelled", 7 * DOLLAR, wait=True)
        await settle()
        cancelled.cancel()
        await settle()
        bank.tell(await bank.reserve("b", 1 * DOLLAR))
        bank.tell(first)


async def test_order_holds_over_all_the_accounts_that_two_askers_share():
    async with money(accounts={"run": 10, "batch": 10}) as bank:
        batch = await bank.reserve("a", 8 * DOLLAR, accounts=("batch",))
        run = await bank.reserve("b", 8 * DOLLAR, accounts=("run",))
        first = bank.start("first", 6 * DOLLAR, accounts=("run",), wait=True)
        await settle()
        second = bank.start("second", 5 * DOLLAR, accounts=("batch", "run"), wait=True)
        await settle()
        bank.tell(batch, "no")
        await settle()
        assert not second.done(), "the account it waited for has enough, but in the other one somebody came before"
        bank.tell(run, "no")
        bank.tell(await first, "no")
        bank.tell(await second)


async def test_no_more_wait_than_may():
    async with money(config=LedgerConfig(max_waiting=1)) as bank:
        first = await bank.reserve("a", 10 * DOLLAR)
        waiting = bank.start("b", wait=True)
        await settle()
        with pytest.raises(BudgetExceeded):
            await bank.reserve("c", wait=True)
        bank.tell(first, "no")
        bank.tell(await waiting)


async def test_a_key_is_looked_at_again_when_its_turn_comes():
    async with money() as bank:
        first = await bank.reserve("a", 10 * DOLLAR)
        twins = [bank.start("twin", wait=True, intent=intent) for intent in ("first", "first")]
        await settle()
        bank.tell(first, "no")
        bank.tell(await twins[0])
        with pytest.raises(StillUnsettled):
            await twins[1]


async def test_the_crowd_that_gives_up_leaves_nothing_behind():
    async with money() as bank:
        first = await bank.reserve("a", 10 * DOLLAR)
        stuck = bank.start("stuck", wait=True)
        await settle()
        for number in range(500):
            waiting = bank.start(f"{number}", wait=True)
            await settle()
            waiting.cancel()
        await settle()
        queues = bank.instances[0].queues
        assert len(queues) == 1
        assert len(queues._queues["run"].numbers) < 200
        assert repr(queues) == "<ReserveQueues 1 waiting for run>"
        bank.tell(first, "no")
        bank.tell(await stuck)


# Pausing and asking.


class Owner:
    """Who is asked for more money, and answers as planned."""

    def __init__(self, *answers: Any, takes: float = 1.0) -> None:
        self.answers = list(answers)
        self.takes = takes
        self.asked: list[tuple[str, int]] = []
        self.under_way = self.max_under_way = 0

    async def __call__(self, statement: Any, needed: int) -> Any:
        self.asked.append((statement.name, needed))
        self.under_way += 1
        self.max_under_way = max(self.max_under_way, self.under_way)
        try:
            await asyncio.sleep(self.takes)
        finally:
            self.under_way -= 1
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer


async def test_at_the_cap_somebody_is_asked_once_and_all_wait_in_order_for_the_answer():
    owner = Owner("20")
    async with money(on_exhausted=owner) as bank:
        bank.tell(await bank.reserve("a", 8 * DOLLAR))
        tasks = [bank.start(key, 3 * DOLLAR) for key in "bcd"]
        await asyncio.sleep(0.5)
        small = bank.start("small", 1)
        await settle()
        assert not any(task.done() for task in (*tasks, small))
        reservations = [await task for task in (*tasks, small)]
        assert [one.number for one in reservations] == sorted(one.number for one in reservations)
        assert owner.asked == [("run", 3 * DOLLAR)]
        assert (await bank.ref.ask(GetStatement("run"), timeout=1)).cap == 20 * DOLLAR
        for reservation in reservations:
            bank.tell(reservation)


async def test_a_no_refuses_all_who_wait_and_holds_until_the_cap_changes():
    owner = Owner(None, "50")
    async with money(on_exhausted=owner) as bank:
        bank.tell(await bank.reserve("a", 10 * DOLLAR))
        tasks = [bank.start(key) for key in "bc"]
        refusals = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(one) for one in refusals] == [BudgetExceeded] * 2
        with pytest.raises(BudgetExceeded):
            await bank.reserve("d")
        assert len(owner.asked) == 1
        await bank.ref.ask(SetCap("run", 11 * DOLLAR), timeout=1)
        bank.tell(await bank.reserve("e"))
        assert len(owner.asked) == 2


@pytest.mark.parametrize("answer", [ValueError("no idea"), 0.5, "many", asyncio.CancelledError(), object()])
async def test_an_answer_that_is_none_harms_nobody_but_those_who_waited_for_it(answer: Any):
    owner = Owner(answer, "30")
    async with money(on_exhausted=owner) as bank:
        bank.tell(await bank.reserve("a", 10 * DOLLAR))
        with pytest.raises(BudgetExceeded):
            await bank.reserve("b")
        bank.tell(await bank.reserve("c"))
        assert len(owner.asked) == 2


async def test_an_owner_that_never_answers_costs_each_asker_its_own_deadline_and_no_more():
    owner = Owner(takes=1e6)
    async with money(on_exhausted=owner, accounts={"run": 10, "other": 10}) as bank:
        bank.tell(await bank.reserve("a", 10 * DOLLAR))
        loop = asyncio.get_running_loop()
        begun = loop.time()
        for seconds in (2.0, 3.0):
            with pytest.raises(AskTimeout):
                await bank.reserve(f"b{seconds}", timeout=seconds)
        assert loop.time() - begun == pytest.approx(5.0, abs=0.1)
        bank.tell(await bank.reserve("c", accounts=("other",)))
        with pytest.raises(BudgetExceeded):
            await bank.reserve("patient")  # The question itself has a limit.
        assert loop.time() - begun == pytest.approx(600.0, abs=1.0)
        assert (len(owner.asked), owner.max_under_way) == (1, 1)


async def test_an_answer_that_is_too_little_refuses_the_one_for_whom_it_was_asked():
    owner = Owner("11", "20")
    async with money(on_exhausted=owner) as bank:
        bank.tell(await bank.reserve("a", 9 * DOLLAR))
        large, larger = bank.start("large", 8 * DOLLAR), bank.start("larger", 9 * DOLLAR)
        with pytest.raises(BudgetExceeded):
            await large
        bank.tell(await larger)
        assert owner.asked == [("run", 8 * DOLLAR), ("run", 9 * DOLLAR)]


async def test_an_answer_to_what_was_asked_before_a_cap_was_changed_by_hand_does_not_undo_that():
    owner = Owner("99", "12", takes=10.0)
    async with money(on_exhausted=owner) as bank:
        waiting = bank.start("a", 11 * DOLLAR)
        await asyncio.sleep(1)
        await bank.ref.ask(SetCap("run", 5 * DOLLAR), timeout=1)
        await asyncio.sleep(9.5)
        assert (await bank.ref.ask(GetStatement("run"), timeout=1)).cap == 5 * DOLLAR
        bank.tell(await waiting)  # Who was asked anew, and knows of it.
        assert owner.asked == [("run", 11 * DOLLAR)] * 2


async def test_a_repetition_of_what_is_held_waits_behind_nobody():
    async with money() as bank:
        held = await bank.reserve("held", 6 * DOLLAR)
        bank.tell(held, "held")
        other = await bank.reserve("other", 4 * DOLLAR)
        waiting = bank.start("waiting", 2 * DOLLAR, wait=True)
        await settle()
        repeated = await bank.reserve("held", 6 * DOLLAR, intent="repeat")
        assert (repeated.number, repeated.attempt) == (held.number, 2)
        with pytest.raises(BudgetExceeded):
            await bank.reserve("held too", 1, intent="repeat")
        for one in (repeated, other):
            bank.tell(one, "no")
        bank.tell(await waiting, "no")


async def test_an_account_that_is_closed_while_somebody_is_asked_refuses_those_who_wait():
    owner = Owner("99", takes=100.0)
    async with money(on_exhausted=owner) as bank:
        waiting = bank.start("a", 11 * DOLLAR)
        await asyncio.sleep(1)
        await bank.ref.ask(CloseAccount(name="run"), timeout=1)
        with pytest.raises(Permanent, match="no open account 'run'"):
            await waiting
        await asyncio.sleep(200)
        assert owner.under_way == 0


async def test_a_ledger_that_is_left_while_somebody_is_asked_leaves_nothing():
    owner = Owner("99", takes=1e6)
    async with ActorSystem("bank") as system:
        bank = Money(system, on_exhausted=owner)
        waiting = bank.start("a", 11 * DOLLAR)
        await asyncio.sleep(1)
    assert owner.under_way == 0
    assert isinstance((await asyncio.gather(waiting, return_exceptions=True))[0], Exception)


# Accounts.


async def test_accounts_are_opened_closed_and_stated():
    async with money() as bank:
        name = await bank.ref.ask(OpenAccount(cap=100), timeout=1)
        assert await bank.ref.ask(OpenAccount(name="batch"), timeout=1) == "batch"
        with pytest.raises(Permanent, match="open already"):
            await bank.ref.ask(OpenAccount(name="batch"), timeout=1)
        with pytest.raises(ValueError, match="whole number of micro-units"):
            OpenAccount(cap=0.5)  # type: ignore[arg-type]
        bank.tell(await bank.reserve("k", 60, accounts=(name, "batch")), "yes", 50)
        account = await bank.ref.ask(CloseAccount(name=name), timeout=1)
        assert (account.name, account.cap, account.settled) == (name, 100, 50)
        with pytest.raises(Permanent):
            await bank.ref.ask(GetStatement(name), timeout=1)
        with pytest.raises(Permanent, match="no open account"):
            await bank.ref.ask(CloseAccount(name=name), timeout=1)


async def test_an_account_is_closed_at_once_and_answers_when_the_last_call_has_ended():
    async with money() as bank:
        first, second = await bank.reserve("a", 3), await bank.reserve("b", 4)
        closing = asyncio.create_task(bank.ref.ask(CloseAccount(name="run"), timeout=1e6))
        await settle()
        with pytest.raises(Permanent):
            await bank.reserve("c")
        bank.tell(first)
        await settle()
        assert not closing.done()
        bank.tell(second, "held")
        account = await closing
        assert (account.reserved, account.held, account.settled) == (0, 4, 3)
        (held,) = await bank.ref.ask(GetHeld("run"), timeout=1)
        await bank.ref.ask(Resolve(held.reservation, "yes", 2), timeout=1)
        assert await bank.figures(None) == (0, 0, 5)


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


# Those who go. G12: what they were given comes back.


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
        bank.ref.tell(Reserve(key="k", provider="alder", amount=5, accounts=("run",)))
        bank.ref.tell(OpenAccount(name="nobody's"))
        await settle()
        assert await bank.figures() == (0, 0, 0)
        assert not bank.instances[0].book.is_open("nobody's")


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


# Restarts.


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
        await bank.ref.ask(SetCap("run", 50), timeout=1)
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
    with pytest.raises(ValueError, match="give it one of the two"):
        Ledger(book=Book(), journal="x.db")


@pytest.mark.parametrize(
    "wrong", [{"alert_percent": 0}, {"max_paid_keys": 0}, {"max_waiting": -1}, {"approval_timeout": 0}]
)
def test_a_configuration_that_makes_no_sense_is_refused(wrong: Any):
    with pytest.raises(ValueError, match="must be >"):
        LedgerConfig(**wrong)


async def test_a_ledger_tells_its_state():
    async with money() as bank:
        bank.tell(await bank.reserve("k", 1), "held")
        await bank.figures()
        assert repr(bank.instances[0]) == "<Ledger <Book 1 accounts, 0 reservations open, 1 held>, 0 waiting>"


# Mail that comes twice.


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
    assert explore(a_ledger_whose_mail_comes_twice, seeds=range(50)).runs == 50


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
    assert explore(a_ledger_that_crashes, seeds=range(50)).runs == 50


def test_entries_are_events():
    assert all(issubclass(one, Event) for one in Entry.__args__)
