"""A supervisor whose ledger outlives it: with a journal, with an owner to ask for more, and shared with another."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from loguru import logger

from actors import (
    BudgetExceeded,
    Done,
    FunctionTransport,
    Ledger,
    Listing,
    Market,
    OutcomeUnknown,
    Permanent,
    Provider,
    RequestOptions,
    Retry,
    SmartRequest,
    Supervisor,
    Transient,
    Unknown,
    robust_batch,
    smart_request,
)
from actors.errors import LedgerDown
from actors.ledger import CloseAccount, GetHeld, GetStatement, OpenAccount, Resolve, SetCap, StillUnsettled
from actors.ledger.book import Book
from actors.ledger.keys import provider_key
from actors.ledger.messages import MarkSent, Reservation
from actors.money import Micros
from actors.supervisor import OpenQuota
from runtime import ActorCrashed, ActorSystem, AskTimeout, Backoff, Mailbox, Supervision, handles

if TYPE_CHECKING:
    from pathlib import Path

    from actors import ProviderCall
    from actors.ledger import Statement
    from actors.transports.transport import Idempotent


class Shop:
    """One provider, which charges 10 micro-units a call and breaks off those whose input is "break"."""

    def __init__(self) -> None:
        self.charged: list[str] = []
        self.breaks = {"break"}
        self.idempotent: Idempotent = "no"

    async def answer(self, call: ProviderCall) -> Any:
        self.charged.append(call.idempotency_key)
        await asyncio.sleep(0.1)
        if call.input in self.breaks:
            raise ConnectionResetError("gone")
        return call.input

    def market(self, **terms: Any) -> Market:
        listing = Listing(
            provider=Provider(name="alder", services={"s"}, price=Micros(10)),
            transport=lambda: FunctionTransport(self.answer, paid=True, idempotent=self.idempotent),
        )
        return Market(providers=[listing], **{"retry": Retry(max_retries=0)} | terms)


async def test_a_program_that_starts_again_pays_for_no_request_twice(tmp_path: Path):
    journal, shop = tmp_path / "run.db", Shop()
    async with ActorSystem("first") as system:
        ledger = system.spawn(lambda: Ledger(journal=journal))
        supervisor = system.spawn(lambda: Supervisor(shop.market(budget="0.001"), ledger=ledger))
        for number in range(3):
            await smart_request(supervisor, service="s", input="x", idempotency_key=f"order {number}")
        with pytest.raises(OutcomeUnknown):
            await smart_request(supervisor, service="s", input="break", idempotency_key="order 3")
    async with ActorSystem("second") as system:
        ledger = system.spawn(lambda: Ledger(journal=journal))
        supervisor = system.spawn(lambda: Supervisor(shop.market(budget="0.001"), ledger=ledger))
        for number in range(3):
            result = await smart_request(supervisor, service="s", input="x", idempotency_key=f"order {number}")
            assert (result.replayed, result.cost) == (True, 0)
        with pytest.raises(StillUnsettled):
            await smart_request(supervisor, service="s", input="break", idempotency_key="order 3")
        assert (await smart_request(supervisor, service="s", input="y", idempotency_key="order 4")).output == "y"
        run = await ledger.ask(GetStatement("run"), timeout=1.0)
        assert (run.settled, run.held, run.reserved) == (40, 10, 0)
        assert [one.key for one in await ledger.ask(GetHeld(), timeout=1.0)] == ["order 3"]
    assert shop.charged == [provider_key(f"order {number}") for number in range(5)]


async def test_a_batch_goes_on_where_it_was_left_when_its_items_have_keys(tmp_path: Path):
    journal, shop = tmp_path / "run.db", Shop()
    items = [
        SmartRequest(service="s", input=number, timeout=9.0, idempotency_key=f"item {number}") for number in range(20)
    ]
    done: list[int] = []

    async def run(stop_after: int) -> None:
        async with ActorSystem("run") as system:
            ledger = system.spawn(lambda: Ledger(journal=journal))
            supervisor = system.spawn(lambda: Supervisor(shop.market(), ledger=ledger))
            async with robust_batch(supervisor, items, max_concurrency=1, account="batch", budget="1") as outcomes:
                async for outcome in outcomes:
                    if isinstance(outcome, Done):
                        done.append(outcome.index)
                        if len(done) == stop_after:
                            break

    await run(stop_after=7)
    await run(stop_after=100)
    assert done == [*range(7), *range(20)]  # Those that were done are given again, for nothing.
    assert len(shop.charged) == len({*shop.charged}) == 20


async def test_an_item_that_an_earlier_run_may_have_paid_is_no_failure_that_cost_nothing(tmp_path: Path):
    journal, shop = tmp_path / "run.db", Shop()
    items = [SmartRequest(service="s", input="break", timeout=9.0, idempotency_key="item")]
    for error in (OutcomeUnknown, StillUnsettled):
        async with ActorSystem("run") as system:
            ledger = system.spawn(lambda: Ledger(journal=journal))
            supervisor = system.spawn(lambda ledger=ledger: Supervisor(shop.market(), ledger=ledger))
            async with robust_batch(supervisor, items) as outcomes:
                (outcome,) = [one async for one in outcomes]
        assert isinstance(outcome, Unknown)
        assert type(outcome.error) is error
    assert len(shop.charged) == 1


async def test_a_request_waits_while_the_owner_is_asked_for_more_money():
    asked: list[tuple[str, int]] = []

    async def ask(statement: Statement, needed: int) -> str | None:
        asked.append((statement.name, needed))
        await asyncio.sleep(5.0)
        return Micros(25) if len(asked) == 1 else None

    shop = Shop()
    async with ActorSystem("asking") as system:
        ledger = system.spawn(lambda: Ledger(on_exhausted=ask))
        supervisor = system.spawn(lambda: Supervisor(shop.market(budget=Micros(10)), ledger=ledger))
        loop = asyncio.get_running_loop()
        await smart_request(supervisor, service="s", input=1)
        began = loop.time()
        assert (await smart_request(supervisor, service="s", input=2)).output == 2
        assert loop.time() - began == pytest.approx(5.1)
        with pytest.raises(BudgetExceeded) as refused:
            await smart_request(supervisor, service="s", input=3)
        assert (refused.value.cap, refused.value.available) == ("run", 5)
        with pytest.raises(BudgetExceeded):
            await smart_request(supervisor, service="s", input=4)
        assert asked == [("run", 10), ("run", 10)]


async def test_no_provider_is_called_while_the_owner_is_asked_beyond_the_deadline():
    async def never(_statement: Statement, _needed: int) -> str | None:
        await asyncio.get_running_loop().create_future()
        return None

    shop = Shop()
    async with ActorSystem("asking") as system:
        ledger = system.spawn(lambda: Ledger(on_exhausted=never))
        supervisor = system.spawn(lambda: Supervisor(shop.market(budget=Micros(10)), ledger=ledger))
        await smart_request(supervisor, service="s", input=1)
        with pytest.raises(Exception, match="no money can be reserved") as failed:
            await smart_request(supervisor, service="s", input=2, timeout=3.0)
        assert getattr(failed.value, "charged", None) == "no"
        assert len(shop.charged) == 1
        assert (await ledger.ask(GetStatement("run"), timeout=1.0)).reserved == 0


async def test_two_supervisors_share_one_budget_to_the_last_micro_unit():
    shop = Shop()
    async with ActorSystem("shared") as system:
        ledger = system.spawn(lambda: Ledger(accounts={"run": Micros(95)}))
        supervisors = [
            system.spawn(lambda: Supervisor(shop.market(budget="1"), ledger=ledger), name=name) for name in "ab"
        ]
        requests = [smart_request(supervisors[number % 2], service="s", input=number) for number in range(20)]
        outcomes = await asyncio.gather(*requests, return_exceptions=True)
        assert sum(isinstance(one, BudgetExceeded) for one in outcomes) == 11
        assert (await ledger.ask(GetStatement("run"), timeout=1.0)).settled == 10 * len(shop.charged) == 90


@pytest.mark.parametrize(("cap", "told"), [("2", ["a cap of $2.00"]), (None, ["no cap"]), ("1", [])])
async def test_a_budget_that_is_not_the_cap_at_the_ledger_is_told_once(cap: str | None, told: list[str]):
    shop, warnings = Shop(), list[str]()
    sink = logger.add(warnings.append, level="WARNING", format="{message}")
    try:
        async with ActorSystem("shared") as system:
            ledger = system.spawn(lambda: Ledger(accounts={"run": cap}))
            supervisor = system.spawn(lambda: Supervisor(shop.market(budget="1"), ledger=ledger))
            for number in range(2):
                await smart_request(supervisor, service="s", input=number)
    finally:
        logger.remove(sink)
    assert [line.strip() for line in warnings] == [
        f"account 'run' is open at the ledger with {what}, which holds, and not the $1.00 of this market; "
        "SetCap changes it"
        for what in told
    ]


def crash(ledger: Any) -> None:
    ledger.recipient.failed(RuntimeError("made to crash"), None)


async def test_what_a_busy_ledger_must_know_reaches_it_after_the_deadline_of_the_request():
    shop = Shop()
    async with ActorSystem("busy", supervision=Supervision(backoff=Backoff(initial=9.0, jitter=0.0))) as system:
        book = Book()
        ledger = system.spawn(lambda: Ledger(book=book), mailbox=Mailbox(capacity=1))
        supervisor = system.spawn(lambda: Supervisor(shop.market(budget=1), ledger=ledger))
        request = asyncio.create_task(smart_request(supervisor, service="s", input=1, timeout=1.0))
        await asyncio.sleep(0.05)
        crash(ledger)
        await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        ledger.tell(
            MarkSent(Reservation(1, "another", "alder", Micros(1)))
        )  # Which fills its mailbox until it has restarted.
        assert (await request).output == 1
        await asyncio.sleep(20.0)
        run = await ledger.ask(GetStatement("run"), timeout=1.0)
        assert (run.settled, run.reserved) == (10, 0)


async def test_a_request_goes_on_elsewhere_after_a_call_that_a_busy_ledger_has_not_heard_the_end_of():
    """What it is told must not be overtaken by what it is asked next, under the same key."""

    async def fail(_call: ProviderCall) -> None:
        ledger.tell(MarkSent(Reservation(1, "another", "alder", Micros(1))))  # Which fills its mailbox for this turn.
        raise Transient("down", provider="alder", outcome="not_started")

    async def answer(call: ProviderCall) -> Any:
        return call.input

    def listing(name: str, price: int, function: Any) -> Listing:
        return Listing(
            provider=Provider(name=name, services={"s"}, price=Micros(price)),
            transport=lambda: FunctionTransport(function, paid=True, idempotent="no", ends_when_cancelled=True),
        )

    market = Market(providers=[listing("alder", 10, fail), listing("birch", 20, answer)], budget=1)
    async with ActorSystem("busy") as system:
        ledger = system.spawn(Ledger, mailbox=Mailbox(capacity=1))
        supervisor = system.spawn(lambda: Supervisor(market, ledger=ledger))
        result = await smart_request(supervisor, service="s", input=1, strategy="cheapest", timeout=5.0)
        assert (result.provider, result.cost) == ("birch", 20)


async def test_a_request_that_is_cancelled_as_it_opens_the_account_of_all_closes_it_for_no_other():
    class Opening(Book):
        def open(self, name: str, **terms: Any) -> Any:
            asyncio.get_running_loop().call_soon(first.cancel)
            return super().open(name, **terms)

    shop, book = Shop(), Opening()
    async with ActorSystem("opening", supervision=Supervision(backoff=Backoff(initial=0.1, jitter=0.0))) as system:
        ledger = system.spawn(lambda: Ledger(book=book))
        supervisor = system.spawn(lambda: Supervisor(shop.market(budget=1), ledger=ledger))
        # It restarts, and answers all that was asked meanwhile in one turn.
        crash(ledger)
        await asyncio.sleep(0.05)
        first, other = (
            asyncio.create_task(smart_request(supervisor, service="s", input=number)) for number in range(2)
        )
        assert (await other).output == 1
        assert first.cancelled()
        assert (await smart_request(supervisor, service="s", input=2)).output == 2
        assert len(shop.charged) == 2


# What an earlier run, or an instance that crashed, left held.


async def test_what_an_earlier_run_left_held_is_repeated_under_its_key_and_charged_once(tmp_path: Path):
    journal, shop = tmp_path / "run.db", Shop()
    async with ActorSystem("first") as system:
        ledger = system.spawn(lambda: Ledger(journal=journal))
        supervisor = system.spawn(lambda: Supervisor(shop.market(budget="1"), ledger=ledger))
        asking = asyncio.create_task(smart_request(supervisor, service="s", input="x", idempotency_key="order 1"))
        await asyncio.sleep(0.05)
        asking.cancel()
        await asyncio.wait([asking])
        assert [one.key for one in await ledger.ask(GetHeld(), timeout=1.0)] == ["order 1"]
    shop.idempotent = "key"
    async with ActorSystem("second") as system:
        ledger = system.spawn(lambda: Ledger(journal=journal))
        supervisor = system.spawn(lambda: Supervisor(shop.market(budget="1"), ledger=ledger))
        assert (await smart_request(supervisor, service="s", input="x", idempotency_key="order 1")).output == "x"
        run = await ledger.ask(GetStatement("run"), timeout=1.0)
        assert (run.settled, run.held, run.reserved) == (10, 0, 0)
    assert shop.charged == [provider_key("order 1")] * 2


@pytest.mark.parametrize(("policy", "paid", "held"), [("hold", 10, 10), ("pay_again", 20, 10)])
async def test_no_other_provider_is_paid_for_what_an_earlier_run_left_held_unless_the_request_says_so(
    tmp_path: Path, policy: Any, paid: int, held: int
):
    journal, shop = tmp_path / "run.db", Shop()
    async with ActorSystem("first") as system:
        ledger = system.spawn(lambda: Ledger(journal=journal))
        supervisor = system.spawn(lambda: Supervisor(shop.market(), ledger=ledger))
        await smart_request(supervisor, service="s", input="x")
        with pytest.raises(OutcomeUnknown) as unknown:
            await smart_request(supervisor, service="s", input="break", idempotency_key="order 1")
        assert unknown.value.key == "order 1"
    shop.breaks.clear()
    async with ActorSystem("second") as system:
        ledger = system.spawn(lambda: Ledger(journal=journal))
        supervisor = system.spawn(lambda: Supervisor(shop.market(), ledger=ledger))
        with suppress(StillUnsettled):
            await smart_request(
                supervisor,
                service="s",
                input="break",
                idempotency_key="order 1",
                options=RequestOptions(on_unknown=policy),
            )
        total = await ledger.ask(GetStatement(), timeout=1.0)
        assert (total.settled, total.held) == (paid, held)


class Quitting(Supervisor):
    """Crashes when it is told to open a quota."""

    @handles(OpenQuota)
    def open_quota(self, message: OpenQuota) -> Any:
        raise RuntimeError("a bug")


async def test_a_supervisor_that_crashes_forgets_no_payment_no_cap_and_no_money_that_may_be_spent():
    shop = Shop()
    async with ActorSystem("shop", seed=1) as system:
        supervisor = system.spawn(lambda: Quitting(shop.market(budget="0.000035")))
        await smart_request(supervisor, service="s", input="x", idempotency_key="order 1")
        asking = asyncio.create_task(smart_request(supervisor, service="s", input="x", idempotency_key="order 2"))
        await asyncio.sleep(0.05)
        with pytest.raises(ActorCrashed):
            await supervisor.ask(OpenQuota(name="q", rate=1.0), timeout=1.0)
        with pytest.raises(ActorCrashed):
            await asking
        assert (await smart_request(supervisor, service="s", input="x", idempotency_key="order 1")).replayed
        with pytest.raises(StillUnsettled):
            await smart_request(supervisor, service="s", input="x", idempotency_key="order 2")
        run = await supervisor.ask(GetStatement("run"), timeout=1.0)
        assert (run.settled, run.held, run.reserved, run.cap) == (10, 10, 0, 35)
        await smart_request(supervisor, service="s", input="x")
        with pytest.raises(BudgetExceeded):
            await smart_request(supervisor, service="s", input="x")
    assert len(shop.charged) == 3


async def test_what_is_held_may_be_resolved_and_a_cap_changed_through_the_supervisor():
    shop = Shop()
    async with ActorSystem("shop") as system:
        supervisor = system.spawn(lambda: Supervisor(shop.market(budget="0.00001")))
        with pytest.raises(OutcomeUnknown):
            await smart_request(supervisor, service="s", input="break")
        [held] = await supervisor.ask(GetHeld(), timeout=1.0)
        await supervisor.ask(Resolve(held.reservation, "yes"), timeout=1.0)
        assert (await supervisor.ask(SetCap("run", Micros(20)), timeout=1.0)).available == 10
        assert (await smart_request(supervisor, service="s", input="x")).cost == 10


# Questions that are passed on.


async def test_a_ledger_that_is_gone_is_told_of_and_harms_no_request_under_way():
    shop = Shop()
    async with ActorSystem("shop") as system:
        ledger = system.spawn(Ledger)
        supervisor = system.spawn(lambda: Supervisor(shop.market(), ledger=ledger))
        asking = asyncio.create_task(smart_request(supervisor, service="s", input="x"))
        await asyncio.sleep(0.05)
        ledger.stop()
        await ledger.terminated()
        for question in (
            GetStatement(),
            GetHeld(),
            OpenAccount(cap=Micros(1)),
            CloseAccount(name="x"),
            SetCap("x", Micros(1)),
        ):
            with pytest.raises(LedgerDown, match="stopped"):
                await supervisor.ask(question, timeout=1.0)
        assert (await asking).output == "x"


async def test_what_the_market_caps_cannot_be_closed():
    shop = Shop()
    async with ActorSystem("shop") as system:
        supervisor = system.spawn(lambda: Supervisor(shop.market(budget="0.00001")))
        await smart_request(supervisor, service="s", input="x")
        with pytest.raises(Permanent, match="account 'run' is of the market"):
            await supervisor.ask(CloseAccount(name="run"), timeout=1.0)
        with pytest.raises(BudgetExceeded):
            await smart_request(supervisor, service="s", input="y")


async def test_an_asker_that_did_not_wait_for_the_last_call_may_ask_again_for_the_statement():
    shop = Shop()
    async with ActorSystem("shop") as system:
        supervisor = system.spawn(lambda: Supervisor(shop.market()))
        await supervisor.ask(OpenAccount(name="batch", cap=Micros(100)), timeout=1.0)
        asking = asyncio.create_task(smart_request(supervisor, service="s", input="x", account="batch"))
        await asyncio.sleep(0.05)
        with pytest.raises(AskTimeout):
            await supervisor.ask(CloseAccount(name="batch"), timeout=0.01)
        assert (await supervisor.ask(CloseAccount(name="batch"), timeout=1.0)).settled == 10
        assert (await asking).output == "x"
