"""Facts reach those who subscribed to their type, in order, and no subscriber disturbs another: G3."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from loguru import logger

from runtime import (
    Actor,
    ActorFailed,
    ActorStarted,
    ActorSystem,
    DeadLetter,
    DeadReason,
    Event,
    EventStream,
    Message,
    Request,
    handles,
)


class Opened(Event):
    at: int


class OpenedTwice(Opened):
    pass


class Closed(Event):
    pass


class Seen(Request[list[Any]]):
    pass


def test_a_subscriber_gets_its_type_and_the_types_below_it():
    stream, opened, everything = EventStream(), [], []
    stream.subscribe(Opened, opened.append)
    stream.subscribe(Event, everything.append)
    events = [Opened(1), Closed(), OpenedTwice(2)]
    for event in events:
        stream.publish(event)
    assert opened == [Opened(1), OpenedTwice(2)]
    assert everything == events


def test_subscribers_are_called_in_the_order_of_their_subscription():
    stream, calls = EventStream(), []
    for name in "abc":
        stream.subscribe(Closed, lambda _, name=name: calls.append(name))
    stream.publish(Closed())
    assert calls == ["a", "b", "c"]


def test_a_cancelled_subscription_gets_nothing_more_and_may_be_cancelled_twice():
    stream, got = EventStream(), []
    with stream.subscribe(Opened, got.append) as subscription:
        stream.publish(Opened(1))
    stream.publish(Opened(2))
    subscription.cancel()
    assert got == [Opened(1)]
    assert repr(stream) == "<EventStream 0 subscriptions>"


def test_a_subscriber_that_comes_later_gets_what_comes_later():
    """The subscribers of a type are remembered; a new one must not be forgotten."""
    stream, first, second = EventStream(), [], []
    stream.publish(Opened(0))
    stream.subscribe(Opened, first.append)
    stream.publish(Opened(1))
    stream.subscribe(Opened, second.append)
    stream.publish(Opened(2))
    assert (first, second) == ([Opened(1), Opened(2)], [Opened(2)])


def test_wants_tells_whether_anybody_would_receive_it():
    stream = EventStream()
    assert not stream.wants(Opened)
    subscription = stream.subscribe(Event, print)
    assert stream.wants(Opened)
    subscription.cancel()
    assert not stream.wants(Opened)


async def test_a_subscriber_that_raises_is_reported_and_disturbs_nobody():
    """G3."""
    reported: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    stream, got = EventStream(), []

    def fail(_: Event) -> None:
        raise OSError("subscriber")

    stream.subscribe(Opened, fail)
    stream.subscribe(Opened, got.append)
    stream.publish(Opened(1))
    assert got == [Opened(1)]
    assert [(one["message"], str(one["exception"])) for one in reported] == [
        ("a subscriber of Opened raised", "subscriber")
    ]


async def test_an_actor_survives_a_subscriber_that_raises_on_its_events():
    """G3."""
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)

    def fail(_: Event) -> None:
        raise OSError("subscriber")

    async with ActorSystem() as system:
        system.events.subscribe(Event, fail)
        ref = system.spawn(Listener)
        ref.tell(Closed())
        assert await ref.ask(Seen(), timeout=1.0) == [Closed()]


class Listener(Actor):
    def __init__(self) -> None:
        self.seen: list[Any] = []

    @handles(Event)
    def event(self, message: Event) -> None:
        self.seen.append(message)

    @handles(Seen)
    def answer(self, message: Seen) -> list[Any]:
        return self.seen


async def test_an_actor_may_subscribe_and_handle_the_events_below_a_type():
    async with ActorSystem() as system:
        ref = system.spawn(Listener)
        system.events.subscribe(Opened, ref)
        for event in (Opened(1), Closed(), OpenedTwice(2)):
            system.events.publish(event)
        assert await ref.ask(Seen(), timeout=1.0) == [Opened(1), OpenedTwice(2)]


async def test_an_event_that_finds_its_subscriber_stopped_is_one_dead_letter():
    """G3: not one for each dead letter that it makes."""
    async with ActorSystem() as system:
        letters: list[Any] = []
        ref = system.spawn(Listener)
        system.events.subscribe(Event, ref)
        ref.stop()
        await ref.terminated()
        system.events.subscribe(DeadLetter, letters.append)
        system.events.publish(Closed())
        assert letters == [DeadLetter(ref, Closed(), DeadReason.STOPPED)]


async def test_nobody_wants_what_is_not_logged_until_somebody_subscribes():
    """Spawning is cheap where nobody listens: no turn of the run queue, no event."""
    async with ActorSystem() as system:
        assert not system.events.wants(ActorStarted)
        assert "running" in repr(system.spawn(Listener))
        system.events.subscribe(ActorStarted, print)
        assert "starting" in repr(system.spawn(Listener))


class Secret(Message):
    key: str


@pytest.fixture
def lines():
    logged: list[Any] = []
    sink = logger.add(lambda line: logged.append(line.record), level=0)
    yield logged
    logger.remove(sink)


async def test_what_an_operator_should_know_becomes_a_line_without_the_payload(lines: list[Any]):
    """G3: the type of a message is named, never what it holds."""

    class Failing(Actor):
        @handles(Secret)
        def secret(self, message: Secret) -> None:
            raise OSError("lost")

    async with ActorSystem("s") as system:
        ref = system.spawn(Failing, name="a")
        ref.tell(Secret("token"))
        ref.tell(Closed())
        await asyncio.sleep(1)
        ref.stop()
        ref.tell(Secret("token"))
        system.events.publish(Opened(1))
    assert [(one["level"].name, one["message"], one["extra"]["actor"]) for one in lines] == [
        ("ERROR", "s/a failed while handling Secret", "s/a"),
        ("WARNING", "s/a restarted, attempt 1", "s/a"),
        ("WARNING", "dead letter: Closed was not handled (unhandled)", "s/a"),
        ("WARNING", "dead letter: Secret was not handled (stopped)", "s/a"),
    ]
    assert isinstance(lines[0]["exception"].value, OSError)


async def test_the_line_of_a_failing_hook_says_so(lines: list[Any]):
    class Failing(Actor):
        def started(self) -> None:
            raise OSError

        def stopped(self) -> None:
            self.context.log.info("never")

    async with ActorSystem("s") as system:
        system.spawn(Failing, name="a")
        await asyncio.sleep(0)
    assert [one["message"] for one in lines] == ["s/a failed in a hook"]
    assert issubclass(ActorFailed, Event)


async def test_subscribing_to_no_event_or_without_a_receiver_is_refused():
    async with ActorSystem() as system:
        for wrong in ("DeadLetter", int, None):
            with pytest.raises(TypeError, match="must be a subclass of Event"):
                system.events.subscribe(wrong, print)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        with pytest.raises(TypeError, match="must be a function or the ref of an actor, got None"):
            system.events.subscribe(DeadLetter, None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
