"""A call whose provider gives a handle before the answer is taken up by it, and not paid again; in virtual time."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
import pytest

from actors import Listing, Market, OutcomeUnknown, Provider, RequestOptions, Supervisor, smart_request
from actors.errors.families import BadAnswer, Transient
from actors.ledger import GetHeld, GetStatement, Ledger, StillUnsettled
from actors.money import Micros
from actors.supervisor.messages import ReplaceMarket
from actors.transports import (
    NOT_KEPT,
    Answered,
    Finding,
    FunctionTransport,
    Lost,
    NeverRan,
    ProviderCall,
    ProviderReply,
    UnderWay,
)
from runtime import ActorSystem, Event

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from runtime import ActorRef

PRICE = Micros(10)
COST = Micros(7)


class Tasks:
    """A provider that begins a task for each call, and ends it `lasts` seconds later, whoever has left."""

    def __init__(self, *, lasts: float = 10.0) -> None:
        self.lasts = lasts
        self.ends_at: dict[str, float] = {}
        self.looks: list[tuple[str, float]] = []
        self.gone: set[str] = set()

    @property
    def begun(self) -> int:
        return len(self.ends_at)

    def listing(self, name: str = "alder", **terms: Any) -> Listing:
        provider = Provider(name=name, services={"s"}, price=PRICE)
        return Listing(provider=provider, transport=lambda: TaskTransport(self), **terms)


class TaskTransport:
    """Begins tasks, tells their handles, and breaks off after `breaks_after` seconds."""

    paid = True
    idempotent = "no"
    breaks_after: float | None = None
    handle = "task {}"

    def __init__(self, tasks: Tasks) -> None:
        self.tasks = tasks

    async def call(self, call: ProviderCall) -> ProviderReply:
        handle = self.handle.format(self.tasks.begun + 1)
        await asyncio.sleep(0.1)
        now = asyncio.get_running_loop().time()
        self.tasks.ends_at[handle] = now + self.tasks.lasts
        call.notes.begun(handle)
        try:
            async with asyncio.timeout(min(call.timeout - 0.1, self.breaks_after or call.timeout)):
                await asyncio.sleep(self.tasks.lasts)
        except TimeoutError as error:
            raise OutcomeUnknown("the connection is lost", provider=call.provider) from error
        return ProviderReply(output=f"answer to {call.input}", cost=COST)

    async def resume(self, handle: str, call: ProviderCall) -> Finding:
        now = asyncio.get_running_loop().time()
        self.tasks.looks.append((handle, now))
        if handle in self.tasks.gone:
            return Lost()
        left = self.tasks.ends_at[handle] - now
        await asyncio.sleep(max(0.0, min(left, call.timeout)))
        if left > call.timeout:
            return UnderWay()
        return Answered(ProviderReply(output=f"answer to {call.input}", cost=COST))

    async def check(self, *, timeout: float) -> None: ...  # noqa: ASYNC109 - of `Transport`.

    async def aclose(self) -> None: ...


class Breaking(TaskTransport):
    breaks_after = 1.0


class Alone(TaskTransport):
    """Knows by the handle alone what was asked for, because the provider keeps it."""

    resumes_alone = True
    asked: ClassVar[dict[str, Any]] = {}

    async def call(self, call: ProviderCall) -> ProviderReply:
        self.asked[self.handle.format(self.tasks.begun + 1)] = call.input
        return await super().call(call)

    async def resume(self, handle: str, call: ProviderCall) -> Finding:
        assert (call.input, call.service) == (NOT_KEPT, "")
        if handle not in self.tasks.ends_at:
            raise Transient("no such task", provider=call.provider)
        found = await super().resume(handle, call)
        if isinstance(found, Answered):
            return Answered(ProviderReply(output=f"answer to {self.asked[handle]}", cost=COST))
        return found


class Cancellable(Alone):
    cancelled = 0

    async def cancel(self, call: ProviderCall, *, timeout: float) -> Finding:  # noqa: ASYNC109 - of `Cancels`.
        type(self).cancelled += 1
        return NeverRan()


class Joined(Alone):
    """Is asked by a request too, which knows what it asks for."""

    async def resume(self, handle: str, call: ProviderCall) -> Finding:
        return await super().resume(handle, msgspec.structs.replace(call, input=NOT_KEPT, service=""))


async def spoil(call: ProviderCall) -> Any:
    raise BadAnswer("it is of no use", reason="empty", provider=call.provider)


class TooLong(TaskTransport):
    handle = "x" * 201


def of(kind: type[TaskTransport], tasks: Tasks, **terms: Any) -> Listing:
    provider = Provider(name="alder", services={"s"}, price=PRICE)
    return Listing(provider=provider, transport=lambda: kind(tasks), **terms)


@asynccontextmanager
async def desk(*listings: Listing, journal: Path | None = None) -> AsyncIterator[ActorRef[Any]]:
    async with ActorSystem("desk", seed=1) as system:
        ledger = None if journal is None else system.spawn(lambda: Ledger(journal=journal), name="money")
        yield system.spawn(lambda: Supervisor(Market(providers=listings), ledger=ledger))


async def ask(supervisor: ActorRef[Any], **terms: Any) -> Any:
    terms = {"service": "s", "input": "x", "idempotency_key": "order 17", "timeout": 100.0} | terms
    return await smart_request(supervisor, **terms)


async def test_a_call_whose_connection_is_lost_is_taken_up_by_its_handle():
    tasks = Tasks()
    async with desk(of(Breaking, tasks)) as supervisor:
        result = await ask(supervisor)
        statement = await supervisor.ask(GetStatement(), timeout=1.0)
    assert (result.output, result.cost, tasks.begun) == ("answer to x", COST, 1)
    assert (statement.settled, statement.held, statement.reserved) == (COST, 0, 0)


async def test_a_call_that_took_too_long_goes_on_and_its_answer_is_waited_for():
    tasks = Tasks(lasts=50.0)
    async with desk(tasks.listing(timeout=5.0)) as supervisor:
        result = await ask(supervisor)
    assert (result.output, tasks.begun) == ("answer to x", 1)
    assert 50.0 <= result.latency < 56.0


async def test_a_call_that_was_cancelled_goes_on_and_the_next_under_its_key_has_its_answer():
    tasks = Tasks()
    async with desk(tasks.listing()) as supervisor:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.0):
                await ask(supervisor)
        await asyncio.sleep(0.01)  # The call is ended once its last asker has gone.
        assert [one.amount for one in await supervisor.ask(GetHeld(), timeout=1.0)] == [PRICE]
        result = await ask(supervisor)
        assert (result.output, result.latency, tasks.begun) == ("answer to x", pytest.approx(9.09), 1)
        again = await ask(supervisor)
    assert (again.replayed, again.cost, again.output) == (True, 0, "answer to x")


async def test_what_nobody_asks_for_again_is_settled_and_its_answer_kept():
    tasks = Tasks()
    async with desk(tasks.listing()) as supervisor:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.0):
                await ask(supervisor)
        await asyncio.sleep(100.0)
        statement = await supervisor.ask(GetStatement(), timeout=1.0)
        assert (statement.settled, statement.held) == (COST, 0)
        result = await ask(supervisor)
    assert (result.replayed, result.output, tasks.begun) == (True, "answer to x", 1)


@pytest.mark.parametrize("rest", [0.0, 3.0, 100.0])
async def test_a_call_of_an_earlier_life_is_taken_up_by_the_handle_in_the_journal(tmp_path: Path, rest: float):
    tasks, journal = Tasks(), tmp_path / "money.journal"
    async with desk(tasks.listing(), journal=journal) as supervisor:
        asking = asyncio.ensure_future(ask(supervisor))
        await asyncio.sleep(1.0)
    await asyncio.gather(asking, return_exceptions=True)
    await asyncio.sleep(rest)
    began_at = asyncio.get_running_loop().time()
    async with desk(tasks.listing(), journal=journal) as supervisor:
        result = await ask(supervisor)
        answered_at = asyncio.get_running_loop().time()
        statement = await supervisor.ask(GetStatement(), timeout=1.0)
        again = await ask(supervisor)
    assert (result.output, tasks.begun, {handle for handle, _ in tasks.looks}) == ("answer to x", 1, {"task 1"})
    assert answered_at == pytest.approx(max(began_at, tasks.ends_at["task 1"]), abs=0.01)
    assert (statement.settled, statement.held, again.replayed) == (COST, 0, True)


async def begun(*listings: Listing, journal: Path, seconds: float = 1.0, **terms: Any) -> None:
    """End a program while a call is under way."""
    async with desk(*listings, journal=journal) as supervisor:
        asking = asyncio.ensure_future(ask(supervisor, **terms))
        await asyncio.sleep(seconds)
    await asyncio.gather(asking, return_exceptions=True)


@pytest.mark.parametrize("key", ["order 17", None])
async def test_a_call_of_an_earlier_life_is_taken_up_at_the_start_though_nothing_asks(tmp_path: Path, key: str | None):
    tasks, journal = Tasks(), tmp_path / "money.journal"
    await begun(of(Cancellable, tasks), journal=journal, idempotency_key=key)
    async with desk(of(Cancellable, tasks), journal=journal) as supervisor:
        await asyncio.sleep(1.0)
        assert [one.amount for one in await supervisor.ask(GetHeld(), timeout=1.0)] == [PRICE]
        await asyncio.sleep(60.0)
        statement = await supervisor.ask(GetStatement(), timeout=1.0)
        assert (statement.settled, statement.held, statement.reserved, tasks.begun) == (COST, 0, 0, 1)
    tasks.ends_at.clear()  # Its provider has gone, and is not needed.
    async with desk(of(Cancellable, tasks), journal=journal) as supervisor:
        if key is not None:
            result = await ask(supervisor)
            assert (result.replayed, result.cost, result.paid, result.output) == (True, 0, COST, "answer to x")
    assert (tasks.begun, Cancellable.cancelled) == (0, 0)


@pytest.mark.parametrize("rest", [0.0, 0.001, 3.0])
async def test_a_request_and_the_start_take_up_a_call_once(tmp_path: Path, rest: float):
    tasks, journal = Tasks(lasts=30.0), tmp_path / "money.journal"
    await begun(of(Alone, tasks), journal=journal)
    async with desk(of(Joined, tasks), journal=journal) as supervisor:
        await asyncio.sleep(rest)
        result = await ask(supervisor)
        await asyncio.sleep(100.0)
        statement = await supervisor.ask(GetStatement(), timeout=1.0)
    assert (result.output, result.paid, tasks.begun) == ("answer to x", COST, 1)
    assert (statement.settled, statement.held) == (COST, 0)


@pytest.mark.parametrize("gone", ["handle", "provider", "input"])
async def test_what_cannot_be_taken_up_at_the_start_stays_held(tmp_path: Path, gone: str):
    tasks, journal = Tasks(), tmp_path / "money.journal"
    await begun(of(Alone, tasks), journal=journal)
    listing = {"handle": of(Alone, tasks), "provider": tasks.listing("birch"), "input": tasks.listing()}[gone]
    tasks.looks.clear()
    if gone == "handle":
        tasks.ends_at.clear()
    async with desk(listing, journal=journal) as supervisor:
        await asyncio.sleep(1000.0)
        assert [one.amount for one in await supervisor.ask(GetHeld(), timeout=1.0)] == [PRICE]
        statement = await supervisor.ask(GetStatement(), timeout=1.0)
        assert (statement.settled, statement.held, tasks.looks) == (0, PRICE, [])


async def test_a_provider_that_is_listed_later_takes_up_its_calls_then(tmp_path: Path):
    tasks, journal = Tasks(), tmp_path / "money.journal"
    await begun(of(Alone, tasks), journal=journal)
    birch = Tasks().listing("birch")
    async with desk(birch, journal=journal) as supervisor:
        await asyncio.sleep(100.0)
        await supervisor.ask(ReplaceMarket(Market(providers=[birch, of(Alone, tasks)])), timeout=1.0)
        await asyncio.sleep(1.0)
        statement = await supervisor.ask(GetStatement(), timeout=1.0)
    assert (statement.settled, statement.held) == (COST, 0)


async def test_what_was_paid_before_under_the_key_is_in_the_receipt_of_a_call_taken_up(tmp_path: Path):
    tasks, journal = Tasks(), tmp_path / "money.journal"
    dear = Provider(name="birch", services={"s"}, price=Micros(9))
    bad = Listing(provider=dear, transport=lambda: FunctionTransport(spoil, paid=True, idempotent="no"))
    await begun(
        bad, of(Alone, tasks), journal=journal, options=RequestOptions(strategy="cheapest", on_bad_answer="next")
    )
    async with desk(bad, of(Alone, tasks), journal=journal) as supervisor:
        await asyncio.sleep(60.0)
        result = await ask(supervisor)
    assert (result.replayed, result.paid) == (True, 9 + COST)


async def test_a_request_that_could_pay_another_takes_up_the_call_first(tmp_path: Path):
    slow, quick, journal = Tasks(lasts=10.0), Tasks(lasts=0.1), tmp_path / "money.journal"
    async with desk(slow.listing(), journal=journal) as supervisor:
        asking = asyncio.ensure_future(ask(supervisor))
        await asyncio.sleep(1.0)
    await asyncio.gather(asking, return_exceptions=True)
    async with desk(slow.listing(), quick.listing("birch"), journal=journal) as supervisor:
        result = await ask(supervisor, on_unknown="pay_again")
    assert (result.provider, slow.begun, quick.begun) == ("alder", 1, 0)


async def test_an_answer_that_is_gone_was_paid_and_the_request_goes_on():
    tasks, quick = Tasks(), Tasks(lasts=0.1)
    tasks.gone.add("task 1")
    async with desk(of(Breaking, tasks), quick.listing("birch")) as supervisor:
        result = await ask(supervisor, strategy="cheapest")
        statement = await supervisor.ask(GetStatement(), timeout=1.0)
    assert (result.provider, result.cost, statement.settled) == ("birch", PRICE + COST, PRICE + COST)


async def test_a_handle_that_is_too_long_is_none():
    tasks = Tasks()
    async with desk(of(TooLong, tasks, timeout=1.0)) as supervisor:
        with pytest.raises(OutcomeUnknown):
            await ask(supervisor, timeout=10.0)
        assert tasks.looks == []
        assert [one.amount for one in await supervisor.ask(GetHeld(), timeout=1.0)] == [PRICE]


@pytest.mark.parametrize("found", [NeverRan(), Transient("the provider is down", provider="alder")])
async def test_what_resume_finds_is_gone_on_from(found: Any, monkeypatch: pytest.MonkeyPatch):
    tasks, quick = Tasks(), Tasks(lasts=0.1)

    async def resume(_: TaskTransport, handle: str, call: ProviderCall) -> Finding:
        tasks.looks.append((handle, call.timeout))
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(Breaking, "resume", resume)
    async with desk(of(Breaking, tasks), quick.listing("birch")) as supervisor:
        if isinstance(found, Exception):
            with pytest.raises(OutcomeUnknown):
                await ask(supervisor, strategy="cheapest", timeout=30.0)
            assert len(tasks.looks) > 5
            assert quick.begun == 0
        else:
            result = await ask(supervisor, strategy="cheapest")
            assert (result.provider, result.cost) == ("birch", COST)


async def test_a_handle_is_shown_to_no_other(tmp_path: Path):
    tasks, journal, shown = Tasks(lasts=1000.0), tmp_path / "money.journal", list[str]()
    async with ActorSystem("desk", seed=1) as system:
        ledger = system.spawn(lambda: Ledger(journal=journal), name="money")
        supervisor = system.spawn(lambda: Supervisor(Market(providers=[tasks.listing()]), ledger=ledger))
        system.events.subscribe(Event, lambda event: shown.append(repr(event)))
        with pytest.raises(OutcomeUnknown) as unknown:
            await ask(supervisor, timeout=10.0)
        shown.append(repr(await supervisor.ask(GetHeld(), timeout=1.0)))
        with pytest.raises(StillUnsettled) as again:
            await ask(supervisor, timeout=10.0)
        assert tasks.looks
        shown += [str(unknown.value), str(again.value), str(again.value.__cause__)]
    assert not [text for text in shown if "task 1" in text]
