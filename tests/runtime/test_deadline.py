"""One timer watches all deadlines: never early, never twice, and without a trace of those that were met: G5."""

from __future__ import annotations

import asyncio
import random

import pytest

from runtime.deadline import TICKS_PER_SECOND, DeadlineWatch, earlier
from runtime.simulation.loop import VirtualTimeLoop


class Entry:
    tick = 0

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.expired_at: list[float] = []

    def expire(self) -> None:
        self.expired_at.append(asyncio.get_running_loop().time())


def test_the_earlier_deadline_binds():
    assert earlier(5.0, None) == 5.0
    assert earlier(5.0, 3.0) == 3.0
    assert earlier(2.0, 3.0) == 2.0


async def test_each_entry_expires_once_in_its_tick():
    """G5."""
    watch = DeadlineWatch(asyncio.get_running_loop())
    random_ = random.Random(7)
    entries = [Entry(random_.uniform(0.0, 30.0)) for _ in range(500)]
    for entry in entries:
        watch.add(entry)
    assert len(watch) == 500
    await asyncio.sleep(31)
    assert len(watch) == 0
    for entry in entries:
        (at,) = entry.expired_at
        assert 0.0 <= at - entry.deadline <= 1.0 / TICKS_PER_SECOND


async def test_a_discarded_entry_does_not_expire_and_a_second_discard_does_nothing():
    """G5."""
    watch = DeadlineWatch(asyncio.get_running_loop())
    kept, gone = Entry(2.0), Entry(2.0)
    watch.add(kept)
    watch.add(gone)
    watch.discard(gone)
    watch.discard(gone)
    watch.discard(Entry(9.0))
    assert len(watch) == 1
    await asyncio.sleep(3)
    assert (len(kept.expired_at), len(gone.expired_at)) == (1, 0)


async def test_an_earlier_entry_is_not_held_up_by_a_later_one():
    """G5."""
    watch = DeadlineWatch(asyncio.get_running_loop())
    late, early = Entry(50.0), Entry(1.0)
    watch.add(late)
    watch.add(early)
    await asyncio.sleep(2)
    assert early.expired_at == [1.0]
    await asyncio.sleep(60)
    assert late.expired_at == [50.0]


async def test_a_deadline_that_has_passed_expires_in_the_next_turn():
    watch = DeadlineWatch(asyncio.get_running_loop())
    await asyncio.sleep(5)
    entry = Entry(1.0)
    watch.add(entry)
    await asyncio.sleep(0.001)
    assert entry.expired_at == [5.0]


async def test_an_entry_may_add_another_while_it_expires():
    watch = DeadlineWatch(asyncio.get_running_loop())
    second = Entry(2.0)

    class Adding(Entry):
        def expire(self) -> None:
            super().expire()
            watch.add(second)

    watch.add(Adding(1.0))
    await asyncio.sleep(3)
    assert second.expired_at == [2.0]


async def test_closing_forgets_everything(leftovers):
    """G9."""
    watch = DeadlineWatch(asyncio.get_running_loop())
    entry = Entry(1.0)
    watch.add(entry)
    watch.close()
    assert (leftovers(), len(watch)) == ([], 0)
    await asyncio.sleep(2)
    assert entry.expired_at == []
    watch.add(second := Entry(3.0))
    await asyncio.sleep(2)
    assert second.expired_at == [3.0]


@pytest.mark.parametrize("ahead", [1.0, 3600.0])
async def test_deadlines_that_are_met_leave_no_memory_behind(ahead: float):
    """An hour of requests with an hour's patience would leave millions of empty ticks."""
    watch = DeadlineWatch(asyncio.get_running_loop())
    for _ in range(20_000):
        entry = Entry(asyncio.get_running_loop().time() + ahead)
        watch.add(entry)
        await asyncio.sleep(1 / 512)
        watch.discard(entry)
    assert len(watch._ticks) == len(watch._waiting) <= 2 * TICKS_PER_SECOND


async def test_what_waits_for_an_answer_outlives_a_loop_that_stood_still():
    """G5."""
    loop = virtual_loop()
    watch = DeadlineWatch(loop)
    asker = Entry(2.0)

    class Call(Entry):
        def expire(self) -> None:
            super().expire()
            self.report(8)

        def report(self, turns: int) -> None:
            if turns:
                loop.call_soon(self.report, turns - 1)
            else:
                watch.discard(asker)

    call = Call(1.0)
    for entry in (call, asker):
        watch.add(entry)
    await asyncio.sleep(0.9)
    loop.now += 60.0
    await asyncio.sleep(5)
    assert (call.expired_at, asker.expired_at) == ([60.9], [])


async def test_deadlines_pass_in_their_order_after_a_loop_stood_still():
    """G5."""
    loop = virtual_loop()
    watch = DeadlineWatch(loop)
    entries = [Entry(1.0 + number / 100) for number in range(3000)]
    for entry in entries:
        watch.add(entry)
    loop.now += 25.0
    await asyncio.sleep(0.001)
    earlier_one = Entry(0.5)
    watch.add(earlier_one)
    await asyncio.sleep(60)
    at = [entry.expired_at[0] for entry in entries]
    assert at == sorted(at)
    assert len(watch) == 0
    assert earlier_one.expired_at[0] < 25.1
    caught_up = next(entry for entry in entries if entry.expired_at[0] - entry.deadline < 0.002)
    assert caught_up.deadline < 28.0


async def test_a_loop_that_is_always_late_does_not_fall_behind():
    """G5."""
    loop = virtual_loop()
    loop.step_cost = 0.3
    watch = DeadlineWatch(loop)
    entries = [Entry(number / 10) for number in range(3000)]
    for entry in entries:
        watch.add(entry)
    await asyncio.sleep(400)
    assert max(entry.expired_at[0] - entry.deadline for entry in entries) < 15.0


def virtual_loop() -> VirtualTimeLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    return loop
