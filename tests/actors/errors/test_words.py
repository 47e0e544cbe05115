"""The provider's own words: found in the bodies of errors, safe to show, and in every error that tells of the call."""

from __future__ import annotations

import copy
import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.errors import (
    AllProvidersFailed,
    Attempt,
    ConnectionFailed,
    Permanent,
    Throttled,
    error_in_body,
)
from actors.errors.words import MAX_SAID, own_words, with_words
from actors.masking import Secrets

TOO_LONG = "maximum context length is 100 tokens"


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": TOO_LONG, "type": "invalid_request_error", "code": None}},
        {"type": "error", "error": {"type": "invalid_request_error", "message": TOO_LONG}},
        {"error": TOO_LONG},
        {"message": TOO_LONG},
        {"Message": TOO_LONG, "__type": "ValidationException"},
        {"detail": TOO_LONG},
        {"detail": [{"loc": ["body", "input"], "msg": TOO_LONG, "type": "value_error"}]},
        {"errors": [{"message": TOO_LONG}]},
        {"errors": [TOO_LONG]},
        [{"error": {"code": 400, "message": TOO_LONG, "status": "INVALID_ARGUMENT"}}],
        {"type": "about:blank", "title": TOO_LONG, "status": 400},
        {"error": "", "message": TOO_LONG},
        {"error": {"message": ""}, "detail": TOO_LONG},
        TOO_LONG,
    ],
)
def test_the_message_is_found_in_the_forms_that_providers_use(body):
    assert own_words(body) == TOO_LONG
    assert own_words(json.dumps(body)) == TOO_LONG
    assert own_words(b"\xef\xbb\xbf" + json.dumps(body, indent=2).encode()) == TOO_LONG


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", ""),
        (b"  \n ", ""),
        (None, ""),
        ({}, "{}"),
        ({"code": 7}, '{"code":7}'),
        (b'{"code": 7}', '{"code": 7}'),
        (b"upstream connect error", "upstream connect error"),
        (b"<html>\r\n<b>502</b>", r"<html>\r\n<b>502</b>"),
        (b"\xff\xfe", "\N{REPLACEMENT CHARACTER}" * 2),
        ("a \ud800 b \x1b[31m \u202e evil \x00", r"a \ud800 b \x1b[31m \u202e evil \x00"),
        (ValueError("said by a client"), "said by a client"),
    ],
)
def test_a_body_without_a_message_is_quoted_as_text(body, words):
    assert own_words(body) == words


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("it does not tell")


def nested(depth: int) -> object:
    value: object = "deep"
    for _ in range(depth):
        value = {"x": [value]}
    return value


@pytest.mark.parametrize(
    "source",
    [
        b'{"error":' * 500_000,
        b"[" * 4_000_000,
        b'{"error": {"message": "' + b"x" * 4_000_000 + b'"}}',
        {"error": {"message": "\x00" * 4_000_000}},
        {"x": "y" * 4_000_000},
        {"x": {1, 2}},
        nested(10_000),
        b"\xff" * 4_000_000,
        "\ud800" * 4_000_000,
        {"\ud800": "\ud800"},
        {"message": {"message": {"message": {"message": {"message": "far below"}}}}},
        Mute(),
        object(),
        float("nan"),
    ],
    ids=range(14),
)
def test_no_body_is_too_much(source):
    words = own_words(source, secrets=Secrets(["a-secret-key"]))
    assert len(words) <= MAX_SAID
    assert words.isprintable()


@given(
    st.binary() | st.text() | st.recursive(st.text() | st.none(), lambda x: st.lists(x) | st.dictionaries(st.text(), x))
)
def test_words_are_one_short_printable_line(source):
    words = own_words(source)
    assert len(words) <= MAX_SAID
    assert words.isprintable()


def test_secrets_are_masked_before_words_are_cut():
    for before in range(MAX_SAID - 40, MAX_SAID + 5):
        words = own_words({"message": "x" * before + "a-secret-key" + "z" * 600}, secrets=Secrets(["a-secret-key"]))
        assert "a-s" not in words
        assert len(words) == MAX_SAID


def test_an_error_ends_with_the_words_once():
    error = Permanent("'acme' answered 400 Bad Request", provider="acme", status=400)
    assert with_words(error, {"error": {"message": TOO_LONG}}) is error
    assert error.said == TOO_LONG
    assert str(error) == f"'acme' answered 400 Bad Request: {TOO_LONG}"
    assert repr(error) == f"Permanent({str(error)!r})"
    for twin in (copy.copy(error), pickle.loads(pickle.dumps(error))):  # noqa: S301 - it was pickled above.
        assert (str(twin), twin.said) == (str(error), TOO_LONG)
    assert str(with_words(error, {"error": {"message": "400 Bad Request"}})) == "'acme' answered 400 Bad Request"
    assert str(Throttled("wait", said="a while")) == "wait: a while"


def test_what_else_an_error_quotes_is_masked_too():
    error = ConnectionFailed("acme", "no host\nnamed a-secret-key")
    with_words(error, "", secrets=Secrets(["a-secret-key"]))
    assert str(error) == r"no connection to 'acme': no host\nnamed ***"
    assert error.reason == r"no host\nnamed ***"


def test_the_error_of_a_whole_request_has_the_words_of_each_attempt():
    attempts = [
        Attempt(provider=name, error=f"{name!r} failed: {said}", kind="Transient", started=0, latency=1, said=said)
        for name, said in (("alder", "no disk"), ("birch", "no mind"), ("cedar", ""))
    ]
    error = AllProvidersFailed("uppercase", attempts=attempts)
    assert error.said == "no mind"
    assert str(error).count("no disk") == str(error).count("no mind") == 1


def test_an_error_inside_a_success_has_its_words():
    error = error_in_body({"error": {"code": 400, "message": f"{TOO_LONG}, a-key-of-ours"}}, provider="acme")
    assert (
        str(error)
        == f"'acme' answered 400 Bad Request: too long for the window of its model: {TOO_LONG}, a-key-of-ours"
    )
    for body in ({"error": {"message": "overload\x1b[2J"}}, {"error": "overload\x1b[2J"}):
        error = error_in_body(body, provider="acme")
        assert str(error) == r"'acme' answered with an error: overload\x1b[2J"


@pytest.mark.parametrize(
    "body", ["\ud800", '{"error": "\ud800"}', {"error": "\ud800"}, {"error": {"message": "\ud800"}}]
)
def test_a_lone_surrogate_is_no_bug(body):
    error = error_in_body(body, provider="acme")
    assert error is None or error.said == r"\ud800"
