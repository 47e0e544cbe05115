"""Batches that outlive the program: what has ended is not asked for again, in virtual time over a real file."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from actors import (
    Done,
    Failed,
    FunctionTransport,
    Listing,
    Market,
    OutcomeUnknown,
    Permanent,
    Provider,
    ProviderCall,
    SmartRequest,
    Supervisor,
    Unknown,
    robust_batch,
)
from actors.batch import BatchJournal
from actors.ledger import GetHeld, GetStatement, KeyReused, Ledger, LedgerConfig, Resolve
from runtime import ActorSystem

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from actors.batch.outcomes import RequestOutcome
    from runtime import ActorRef


class World:
    """A journal, and a provider that counts what it is asked for, over any number of lives of a program."""

    def __init__(self, path: Path, *, price: str = "0.01") -> None:
        self.path = path / "run.journal"
        self.price = price
        self.calls = Counter[Any]()
        self.answer: Callable[[Any], Any] = str.upper

    async def serve(self, call: ProviderCall) -> Any:
        self.calls[call.input] += 1
        await asyncio.sleep(0.01)
        return self.answer(call.input)

    @property
    def market(self) -> Market:
        provider = Provider(name="alder", services={"uppercase"}, price=self.price)
        transport = lambda: FunctionTransport(self.serve, paid=self.price != "0", idempotent="no")  # noqa: E731
        return Market(providers=[Listing(provider=provider, transport=transport)])

    @asynccontextmanager
    async def life(self, **ledger: Any) -> AsyncIterator[ActorRef[Any]]:
        async with ActorSystem("life", log=False) as system:
            money = system.spawn(lambda: Ledger(LedgerConfig(**ledger), journal=self.path))
            yield system.spawn(lambda: Supervisor(self.market, ledger=money))

    async def run(self, items: Any, *, most: int | None = None, **options: Any) -> list[RequestOutcome]:
        """Run the batch, and leave it after so many outcomes."""
        journal = options.pop("journal", self.path)
        outcomes: list[RequestOutcome] = []
        async with (
            self.life() as supervisor,
            robust_batch(supervisor, items, **{"service": "uppercase", "journal": journal} | options) as batch,
        ):
            async for outcome in batch:
                outcomes.append(outcome)
                if len(outcomes) == most:
                    break
        self.cost, self.held = batch.summary.cost, batch.summary.held
        return outcomes


def lose(_text: str) -> str:
    raise OutcomeUnknown("the connection broke")


def of(outcomes: list[RequestOutcome]) -> dict[int, Any]:
    return {one.index: one.result.output if isinstance(one, Done) else type(one.error) for one in outcomes}


async def test_a_batch_goes_on_where_it_was_left(tmp_path):
    world = World(tmp_path)
    items = [f"item {number}" for number in range(20)]
    await world.run(items, most=7, max_concurrency=3)
    outcomes = await world.run(items, max_concurrency=3)
    assert of(outcomes) == {number: f"ITEM {number}" for number in range(20)}
    again = [one for one in outcomes if isinstance(one, Done) and one.result.replayed]
    assert len(again) >= 7
    assert {str(one.result.paid) for one in again} == {"$0.01"}
    assert {str(one.result.cost) for one in again} == {"$0.00"}
    calls = world.calls.total()
    assert calls - 20 <= 3  # Those that were under way when it was left, and were cancelled.
    assert int(world.cost + world.held) == calls * 10_000
    assert of(await world.run(items)) == of(outcomes)
    assert world.calls.total() == calls


async def test_what_was_free_is_kept_as_well(tmp_path):
    world = World(tmp_path, price="0")
    first = await world.run(["a", "b"])
    assert of(await world.run(["a", "b", "c"])) == of(first) | {2: "C"}
    assert world.calls == {"a": 1, "b": 1, "c": 1}


async def test_equal_items_are_samples_and_an_inserted_one_moves_no_key(tmp_path):
    world = World(tmp_path)
    await world.run(["a", "b", "a"])
    assert world.calls == {"a": 2, "b": 1}
    assert of(await world.run(["new", "b", "a", "a", "a"])) == {0: "NEW", 1: "B", 2: "A", 3: "A", 4: "A"}
    assert world.calls == {"new": 1, "a": 3, "b": 1}


async def test_the_budget_is_that_of_all_runs_together(tmp_path):
    world = World(tmp_path)
    items = [f"item {number}" for number in range(10)]
    first = await world.run(items, budget="0.04", max_concurrency=1)
    assert sum(isinstance(one, Done) for one in first) == 4
    second = await world.run(items, budget="0.04", max_concurrency=1)
    assert [type(one) for one in second] == [type(one) for one in first]
    assert world.calls.total() == 4
    third = await world.run(items, budget="0.07", max_concurrency=1)  # What lacked money is asked for again.
    assert sum(isinstance(one, Done) for one in third) == 7
    assert world.calls.total() == 7
    assert str(world.cost) == "$0.07"


async def test_what_has_failed_is_asked_for_again_only_if_that_is_said(tmp_path):
    world = World(tmp_path)

    def refuse(text: str) -> str:
        if text == "bad":
            raise Permanent("no such thing")
        return text.upper()

    world.answer = refuse
    first = await world.run(["good", "bad"])
    assert of(first) == {0: "GOOD", 1: Permanent}
    failed = next(one for one in first if isinstance(one, Failed))
    again = next(one for one in await world.run(["good", "bad"]) if isinstance(one, Failed))
    assert str(again.error) == str(failed.error)
    assert world.calls == {"good": 1, "bad": 1}
    world.answer = str.upper
    retried = await world.run(["good", "bad"], journal=BatchJournal(world.path, retry_failed=True))
    assert of(retried) == {0: "GOOD", 1: "BAD"}
    assert of(await world.run(["good", "bad"])) == {0: "GOOD", 1: "BAD"}
    assert world.calls == {"good": 1, "bad": 2}


@pytest.mark.parametrize("charged", ["yes", "no"])
async def test_what_may_have_been_paid_is_not_paid_again(tmp_path, charged):
    world = World(tmp_path)

    world.answer = lose
    first = await world.run(["a"])
    assert isinstance(first[0], Unknown)
    assert isinstance((await world.run(["a"]))[0], Unknown)
    assert world.calls == {"a": 1}
    world.answer = str.upper
    async with world.life() as supervisor:
        (held,) = await supervisor.ask(GetHeld(), timeout=5)
        await supervisor.ask(Resolve(held.reservation, charged), timeout=5)
    ended = of(await world.run(["a"]))
    assert (ended == {0: "A"}) == (charged == "no")
    assert world.calls == {"a": 2 if charged == "no" else 1}


async def test_what_may_have_been_paid_is_paid_again_if_that_is_said(tmp_path):
    world = World(tmp_path)

    world.answer = lose
    await world.run(["a"])
    world.answer = str.upper
    (outcome,) = await world.run(["a"], journal=BatchJournal(world.path, retry_unknown=True))
    assert isinstance(outcome, Done)
    assert str(outcome.result.at_risk) == "$0.01"
    assert (str(world.cost), str(world.held)) == ("$0.01", "$0.01")
    assert of(await world.run(["a"])) == {0: "A"}
    assert world.calls == {"a": 2}


async def test_an_item_under_the_id_of_another_is_refused(tmp_path):
    world = World(tmp_path)

    def named(content: str) -> SmartRequest:
        return SmartRequest(service="uppercase", input=content, timeout=10, request_id="order 17")

    await world.run([named("a")])
    assert of(await world.run([named("b")])) == {0: KeyReused}
    assert of(await world.run([named("a")])) == {0: "A"}
    assert world.calls == {"a": 1}


async def test_a_fresh_run_pays_again_from_an_account_of_its_own(tmp_path):
    world = World(tmp_path)
    await world.run(["a"], budget="0.01")
    outcomes = await world.run(["a"], budget="0.01", journal=BatchJournal(world.path, fresh=True))
    assert of(outcomes) == {0: "A"}
    assert world.calls == {"a": 2}
    assert str(world.cost) == "$0.01"
    await world.run(["a"], budget="0.01")
    assert world.calls == {"a": 2}
    async with world.life() as supervisor:
        total = await supervisor.ask(GetStatement(), timeout=5)
        assert str(total.settled) == "$0.02"


async def test_two_batches_of_other_names_share_a_journal_and_no_key(tmp_path):
    world = World(tmp_path)
    await world.run(["a"], account="monday")
    await world.run(["a"], account="tuesday")
    assert world.calls == {"a": 2}


async def test_a_batch_needs_the_journal_of_its_ledger(tmp_path):
    world = World(tmp_path)
    async with world.life() as supervisor:
        with pytest.raises(ValueError, match="and the ledger of this supervisor has"):
            async with robust_batch(supervisor, ["a"], service="uppercase", journal=tmp_path / "other"):
                pass
        async with (
            robust_batch(supervisor, ["a"], service="uppercase", journal=world.path),
            robust_batch(supervisor, ["a"], service="uppercase"),
        ):
            with pytest.raises(Permanent, match="is open already"):
                async with robust_batch(supervisor, ["a"], service="uppercase", journal=world.path):
                    pass
    async with ActorSystem("without", log=False) as system:
        alone = system.spawn(lambda: Supervisor(world.market))
        with pytest.raises(Permanent, match="a ledger of its own, without a journal"):
            async with robust_batch(alone, ["a"], service="uppercase", journal=world.path):
                pass
    with pytest.raises(TypeError, match="the path of the ledger's journal, got 7"):
        BatchJournal(7)  # type: ignore[arg-type]


async def test_a_batch_of_one_program_can_be_run_again_in_it(tmp_path):
    world = World(tmp_path)
    async with world.life() as supervisor:
        for _ in range(2):
            async with robust_batch(supervisor, ["a", "b"], service="uppercase", journal=world.path) as batch:
                assert sorted(of([one async for one in batch]).values()) == ["A", "B"]
    assert world.calls == {"a": 1, "b": 1}
