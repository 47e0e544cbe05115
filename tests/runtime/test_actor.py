"""A class that cannot work is refused when it is made, with an error that says how to mend it."""

from __future__ import annotations

import asyncio
from typing import Any, Generic, TypeVar

import pytest

from runtime import Actor, ActorFailed, ActorSystem, Message, Request, Terminated, handles

T = TypeVar("T")


class Note(Message):
    text: str = ""


class LongNote(Note):
    pass


class Get(Request[str]):
    pass


class GetMore(Get):
    pass


# What `handles` accepts.


@pytest.mark.parametrize("message", [int, object, "Note", Note(), None])
def test_only_messages_are_handled(message: Any):
    with pytest.raises(TypeError, match="takes a subclass of Message or Request, got"):
        handles(message)


@pytest.mark.parametrize("concurrent", [0, -1])
def test_at_least_one_is_handled_at_a_time(concurrent: int):
    with pytest.raises(TypeError, match=rf"handles\(Note\): concurrent must be >= 1, got {concurrent}"):
        handles(Note, concurrent=concurrent)


def test_only_an_async_handler_can_be_concurrent():
    def handle(self: Any, message: Note) -> None: ...

    with pytest.raises(TypeError, match="only an `async def` handler can be concurrent"):
        handles(Note, concurrent=2)(handle)


def no_message(self: Any) -> None: ...
def two_messages(self: Any, message: Note, other: Note) -> None: ...
def keyword(self: Any, *, message: Note) -> None: ...
def variadic(*messages: Note) -> None: ...


@pytest.mark.parametrize("function", [no_message, two_messages, keyword, variadic])
def test_a_handler_takes_itself_and_one_message(function: Any):
    with pytest.raises(TypeError, match=r"must take \(self, message: Note\) and nothing else"):
        handles(Note)(function)


def not_annotated(self: Any, message) -> None: ...
def annotated_wrongly(self: Any, message: Get) -> None: ...
def annotated_too_narrowly(self: Any, message: LongNote) -> None: ...
def annotated_as_unknown(self: Any, message: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize(
    ("function", "shown"),
    [
        (not_annotated, "not at all"),
        (annotated_wrongly, "as <class '.*Get'>"),
        (annotated_too_narrowly, "as <class '.*LongNote'>"),
        (annotated_as_unknown, "as 'Nowhere'"),
    ],
)
def test_a_handler_is_annotated_with_its_message(function: Any, shown: str):
    with pytest.raises(TypeError, match=f"its message is annotated {shown}; write `message: Note`"):
        handles(Note)(function)


def test_an_annotation_may_be_wider_than_the_message():
    def handle(self: Any, message: Message) -> None: ...

    assert handles(Note)(handle) is handle


def test_a_message_of_a_function_may_share_its_name_with_one_of_the_module():
    class Note(Message):
        pass

    def handle(self: Any, message: Note) -> None: ...

    assert handles(Note)(handle) is handle


# What a class collects.


def test_two_handlers_for_one_message_are_refused():
    with pytest.raises(TypeError, match=r"Twice has two handlers for Note: one and two"):

        class Twice(Actor):
            @handles(Note)
            def one(self, message: Note) -> None: ...

            @handles(Note)
            def two(self, message: Note) -> None: ...


def test_a_declared_message_without_a_handler_is_refused():
    with pytest.raises(TypeError, match=r"Half declares Get, Terminated but has no handler for it"):

        class Half(Actor[Note | Get | Terminated]):
            @handles(Note)
            def note(self, message: Note) -> None: ...


class Parent(Actor):
    @handles(Note)
    def note(self, message: Note) -> None: ...

    @handles(Get)
    def get(self, message: Get) -> str:
        return "parent"


async def test_a_subclass_overrides_a_handler_by_declaring_one_for_its_message():
    class Child(Parent):
        @handles(Get)
        async def get(self, message: Get) -> str:
            return f"child of {super().get(message)}"

    async with ActorSystem() as system:
        assert await system.spawn(Child).ask(Get(), timeout=1.0) == "child of parent"
        assert await system.spawn(Parent).ask(Get(), timeout=1.0) == "parent"
    assert (Parent.is_async, Child.is_async) == (False, True)


def test_an_override_without_a_declaration_is_refused():
    """It would never be called."""
    with pytest.raises(TypeError, match=r"Forgetful.get overrides a handler without declaring one; .*@handles\(Get\)"):

        class Forgetful(Parent):
            def get(self, message: Get) -> str:
                return "never called"


async def test_one_method_may_handle_several_messages_and_each_subclass_of_them():
    class Both(Actor):
        @handles(Get)
        @handles(Note)
        def both(self, message: Message) -> Any:
            return type(message).__name__ if isinstance(message, Get) else None

    async with ActorSystem() as system:
        ref = system.spawn(Both)
        ref.tell(LongNote())
        assert await ref.ask(Get(), timeout=1.0) == "Get"
        assert await ref.ask(GetMore(), timeout=1.0) == "GetMore"


async def test_the_handler_of_the_nearest_parent_is_the_one():
    class Near(Parent):
        @handles(GetMore)
        def get_more(self, message: GetMore) -> str:
            return "more"

    async with ActorSystem() as system:
        ref = system.spawn(Near)
        assert await ref.ask(GetMore(), timeout=1.0) == "more"
        assert await ref.ask(Get(), timeout=1.0) == "parent"


def test_an_actor_of_its_own_may_have_more_parameters_than_its_messages():
    class Store(Actor[Note], Generic[T]):
        @handles(Note)
        def note(self, message: Note) -> None: ...

    class Table(Store[int]):
        pass

    assert Table.handlers[Note] is Store.handlers[Note]


def test_a_handler_is_still_a_method():
    assert Parent().get(Get()) == "parent"


def test_the_context_exists_once_the_actor_is_spawned():
    with pytest.raises(RuntimeError, match=r"Parent.context exists once the actor is spawned; .* to started\(\)"):
        _ = Parent().context


async def test_a_sync_handler_that_answers_a_message_crashes(recorded):
    """G6: a Message has no answer; returning one is a mistake that would go unnoticed."""

    class Chatty(Actor):
        @handles(Note)
        def note(self, message: Note) -> Any:
            return "nobody hears this"

    async with ActorSystem() as system:
        failures = recorded(system, ActorFailed)
        system.spawn(Chatty).tell(Note())
        await asyncio.sleep(0)
        assert "a handler of a Message returns None" in str(failures[0].error)
