"""Bounded work over a source of any length: nothing lost, nothing left behind; in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest

from actors.batch.fan_out import cancel_and_wait, fan_out

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

LATENCY = 1.0
FOREVER = 1e9


class Counting:
    """A source of numbers, sync or async, with or without end; knows how many were pulled and whether it is closed."""

    def __init__(self, end: int | None = None, *, fails_at: int | None = None, lasts: float = 0.0) -> None:
        self.end, self.fails_at, self.lasts = end, fails_at, lasts
        self.pulled = self.closed = 0

    def _numbers(self) -> Iterator[int]:
        for number in itertools.count() if self.end is None else range(self.end):
            if number == self.fails_at:
                raise OSError("source broke")
            self.pulled += 1
            yield number

    def sync(self) -> Iterator[int]:
        try:
            yield from self._numbers()
        finally:
            self.closed += 1

    async def asynchronous(self) -> AsyncIterator[int]:
        try:
            for number in self._numbers():
                await asyncio.sleep(self.lasts)
                yield number
        finally:
            self.closed += 1


async def echo(_: int, item: Any) -> Any:
    return item


async def drain(outcomes: AsyncIterator[Any], into: list[Any]) -> None:
    async for outcome in outcomes:
        into.append(outcome)  # noqa: PERF401 - what came before an error is wanted too.


async def no_task_left() -> None:
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == 1


KINDS = pytest.mark.parametrize("kind", ["sync", "asynchronous"])


@KINDS
@pytest.mark.parametrize("limit", [1, 3, 10, 500])
async def test_every_item_comes_out_once_with_its_number(kind: str, limit: int):
    source = Counting(100)

    async def work(number: int, item: int) -> tuple[int, int]:
        await asyncio.sleep(random.Random(item).random())
        return number, item

    async with fan_out(getattr(source, kind)(), work, max_concurrency=limit) as outcomes:
        came = [outcome async for outcome in outcomes]
    assert sorted(came) == [(number, number) for number in range(100)]
    assert source.closed == 1
    await no_task_left()


async def test_outcomes_come_as_each_finishes_and_none_is_an_outcome():
    async def work(_: int, item: float) -> float | None:
        await asyncio.sleep(item)
        return None if item == 2.0 else item

    async with fan_out([3.0, 1.0, 2.0], work, max_concurrency=3) as outcomes:
        assert [outcome async for outcome in outcomes] == [1.0, None, 3.0]


async def test_no_items_are_no_outcomes():
    async with fan_out([], echo, max_concurrency=3) as outcomes:
        assert [outcome async for outcome in outcomes] == []


async def test_at_most_as_many_are_under_way_as_allowed():
    under_way = most = 0

    async def work(_: int, item: int) -> int:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(LATENCY)
        under_way -= 1
        return item

    async with fan_out(range(50), work, max_concurrency=7) as outcomes:
        assert len([outcome async for outcome in outcomes]) == 50
    assert most == 7
    assert asyncio.get_running_loop().time() == 8 * LATENCY
    with pytest.raises(ValueError, match="max_concurrency"):
        async with fan_out([], echo, max_concurrency=0):
            pass


@KINDS
async def test_an_endless_source_is_pulled_at_most_twice_the_limit_ahead_of_a_slow_consumer(kind: str):
    source, consumed = Counting(), 0
    async with fan_out(getattr(source, kind)(), echo, max_concurrency=10) as outcomes:
        async for _ in outcomes:
            await asyncio.sleep(LATENCY)
            consumed += 1
            assert source.pulled <= consumed + 2 * 10
            if consumed == 100:
                break
    assert source.closed == 1
    await no_task_left()


async def test_memory_stays_flat_over_many_items():
    async def sizes() -> AsyncIterator[float]:
        source = Counting()
        async with fan_out(source.asynchronous(), echo, max_concurrency=100) as outcomes:
            count = 0
            async for _ in outcomes:
                count += 1
                if count % 5_000 == 0:
                    yield tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        # One round apart, so that every cache is warm.
        measured = []
        async with contextlib.aclosing(sizes()) as rounds:
            async for size in rounds:
                measured.append(size)
                if len(measured) == 4:
                    break
    finally:
        tracemalloc.stop()
    assert measured[-1] - measured[0] < 100_000


@KINDS
async def test_the_source_is_closed_when_the_block_is_left_early_or_by_an_exception_which_comes_out_as_it_is(kind: str):
    source = Counting()
    async with fan_out(getattr(source, kind)(), echo, max_concurrency=5) as outcomes:
        async for _ in outcomes:
            break
    assert source.closed == 1
    source = Counting()
    boom = KeyError("body")

    async def fail() -> None:
        async with fan_out(getattr(source, kind)(), echo, max_concurrency=5) as outcomes:
            async for _ in outcomes:
                raise boom

    with pytest.raises(KeyError) as raised:
        await fail()
    assert raised.value is boom
    assert source.closed == 1
    await no_task_left()


@KINDS
async def test_a_source_that_raises_ends_the_iteration_with_its_error_after_what_was_there_before(kind: str):
    source = Counting(fails_at=25)
    came: list[int] = []
    async with fan_out(getattr(source, kind)(), echo, max_concurrency=10) as outcomes:
        with pytest.raises(OSError, match="source broke"):
            await drain(outcomes, came)
    assert sorted(came) == list(range(25))
    assert source.closed == 1


class Thrice:
    """Three items, then the end or an error; falsy, and no less of an iterator for it."""

    def __init__(self, *, fails: bool) -> None:
        self.fails, self.asked = fails, 0

    def __len__(self) -> int:
        return 0

    def __iter__(self) -> Thrice:
        return self

    def __next__(self) -> int:
        self.asked += 1
        if self.asked > 3:
            raise OSError("broke") if self.fails else StopIteration
        return self.asked


class ThriceAsync(Thrice):
    """The same, and slowly."""

    __iter__ = None  # type: ignore[assignment]

    def __aiter__(self) -> ThriceAsync:
        return self

    async def __anext__(self) -> int:
        await asyncio.sleep(0)
        try:
            return self.__next__()
        except StopIteration:
            raise StopAsyncIteration from None


@pytest.mark.parametrize("kind", [Thrice, ThriceAsync])
@pytest.mark.parametrize("fails", [False, True])
async def test_a_source_is_not_asked_again_after_its_end_or_its_error(kind: Any, *, fails: bool):
    source, came = kind(fails=fails), list[int]()
    async with fan_out(source, echo, max_concurrency=8) as outcomes:
        with pytest.raises(OSError, match="broke") if fails else contextlib.nullcontext():
            await drain(outcomes, came)
    assert (sorted(came), source.asked) == ([1, 2, 3], 4)


@pytest.mark.parametrize(
    "error", [KeyError("work"), StopAsyncIteration(), StopIteration(), asyncio.CancelledError()], ids=repr
)
async def test_work_that_raises_anything_ends_the_iteration_and_is_never_taken_for_the_end(error: BaseException):
    async def work(_: int, item: int) -> int:
        if item == 10:
            raise error
        return item

    came: list[int] = []
    async with fan_out(range(30), work, max_concurrency=3) as outcomes:
        with pytest.raises((KeyError, RuntimeError)) as raised:
            await drain(outcomes, came)
        # What an iterator may not raise comes wrapped; the end of an iterator comes only at the end.
        assert error in {raised.value, raised.value.__cause__}
    assert 10 not in came
    await no_task_left()


async def test_a_consumer_slower_than_the_work_is_back_pressure():
    begun = 0

    async def work(_: int, item: int) -> int:
        nonlocal begun
        begun += 1
        return item

    async with fan_out(range(1000), work, max_concurrency=4) as outcomes:
        for consumed in range(1, 50):
            await anext(aiter(outcomes))
            await asyncio.sleep(LATENCY)
            assert begun <= consumed + 8


async def test_leaving_cancels_what_is_under_way_and_waits_for_it():
    ended: list[str] = []
    clean_up = 3.0

    async def work(_: int, item: int) -> int:
        if item == 0:
            return item
        try:
            await asyncio.sleep(FOREVER)
        finally:
            await asyncio.sleep(clean_up)
            ended.append("clean")
        return item

    async with fan_out(range(100), work, max_concurrency=5) as outcomes:
        await anext(aiter(outcomes))
        await asyncio.sleep(LATENCY)
    assert ended == ["clean"] * 5
    await no_task_left()


async def test_work_that_swallows_its_cancellation_does_not_go_on_with_the_next_item():
    begun: list[int] = []

    async def work(_: int, item: int) -> int:
        begun.append(item)
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(FOREVER if item else 0)
        return item

    source = Counting()
    async with fan_out(source.sync(), work, max_concurrency=3) as outcomes:
        await anext(aiter(outcomes))
        await asyncio.sleep(LATENCY)
    assert begun == [0, 1, 2, 3]
    assert source.closed == 1
    await no_task_left()


@KINDS
async def test_a_consumer_cancelled_at_any_step_leaves_no_task_and_a_closed_source(kind: str):
    for k in range(30):
        source = Counting(lasts=0.0)

        async def consume(source: Counting = source) -> None:
            async with fan_out(getattr(source, kind)(), echo, max_concurrency=3) as outcomes:
                async for _ in outcomes:
                    await asyncio.sleep(0)

        consumer = asyncio.create_task(consume())
        for _ in range(k):
            await asyncio.sleep(0)
        consumer.cancel()
        await asyncio.wait([consumer])
        assert consumer.cancelled()
        assert source.closed == (1 if source.pulled else 0)
        await no_task_left()


async def test_many_consumers_share_the_outcomes_and_all_come_to_the_end():
    async def work(_: int, item: int) -> int:
        await asyncio.sleep(LATENCY)
        return item

    async with fan_out(range(100), work, max_concurrency=7) as outcomes:

        async def consume() -> list[int]:
            return [outcome async for outcome in outcomes]

        consumers = [asyncio.create_task(consume()) for _ in range(4)]
        await asyncio.sleep(LATENCY / 2)
        consumers[0].cancel()
        shares = await asyncio.gather(*consumers[1:])
    assert sorted(itertools.chain.from_iterable(shares)) == list(range(100))


async def test_a_second_cancellation_while_waiting_for_the_cancelled_is_raised_after_they_have_ended():
    clean_up = 3.0

    async def stubborn() -> None:
        try:
            await asyncio.sleep(FOREVER)
        finally:
            await asyncio.sleep(clean_up)

    tasks = [asyncio.create_task(stubborn()) for _ in range(3)]
    await asyncio.sleep(0)
    waiting = asyncio.create_task(cancel_and_wait(tasks))
    await asyncio.sleep(clean_up / 2)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    assert all(task.done() for task in tasks)
    assert asyncio.get_running_loop().time() == clean_up


async def test_a_worker_that_is_cancelled_from_outside_is_an_error_and_no_early_end():
    async def work(number: int, _item: int) -> int:
        if number == 3:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        await asyncio.sleep(0)
        return number

    came: list[int] = []

    async def consume() -> None:
        async with fan_out(range(12), work, max_concurrency=3) as outcomes:
            async for outcome in outcomes:
                came.append(outcome)  # noqa: PERF401 - what came before the error is looked at.

    with pytest.raises(RuntimeError, match="a task that worked on an item was cancelled from outside"):
        await consume()
    assert 3 not in came
