"""Streams into and out of actors, and how far they read ahead."""

from __future__ import annotations

import asyncio

import pytest
from aiostream import pipe

from runtime import (
    IMMEDIATELY,
    Actor,
    ActorStopped,
    ActorSystem,
    Mailbox,
    Message,
    Refusal,
    Request,
    Strategy,
    Supervision,
    feed,
    handles,
    outlet,
    through,
)


class Item(Message):
    number: int


class Square(Request[int]):
    number: int


class TooBig(Refusal):
    pass


class Calculator(Actor):
    def __init__(self) -> None:
        self.seen: list[int] = []

    @handles(Item)
    async def take(self, message: Item) -> None:
        await asyncio.sleep(1)
        self.seen.append(message.number)

    @handles(Square, concurrent=10)
    async def square(self, message: Square) -> int:
        # The later, the sooner: answers arrive in reverse order.
        await asyncio.sleep(1 / (1 + message.number))
        if message.number > 90:
            raise TooBig
        return message.number**2


async def read_all(stream, got: list[int]) -> None:
    async for answer in stream:
        got.append(answer)  # noqa: PERF401 - what came before an error counts too.


class Source:
    """Counts from `first`, and tells how far it was read and whether it was closed."""

    def __init__(self, first: int = 0, end: int = 10**9) -> None:
        self.read = first
        self.end = end
        self.closed = False

    async def __call__(self, make=lambda number: number):
        try:
            while self.read < self.end:
                self.read += 1
                yield make(self.read)
                await asyncio.sleep(0)
        finally:
            self.closed = True


async def test_feeding_waits_for_room_and_closes_the_source():
    source = Source()
    async with ActorSystem() as system:
        calculator = Calculator()
        ref = system.spawn(lambda: calculator, mailbox=Mailbox(capacity=2))
        feeding = asyncio.create_task(feed(ref, source(Item)))
        await asyncio.sleep(5.5)
        assert calculator.seen == [1, 2, 3, 4, 5]
        assert source.read <= 5 + 1 + 2 + 1
        ref.kill()
        with pytest.raises(ActorStopped):
            await feeding
    assert source.closed


async def test_feeding_counts_what_it_sent_and_its_waits_have_a_limit():
    async with ActorSystem() as system:
        ref = system.spawn(Calculator, mailbox=Mailbox(capacity=1))
        assert await feed(ref, Source(end=4)(Item)) == 4
        endless = Source()
        with pytest.raises(TimeoutError):
            await feed(ref, endless(Item), timeout=0.25)
        assert endless.closed


@pytest.mark.parametrize("limit", [1, 3])
async def test_answers_come_in_the_order_of_the_items(limit):
    async with ActorSystem() as system:
        ref = system.spawn(Calculator)
        answers = through(ref, Source(end=9)(), Square, timeout=5.0, max_concurrency=limit)
        async with answers.stream() as stream:
            assert [answer async for answer in stream] == [number**2 for number in range(1, 10)]


async def test_answers_come_as_they_arrive_where_order_does_not_matter():
    async with ActorSystem() as system:
        ref = system.spawn(Calculator)
        answers = through(ref, Source(end=3)(), Square, timeout=5.0, max_concurrency=3, ordered=False)
        async with (answers | pipe.take(2)).stream() as stream:
            assert [answer async for answer in stream] == [9, 4]


@pytest.mark.parametrize("limit", [1, 2, 5])
@pytest.mark.parametrize("ordered", [True, False])
async def test_the_source_is_not_read_ahead_of_a_slow_reader_and_closed_when_it_leaves(limit, ordered, leftovers):
    source = Source()
    async with ActorSystem() as system:
        ref = system.spawn(Calculator)
        taken = 0
        answers = through(ref, source(), Square, timeout=5.0, max_concurrency=limit, ordered=ordered)
        async with answers.stream() as stream:
            async for _ in stream:
                taken += 1
                await asyncio.sleep(10)
                assert source.read <= taken + limit
                if taken == 7:
                    break
        assert source.closed
        await asyncio.sleep(0)
        assert system.snapshot().children[0].working == 0
    assert leftovers() == []


async def test_the_first_error_ends_the_stream_and_closes_the_source():
    source = Source(first=85)
    got: list[int] = []
    async with ActorSystem() as system:
        ref = system.spawn(Calculator)
        async with through(ref, source(), Square, timeout=5.0, max_concurrency=2).stream() as stream:
            with pytest.raises(TooBig):
                await read_all(stream, got)
    assert got == [number**2 for number in range(86, 91)]
    assert source.closed


async def test_what_is_sent_to_an_outlet_comes_out_in_order_and_sending_waits_for_the_reader(recorded):
    async with ActorSystem() as system:
        dead = recorded(system)
        sent = 0

        async def send_all() -> None:
            nonlocal sent
            for number in range(100):
                await ref.send(Item(number))
                sent += 1

        async with outlet(system, capacity=3) as (ref, messages):
            sending = asyncio.create_task(send_all())
            got = []
            async for message in messages:
                got.append(message.number)
                await asyncio.sleep(1)
                assert sent <= len(got) + 1 + 3
                if len(got) == 10:
                    break
        with pytest.raises(ActorStopped):
            await sending
        assert got == list(range(10))
        assert [one.message.number for one in dead] == list(range(10, sent))


async def test_stopping_the_actor_behind_an_outlet_ends_the_iteration():
    async with ActorSystem() as system, outlet(system) as (ref, messages):
        ref.tell(Item(1))
        asyncio.get_running_loop().call_later(5, ref.stop)
        assert [message async for message in messages] == [Item(1)]


async def test_an_outlet_that_is_restarted_with_its_group_has_ended():
    together = Supervision(strategy=Strategy.ONE_FOR_ALL, backoff=IMMEDIATELY)

    class Fragile(Actor):
        @handles(Item)
        def item(self, message: Item) -> None:
            raise ValueError

    async with ActorSystem(supervision=together, log=False) as system, outlet(system) as (ref, messages):
        system.spawn(Fragile).tell(Item(1))
        assert [one async for one in messages] == []
        with pytest.raises(ActorStopped):
            await ref.send(Item(2))
