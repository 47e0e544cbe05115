"""The seed's `concurrent` and `batch_process`: every item accounted for, whatever is raised or cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from typing import TYPE_CHECKING, Any

import pytest

from actors.batch.concurrent import (
    Concurrent,
    ItemDone,
    ItemFailed,
    ItemInterrupted,
    SourceFailed,
    WrongResultCount,
    batch_process,
    concurrent,
)
from actors.errors.families import RateLimited
from runtime import current_deadline
from runtime.simulation import Simulation, explore
from tests.proofs import repeated

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

FOREVER = 1e9
FOREVER_LONG = 10**9
LATENCY = 1.0


def now() -> float:
    return asyncio.get_running_loop().time()


async def double(item: int) -> int:
    await asyncio.sleep(LATENCY / (item + 1))
    return 2 * item


async def refuse_odd(item: int) -> int:
    if item % 2:
        raise ValueError(f"{item} is odd")
    return await double(item)


class Counting:
    """A source of numbers, sync or async, with or without end, that may fail; knows what was pulled, if it closed."""

    def __init__(self, end: int | None = None, *, fails_at: int | None = None, lasts: float = 0.0) -> None:
        self.end, self.fails_at, self.lasts = end, fails_at, lasts
        self.pulled = self.closed = 0

    def sync(self) -> Iterator[int]:
        try:
            for number in itertools.count() if self.end is None else range(self.end):
                if number == self.fails_at:
                    raise OSError("source broke")
                self.pulled += 1
                yield number
        finally:
            self.closed += 1

    async def asynchronous(self) -> AsyncIterator[int]:
        with contextlib.closing(self.sync()) as numbers:
            while True:
                await asyncio.sleep(self.lasts)
                for number in itertools.islice(numbers, 1):
                    yield number
                    break
                else:
                    return


KINDS = pytest.mark.parametrize("kind", ["sync", "asynchronous"])


async def no_task_left() -> None:
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == 1


# What the page promises.


@KINDS
async def test_awaited_it_gives_an_outcome_for_each_item_in_the_order_of_the_items(kind: str):
    outcomes = await concurrent(getattr(Counting(6), kind)(), refuse_odd, max_concurrency=3)
    assert [outcome.index for outcome in outcomes] == list(range(6))
    assert [one for one in outcomes if isinstance(one, ItemDone)] == [ItemDone(n, n, 2 * n) for n in (0, 2, 4)]
    failed = [(one.item, str(one.error)) for one in outcomes if isinstance(one, ItemFailed)]
    assert failed == [(n, f"{n} is odd") for n in (1, 3, 5)]
    await no_task_left()


async def test_entered_it_gives_each_outcome_as_it_finishes():
    async with concurrent([0, 1, 2], double) as outcomes:
        assert [(outcome.index, now()) async for outcome in outcomes] == [
            (2, LATENCY / 3),
            (1, LATENCY / 2),
            (0, LATENCY),
        ]
    assert (outcomes.undelivered, outcomes.interrupted) == ([], [])


async def test_at_most_five_are_under_way_unless_another_limit_is_given():
    for limit, options in ((5, {}), (8, {"max_concurrency": 8})):
        under_way = most = 0

        async def work(item: int) -> int:
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            await asyncio.sleep(LATENCY)
            under_way -= 1
            return item

        began = now()
        assert len(await concurrent(range(40), work, **options)) == 40
        assert most == limit
        assert now() - began == pytest.approx(40 / limit * LATENCY)


async def test_a_rate_limit_is_paced_and_never_a_burst():
    begun: list[float] = []

    async def work(_: int) -> None:
        begun.append(now())

    await concurrent(range(21), work, max_concurrency=10, rate_limit=5)
    assert begun == pytest.approx([number / 5 for number in range(21)])


async def test_slow_work_does_not_save_up_a_burst_for_later():
    begun: list[float] = []

    async def work(item: int) -> None:
        begun.append(now())
        await asyncio.sleep(10.0 if item < 2 else 0.0)

    await concurrent(range(10), work, max_concurrency=2, rate_limit=5)
    assert all(later - earlier >= 0.2 - 1e-9 for earlier, later in itertools.pairwise(begun))


async def test_progress_is_told_after_each_item_with_the_total_where_the_source_has_one():
    told: list[tuple[int, int | None]] = []
    await concurrent([1, 3, 5], refuse_odd, on_progress=lambda *figures: told.append(figures))
    await batch_process(iter(range(5)), as_texts, 2, on_progress=lambda *figures: told.append(figures))
    assert told == [(1, 3), (2, 3), (3, 3), (2, None), (4, None), (5, None)]


async def as_texts(items: Sequence[int]) -> list[str]:
    await asyncio.sleep(LATENCY)
    return [str(item) for item in items]


@KINDS
async def test_a_batch_is_one_call_and_its_outcomes_are_of_its_items(kind: str):
    sizes: list[int] = []

    async def process(items: Sequence[int]) -> list[str]:
        sizes.append(len(items))
        return await as_texts(items)

    outcomes = await batch_process(getattr(Counting(250), kind)(), process, 100)
    assert outcomes == [ItemDone(number, number, str(number)) for number in range(250)]
    assert sizes == [100, 100, 50]
    assert now() == 3 * LATENCY
    await batch_process(range(250), process, 100, max_concurrency=3)
    assert now() == 4 * LATENCY


async def test_a_batch_whose_function_returns_none_is_done():
    seen: list[int] = []

    async def save(items: Sequence[int]) -> None:
        seen.extend(items)

    outcomes = await batch_process(range(5), save, 2)
    assert [(outcome.item, outcome.result) for outcome in outcomes if isinstance(outcome, ItemDone)] == [
        (item, None) for item in range(5)
    ]
    assert seen == [*range(5)]
    assert await batch_process(range(3), save).results() == [None] * 3


async def test_a_batch_that_fails_fails_its_items_and_no_others():
    async def process(items: Sequence[int]) -> list[int]:
        if 3 in items:
            raise OSError("disk")
        return list(items)

    outcomes = await batch_process(range(6), process, 2)
    assert [type(outcome) for outcome in outcomes] == [ItemDone, ItemDone, ItemFailed, ItemFailed, ItemDone, ItemDone]


@pytest.mark.parametrize("results", [["a"], ["a", "b", "c"], [], 7], ids=repr)
async def test_results_that_fit_no_items_are_carried_by_the_error(results: Any):
    async def process(_: Sequence[int]) -> Any:
        return results

    outcomes = await batch_process([1, 2], process)
    for outcome in outcomes:
        assert isinstance(outcome, ItemFailed)
        assert isinstance(outcome.error, WrongResultCount)
        assert outcome.error.results is results
    assert len(outcomes) == 2


# Streaming.


@KINDS
async def test_an_endless_source_is_pulled_at_most_twice_the_limit_ahead(kind: str):
    source, consumed = Counting(), 0
    async with concurrent(getattr(source, kind)(), as_is, max_concurrency=7) as outcomes:
        async for _ in outcomes:
            await asyncio.sleep(LATENCY)
            consumed += 1
            assert source.pulled <= consumed + 2 * 7
            if consumed == 50:
                break
    assert source.closed == 1
    await no_task_left()


async def as_is(item: Any) -> Any:
    return item


async def as_are(items: Sequence[Any]) -> Sequence[Any]:
    return items


async def test_a_consumer_of_batches_is_back_pressure_too():
    source, consumed = Counting(), 0
    async with batch_process(source.sync(), as_are, 10, max_concurrency=2) as outcomes:
        async for _ in outcomes:
            consumed += 1
            await asyncio.sleep(LATENCY)
            assert source.pulled <= consumed + 10 * (2 * 2 + 1)
            if consumed == 200:
                break


# Nothing is lost.


@KINDS
async def test_a_source_that_raises_does_so_after_the_outcomes_of_all_items_before(kind: str):
    source, came = Counting(fails_at=7), list[int]()

    async def drain(outcomes: Concurrent[int, int]) -> None:
        async for outcome in outcomes:
            came.append(outcome.index)

    for make in (
        lambda: concurrent(getattr(source, kind)(), double, max_concurrency=3),
        lambda: batch_process(getattr(source, kind)(), as_are, 4),
    ):
        came.clear()
        async with make() as outcomes:
            with pytest.raises(OSError, match="source broke"):
                await drain(outcomes)
        assert sorted(came) == list(range(7))
        with pytest.raises(SourceFailed, match="the source raised OSError after 7 items: source broke") as caught:
            await make()
        assert [outcome.index for outcome in caught.value.outcomes] == list(range(7))
        assert isinstance(caught.value.__cause__, OSError)


async def test_a_source_that_raises_when_it_is_closed_costs_no_result():
    def items() -> Iterator[int]:
        try:
            yield from range(3)
        finally:
            raise OSError("could not close")

    with pytest.raises(SourceFailed, match="could not close") as caught:
        await concurrent(items(), double)
    assert len(caught.value.outcomes) == 3


async def test_a_progress_report_that_raises_stops_nothing_and_is_told_once():
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))

    def broken(finished: int, _: int | None) -> None:
        raise OSError(f"pipe closed at {finished}")

    job = concurrent(range(10), double, on_progress=broken)
    outcomes = await job
    assert [type(outcome) for outcome in outcomes] == [ItemDone] * 10
    assert (str(job.progress_error), job.progress_failures) == ("pipe closed at 1", 10)
    assert [context["exception"] for context in told] == [job.progress_error]


async def test_an_async_progress_report_is_awaited_one_at_a_time_and_in_order():
    told: list[tuple[int, int | None]] = []
    under_way = 0

    async def tell(finished: int, total: int | None) -> None:
        nonlocal under_way
        under_way += 1
        assert under_way == 1
        await asyncio.sleep(10.0 / finished)  # The first takes longest.
        told.append((finished, total))
        under_way -= 1

    assert await concurrent(range(10), double, on_progress=tell).results() == [2 * item for item in range(10)]
    assert told == [(count, 10) for count in range(1, 11)]


async def test_an_async_progress_report_that_raises_stops_nothing_and_is_told_once():
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))

    async def broken(finished: int, _: int | None) -> None:
        await asyncio.sleep(1.0)
        raise asyncio.CancelledError if finished == 1 else OSError("pipe closed")

    job = concurrent(range(10), double, on_progress=broken)
    assert [type(outcome) for outcome in await job] == [ItemDone] * 10
    assert (str(job.progress_error), job.progress_failures) == ("on_progress let a CancelledError escape", 10)
    assert [context["exception"] for context in told] == [job.progress_error]


async def test_a_caller_that_is_cancelled_during_a_progress_report_loses_no_outcome():
    async def stuck(_: int, __: int | None) -> None:
        await asyncio.sleep(FOREVER)

    job = concurrent(range(3), double, max_concurrency=3, on_progress=stuck)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(60.0):
            await job
    assert [outcome.index for outcome in job.undelivered] == [0, 1, 2]
    assert len(asyncio.all_tasks()) == 1


def test_a_progress_report_that_is_no_function_is_refused_at_once():
    with pytest.raises(TypeError, match="on_progress must be a function"):
        concurrent([1], double, on_progress="print")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def test_bare_results_come_in_the_order_of_the_items():
    assert await concurrent([5, 1, 3], double).results() == [10, 2, 6]
    assert await concurrent([], double).results() == []


async def test_bare_results_raise_the_first_failure_at_once_and_keep_what_there_was():
    async def work(item: int) -> int:
        await asyncio.sleep(item)
        if item in (2, 3):
            raise LookupError(f"no {item}")
        return item

    job = concurrent([FOREVER_LONG, 3, 2, 1], work)
    with pytest.raises(LookupError, match="no 2") as caught:
        await job.results()
    assert now() == 2.0
    first, second = job.undelivered
    assert isinstance(first, ItemFailed)
    assert (first.index, first.error, second.item) == (2, caught.value, 1)
    assert [(one.item, one.begun) for one in job.interrupted] == [(FOREVER_LONG, True), (3, True)]
    assert len(asyncio.all_tasks()) == 1


async def test_bare_results_of_a_source_that_fails_raise_that():
    def items() -> Iterator[int]:
        yield 1
        raise OSError("unreadable")

    with pytest.raises(SourceFailed, match="unreadable") as caught:
        await concurrent(items(), double).results()
    assert [outcome.item for outcome in caught.value.outcomes] == [1]


async def test_leaving_early_gives_back_what_had_finished_and_says_what_was_interrupted():
    async def work(item: int) -> int:
        await asyncio.sleep(item)
        return item

    async with concurrent(range(100), work, max_concurrency=5) as outcomes:
        first = await anext(outcomes)
        await asyncio.sleep(3.0)
    # At 3.0 the fourth of the first five has ended too; items 5 and so on take longer.
    assert first.index == 0
    assert [outcome.index for outcome in outcomes.undelivered] == [1, 2, 3]
    assert outcomes.interrupted == [ItemInterrupted(index, index, begun=True) for index in range(4, 9)]
    assert [outcome async for outcome in outcomes] == []
    await no_task_left()


async def test_an_item_that_waits_for_the_rate_limit_when_the_caller_leaves_was_never_begun():
    async with concurrent(itertools.count(), as_is, max_concurrency=3, rate_limit=1) as outcomes:
        assert (await anext(outcomes)).index == 0
    assert [(one.item, one.begun) for one in outcomes.interrupted] == [(1, False), (2, False), (3, False)]


async def test_items_of_a_batch_that_was_never_full_are_told_too():
    source = Counting(lasts=LATENCY)
    async with batch_process(source.asynchronous(), as_are, 10) as outcomes:
        await asyncio.sleep(3.5 * LATENCY)
    assert outcomes.interrupted == [ItemInterrupted(index, index, begun=False) for index in range(3)]


async def test_a_cancelled_await_keeps_what_had_finished():
    job = concurrent(range(10), double, max_concurrency=2, rate_limit=2)
    task = asyncio.ensure_future(job)
    await asyncio.sleep(2.1)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert [outcome.index for outcome in job.undelivered] == [0, 1, 2, 3]
    assert [one.index for one in job.interrupted] == [4, 5]
    await no_task_left()


async def test_work_that_finishes_although_it_is_cancelled_has_its_result_given_back():
    async def stubborn(_: int) -> str:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(FOREVER)
        return "paid"

    async with concurrent([1, 2], stubborn) as outcomes:
        await asyncio.sleep(LATENCY)
    assert outcomes.undelivered == [ItemDone(0, 1, "paid"), ItemDone(1, 2, "paid")]


async def test_a_cancellation_that_the_work_lets_escape_is_its_own_failure():
    async def work(item: int) -> int:
        if item == 1:
            raise asyncio.CancelledError
        return item

    outcomes = await concurrent(range(3), work)
    failed = outcomes[1]
    assert isinstance(failed, ItemFailed)
    assert isinstance(failed.error.__cause__, asyncio.CancelledError)


@pytest.mark.parametrize("error", [StopAsyncIteration(), StopIteration(), KeyError("x")], ids=repr)
async def test_whatever_the_work_raises_is_the_items_own(error: Exception):
    class Raises:
        def __await__(self) -> Iterator[Any]:
            raise error
            yield

    outcomes = await concurrent(range(3), lambda _: Raises())
    assert [type(one) for one in outcomes] == [ItemFailed] * 3


async def test_work_that_is_no_coroutine_is_a_failure_of_the_item():
    outcomes = await concurrent([1], lambda item: item)  # type: ignore[arg-type,return-value]
    assert isinstance(outcomes[0], ItemFailed)
    assert isinstance(outcomes[0].error, TypeError)


async def test_a_turn_that_cannot_come_before_the_deadline_is_a_failure_that_never_began():
    token = current_deadline.set(now() + 1.2)
    try:
        outcomes = await concurrent(range(4), as_is, rate_limit=2)
    finally:
        current_deadline.reset(token)
    assert [isinstance(one, ItemDone) for one in outcomes] == [True, True, True, False]
    assert isinstance(outcomes[3], ItemFailed)
    assert isinstance(outcomes[3].error, RateLimited)


# Misuse.


@pytest.mark.parametrize(
    ("options", "says"),
    [({"max_concurrency": 0}, "max_concurrency must be >= 1"), ({"rate_limit": 0.0}, "rate must be > 0")],
)
def test_an_impossible_limit_is_refused_by_name(options, says):
    with pytest.raises(ValueError, match=says):
        concurrent([], as_is, **options)
    with pytest.raises(ValueError, match="batch_size must be >= 1 item, got 0"):
        batch_process([], as_are, 0)


async def test_it_runs_once():
    job = concurrent([1], as_is)
    assert repr(job) == "<Concurrent 0 of 1 items finished, 0 undelivered>"
    await job
    with pytest.raises(RuntimeError, match="awaited or entered before"):
        await job
    with pytest.raises(RuntimeError, match="awaited or entered before"):
        async with job:
            pass


def test_one_that_was_never_awaited_is_told():
    with pytest.warns(RuntimeWarning, match="never awaited or entered, so nothing was done"):
        concurrent([1], as_is)


async def test_no_items_are_no_outcomes():
    assert await concurrent([], as_is) == []
    assert await batch_process([], as_are) == []


# Any order, any moment of cancellation.


class AnyRun:
    """A run as the dice choose it, and its own books of what was begun and what was done."""

    def __init__(self, simulation: Simulation) -> None:
        self.dice = simulation.random
        self.limit = self.dice.randint(1, 4)
        self.rate = self.dice.choice((None, 2.0, 10.0))
        self.source = Counting(
            self.dice.choice((0, 5, 30)), fails_at=self.dice.choice((None, 12)), lasts=self.dice.choice((0.0, 0.1))
        )
        self.begun, self.done = set[int](), set[int]()
        self.starts: list[float] = []
        self.under_way = 0
        self.came: list[Any] = []

    def job(self, *, is_batch: bool) -> Concurrent[int, int]:
        items = self.dice.choice((self.source.sync, self.source.asynchronous))()
        limits: dict[str, Any] = {"max_concurrency": self.limit, "rate_limit": self.rate}
        if is_batch:
            return batch_process(items, self.serve, self.dice.randint(1, 4), **limits)
        return concurrent(items, self.serve_one, **limits)

    async def serve_one(self, item: int) -> int:
        return (await self.serve([item]))[0]

    async def serve(self, items: Sequence[int]) -> list[int]:
        self.starts.append(now())
        self.begun.update(items)
        self.under_way += 1
        try:
            assert self.under_way <= self.limit
            await asyncio.sleep(self.dice.choice((0.0, 0.5, 1.0)))
            if self.dice.random() < 0.2:
                raise OSError("the work failed")
            self.done.update(items)
            return list(items)
        finally:
            self.under_way -= 1

    async def consume(self, job: Concurrent[int, int], *, is_awaited: bool) -> None:
        if is_awaited:
            self.came.extend(await job)
            return
        leaves_after = self.dice.choice((None, 3))
        async with job:
            async for outcome in job:
                self.came.append(outcome)
                if len(self.came) == leaves_after:
                    return

    async def cancel_sometime(self, consumer: asyncio.Task[None]) -> None:
        await asyncio.sleep(self.dice.choice((0.0, 0.5, 1.0, self.dice.uniform(0, 5))))
        for _ in range(self.dice.randint(0, 5)):
            await asyncio.sleep(0)
        consumer.cancel()

    def check(self, job: Concurrent[int, int], error: BaseException | None) -> None:
        """See that each item taken has one fate, and that no result that there was is missing."""
        outcomes = [*self.came, *job.undelivered]
        if isinstance(error, SourceFailed):
            assert error.outcomes == job.undelivered
        indices = sorted([one.index for one in outcomes] + [one.index for one in job.interrupted])
        assert indices == list(range(self.source.pulled))
        assert self.done == {one.item for one in outcomes if isinstance(one, ItemDone)}
        with_outcome = {one.item for one in outcomes}
        assert self.begun == with_outcome | {one.item for one in job.interrupted if one.begun}
        assert self.under_way == 0
        assert self.source.closed == 1 or not self.source.pulled
        if self.rate is not None:
            assert all(later - earlier >= 1 / self.rate - 1e-6 for earlier, later in itertools.pairwise(self.starts))
        if error is None and not job.interrupted and self.source.pulled == self.source.end:
            assert len(outcomes) == self.source.end


async def any_run(simulation: Simulation, *, is_batch: bool, is_awaited: bool) -> None:
    run = AnyRun(simulation)
    job = run.job(is_batch=is_batch)
    consumer = asyncio.create_task(run.consume(job, is_awaited=is_awaited), name="consumer")
    # So that it has begun; what never began has nothing to account for.
    await asyncio.sleep(0)
    canceller = asyncio.create_task(run.cancel_sometime(consumer)) if run.dice.random() < 0.7 else None
    await asyncio.wait([consumer])
    if canceller is not None:
        await canceller
    run.check(job, None if consumer.cancelled() else consumer.exception())


@pytest.mark.parametrize("is_batch", [False, True])
@pytest.mark.parametrize("is_awaited", [False, True])
def test_whenever_the_caller_leaves_each_item_has_one_fate_and_no_result_is_lost(*, is_batch: bool, is_awaited: bool):
    async def scenario(simulation: Simulation) -> None:
        await any_run(simulation, is_batch=is_batch, is_awaited=is_awaited)

    assert explore(scenario, seeds=range(repeated(300))).runs == repeated(300)
