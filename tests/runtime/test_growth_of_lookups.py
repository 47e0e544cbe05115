"""What an end or a cancellation costs does not grow with what it does not concern."""

from __future__ import annotations

import asyncio

import pytest

from runtime import (
    IMMEDIATELY,
    Actor,
    ActorSystem,
    Event,
    Key,
    Message,
    Restart,
    Strategy,
    Supervision,
    handles,
)
from runtime.cell.cell import Cell
from runtime.event_stream import EventStream, Subscription


class Ping(Message):
    pass


class Member(Actor[Ping]):
    @handles(Ping)
    def ping(self, message: Ping) -> None: ...


class First(Event, frozen=True):
    pass


class Second(Event, frozen=True):
    pass


async def test_the_end_of_an_actor_tries_its_own_keys_alone(monkeypatch):
    async with ActorSystem("keys") as system:
        refs = [system.spawn(Member) for _ in range(20)]
        for number, ref in enumerate(refs):
            system.registry.register(Key(f"own-{number}"), ref)
            system.registry.register(Key("all"), ref)
        tried = []
        unregister = system.registry.unregister
        monkeypatch.setattr(
            system.registry, "unregister", lambda key, ref: (tried.append(key.name), unregister(key, ref))
        )
        refs[3].stop()
        await refs[3].terminated()
        assert tried == ["own-3", "all"]
        assert system.registry.find(Key("own-3")) == ()
        assert system.registry.find_one(Key("all")) is refs[0]
        assert system.registry.find_one(Key("none")) is None


async def test_a_change_of_a_key_calls_the_subscribers_of_that_key_alone(monkeypatch: pytest.MonkeyPatch):
    async with ActorSystem("keys") as system:
        called: list[str] = []
        receive = Subscription.receive
        monkeypatch.setattr(
            Subscription,
            "receive",
            property(lambda one: (called.append(""), receive.__get__(one))[1], receive.__set__),
        )
        heard: list[str] = []
        for number in range(100):
            system.registry.subscribe(Key(f"own-{number}"), lambda event: heard.append(event.key.name))
        heard.clear()
        ref = system.spawn(Member)
        system.registry.register(Key("own-7"), ref)
        system.registry.register(Key("none"), ref)
        assert heard == ["own-7"]
        # And one more for what listens to the starts and ends of actors, at most.
        assert len(called) <= 2


async def test_a_further_subscription_of_an_actor_looks_at_none_of_its_others(monkeypatch: pytest.MonkeyPatch):
    async with ActorSystem("keys") as system:
        ref = system.spawn(Member)
        looked: list[Subscription] = []
        is_active = Subscription.is_active
        monkeypatch.setattr(
            Subscription,
            "is_active",
            property(lambda one: (looked.append(one), is_active.__get__(one))[1], is_active.__set__),
        )
        ends = [system.registry.subscribe(Key(f"own-{number}"), ref) for number in range(100)]
        for one in ends:
            one.cancel()
        assert looked == []


def test_a_change_forgets_the_answers_that_it_concerns_alone():
    events = EventStream()
    heard: list[Event] = []
    with events.subscribe(First, heard.append):
        events.publish(First())
        events.publish(Second())
        remembered = events._by_type[First]
        second = events.subscribe(Second, heard.append)
        assert events._by_type[First] is remembered
        events.publish(Second())
        second.cancel()
        second.cancel()
        assert events._by_type[First] is remembered
        events.publish(Second())
        with events.subscribe(Event, heard.append):
            events.publish(First())
    assert heard == [First(), Second(), First(), First()]


class Crash(Message):
    pass


class Sibling(Actor[Crash]):
    @handles(Crash)
    def crash(self, message: Crash) -> None:
        raise RuntimeError("down")


async def visits(monkeypatch: pytest.MonkeyPatch, strategy: Strategy, size: int, restart: Restart) -> int:
    """Count how often a restart of a group of that size looks at one of its children."""
    seen: list[Cell] = []
    started: list[int] = []
    asked = Cell.is_waiting.fget
    with monkeypatch.context() as patch:
        patch.setattr(Cell, "is_waiting", property(lambda cell: (seen.append(cell), asked(cell))[1]))

        class Counted(Sibling):
            def started(self) -> None:
                started.append(1)

        async with ActorSystem("group", supervision=Supervision(strategy=strategy, backoff=IMMEDIATELY)) as system:
            first = system.spawn(Counted)
            others = [system.spawn(Counted, restart=restart) for _ in range(size - 1)]
            await asyncio.sleep(1)
            first.tell(Crash())
            await asyncio.sleep(1)
            restarted = size if restart is not Restart.TEMPORARY else 1
            assert len(started) == size + restarted
            assert [one.recipient.closed for one in others] == [restart is Restart.TEMPORARY] * (size - 1)
    return len(seen)


@pytest.mark.parametrize("strategy", [Strategy.ONE_FOR_ALL, Strategy.REST_FOR_ONE])
@pytest.mark.parametrize("restart", [Restart.TRANSIENT, Restart.TEMPORARY])
async def test_the_restart_of_a_group_looks_at_each_child_a_few_times(
    monkeypatch: pytest.MonkeyPatch, strategy: Strategy, restart: Restart
):
    few, many = [await visits(monkeypatch, strategy, size, restart) for size in (50, 200)]
    assert many <= 4 * few
    assert many <= 10 * 200
