"""JSON decoded in slices is what it is when it is decoded at once, and what is malformed stays malformed."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from actors.transports.sliced_json import SlicedDecoder

TEXTS = st.sampled_from(["", "a", "b", ",", "[]{}", 'say "so"', "back\\", '\\",', "é\n", "x" * 40])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(TEXTS, inner, max_size=6),
    max_leaves=40,
)
SIZES = st.integers(2, 60)


def sliced(text: bytes, size: int) -> Any:
    decoder = SlicedDecoder(text, size=size)
    for _ in decoder.steps():
        pass
    return decoder.value


def outcome(decode: Any, *arguments: Any) -> str | None:
    """Return what was decoded, with the order of the keys; None if it is malformed."""
    try:
        return json.dumps(decode(*arguments))
    except (ValueError, RecursionError):
        return None


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(VALUES, SIZES, st.sampled_from([None, 1]))
def test_slices_make_the_same_value(value, size, indent):
    text = json.dumps(value, indent=indent, ensure_ascii=False).encode()
    assert json.dumps(sliced(text, size)) == json.dumps(msgspec.json.decode(text))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(VALUES, SIZES, st.lists(st.tuples(st.integers(0, 300), st.sampled_from(list(b'[]{},:"\\ 1a')), st.booleans())))
def test_what_is_malformed_is_malformed_in_slices_too(value, size, changes):
    text = bytearray(json.dumps(value, ensure_ascii=False).encode())
    for place, byte, inserted in changes:
        at = place % (len(text) + 1)
        text[at : at + (not inserted)] = bytes([byte])
    assert outcome(sliced, bytes(text), size) == outcome(msgspec.json.decode, bytes(text))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.sampled_from("abc"), VALUES), max_size=8), SIZES)
@example([("a", [1, 2, 3]), ("b", [4, 5, 6]), ("a", [7, 8, 9, 10, 11])], 8)
def test_of_a_repeated_key_the_last_value_counts(members, size):
    text = "{" + ", ".join(f'"{name}": {json.dumps(value)}' for name, value in members) + "}"
    assert json.dumps(sliced(text.encode(), size)) == json.dumps(msgspec.json.decode(text))


@pytest.mark.parametrize(
    "text", [b"", b"[1,2", b"1,2", b"[1,]", b"[,1]", b'{"a":1,}', b"[1,,2]", b"[1}", b'["a', b'["\\', b"]"]
)
@pytest.mark.parametrize("size", [2, 3, 4, 100])
def test_malformed_text_is_refused(text, size):
    with pytest.raises(msgspec.DecodeError):
        sliced(text, size)


@pytest.mark.parametrize("size", [1_000, 1_000_000])
def test_what_is_nested_too_deep_is_refused(size):
    # How deep that is depends on the Python; it says so by the one error or the other.
    with pytest.raises((RecursionError, msgspec.DecodeError)):
        sliced(b"[" * 100_000 + b"]" * 100_000, size)


def test_each_step_handles_about_one_slice():
    text = json.dumps({"output": [{"text": "x" * 50, "n": n} for n in range(1_000)]}).encode()
    decoder = SlicedDecoder(text, size=1_000)
    sizes = [len(decoder.value["output"]) for _ in decoder.steps() if decoder.value is not msgspec.UNSET]
    assert len(sizes) > 60
    assert max(after - before for before, after in pairwise(sizes)) < 30


def test_a_long_string_takes_steps_in_which_nothing_is_decoded_yet():
    decoder = SlicedDecoder(json.dumps(["short", "\n" * 10_000]).encode(), size=1_000)
    assert len(list(decoder.steps())) > 15
    assert decoder.value == ["short", "\n" * 10_000]


def test_many_brackets_without_a_comma_are_refused_quickly():
    with pytest.raises(msgspec.DecodeError, match="too deep"):
        sliced(b"[" * 500_000 + b"]" * 500_000, 1_000)
