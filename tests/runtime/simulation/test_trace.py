from __future__ import annotations

from typing import Any

import pytest

from runtime import Message
from runtime.simulation.trace import KEPT, MAX_WIDTH, Trace


class Note(Message):
    text: Any


def trace_of(*entries: Any) -> Trace:
    trace = Trace(lambda: 1.5)
    for entry in entries:
        trace.add(*entry)
    return trace


def test_an_entry_shows_its_time_and_what_happened_to_whom() -> None:
    assert trace_of(("gets", "house/one", Note("x"))).tail(1) == ["    1.500000 gets house/one Note(text='x')"]


def test_an_entry_shows_no_address_and_is_not_too_long() -> None:
    (line,) = trace_of(("gets", "one", object())).tail(1)
    assert line.endswith("gets one <object object>")
    (line,) = trace_of(("gets", "one", "x" * 1000)).tail(1)
    assert len(line) == 13 + MAX_WIDTH
    assert line.endswith("…")


def test_only_the_last_entries_are_kept_and_the_digest_is_over_all() -> None:
    many = [("note", str(number)) for number in range(KEPT + 10)]
    trace, other = trace_of(*many), trace_of(("note", "other"), *many[1:])
    assert len(trace) == KEPT
    assert next(entry.subject for entry in trace) == "10"
    assert trace.tail(2) == other.tail(2)
    assert trace.digest != other.digest


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("a", "b", 1), ("a", "b", 2)),
        (("a", "b", Note("x")), ("a", "b", Note("y"))),
        (("a", "b", {"k": 1}), ("a", "b", {"k": 2})),
        (("a", "b", None), ("a", "c", None)),
    ],
)
def test_what_differs_has_another_digest(one: Any, other: Any) -> None:
    assert trace_of(one).digest != trace_of(other).digest


class Odd:
    def __repr__(self) -> str:
        raise ValueError("cannot be shown")


def loop_of_lists() -> Any:
    made: list[Any] = []
    made.append(made)
    return made


@pytest.mark.parametrize(
    "make", [object, Odd, lambda: {object(): 1}, lambda: 2**70, lambda: "\ud800", loop_of_lists, lambda: {1, "a"}]
)
def test_what_cannot_be_encoded_has_the_same_digest_each_time_and_can_be_shown(make: Any) -> None:
    one, other = trace_of(("a", "b", make())), trace_of(("a", "b", make()))
    assert one.digest == other.digest
    assert len(one.tail(1)) == 1


def test_the_order_of_a_set_does_not_matter() -> None:
    forwards, backwards = {"a", "b", "c", "d"}, {"a", "b", "c", "d"}
    assert trace_of(("x", "y", forwards)).digest == trace_of(("x", "y", backwards)).digest


def test_the_digest_may_be_asked_for_at_any_time() -> None:
    trace = trace_of(("a", "b"))
    first = trace.digest
    assert trace.digest == first
    trace.step(3.0)
    assert trace.digest != first
    assert len(first) == 32
