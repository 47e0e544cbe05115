"""Many requests, each answered or accounted for; in virtual time."""

from __future__ import annotations

import asyncio
import itertools
import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from actors import (
    BudgetExceeded,
    Done,
    Failed,
    FunctionTransport,
    Listing,
    Market,
    OutcomeUnknown,
    Permanent,
    Provider,
    ProviderCall,
    ProviderReply,
    Retry,
    SmartRequest,
    SmartResult,
    Supervisor,
    Transient,
    Unknown,
    robust_batch,
    smart_request,
)
from actors.ledger import Account, CloseAccount, OpenAccount
from actors.money import Micros
from runtime import IMMEDIATELY, Actor, ActorSystem, Supervision, handles
from runtime.simulation.loop import VirtualTimeLoop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from runtime import ActorRef

LATENCY = 0.01
FOREVER = 1e6


class Stage:
    """A supervisor over one or more providers, each a function of its call."""

    def __init__(self, system: ActorSystem, market: Market) -> None:
        made: list[Supervisor] = []

        def make() -> Supervisor:
            made.append(Supervisor(market))
            return made[-1]

        self.ref: ActorRef[Any] = system.spawn(make)
        self.instances = made

    @property
    def actor(self) -> Supervisor:
        assert len(self.instances) == 1
        return self.instances[0]

    @property
    def spent(self) -> int:
        return sum(target.spent for target in self.actor.targets.by_name.values())

    def assert_at_rest(self) -> None:
        ledger: Any = self.actor.payments._client.ledger.ref.recipient
        assert ledger.actor.book.open_accounts() == []
        assert len(self.actor.queues) == 0
        assert [
            target.state.under_way for target in self.actor.targets.by_name.values() if target.state.under_way
        ] == []
        quotas = [name for name in self.actor.context.children if name.startswith("quota")]
        assert quotas == []


def offer(name: str, function: Callable[[ProviderCall], Any], *, price: int = 10, **limits: Any) -> Listing:
    return Listing(
        provider=Provider(name=name, services={"s"}, price=Micros(price)),
        transport=lambda: FunctionTransport(function, paid=price > 0, idempotent="no", provider=name),
        **{"max_concurrency": 1000} | limits,
    )


@asynccontextmanager
async def staged(*listings: Listing, retry: Retry | None = None) -> AsyncIterator[Stage]:
    market = Market(providers=listings, retry=retry or Retry(base=0.01, cap=0.1))
    async with ActorSystem("batches", seed=1) as system:
        yield Stage(system, market)
    assert len(asyncio.all_tasks()) == 1


async def upper(call: ProviderCall) -> str:
    await asyncio.sleep(LATENCY)
    return str(call.input).upper()


async def test_every_item_is_answered_and_the_account_is_closed_behind_it():
    async with staged(offer("a", upper)) as stage:
        async with robust_batch(stage.ref, ["x", "y", "z"], service="s", budget="1") as outcomes:
            came = [outcome async for outcome in outcomes]
        assert sorted((one.index, one.item, one.result.output) for one in came if isinstance(one, Done)) == [
            (0, "x", "X"),
            (1, "y", "Y"),
            (2, "z", "Z"),
        ]
        await asyncio.sleep(0)
        stage.assert_at_rest()


async def test_each_item_is_done_failed_or_unknown_and_none_stops_the_others():
    async def picky(call: ProviderCall) -> str:
        await asyncio.sleep(LATENCY)
        if call.input == "bad":
            raise Permanent("no such text", provider="a")
        if call.input == "lost":
            raise ConnectionResetError("gone")
        return "fine"

    async with staged(offer("a", picky)) as stage:
        async with robust_batch(stage.ref, ["x", "bad", "lost", "y"], service="s") as outcomes:
            came = {outcome.item: outcome async for outcome in outcomes}
        assert [type(came[item]) for item in ("x", "bad", "lost", "y")] == [Done, Failed, Unknown, Done]
        assert isinstance(came["bad"].error, Permanent)
        assert isinstance(came["lost"].error, OutcomeUnknown)


async def test_progress_is_told_after_each_item_by_a_sync_or_an_async_function():
    told: list[tuple[int, int | None]] = []

    async def tell(finished: int, total: int | None) -> None:
        await asyncio.sleep(1.0)
        told.append((finished, total))

    async def texts() -> AsyncIterator[str]:
        for text in "xy":
            yield text

    async with staged(offer("a", upper)) as stage:
        async with robust_batch(stage.ref, ["x", "y", "z"], service="s", on_progress=tell) as outcomes:
            assert len([outcome async for outcome in outcomes]) == 3
        note = told.append
        async with robust_batch(
            stage.ref, texts(), service="s", on_progress=lambda *figures: note(figures)
        ) as outcomes:
            assert len([outcome async for outcome in outcomes]) == 2
        assert told == [(1, 3), (2, 3), (3, 3), (1, None), (2, None)]
        with pytest.raises(TypeError, match="on_progress must be a function"):
            async with robust_batch(stage.ref, ["x"], service="s", on_progress=3):  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
                pass
        await asyncio.sleep(0)
        stage.assert_at_rest()


async def test_a_progress_report_that_raises_stops_nothing_and_is_told_once():
    told: list[dict[str, Any]] = []

    def broken(_: int, __: int | None) -> None:
        raise OSError("pipe closed")

    async with staged(offer("a", upper)) as stage:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        async with robust_batch(stage.ref, ["x", "y", "z"], service="s", on_progress=broken) as outcomes:
            assert [type(outcome) async for outcome in outcomes] == [Done] * 3
        assert outcomes.progress_failures == 3
        assert [context["exception"] for context in told] == [outcomes.progress_error]


async def test_a_summary_has_the_figures_of_all_items_and_the_money_of_the_ledger():
    async def picky(call: ProviderCall) -> str:
        await asyncio.sleep(2.0 if call.input == "slow" else 1.0)
        if call.input == "bad":
            raise Permanent("no such text", provider="a", charged="yes")
        if call.input == "lost":
            raise ConnectionResetError("gone")
        return "fine"

    async with staged(offer("a", picky, price=50_000)) as stage:
        items = ["x", "bad", "lost", "slow"]
        async with robust_batch(stage.ref, items, service="s") as outcomes:
            assert outcomes.summary.finished == 0
            assert "0 of 4 items" in str(outcomes.summary)
            assert len([outcome async for outcome in outcomes]) == 4
        summary = outcomes.summary
        assert (summary.total, summary.done, summary.failed, summary.unknown) == (4, 2, 1, 1)
        assert (summary.cost, summary.held, stage.spent) == (Micros(150_000), Micros(50_000), 150_000)
        assert (summary.providers, summary.errors) == ({"a": 2}, {"Permanent": 1, "OutcomeUnknown": 1})
        assert (summary.latency_mean, summary.latency_max, summary.elapsed, summary.attempts) == (1.5, 2.0, 2.0, 2)
        assert summary.latency_p50 == pytest.approx(1.0, rel=0.01)
        assert str(summary).splitlines() == [
            "4 of 4 items in 2 s: 2 done, 1 failed, 1 unknown",
            "cost: $0.15, $0.05 held because it may have been paid",
            "latency: 1.5 s on average, 0.99 s median, 0.99 s at 95 %, 2 s at most",
            "calls: 2 for 2 answers, by a (2)",
            "errors: Permanent (1), OutcomeUnknown (1)",
        ]


async def test_a_summary_counts_what_was_served_though_the_block_was_left_early():
    async with staged(offer("a", upper)) as stage:
        async with robust_batch(stage.ref, itertools.repeat("x"), service="s", max_concurrency=4) as outcomes:
            await anext(outcomes)
        summary = outcomes.summary
        assert (summary.total, summary.done) == (None, 4)
        assert summary.cost == Micros(stage.spent)
        assert f"{summary.done} items" in str(summary)


async def test_an_item_may_be_a_whole_request_and_keeps_what_it_says():
    dear = SmartRequest(service="s", input="dear", timeout=5.0, budget="0.000001")
    rich = SmartRequest(service="s", input="rich", timeout=5.0, budget="1")
    plain = SmartRequest(service="s", input="plain", timeout=5.0)
    async with staged(offer("a", upper)) as stage:
        async with robust_batch(stage.ref, [dear, rich, plain], item_budget="0.000005") as outcomes:
            came = {outcome.item.input: outcome async for outcome in outcomes}
        assert isinstance(came["rich"], Done)
        assert isinstance(came["dear"], Failed)
        assert isinstance(came["plain"], Failed)
        assert isinstance(came["plain"].error, BudgetExceeded)
        async with robust_batch(stage.ref, ["x"]) as outcomes:
            with pytest.raises(TypeError, match="service="):
                await anext(aiter(outcomes))
        await asyncio.sleep(0)
        stage.assert_at_rest()


@pytest.mark.parametrize(
    "options",
    [{"rate_limit": 0.0}, {"rate_limit": -1.0}, {"budget": 1.5}, {"item_budget": 1.5}, {"max_concurrency": 0}],
    ids=repr,
)
async def test_options_that_cannot_be_are_refused_to_the_caller_and_harm_nobody_else(options: dict[str, Any]):
    async with staged(offer("a", upper)) as stage:
        other = asyncio.create_task(smart_request(stage.ref, service="s", input="x"))
        await asyncio.sleep(0)
        with pytest.raises((ValueError, TypeError)):
            async with robust_batch(stage.ref, ["x"], service="s", **options):
                pass
        assert (await other).output == "X"
        await asyncio.sleep(0)
        stage.assert_at_rest()


async def test_the_rate_limit_is_honoured_and_used():
    begun: list[float] = []

    async def note(_: ProviderCall) -> str:
        begun.append(asyncio.get_running_loop().time())
        return "x"

    async with staged(offer("a", note)) as stage:
        async with robust_batch(stage.ref, range(500), service="s", rate_limit=50, max_concurrency=100) as outcomes:
            assert len([outcome async for outcome in outcomes]) == 500
        gaps = [later - earlier for earlier, later in itertools.pairwise(begun)]
        assert min(gaps) >= 0.02 - 1e-9
        assert 499 / begun[-1] >= 0.995 * 50


async def test_waiting_for_the_rate_limit_takes_nothing_from_an_items_own_time():
    async with staged(offer("a", upper)) as stage:
        async with robust_batch(stage.ref, range(20), service="s", rate_limit=0.1, timeout=1.0) as outcomes:
            came = [outcome async for outcome in outcomes]
        assert all(isinstance(one, Done) for one in came)
        assert asyncio.get_running_loop().time() >= 190.0


async def test_an_endless_source_is_pulled_only_as_far_as_needed_and_closed():
    pulled = closed = 0

    async def endless() -> AsyncIterator[str]:
        nonlocal pulled, closed
        try:
            while True:
                pulled += 1
                yield "x"
        finally:
            closed += 1

    async with staged(offer("a", upper)) as stage:
        async with robust_batch(stage.ref, endless(), service="s", max_concurrency=8) as outcomes:
            count = 0
            async for _ in outcomes:
                count += 1
                assert pulled <= count + 16
                if count == 200:
                    break
        assert closed == 1
        stage.assert_at_rest()


async def test_leaving_early_or_by_an_exception_leaves_nothing_under_way_and_the_exception_as_it_is():
    under_way = 0

    async def hang(_: ProviderCall) -> str:
        nonlocal under_way
        under_way += 1
        try:
            await asyncio.sleep(FOREVER if under_way > 1 else LATENCY)
        finally:
            under_way -= 1
        return "x"

    boom = KeyError("body")

    async def run(stage: Stage, error: Exception | None) -> None:
        async with robust_batch(
            stage.ref, range(100), service="s", max_concurrency=10, rate_limit=1000, timeout=FOREVER * 3
        ) as outcomes:
            async for _ in outcomes:
                if error is not None:
                    raise error
                break

    async with staged(offer("a", hang, timeout=FOREVER * 2)) as stage:
        await run(stage, None)
        with pytest.raises(KeyError) as raised:
            await run(stage, boom)
        assert raised.value is boom
        await asyncio.sleep(0.01)
        assert under_way == 0
        stage.assert_at_rest()


async def test_a_batch_cancelled_at_any_step_leaves_nothing_under_way():
    for k in range(40):
        async with staged(offer("a", upper)) as stage:

            async def run(stage: Stage = stage) -> int:
                count = 0
                async with robust_batch(
                    stage.ref, range(1000), service="s", budget="1", rate_limit=1e6, max_concurrency=5
                ) as outcomes:
                    async for _ in outcomes:
                        count += 1
                return count

            batch = asyncio.create_task(run())
            for _ in range(k):
                await asyncio.sleep(0)
            batch.cancel()
            await asyncio.wait([batch])
            assert batch.cancelled()
            for _ in range(3):
                await asyncio.sleep(0)
            stage.assert_at_rest()


async def test_two_batches_over_one_supervisor_each_keep_their_own_budget():
    async with staged(offer("a", upper)) as stage:

        async def run(budget: str) -> int:
            cost = 0
            async with robust_batch(stage.ref, range(100), service="s", budget=budget, max_concurrency=20) as outcomes:
                async for outcome in outcomes:
                    cost += outcome.result.cost if isinstance(outcome, Done) else 0
            return cost

        assert await asyncio.gather(run("0.0005"), run("0.0007"), run("1")) == [500, 700, 1000]
        assert stage.spent == 2200


async def test_a_batch_tells_that_its_money_is_used_up():
    async with staged(offer("a", upper)) as stage:
        async with robust_batch(stage.ref, range(10), service="s", budget="0.00005", account="mine") as outcomes:
            came = [outcome async for outcome in outcomes]
        failed = [one for one in came if isinstance(one, Failed)]
        assert len(failed) == 5
        refusals = [one.error for one in failed]
        assert all(isinstance(one, BudgetExceeded) and one.cap == "mine" for one in refusals)


@pytest.mark.parametrize("seed", range(10))
async def test_with_a_hundred_at_once_the_budget_is_never_exceeded_and_nearly_all_of_it_used(seed: int):
    dice = random.Random(seed)
    charged = 0

    async def moody(call: ProviderCall) -> ProviderReply:
        nonlocal charged
        await asyncio.sleep(dice.random())
        if dice.random() < 0.2:
            raise Transient("down", provider="x", outcome="not_started")
        cost = dice.randint(1, call.max_cost)
        charged += cost
        return ProviderReply(output="x", cost=Micros(cost))

    cap = 20_000
    listings = [offer("a", moody, price=70), offer("b", moody, price=100), offer("c", moody, price=130)]
    async with staged(*listings) as stage:
        cost = 0
        async with robust_batch(
            stage.ref, range(1000), service="s", budget="0.02", max_concurrency=100, timeout=1000.0
        ) as outcomes:
            async for outcome in outcomes:
                assert stage.spent <= cap
                cost += outcome.result.cost if isinstance(outcome, Done) else 0
        assert cost == charged == stage.spent
        assert 0.99 * cap <= charged <= cap
        stage.assert_at_rest()


async def test_more_workers_than_items_and_no_items_at_all():
    async with staged(offer("a", upper)) as stage:
        for items in ([], ["x"]):
            async with robust_batch(stage.ref, items, service="s", max_concurrency=500) as outcomes:
                assert len([outcome async for outcome in outcomes]) == len(items)


async def test_a_batch_whose_supervisor_ends_accounts_for_every_item_and_ends():
    async def hang(_: ProviderCall) -> str:
        await asyncio.sleep(FOREVER)
        return "x"

    async with staged(offer("a", hang, timeout=FOREVER)) as stage:
        async with robust_batch(stage.ref, range(10), service="s", max_concurrency=3, timeout=FOREVER) as outcomes:
            first = asyncio.create_task(anext(aiter(outcomes)))  # type: ignore[arg-type]
            await asyncio.sleep(LATENCY)
            stage.ref.kill()
            came = [await first, *[outcome async for outcome in outcomes]]
        # What became of the three under way nobody can say; the others were never asked.
        assert sorted(type(one).__name__ for one in came) == ["Failed"] * 7 + ["Unknown"] * 3


class Mute(Actor[Any]):
    """A supervisor that opens accounts and then says no more, or falls over."""

    def __init__(self, how: str) -> None:
        self.how = how

    @handles(OpenAccount)
    def open_account(self, message: OpenAccount) -> str:
        return "mute"

    @handles(SmartRequest, concurrent=10)
    async def serve(self, message: SmartRequest) -> SmartResult:
        if self.how == "crashes":
            raise KeyError
        return await asyncio.get_running_loop().create_future()


@pytest.mark.parametrize("how", ["says nothing", "crashes"])
async def test_an_item_whose_supervisor_does_not_say_what_became_of_it_is_unknown(how: str):
    async with ActorSystem(supervision=Supervision(backoff=IMMEDIATELY)) as system:
        supervisor = system.spawn(lambda: Mute(how))
        async with robust_batch(supervisor, ["a"], service="echo", timeout=1.0) as outcomes:
            found = [outcome async for outcome in outcomes]
    assert [type(outcome) for outcome in found] == [Unknown]


async def test_a_supervisor_that_has_forgotten_the_account_does_not_spoil_the_outcomes():
    """Closing it is refused, which concerns nobody."""

    class Forgetful(Mute):
        @handles(CloseAccount)
        def close_account(self, message: CloseAccount) -> Account:
            raise Permanent("there is no such account")

    async with ActorSystem() as system:
        supervisor = system.spawn(lambda: Forgetful("says nothing"))
        async with robust_batch(supervisor, [], service="echo") as outcomes:
            assert [outcome async for outcome in outcomes] == []


@pytest.mark.parametrize("begins_after", [0.0, LATENCY])
async def test_what_became_of_each_item_is_told_although_the_loop_stood_still(begins_after: float):
    """Neither a suspended machine nor a handler that blocks makes what never ran, or was cut, an unknown."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    calls = itertools.count()

    async def slow(call: ProviderCall) -> str:
        await asyncio.sleep(begins_after)
        if next(calls) % 300 == 150:
            loop.now += 7.0
        return await upper(call)

    async with staged(offer("a", slow, price=0)) as stage:
        async with robust_batch(
            stage.ref, map(str, range(2000)), service="s", timeout=0.4, max_concurrency=100
        ) as outcomes:
            ended = [outcome async for outcome in outcomes]
        assert len(ended) == 2000
        assert sum(isinstance(outcome, Unknown) for outcome in ended) == 0
        assert sum(isinstance(outcome, Done) for outcome in ended) > 1000
        await asyncio.sleep(1)
        stage.assert_at_rest()
