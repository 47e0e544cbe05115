"""Errors that raise when they are looked at: the asker, the supervisor and the system still get them."""

from __future__ import annotations

import asyncio
import dataclasses
import io
from typing import TYPE_CHECKING, Any

import pytest
from loguru import logger

from runtime import (
    IMMEDIATELY,
    Actor,
    ActorCrashed,
    ActorFailed,
    ActorSystem,
    Directive,
    Message,
    Request,
    Supervision,
    handles,
)
from runtime.error_text import annotate, described, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Odd(Exception):
    """The base of errors that misbehave, each in its own way."""


class NoText(Odd):
    def __str__(self) -> str:
        raise AttributeError("no such attribute")


class TextOfWrongType(Odd):
    def __str__(self) -> str:
        return 3  # type: ignore[return-value]  # noqa: PLE0307 - that is what is odd.  # pyright: ignore[reportReturnType]


class NoRepr(Odd):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


class NoTruth(Odd):
    def __bool__(self) -> bool:
        raise RuntimeError("the truth value is ambiguous")


class NoLength(Odd):
    def __len__(self) -> int:
        raise RuntimeError("no length")


class IsFalse(Odd):
    def __bool__(self) -> bool:
        return False


class NoNotes(Odd):
    @property
    def __notes__(self) -> list[str]:  # pyright: ignore[reportIncompatibleVariableOverride]
        raise RuntimeError("no notes")

    def add_note(self, note: str, /) -> None:
        raise RuntimeError("no notes")


@dataclasses.dataclass(frozen=True)
class Frozen(Odd):
    code: int = 3


ODD: tuple[type[Odd], ...] = (NoText, TextOfWrongType, NoRepr, NoTruth, NoLength, IsFalse, NoNotes, Frozen)


class Ask(Request[int]):
    kind: Any


class AskSlowly(Request[int]):
    kind: Any


class AskAside(Request[int]):
    kind: Any


class AskLater(Request[int]):
    kind: Any


class Tell(Message):
    kind: Any


class Ping(Request[str]):
    pass


class Fragile(Actor):
    @handles(Ask)
    def ask(self, message: Ask) -> int:
        raise message.kind()

    @handles(AskSlowly)
    async def ask_slowly(self, message: AskSlowly) -> int:
        await asyncio.sleep(0)
        raise message.kind()

    @handles(AskAside, concurrent=2)
    async def ask_aside(self, message: AskAside) -> int:
        await asyncio.sleep(0)
        raise message.kind()

    @handles(AskLater)
    def ask_later(self, message: AskLater) -> asyncio.Future[int]:
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        future.set_exception(message.kind())
        return future

    @handles(Tell)
    def tell(self, message: Tell) -> None:
        raise message.kind()

    @handles(Ping)
    def ping(self, message: Ping) -> str:
        return "pong"


class Parent(Actor):
    def __init__(self) -> None:
        self.told: list[Exception] = []

    @property
    def supervision(self) -> Supervision:  # type: ignore[override]  # pyright: ignore[reportIncompatibleVariableOverride]
        return Supervision(backoff=IMMEDIATELY, decide=self.decide)

    def decide(self, error: Exception) -> Directive:
        self.told.append(error)
        return Directive.ESCALATE

    def started(self) -> None:
        self.context.spawn(Fragile, name="fragile").tell(Tell(NoNotes))


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    lines = io.StringIO()
    logger.remove()
    number = logger.add(lines, format="{message}\n{exception}")
    yield lines
    logger.remove(number)


@pytest.mark.parametrize("request_type", [Ask, AskSlowly, AskAside, AskLater])
@pytest.mark.parametrize("kind", ODD)
async def test_the_asker_gets_an_odd_error_at_once(kind: type[Odd], request_type: Any, log: io.StringIO) -> None:
    async with ActorSystem("s", supervision=Supervision(backoff=IMMEDIATELY)) as system:
        failed: list[ActorFailed] = []
        system.events.subscribe(ActorFailed, failed.append)
        fragile = system.spawn(Fragile)
        with pytest.raises(ActorCrashed, match=kind.__name__) as caught:
            await fragile.ask(request_type(kind), timeout=2.0)
        assert type(caught.value.__cause__) is kind
        assert await fragile.ask(Ping(), timeout=1.0) == "pong"
        if request_type is not AskLater:
            assert [type(event.error) for event in failed] == [kind]
            assert kind.__name__ in log.getvalue()


async def run_until_it_fails(make: Callable[[], Actor[Any]], *messages: Message) -> None:
    """Spawn an actor in a system that tolerates no crash, and tell it something."""
    never = Supervision(decide=lambda _: Directive.ESCALATE)
    async with ActorSystem("s", supervision=never) as system:
        actor = system.spawn(make)
        for message in messages:
            actor.tell(message)
        await asyncio.sleep(10.0)


@pytest.mark.usefixtures("log")
@pytest.mark.parametrize("kind", ODD)
async def test_an_odd_error_that_ends_the_system_is_that_very_object(kind: type[Odd]) -> None:
    error = kind()
    with pytest.raises(kind) as caught:
        await run_until_it_fails(Fragile, Tell(lambda: error))
    assert caught.value is error


@pytest.mark.usefixtures("log")
async def test_an_odd_error_escalates_through_a_parent_as_itself() -> None:
    parents: list[Parent] = []

    def make() -> Parent:
        parents.append(Parent())
        return parents[-1]

    with pytest.raises(NoNotes):
        await run_until_it_fails(make)
    assert [type(error) for error in parents[0].told] == [NoNotes]


@pytest.mark.parametrize("kind", ODD)
async def test_an_odd_error_of_a_subscriber_reaches_neither_publisher_nor_others(kind: type[Odd]) -> None:
    reported: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["exception"]))
    received: list[ActorFailed] = []

    def fail(_: ActorFailed) -> None:
        raise kind

    async with ActorSystem("s", supervision=Supervision(backoff=IMMEDIATELY), log=False) as system:
        system.events.subscribe(ActorFailed, fail)
        system.events.subscribe(ActorFailed, received.append)
        with pytest.raises(ActorCrashed):
            await system.spawn(Fragile).ask(Ask(ValueError), timeout=1.0)
    assert len(received) == len(reported) == 1
    assert kind.__name__ in described(reported[0])


def test_described_and_printable_leave_an_ordinary_error_as_it_is() -> None:
    error = ValueError("no such city")
    assert described(error) == "ValueError: no such city"
    assert printable(error) is error
    annotate(error, "in a test")
    assert error.__notes__ == ["in a test"]
