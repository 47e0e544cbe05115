"""Keys of tenants: what is kept of them, and whose are accepted."""

from __future__ import annotations

import stat

import msgspec
import pytest

from actors.serve import ApiKey, KeyRing, new_key
from actors.serve.exchange import contradictory
from actors.serve.key_file import add_key, read_keys
from actors.serve.problems import Problem
from actors.serve.visitors import check_json, check_local, check_once, shown_key


def test_a_key_is_kept_without_its_secret():
    shown, kept = new_key("acme")
    _, identity, secret = shown.split("-", 2)
    assert kept.id == identity
    assert secret not in repr(kept)
    assert len({new_key("acme")[0] for _ in range(100)}) == 100


def test_only_a_key_that_is_whole_and_alive_is_accepted():
    shown, kept = new_key("acme", expires=100.0)
    ring = KeyRing([kept])
    assert ring.find(shown, now=99.0) == kept
    wrong = [
        shown[:-1],
        shown + "x",
        shown.upper(),
        "",
        "usk",
        "usk--",
        f"usk-{kept.id}-",
        f"sk-{kept.id}-x",
        "\ud800",
        "-" * 9,
    ]
    for one in (*wrong, shown.replace("usk", "sk", 1)):
        assert ring.find(one, now=0.0) is None
    assert ring.find(shown, now=100.0) is None
    revoked = KeyRing([msgspec.structs.replace(kept, revoked=50.0)])
    assert (revoked.find(shown, now=49.0) is None, revoked.find(shown, now=50.0)) == (False, None)


def test_a_file_has_the_last_state_of_each_key(tmp_path):
    path = tmp_path / "keys.jsonl"
    (_, first), (_, second) = new_key("acme"), new_key("initech")
    for key in (first, second, msgspec.structs.replace(first, revoked=5.0)):
        add_key(path, key)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_keys(path) == [msgspec.structs.replace(first, revoked=5.0), second]
    path.write_bytes(path.read_bytes() + b'\n{"id": 7}\n')
    with pytest.raises(ValueError, match="line 5 is no key"):
        read_keys(path)


def test_a_request_shows_one_key():
    assert shown_key({"authorization": "bearer  usk-1-x "}) == "usk-1-x"
    assert shown_key({"authorization": "Basic dXNlcg=="}) is None
    assert shown_key({"authorization": "Bearer a", "x-api-key": "a"}) == "a"
    with pytest.raises(Problem) as caught:
        shown_key({"authorization": "Bearer a", "x-api-key": "b"})
    assert caught.value.status == 400
    with pytest.raises(Problem, match="two different keys"):
        shown_key({"authorization": "Basic dXNlcg==", "x-api-key": "usk-1-x"})


def test_a_header_that_decides_something_has_one_value():
    twice = [(b"x-api-key", b"a"), (b"x-api-key", b"b"), (b"accept", b"x"), (b"accept", b"y")]
    assert contradictory(twice) == ("x-api-key", "accept")
    check_once(contradictory(twice[2:]))
    check_once(contradictory([twice[0], twice[0]]))
    with pytest.raises(Problem, match="x-api-key has several values"):
        check_once(contradictory(twice))
    with pytest.raises(Problem):
        check_once(["x-understudy-priority"])


@pytest.mark.parametrize(
    ("headers", "is_let_in"),
    [
        ({"host": "127.0.0.1:8080"}, True),
        ({"host": "localhost"}, True),
        ({"host": "[::1]:80"}, True),
        ({"host": "rebound.example:8080"}, False),
        ({"host": "127.0.0.1.example"}, False),
        ({"host": "127.0.0.1@evil.example"}, False),
        ({"host": ""}, False),
        ({}, False),
        ({"host": "[", "x": ""}, False),
        ({"host": "127.0.0.1", "origin": "null"}, False),
        ({"host": "127.0.0.1", "origin": "http://127.0.0.1:3000"}, False),
        ({"host": "127.0.0.1", "origin": "http://mine.example"}, True),
    ],
)
def test_without_keys_only_this_machine_and_its_pages_are_let_in(headers, is_let_in):
    if is_let_in:
        check_local(headers, origins=("http://mine.example",))
        return
    with pytest.raises(Problem) as caught:
        check_local(headers, origins=("http://mine.example",))
    assert caught.value.status == 403


def test_a_body_is_declared_to_be_json():
    for kind in ("application/json", "Application/JSON; charset=utf-8", "application/problem+json"):
        check_json({"content-type": kind})
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
        with pytest.raises(Problem):
            check_json({"content-type": kind})


def test_a_key_of_nothing_but_its_fields():
    assert msgspec.json.decode(msgspec.json.encode(ApiKey(id="1", sha256="2", tenant="3"))) == {
        "id": "1",
        "sha256": "2",
        "tenant": "3",
    }
