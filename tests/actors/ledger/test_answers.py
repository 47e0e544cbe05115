"""Tests for answers as bytes: what is read back is what was given, of the same types, or nothing is kept."""

from __future__ import annotations

import datetime as dt
import uuid
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import Any

import msgspec
import pytest

from actors.errors import AllProvidersFailed, Attempt, BadAnswer, CallFailed, Permanent
from actors.ledger.answers import decode, encode
from actors.money import Micros
from actors.transports import ProviderReply


class Colour(Enum):
    RED = "red"


class Parsed(msgspec.Struct, frozen=True):
    text: str
    parts: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Point:
    x: float


VALUES: list[Any] = [
    *(None, True, 1, -1, 2**70, 1.5, "ä", b"\xff", [], {}, [1, [2, (3,)]], {"a": {"b": [None]}}, {1: 2, (1,): "x"}),
    *((1, 2), set(), {1, "a"}, frozenset({1}), Decimal("1.50"), uuid.UUID(int=7), Colour.RED, Micros(5)),
    *(dt.datetime(2026, 1, 2, 3, tzinfo=dt.UTC), dt.date(2026, 1, 2), dt.time(3, 4)),
    *(Parsed("x", (1, {"a": Parsed("y")})), Point(1.5), ProviderReply(output={"a": 1}, cost="0.02")),
]


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_a_value_comes_back_as_it_was(value: Any):
    back = decode(encode(value))
    assert back == value
    assert type(back) is type(value)


def test_an_error_comes_back_with_all_that_it_says():
    attempt = Attempt(provider="a", error="no", kind="BadAnswer", started=1.0, latency=2.0, cost=Micros(5))
    errors: list[CallFailed] = [
        BadAnswer("it is empty", reason="empty", provider="a"),
        AllProvidersFailed("s", attempts=[attempt], refused=[Permanent("no", provider="b", said="never")]),
    ]
    for error in errors:
        back = decode(encode(error))
        assert type(back) is type(error)
        assert (str(back), back.charged, back.provider) == (str(error), error.charged, error.provider)
    assert decode(encode(errors[1])).attempts == (attempt,)


def test_what_could_not_be_read_back_is_not_kept():
    class Local(msgspec.Struct):
        x: int

    endless: list[Any] = []
    endless.append(endless)
    for odd in (len, object(), Local(1), endless, "\ud800", {"a": [lambda: None]}):
        with pytest.raises(TypeError):
            encode(odd)


def test_a_type_that_this_program_does_not_know_is_no_answer():
    content = encode(Parsed("x")).replace(b"Parsed", b"Parsee")
    with pytest.raises(TypeError, match="Parsee"):
        decode(content)
    with pytest.raises(TypeError):
        decode(b"\xc1")
