"""Bodies of requests: bounded in size, time and depth."""

from __future__ import annotations

import asyncio
import json

import pytest

from actors.serve import DoorConfig
from actors.serve.bodies import MAX_DEPTH, BodyRoom, ClientGone, decoded
from actors.serve.problems import Problem

SMALL = DoorConfig(max_body=1_000, max_bodies=2_500)


def sending(*parts: bytes, every: float = 0.0, leaves: bool = False):
    left = list(parts)

    async def receive():
        await asyncio.sleep(every)
        if not left:
            return {"type": "http.disconnect"}
        part = left.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(left) or leaves}

    return receive


async def test_a_body_in_parts_is_one_object():
    room = BodyRoom(SMALL)
    with room.reading() as reader:
        assert await reader.read(sending(b'{"a"', b": [1, 2]", b"}"), length=None) == {"a": [1, 2]}
        assert room.held == len(b'{"a": [1, 2]}')
    assert room.held == 0


@pytest.mark.parametrize("parts", [[b"x" * 1_001], [b"x" * 600] * 2])
@pytest.mark.parametrize("length", [None, "1001", "5", "-1", "x"])
async def test_a_body_that_is_too_large_is_refused(parts, length):
    room = BodyRoom(SMALL)
    with pytest.raises(Problem) as caught, room.reading() as reader:
        await reader.read(sending(*parts), length=length)
    assert (caught.value.status, room.held) == (413, 0)


async def test_all_bodies_together_have_a_bound():
    room = BodyRoom(SMALL)
    body = json.dumps({"a": "x" * 900}).encode()
    with room.reading() as first, room.reading() as second, room.reading() as third:
        await first.read(sending(body), length=None)
        await second.read(sending(body), length=None)
        with pytest.raises(Problem) as caught:
            await third.read(sending(body), length=str(len(body)))
        assert (caught.value.status, caught.value.should_retry) == (503, True)
    assert room.held == 0


async def test_a_body_that_does_not_come_is_not_waited_for():
    with pytest.raises(Problem) as caught, BodyRoom(SMALL).reading() as reader:
        await reader.read(sending(*[b" "] * 100, every=1.0), length=None)
    assert caught.value.status == 408
    with pytest.raises(ClientGone), BodyRoom(SMALL).reading() as reader:
        await reader.read(sending(b"{", leaves=True), length=None)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[1]",
        b"7",
        b"{",
        b"\xff\xfe",
        b'{"a": NaN}',
        b'{"a":' * 101 + b"1" + b"}" * 101,
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
async def test_what_is_no_object_or_too_deep_is_refused(text):
    with pytest.raises(Problem) as caught:
        await decoded(text)
    assert caught.value.status == 400


async def test_a_body_may_be_wide_and_as_deep_as_allowed():
    wide = {"a": [[1]] * 1_000}
    assert await decoded(json.dumps(wide).encode()) == wide
    deep = b'{"a":' * MAX_DEPTH + b"1" + b"}" * MAX_DEPTH
    assert await decoded(deep)
