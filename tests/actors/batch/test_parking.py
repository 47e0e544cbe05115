"""Items that meet a reset beyond their deadline wait for it, and hold nothing meanwhile; in virtual time."""

from __future__ import annotations

import asyncio
import time
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
    Permanent,
    Provider,
    ProviderCall,
    Supervisor,
    Throttled,
    robust_batch,
)
from actors.batch import BatchJournal
from actors.errors import QuotaExhausted
from actors.ledger import GetHeld, GetStatement, Ledger, SetCap
from actors.ledger.messages import CloseAccount
from runtime import ActorSystem
from runtime.log import logger_for
from tests.actors.ledger.clock import Clock
from tests.proofs import repeated

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from actors.batch.outcomes import RequestOutcome
    from runtime import ActorRef

DAY = 86_400.0


def now() -> float:
    return asyncio.get_running_loop().time()


class Daily:
    """A provider that answers so many calls a day, and refuses the rest until midnight."""

    def __init__(self, path: Path, per_day: int, *, refuses: type[Throttled | QuotaExhausted] = QuotaExhausted) -> None:
        self.path = path / "run.journal"
        self.per_day = per_day
        self.refuses = refuses
        self.answered = Counter[int]()
        self.refused = Counter[int]()
        self.order: list[Any] = []

    async def serve(self, call: ProviderCall) -> Any:
        await asyncio.sleep(0.5)
        day = int(now() // DAY)
        if self.answered[day] >= self.per_day:
            self.refused[day] += 1
            raise self.refuses("the quota of the day is used up", provider="alder", retry_after=(day + 1) * DAY - now())
        self.answered[day] += 1
        self.order.append(call.input)
        return call.input

    @asynccontextmanager
    async def life(self, **terms: Any) -> AsyncIterator[ActorRef[Any]]:
        provider = Provider(name="alder", services={"s"}, price="0.01")
        transport = lambda: FunctionTransport(self.serve, paid=True, idempotent="no")  # noqa: E731
        market = Market(providers=[Listing(provider=provider, transport=transport, **terms)])
        async with ActorSystem("life", log=False) as system:
            money = system.spawn(lambda: Ledger(journal=self.path))
            yield system.spawn(lambda: Supervisor(market, ledger=money))

    async def run(self, supervisor: ActorRef[Any], items: Any, **options: Any) -> list[RequestOutcome]:
        options = {"service": "s", "journal": self.path, "park": True} | options
        async with robust_batch(supervisor, items, **options) as batch:
            outcomes = [one async for one in batch]
        self.summary = batch.summary
        return outcomes


@pytest.mark.parametrize("refuses", [QuotaExhausted, Throttled])
async def test_items_beyond_a_days_quota_go_on_at_the_next_in_order(tmp_path: Path, refuses: Any) -> None:
    count = repeated(10_000, at_least=300, part=100)
    world = Daily(tmp_path, count // 3, refuses=refuses)
    async with world.life() as supervisor:
        outcomes = await world.run(supervisor, range(count), max_concurrency=10)
        statement = await supervisor.ask(GetStatement("batch"), timeout=1.0)
    assert sorted(one.result.output for one in outcomes if isinstance(one, Done)) == list(range(count))
    assert 2 * DAY < now() < 3 * DAY
    assert [world.answered[day] for day in range(3)] == [count // 3, count // 3, count - 2 * (count // 3)]
    # Each day, those that were under way at once have found out; nothing is asked before the next.
    assert all(world.refused[day] <= 30 for day in range(3)), world.refused
    assert (statement.held, statement.reserved, statement.settled) == (0, 0, count * 10_000)
    out_of_order = sum(1 for one, other in zip(world.order, world.order[1:], strict=False) if other < one - 20)
    assert out_of_order <= 3


async def test_very_many_that_wait_for_one_midnight_cause_no_refusal_that_the_limit_does_not(tmp_path: Path) -> None:
    count, rate = repeated(100_000, at_least=400, part=250), 10.0  # Its ten places would allow 20.
    world = Daily(tmp_path, 10)
    tokens, as_of, refused_for_rate = rate, 0.0, 0
    serve = world.serve

    async def within_rate(call: ProviderCall) -> Any:
        nonlocal tokens, as_of, refused_for_rate
        tokens, as_of = min(rate, tokens + (now() - as_of) * rate), now()
        if tokens < 1.0:
            refused_for_rate += 1
            raise Throttled("too many at once", provider="alder", retry_after=1.0)
        tokens -= 1.0
        return await serve(call)

    world.serve = within_rate  # type: ignore[method-assign]
    async with world.life(rate_limit=rate) as supervisor, asyncio.TaskGroup() as group:
        running = group.create_task(world.run(supervisor, range(count), max_concurrency=100))
        await asyncio.sleep(DAY / 2)
        assert world.answered[0] == 10
        world.per_day = count
        outcomes = await running
    assert sorted(one.result.output for one in outcomes if isinstance(one, Done)) == list(range(count))
    assert refused_for_rate == 0
    assert world.refused[0] <= 100  # Those that were under way when the quota was used up.
    assert world.refused.total() == world.refused[0]
    assert DAY < now() < DAY + 120.0 + 1.5 * count / rate


async def test_what_meets_a_cap_that_renews_goes_on_when_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Clock(monkeypatch, begins=DAY * 20_000)
    world = Daily(tmp_path, 100)
    async with world.life() as supervisor:
        outcomes = await world.run(supervisor, range(8), budget="0.03/day")
        statement = await supervisor.ask(GetStatement("batch"), timeout=1.0)
    assert sorted(one.result.output for one in outcomes if isinstance(one, Done)) == list(range(8))
    assert [world.answered[day] for day in range(3)] == [3, 3, 2]
    assert (statement.settled, statement.held, statement.reserved) == (80_000, 0, 0)
    assert 2 * DAY < now() < 2 * DAY + 120.0


async def test_what_no_period_of_a_cap_has_money_for_is_not_parked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Clock(monkeypatch, begins=DAY * 20_000)
    world = Daily(tmp_path, 100)
    async with world.life() as supervisor:
        outcomes = await world.run(supervisor, range(2), budget="0.005/day")
    assert [type(one.error).__name__ for one in outcomes if isinstance(one, Failed)] == ["BudgetExceeded"] * 2
    assert now() < 60.0


async def test_what_is_parked_holds_nothing_and_the_others_go_on(tmp_path: Path) -> None:
    world = Daily(tmp_path, 5)
    async with world.life() as supervisor, asyncio.TaskGroup() as group:
        running = group.create_task(world.run(supervisor, range(8)))
        await asyncio.sleep(DAY / 2)
        statement = await supervisor.ask(GetStatement("batch"), timeout=1.0)
        assert (statement.reserved, statement.held, statement.settled) == (0, 0, 50_000)
        assert await supervisor.ask(GetHeld(), timeout=1.0) == ()
        world.per_day = 8
        await running
    assert DAY < now() < DAY + 120.0


async def test_a_batch_tells_for_which_reset_its_items_wait(tmp_path: Path) -> None:
    world = Daily(tmp_path, 2)
    async with world.life() as supervisor:
        options: dict[str, Any] = {"service": "s", "journal": tmp_path / "run.journal", "park": True}
        async with robust_batch(supervisor, range(5), **options, max_concurrency=1) as batch:
            assert batch.waiting == ()
            await anext(batch)
            await anext(batch)
            await asyncio.sleep(60.0)
            (waiting,) = batch.waiting
            assert waiting.reason == "parked"
            assert waiting.since is not None
            assert waiting.until == pytest.approx(DAY, abs=62.0)  # pyright: ignore[reportUnknownMemberType]
            assert waiting.text(now()).startswith("parked: 2 items until a reset; all providers of 's' failed")
            assert len([one async for one in batch]) == 3
            assert batch.waiting == ()


async def test_the_next_life_goes_on_with_what_is_parked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    epoch = time.time() - now()
    monkeypatch.setattr(time, "time", lambda: epoch + now())
    world = Daily(tmp_path, 5)
    for _ in range(3):  # The program is ended while its items are parked, and asks for none of them before their time.
        async with world.life() as supervisor:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(DAY / 10):
                    await world.run(supervisor, range(8))
    refused = world.refused[0]
    async with world.life() as supervisor:
        outcomes = await world.run(supervisor, range(8))
    assert sorted(one.result.output for one in outcomes if isinstance(one, Done)) == list(range(8))
    assert (world.answered[0], world.answered[1], world.refused[0]) == (5, 3, refused)
    assert refused <= 3


async def test_an_item_is_parked_no_longer_than_it_may_be(tmp_path: Path) -> None:
    world = Daily(tmp_path, 0)
    async with world.life() as supervisor:
        outcomes = await world.run(supervisor, range(2), park=DAY / 2)
        assert [isinstance(one, Failed) for one in outcomes] == [True, True]
        assert now() < 60.0
        outcomes = await world.run(supervisor, range(2), journal=BatchJournal(world.path, retry_failed=True))
    assert [isinstance(one, Failed) for one in outcomes] == [True, True]
    assert 6 * DAY < now() < 8 * DAY


async def test_at_its_time_an_item_is_admitted_anew_by_the_budget_of_then(tmp_path: Path) -> None:
    world = Daily(tmp_path, 2)
    async with world.life() as supervisor, asyncio.TaskGroup() as group:
        running = group.create_task(world.run(supervisor, range(4), budget="1"))
        await asyncio.sleep(DAY / 2)
        await supervisor.ask(SetCap("batch", "0.03"), timeout=1.0)
        outcomes = await running
    assert sorted(type(one.error).__name__ for one in outcomes if isinstance(one, Failed)) == ["BudgetExceeded"]
    assert len(world.order) == 3


async def test_an_account_that_was_closed_ends_what_is_parked_as_never_ran(tmp_path: Path) -> None:
    world = Daily(tmp_path, 2)
    async with world.life() as supervisor, asyncio.TaskGroup() as group:
        running = group.create_task(world.run(supervisor, range(4)))
        await asyncio.sleep(DAY / 2)
        await supervisor.ask(CloseAccount(name="batch"), timeout=1.0)
        outcomes = await running
    failed = [one.error for one in outcomes if isinstance(one, Failed)]
    assert [(error.outcome, error.charged) for error in failed if isinstance(error, Permanent)] == [
        ("not_started", "no")
    ] * 2


async def test_the_owner_is_told_once_for_each_reset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(type(logger_for("batch")), "warning", lambda _, text, *given: said.append(text.format(*given)))
    world = Daily(tmp_path, 5)
    async with world.life() as supervisor:
        await world.run(supervisor, range(14))
    parked = [text for text in said if "items are parked until" in text]
    assert len(parked) == 2


async def test_a_wrong_key_is_no_reset(tmp_path: Path) -> None:
    world = Daily(tmp_path, 5)

    async def refuse(_: ProviderCall) -> Any:
        raise Permanent("wrong key", provider="alder", scope="provider", concerns="key")

    world.serve = refuse  # type: ignore[method-assign]
    async with world.life() as supervisor:
        outcomes = await world.run(supervisor, range(4))
    assert all(isinstance(one, Failed) for one in outcomes)
    assert now() < 60.0


async def test_parking_needs_a_journal_and_a_time_that_makes_sense(tmp_path: Path) -> None:
    world = Daily(tmp_path, 5)
    async with world.life() as supervisor:
        with pytest.raises(ValueError, match="park needs a journal"):
            await world.run(supervisor, [1], journal=None)
        for park, says in ((8 * DAY, "7 days"), (0, "must be > 0"), ("a day", "must be True, or the seconds")):
            with pytest.raises((TypeError, ValueError), match=says):
                await world.run(supervisor, [1], park=park)


async def test_a_source_that_never_ends_gives_what_is_parked_its_turn(tmp_path: Path) -> None:
    world = Daily(tmp_path, 3)

    async def items() -> AsyncIterator[int]:
        for number in range(6):
            yield number
        await asyncio.sleep(10 * DAY)

    async with (
        world.life() as supervisor,
        robust_batch(supervisor, items(), service="s", journal=world.path, park=True) as batch,
    ):
        outcomes = [await anext(batch) for _ in range(6)]
    assert sorted(one.result.output for one in outcomes if isinstance(one, Done)) == list(range(6))
    assert DAY < now() < 2 * DAY
