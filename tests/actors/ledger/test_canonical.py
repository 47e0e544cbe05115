"""Tests for canonical bytes and fingerprints: equal for equal requests, and for no others."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from itertools import combinations
from random import Random
from typing import Any

import msgspec
import pytest

from actors.errors import Permanent
from actors.ledger.canonical import NoData, canonical
from actors.ledger.fingerprint import differing_fields, fingerprint, request_fields
from actors.money import Micros
from actors.providers import Requirement


class Colour(Enum):
    RED = "red"


class Inner(msgspec.Struct):
    text: str
    more: dict[str, Any] = {}


class Outer(msgspec.Struct):
    inner: Inner
    seed: int | None = None


class Elsewhere(msgspec.Struct):
    inner: Inner
    seed: int | None = None


@dataclass
class Point:
    x: float
    y: float


ALL_DIFFERENT = [
    *(None, True, False, 0, 1, 1.0, 0.0, -0.0, -1, 2**64, 2**70, -(2**70), math.nan, math.inf, 1e-300),
    *("", "1", "ä", "\ud800", b"", b"1", b"\xe4", "None", Decimal(1), Decimal("1.0"), Colour.RED, "red", "RED"),
    *([], [1], [1, 2], [2, 1], [[1], 2], [[1, 2]], {}, {"a": 1}, {"a": 1.0}, {"a": True}, {"a": None}, {"b": 1}),
    *({1: "a"}, {"1": "a"}, {True: "a"}, set(), {1, 2}, {"a": {"b": 1}}, {"a": [{"b": 1}]}, ["a", 1], [["a", 1]]),
    *(Outer(Inner("x")), Outer(Inner("x"), seed=0), Outer(Inner("x", {"a": 1})), Elsewhere(Inner("x")), Inner("x")),
    *(Point(1, 2), Point(1.0, 2), Point(2, 1), {"x": 1, "y": 2}),
]


def test_what_differs_has_other_bytes():
    for one, other in combinations(ALL_DIFFERENT, 2):
        assert canonical(one) != canonical(other), (one, other)


def test_what_is_equal_has_the_same_bytes():
    equal = [
        ({"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"d": 3, "c": 2}, "a": 1}),
        ([1, (2, 3)], (1, [2, 3])),
        ({3, 1, 2}, frozenset({2, 3, 1})),
        (Outer(Inner("x"), seed=None), Outer(Inner("x"))),
        (b"ab", bytearray(b"ab")),
        (b"ab", memoryview(b"ab")),
        (Micros(5), 5),
        (math.nan, float("nan")),
    ]
    for one, other in equal:
        assert canonical(one) == canonical(other), (one, other)


def test_the_order_of_a_mapping_never_counts():
    rng = Random(1)
    for _ in range(200):
        pairs = [(rng.choice([rng.random(), str(rng.random()), rng.randrange(9)]), rng.random()) for _ in range(9)]
        entries = dict(pairs)
        shuffled = list(entries.items())
        rng.shuffle(shuffled)
        assert canonical({"deep": entries}) == canonical({"deep": dict(shuffled)})


def test_what_is_no_data_is_refused_and_so_is_what_contains_itself():
    endless: list[Any] = []
    endless.append(endless)
    for odd in (len, object(), lambda: None, Outer, (one for one in [])):
        with pytest.raises(NoData):
            canonical({"a": [odd]})
    with pytest.raises(ValueError, match="contains itself"):
        canonical(endless)
    for odd in (len, endless):
        with pytest.raises(Permanent, match="idempotency key"):
            request_fields("s", odd, Requirement())


def differing(one: Any, other: Any, **changes: Any) -> tuple[str, ...]:
    given = {"service": "s", "requirement": Requirement()}
    first = request_fields(**given, content=one)
    second = request_fields(**given | changes, content=other)
    return differing_fields(second, fingerprint(first, secret=b"x"), secret=b"x")


def test_the_fields_that_differ_are_named():
    chat = {"messages": ["hi"], "n": 1, "seed": 7}
    assert differing(chat, dict(reversed(chat.items()))) == ()
    assert differing(chat, chat | {"n": 2, "messages": []}) == ("input.messages", "input.n")
    assert differing(chat, chat | {"tools": []}) == ("input.tools",)
    assert differing(chat, {"messages": ["hi"], "n": 1}) == ("input",)
    assert differing("a", "b") == differing("a", b"a") == differing(["a"], {"a": 1})[:1] == ("input",)
    assert differing("a", "a", service="t", requirement=Requirement(input_tokens=5)) == ("service", "requirement")
    assert differing(Outer(Inner("x")), Outer(Inner("y"), seed=1)) == ("input.inner", "input.seed")
    assert differing(Outer(Inner("x")), Elsewhere(Inner("x"))) == ("input",)
    assert differing({}, Outer(Inner("x"))) == ("input", "input.inner")
    assert differing({str(one): one for one in range(99)}, {str(one): one for one in range(98)}) == ("input",)


def test_a_fingerprint_tells_nothing_without_the_secret():
    fields = request_fields("s", {"messages": ["hi"]}, Requirement())
    one, other = fingerprint(fields, secret=b"x" * 32), fingerprint(fields, secret=b"y" * 32)
    assert one != other
    assert b"messages" not in one
    assert len(one) == 12 * len(fields)
