"""Calls that may have been paid are found out about before anybody else is paid; in virtual time."""

from __future__ import annotations

import asyncio
import copy
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from actors import (
    AllProvidersFailed,
    BudgetExceeded,
    FunctionTransport,
    Isolate,
    Ledger,
    Listing,
    Market,
    OutcomeUnknown,
    Permanent,
    Provider,
    ProviderCall,
    ProviderFilter,
    ProviderReply,
    Retry,
    Supervisor,
    Throttled,
    Transient,
    Unclassified,
    smart_request,
)
from actors.errors import Overpriced
from actors.events import DearAnswer, Overcharged, ProviderLeft, Reconciled
from actors.ledger import Book, GetHeld, GetStatement, OpenAccount, Resolve, SetCap, StillUnsettled
from actors.money import Micros
from actors.supervisor.payments.accounts import account_of
from actors.transports import Answered, Lost, NeverRan, UnderWay
from runtime import ActorSystem, Event, handles
from runtime.persistence import JournalError, SqliteJournal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from runtime import ActorRef


class Conflict(Exception):
    """What clients of HTTP raise where a provider is at work still under the same key."""

    status_code = 409


LATE = ProviderReply(output="late", cost=Micros(8))


class Door(FunctionTransport):
    """Breaks off its first calls; what became of them is in `findings`, the last of which goes on for ever."""

    def __init__(
        self,
        name: str,
        *,
        breaks: int = 1,
        by: Exception | None = None,
        idempotent: Any = "no",
        cost: int | None = None,
    ) -> None:
        super().__init__(self.answer, paid=True, idempotent=idempotent, provider=name)
        self.name = name
        self.breaks = breaks
        self.by = by or ConnectionResetError("gone")
        self.cost = cost
        self.calls: list[ProviderCall] = []

    async def answer(self, call: ProviderCall) -> Any:
        self.calls.append(call)
        await asyncio.sleep(0.5)
        if len(self.calls) <= self.breaks:
            raise copy.copy(self.by)
        return ProviderReply(output=self.name, cost=self.cost)

    def listing(self, price: int = 10, **terms: Any) -> Listing:
        return Listing(
            provider=Provider(name=self.name, services={"s"}, price=Micros(price)), transport=lambda: self, **terms
        )


class Telling(Door):
    """One that can be asked, and knows what it is told to say."""

    def __init__(self, name: str, *findings: Any, **terms: Any) -> None:
        super().__init__(name, **terms)
        self.findings = list(findings)
        self.asked_at: list[float] = []

    async def look_up(self, call: ProviderCall, *, timeout: float) -> Any:  # noqa: ASYNC109 - of `LooksUp`.
        assert call.idempotency_key == self.calls[0].idempotency_key
        self.asked_at.append(asyncio.get_running_loop().time())
        finding = self.findings.pop(0) if len(self.findings) > 1 else self.findings[0]
        if isinstance(finding, Exception):
            raise finding
        return finding


class Stoppable(Door):
    """One that can be told to call off a call."""

    async def cancel(self, call: ProviderCall, *, timeout: float) -> Any:  # noqa: ASYNC109 - of `Cancels`.
        return NeverRan()


class Desk:
    """A supervisor, and what it published."""

    def __init__(self, system: ActorSystem, market: Market) -> None:
        self.supervisor: ActorRef[Any] = system.spawn(lambda: Supervisor(market))
        self.events: list[Any] = []
        system.events.subscribe(Event, self.events.append)

    async def request(self, **terms: Any) -> Any:
        return await smart_request(self.supervisor, **{"service": "s", "input": "x", "strategy": "cheapest"} | terms)

    async def held(self) -> list[int]:
        return [one.amount for one in await self.supervisor.ask(GetHeld(), timeout=1.0)]

    async def settled(self, account: str | None = None) -> int:
        statement = await self.supervisor.ask(GetStatement(account), timeout=1.0)
        assert statement.reserved == 0
        return statement.settled

    def of(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


@asynccontextmanager
async def desk(*listings: Listing, **terms: Any) -> AsyncIterator[Desk]:
    async with ActorSystem("desk", seed=1) as system:
        yield Desk(system, Market(providers=listings, **{"retry": Retry(base=0.1, cap=0.2)} | terms))
    assert len(asyncio.all_tasks()) == 1


async def test_an_answer_that_was_lost_on_its_way_is_fetched_and_paid_once():
    alder, birch = Telling("alder", Answered(LATE)), Door("birch", breaks=0)
    async with desk(alder.listing(), birch.listing(price=20)) as one:
        result = await one.request()
        assert (result.output, result.provider, result.cost, result.attempts) == ("late", "alder", 8, 1)
        assert birch.calls == []
        assert (await one.settled(), await one.held()) == (8, [])
        assert [event.found for event in one.of(Reconciled)] == ["Answered"]


async def test_a_call_that_never_ran_is_made_elsewhere():
    alder, birch = Telling("alder", NeverRan()), Door("birch", breaks=0)
    async with desk(alder.listing(), birch.listing(price=20)) as one:
        result = await one.request()
        assert (result.output, result.cost, result.attempts) == ("birch", 20, 2)
        assert (await one.settled(), await one.held()) == (20, [])


async def test_a_call_that_can_be_called_off_is_and_made_elsewhere():
    alder, birch = Stoppable("alder"), Door("birch", breaks=0)
    async with desk(alder.listing(), birch.listing(price=20)) as one:
        assert (await one.request()).output == "birch"
        assert (await one.settled(), await one.held()) == (20, [])


async def test_a_request_waits_for_a_call_that_is_under_way_still_and_asks_again_when_it_is_worth_it():
    alder = Telling("alder", UnderWay(until=5.0), UnderWay(), Answered(LATE))
    async with desk(alder.listing()) as one:
        assert (await one.request(timeout=30.0)).output == "late"
        assert alder.asked_at[:2] == [0.5, 5.0]
        assert len(alder.asked_at) == 3


@pytest.mark.parametrize("until", [25.0, 1e6])
async def test_a_call_that_is_said_to_outlast_the_request_is_asked_about_until_its_deadline(until: float):
    alder = Telling("alder", *[UnderWay(until=until)] * 5, Answered(LATE))
    async with desk(alder.listing()) as one:
        assert (await one.request(timeout=20.0)).output == "late"


async def test_a_call_that_stays_under_way_is_asked_about_few_times_and_last_near_the_deadline():
    alder = Telling("alder", UnderWay(until=1e6))
    async with desk(alder.listing()) as one:
        with pytest.raises(OutcomeUnknown):
            await one.request(timeout=20.0)
        assert 19.5 < alder.asked_at[-1] < 20.0
        assert len(alder.asked_at) < 20


async def test_what_cannot_be_found_out_in_time_is_held_and_found_out_later():
    alder, birch = Telling("alder", UnderWay(), OSError("not now"), UnderWay(), Answered(LATE)), Door("birch")
    async with desk(alder.listing(), birch.listing(price=20)) as one:
        with pytest.raises(OutcomeUnknown, match="alder"):
            await one.request(timeout=0.7)
        assert birch.calls == []
        assert await one.held() == [10]
        await asyncio.sleep(100.0)
        assert (await one.settled(), await one.held()) == (8, [])
        (event,) = one.of(Reconciled)
        assert (event.provider, event.found, event.cost, event.output) == ("alder", "Answered", 8, "late")


async def test_nobody_else_is_paid_where_nobody_can_tell():
    alder, birch = Door("alder"), Door("birch", breaks=0)
    async with desk(alder.listing(), birch.listing(price=20)) as one:
        with pytest.raises(OutcomeUnknown):
            await one.request()
        assert birch.calls == []
        await asyncio.sleep(1000.0)
        assert await one.held() == [10]


async def test_others_may_be_paid_besides_where_the_request_says_so_within_its_budget():
    alder, birch = Telling("alder", UnderWay(), UnderWay(), NeverRan()), Door("birch", breaks=0)
    async with desk(alder.listing(), birch.listing(price=20)) as one:
        result = await one.request(on_unknown="pay_again", budget="0.00003")
        assert (result.output, result.cost) == ("birch", 20)
        assert await one.held() == [10]
        await asyncio.sleep(100.0)
        assert (await one.settled(), await one.held()) == (20, [])
    alder, birch = Door("alder"), Door("birch", breaks=0)
    async with desk(alder.listing(), birch.listing(price=20)) as one:
        with pytest.raises(AllProvidersFailed) as failed:
            await one.request(on_unknown="pay_again", budget="0.000029")
        assert (failed.value.charged, failed.value.outcome) == ("held", "unknown")
        assert isinstance(failed.value.refused[0], BudgetExceeded)


async def test_an_answer_that_was_paid_and_is_lost_counts_as_a_failure_that_was_charged():
    alder, birch = Telling("alder", Lost(cost=Micros(7))), Door("birch", breaks=0)
    async with desk(alder.listing(), birch.listing(price=20)) as one:
        result = await one.request()
        assert (result.output, result.cost, result.failures[0].cost) == ("birch", 27, 7)
        assert (await one.settled(), await one.held()) == (27, [])


async def test_a_call_that_can_be_repeated_under_its_key_is_and_looked_up_where_that_fails():
    alder = Telling("alder", Answered(LATE), breaks=99, idempotent="key")
    birch = Door("birch", breaks=0)
    async with desk(alder.listing(), birch.listing(price=20)) as one:
        result = await one.request()
        assert (result.output, result.provider, result.cost) == ("late", "alder", 8)
        assert len({call.idempotency_key for call in alder.calls}) == 1
        assert len(alder.calls) > 1
        assert birch.calls == []
        assert (await one.settled(), await one.held()) == (8, [])


@pytest.mark.parametrize("tells", [True, False])
async def test_a_request_that_is_cancelled_leaves_its_money_to_be_found_out_about(tells: bool):  # noqa: FBT001
    alder: Any = Telling("alder", UnderWay(), Answered(LATE)) if tells else Door("alder")
    async with desk(alder.listing()) as one:
        asking = asyncio.create_task(one.request())
        await asyncio.sleep(0.2)
        asking.cancel()
        await asyncio.wait([asking])
        assert await one.held() == [10]
        await asyncio.sleep(100.0)
        assert (await one.settled(), await one.held()) == ((8, []) if tells else (0, [10]))


async def test_a_provider_that_charges_more_than_twice_what_it_lists_is_paid_flagged_and_left_alone():
    alder, birch = Door("alder", breaks=0, cost=Micros(25)), Door("birch", breaks=0)
    offered = [alder.listing(), birch.listing(price=20)]
    async with desk(*offered) as one:
        assert (await one.request()).cost == 25
        (event,) = one.of(Overcharged)
        assert (event.provider, event.quoted, event.charged) == ("alder", 10, 25)
        assert (await one.request()).provider == "birch"
    async with desk(alder.listing()) as one:
        await one.request()
        with pytest.raises(Overpriced, match=r"has charged more than the \$0.00001 it lists"):
            await one.request()


async def test_what_a_call_cost_counts_as_dear_although_it_was_found_out_later():
    alder, birch = Telling("alder", Answered(ProviderReply(output="late", cost=Micros(25)))), Door("birch", breaks=0)
    async with desk(alder.listing(), birch.listing(price=20)) as one:
        assert (await one.request()).cost == 25
        (dear,) = one.of(DearAnswer)
        assert (dear.provider, dear.listed, dear.charged) == ("alder", 10, 25)
        (left,) = one.of(ProviderLeft)
        assert (left.provider, left.concerns) == ("alder", "price")
        assert (await one.request()).provider == "birch"


async def test_a_provider_that_lists_nothing_and_charges_is_left_too():
    alder = Door("alder", breaks=0, cost=Micros(3))
    async with desk(alder.listing(price=0)) as one:
        assert (await one.request()).cost == 3
        assert await one.settled() == 3
        with pytest.raises(Overpriced):
            await one.request()


async def test_the_caps_of_the_run_and_of_a_provider_are_checked_in_one_step_with_the_others():
    alder, birch = Door("alder", breaks=0), Door("birch", breaks=0)
    listings = alder.listing(budget="0.00003"), birch.listing(price=20)
    async with desk(*listings, budget="0.000075") as one:
        await one.supervisor.ask(OpenAccount(name="mine", cap=Micros(60)), timeout=1.0)
        by = [(await one.request(account="mine")).provider for _ in range(4)]
        assert by == ["alder", "alder", "alder", "birch"]
        with pytest.raises(BudgetExceeded) as refused:
            await one.request(account="mine")
        assert refused.value.cap in {"mine", account_of("alder")}
        assert (await one.request()).provider == "birch"
        with pytest.raises(BudgetExceeded):
            await one.request()
        assert [await one.settled(name) for name in ("run", "mine", account_of("alder"))] == [70, 50, 30]
        assert (len(alder.calls), len(birch.calls)) == (3, 2)


async def test_a_key_that_was_paid_is_not_paid_again_by_another_request():
    alder = Door("alder", breaks=0)
    async with desk(alder.listing()) as one:
        await one.request(idempotency_key="order 17")
        again = await one.request(idempotency_key="order 17")
        assert (again.output, again.replayed, again.cost) == ("alder", True, 0)
        assert len(alder.calls) == 1


async def test_a_failure_that_cost_nothing_leaves_its_key_free():
    async def fail(_call: ProviderCall) -> Any:
        raise Transient("down", provider="alder", outcome="not_started")

    listing = Listing(
        provider=Provider(name="alder", services={"s"}, price=Micros(10)),
        transport=lambda: FunctionTransport(fail, paid=True, idempotent="no", provider="alder"),
    )
    async with desk(listing, retry=Retry(max_retries=0)) as one:
        for _ in range(2):
            with pytest.raises(AllProvidersFailed):
                await one.request(idempotency_key="order 17")
        assert (await one.settled(), await one.held()) == (0, [])


# Transports with bugs.


def also_for_t(door: Door) -> Listing:
    return Listing(provider=Provider(name=door.name, services={"s", "t"}, price=Micros(20)), transport=lambda: door)


class Muddled(Door):
    """Returns what no transport may."""

    def __init__(self, name: str, reply: Any) -> None:
        super().__init__(name)
        self.reply = reply

    async def call(self, call: ProviderCall) -> Any:
        self.calls.append(call)
        await asyncio.sleep(0.5)
        return self.reply


@pytest.mark.parametrize("reply", [None, "no reply"])
async def test_a_transport_that_returns_no_reply_is_paid_once_and_harms_no_other_request(reply: Any):
    alder, birch = Muddled("alder", reply), Door("birch", breaks=0)
    async with desk(alder.listing(), also_for_t(birch)) as one:
        other = asyncio.create_task(one.request(service="t"))
        await asyncio.sleep(0.25)
        with pytest.raises(OutcomeUnknown, match="TransportBug: TypeError: it returned"):
            await one.request()
        assert (await other).output == "birch"
        assert len(alder.calls) == 1
        assert (await one.settled(), await one.held()) == (20, [10])


@pytest.mark.parametrize(
    "found",
    [None, "paid", UnderWay("soon")],  # pyright: ignore[reportArgumentType]
)
async def test_a_transport_that_finds_what_is_no_finding_leaves_the_call_held(found: Any):
    alder, birch = Telling("alder", found), Door("birch", breaks=0)
    async with desk(alder.listing(), also_for_t(birch)) as one:
        other = asyncio.create_task(one.request(service="t"))
        await asyncio.sleep(0.25)
        with pytest.raises(OutcomeUnknown):
            await one.request(timeout=3.0)
        assert (await other).output == "birch"
        assert (await one.settled(), await one.held()) == (20, [10])


async def test_what_was_found_while_the_ledger_was_away_is_entered_when_it_is_back():
    class Sulking(Ledger):
        """Does not enter what was found out, for a while."""

        @handles(Resolve)
        def resolve(self, message: Resolve) -> Any:
            if asyncio.get_running_loop().time() < 60.0:
                return asyncio.get_running_loop().create_future()
            return super().resolve(message)

    alder = Telling("alder", Answered(LATE))
    async with ActorSystem("desk", seed=1) as system:
        book = Book()
        ledger = system.spawn(lambda: Sulking(book=book))
        supervisor = system.spawn(lambda: Supervisor(Market(providers=[alder.listing()]), ledger=ledger))
        assert (await smart_request(supervisor, service="s", input="x", timeout=30.0)).output == "late"
        assert book.statement().held == 10
        await asyncio.sleep(200.0)
        assert (book.statement().held, book.statement().settled) == (0, 8)


# Calls that may not be made again, whatever they failed with.

SAYING_HELD = [
    Conflict(),
    Transient("busy", charged="held"),
    Throttled("slow down", retry_after=0.1, charged="held"),
    Unclassified("who knows", charged="held"),
    Permanent("no", charged="held"),
]


@pytest.mark.parametrize("error", SAYING_HELD, ids=lambda error: type(error).__name__)
async def test_no_failure_that_may_have_been_paid_is_followed_by_another_call(error: Exception):
    alder, birch = Door("alder", breaks=9, by=error), Door("birch", breaks=0)
    async with desk(alder.listing(), birch.listing(price=20)) as one:
        with pytest.raises(OutcomeUnknown) as failed:
            await one.request()
        assert failed.value.charged == "held"
        assert (len(alder.calls), birch.calls) == (1, [])
        assert (await one.settled(), await one.held()) == (0, [10])


@pytest.mark.parametrize("error", SAYING_HELD, ids=lambda error: type(error).__name__)
async def test_such_a_failure_is_looked_up_before_anything_else_is_done(error: Exception):
    alder = Telling("alder", Answered(LATE), breaks=9, by=error)
    async with desk(alder.listing()) as one:
        assert (await one.request()).output == "late"
        assert (len(alder.calls), len(alder.asked_at)) == (1, 1)
        assert (await one.settled(), await one.held()) == (8, [])


async def test_nobody_else_is_called_after_a_paid_transport_whose_provider_lists_no_price():
    alder, birch = Door("alder", breaks=9, idempotent="key"), Door("birch", breaks=0, idempotent="key")
    async with desk(alder.listing(price=0), birch.listing(price=20)) as one:
        with pytest.raises(OutcomeUnknown):
            await one.request()
        assert {call.idempotency_key for call in alder.calls} == {alder.calls[0].idempotency_key}
        assert birch.calls == []


# What is found out while others are at it, or the ledger cannot write.


async def test_who_says_that_a_call_was_not_paid_is_put_right_by_what_is_found():
    alder = Telling("alder", UnderWay(), UnderWay(), Answered(LATE))
    async with desk(alder.listing()) as one:
        asking = asyncio.create_task(one.request(idempotency_key="order 17"))
        await asyncio.sleep(0.6)
        (held,) = await one.supervisor.ask(GetHeld(), timeout=1.0)
        await one.supervisor.ask(Resolve(held.reservation, "no"), timeout=1.0)
        assert (await asking).cost == 8
        assert (await one.settled(), await one.held()) == (8, [])
        assert (await one.request(idempotency_key="order 17")).paid == 8


async def settled_at_last(ledger: ActorRef[Any]) -> tuple[int, int]:
    await asyncio.sleep(100.0)
    statement = await ledger.ask(GetStatement(), timeout=1.0)
    return statement.held, statement.settled


@pytest.mark.parametrize("found_at_once", [True, False])
async def test_what_was_found_and_could_not_be_written_is_given_and_entered_later(
    found_at_once: bool,  # noqa: FBT001
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    full = True

    def commit(journal: SqliteJournal) -> None:
        nonlocal full
        if full and any(b"MoneySettled" in row.content for row in journal._pending.entries):
            full = False
            raise JournalError("run.db", "cannot be written: the disk is full", "make room for it")
        write(journal)

    write = SqliteJournal.commit
    monkeypatch.setattr(SqliteJournal, "commit", commit)
    alder = Telling("alder", *([] if found_at_once else [UnderWay()] * 3), Answered(LATE))
    async with ActorSystem("desk", seed=1) as system:
        ledger = system.spawn(lambda: Ledger(journal=tmp_path / "run.db"))
        supervisor = system.spawn(lambda: Supervisor(Market(providers=[alder.listing()]), ledger=ledger))
        asking = smart_request(supervisor, service="s", input="x", timeout=30.0 if found_at_once else 0.7)
        if found_at_once:
            assert (await asking).output == "late"
        else:
            with pytest.raises(OutcomeUnknown):
                await asking
        assert await settled_at_last(ledger) == (0, 8)
        assert not full


async def test_a_call_of_an_earlier_run_is_found_out_also_after_the_request_that_asked_for_it_has_ended(tmp_path: Path):
    silent, telling = Door("alder"), Telling("alder", *[UnderWay()] * 5, Answered(LATE))
    telling.calls = silent.calls
    for door in (silent, telling):
        market = Market(providers=[door.listing()])
        async with ActorSystem("desk", seed=1) as system:
            ledger = system.spawn(lambda: Ledger(journal=tmp_path / "run.db"))
            supervisor = system.spawn(lambda market=market, ledger=ledger: Supervisor(market, ledger=ledger))
            with pytest.raises((OutcomeUnknown, StillUnsettled)):
                await smart_request(supervisor, service="s", input="x", timeout=0.7, idempotency_key="order 17")
            assert await settled_at_last(ledger) == ((10, 0) if door is silent else (0, 8))


# A request that is asked for again under its key.


class Down(Telling):
    """Breaks off every call and cannot be asked, until it is well; then it knows which calls have run."""

    def __init__(self, name: str, **terms: Any) -> None:
        super().__init__(name, None, breaks=1, **terms)

    async def look_up(self, call: ProviderCall, *, timeout: float) -> Any:  # noqa: ASYNC109 - of `LooksUp`.
        self.asked_at.append(asyncio.get_running_loop().time())
        if asyncio.get_running_loop().time() < 2.0:
            raise OSError("not now")
        return Answered(ProviderReply(output=self.name, cost=Micros(10))) if len(self.calls) > 1 else NeverRan()


class StoppableDown(Down):
    """Takes its time to answer, and calls off whatever is under way."""

    cancelled = 0

    async def look_up(self, call: ProviderCall, *, timeout: float) -> Any:  # noqa: ASYNC109 - as above.
        found = await super().look_up(call, timeout=timeout)
        return UnderWay() if isinstance(found, Answered) else found

    async def cancel(self, call: ProviderCall, *, timeout: float) -> Any:  # noqa: ASYNC109 - of `Cancels`.
        self.cancelled += asyncio.get_running_loop().time() > 2.0
        return UnderWay()


@pytest.mark.parametrize("kind", [Down, StoppableDown])
async def test_what_was_found_and_made_anew_is_neither_looked_up_nor_booked_once_more(kind: type[Down]):
    alder = kind("alder")
    async with desk(alder.listing(), budget="0.000015") as one:
        with pytest.raises(OutcomeUnknown):
            await one.request(idempotency_key="order 17", timeout=0.7)
        await asyncio.sleep(2.0)
        assert (await one.request(idempotency_key="order 17")).cost == 10
        looked_up = len(alder.asked_at)
        await asyncio.sleep(1000.0)
        assert (await one.settled("run"), await one.held()) == (10, [])
        assert (len(alder.calls), len(alder.asked_at)) == (2, looked_up)
        assert one.of(Overcharged) == []
        assert getattr(alder, "cancelled", 0) == 0


async def test_a_repetition_under_its_key_is_free_whatever_was_paid_to_others_before():
    async def charge_for_nothing(_call: ProviderCall) -> Any:
        raise Unclassified("a wrong answer, which was charged", provider="cedar", charged="yes")

    cedar = Listing(
        provider=Provider(name="cedar", services={"s"}, price=Micros(5)),
        transport=lambda: FunctionTransport(charge_for_nothing, paid=True, idempotent="no", provider="cedar"),
    )
    alder = Door("alder", idempotent="key")
    async with desk(cedar, alder.listing()) as one:
        result = await one.request()
        assert (result.output, result.cost) == ("alder", 15)
        assert (await one.settled(), await one.held()) == (15, [])


@pytest.mark.parametrize("others", [True, False])
async def test_who_honours_keys_is_asked_again_before_others_are_paid_besides(others: bool, tmp_path: Path):  # noqa: FBT001
    alder, birch = Door("alder", breaks=9, idempotent="key"), Door("birch", breaks=0)
    market = Market(
        providers=[alder.listing(), *([birch.listing(price=20)] if others else [])], retry=Retry(max_retries=0)
    )
    for is_first in (True, False):
        alder.breaks = 9 if is_first else 0
        async with ActorSystem("desk", seed=1) as system:
            ledger = system.spawn(lambda: Ledger(journal=tmp_path / "run.db"))
            supervisor = system.spawn(lambda ledger=ledger: Supervisor(market, ledger=ledger))
            if is_first:
                with pytest.raises(OutcomeUnknown):
                    await smart_request(supervisor, service="s", input="x", strategy="cheapest", idempotency_key="k")
            else:
                result = await smart_request(
                    supervisor,
                    service="s",
                    input="x",
                    strategy="cheapest",
                    idempotency_key="k",
                    on_unknown="pay_again",
                )
                assert (result.output, result.cost) == ("alder", 10)
                assert await settled_at_last(ledger) == (0, 10)
    assert birch.calls == []


async def test_others_may_be_paid_besides_somebody_who_is_not_listed_any_more(tmp_path: Path):
    alder, birch = Door("alder"), Door("birch", breaks=0)
    for door, on_unknown in ((alder, "hold"), (birch, "hold"), (birch, "pay_again")):
        market = Market(providers=[door.listing()])
        async with ActorSystem("desk", seed=1) as system:
            ledger = system.spawn(lambda: Ledger(journal=tmp_path / "run.db"))
            supervisor = system.spawn(lambda market=market, ledger=ledger: Supervisor(market, ledger=ledger))
            asking = smart_request(
                supervisor, service="s", input="x", idempotency_key="order 17", on_unknown=on_unknown
            )
            if on_unknown == "pay_again":
                assert (await asking).output == "birch"
                assert await settled_at_last(ledger) == (10, 10)
            else:
                with pytest.raises((OutcomeUnknown, StillUnsettled)):
                    await asking


@pytest.mark.parametrize("name", ["run", "provider alder", "provider anybody"])
async def test_nobody_opens_the_accounts_that_the_market_keeps(name: str):
    alder = Door("alder", breaks=0)
    async with desk(alder.listing(), budget="0.000025") as one:
        with pytest.raises(Permanent, match="is of the market, which opens it itself; take another name"):
            await one.supervisor.ask(OpenAccount(name=name), timeout=1.0)
        for _ in range(2):
            await one.request()
        with pytest.raises(BudgetExceeded):
            await one.request()


@pytest.mark.parametrize("found", [UnderWay(), OSError("not now")])
async def test_who_may_pay_again_does_not_wait_to_know(found: Any):
    alder = Telling("alder", found, breaks=9, by=OutcomeUnknown("cut", provider="alder"), idempotent="key")
    birch = Door("birch", breaks=0)
    async with desk(alder.listing(), birch.listing(price=20)) as one:
        began = asyncio.get_running_loop().time()
        assert (await one.request(on_unknown="pay_again", timeout=30.0)).output == "birch"
        assert asyncio.get_running_loop().time() - began < 2.0


async def test_money_that_has_come_back_is_found_where_there_is_nobody_else():
    alder, birch = Door("alder", breaks=0), Door("birch", breaks=0)
    async with desk(alder.listing(), birch.listing(price=0, max_concurrency=1)) as one:
        await one.supervisor.ask(OpenAccount(name="mine", cap=0), timeout=1.0)
        busy = asyncio.create_task(one.request(where=ProviderFilter(max_price="0")))
        await asyncio.sleep(0.05)
        mine = asyncio.create_task(one.request(account="mine", timeout=3.0, strategy="best"))
        await asyncio.sleep(0.15)
        await one.supervisor.ask(SetCap("mine", "0.001"), timeout=1.0)
        await one.supervisor.ask(Isolate(provider="birch"), timeout=1.0)
        assert (await mine).output == "alder"
        await busy


async def test_two_who_want_to_know_the_same_ask_one_at_a_time_and_both_are_told():
    class Thinking(Telling):
        under_way = most = 0

        async def look_up(self, call: ProviderCall, *, timeout: float) -> Any:  # noqa: ASYNC109 - of `LooksUp`.
            self.under_way += 1
            self.most = max(self.most, self.under_way)
            await asyncio.sleep(0.1)
            self.under_way -= 1
            return await super().look_up(call, timeout=timeout)

    alder = Thinking("alder", *[UnderWay()] * 6, Answered(LATE))
    async with desk(alder.listing()) as one:
        with pytest.raises(OutcomeUnknown):
            await one.request(idempotency_key="order 17", timeout=0.7)
        asked = [asyncio.create_task(one.request(idempotency_key="order 17", timeout=30.0)) for _ in range(2)]
        assert [(await request).output for request in asked] == ["late", "late"]
        await asyncio.sleep(100.0)
        assert (alder.most, len(alder.asked_at), len(alder.calls)) == (1, 7, 1)
        assert (await one.settled(), await one.held()) == (8, [])
