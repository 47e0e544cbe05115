"""The JSON of an HTTP transport: the body of a call is written, the body of an answer is read.

A large answer is read in slices, and `output` is plain data whatever its size. The alternative, an output that is
handed on undecoded if it is large, would give callers a type that depends on the size of an answer that they have paid
for; and the decoder has to go over that text as well, which takes a third of the time.
"""

from __future__ import annotations

import asyncio
import math
from typing import Any, cast
from weakref import WeakKeyDictionary

import msgspec

from actors.transports.sliced_json import SlicedDecoder

SLICED_ABOVE_BYTES = 262_144
"""A smaller answer is decoded at once, in at most 10 ms or so."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class CallBody(msgspec.Struct, frozen=True):
    """The body of a call."""

    service: str
    input: Any


class AnswerBody(msgspec.Struct, frozen=True):
    """The body of a 2xx answer. Whatever stands for its cost, the answer is read."""

    output: Any = msgspec.UNSET
    cost: Any = None
    error: Any = None


_ANSWER = msgspec.json.Decoder(AnswerBody)

_TURNS: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()
"""For each loop, whose turn it is to decode a slice: one slice at a time, however many answers there are."""


def encode_call(service: str, given: Any) -> bytes:
    """Return the body of a call. Raises TypeError, ValueError, OverflowError or RecursionError if it is not JSON.

    >>> encode_call("double", {"amount": 1.5})
    b'{"service":"double","input":{"amount":1.5}}'
    >>> encode_call("double", {"amount": math.nan})
    Traceback (most recent call last):
    ValueError: JSON has no nan; send null or leave the value out
    """
    return _checked_json(msgspec.json.encode(CallBody(service, given)), given)


def encode_json(given: Any) -> bytes:
    """Return `given` as JSON. Raises as `encode_call` does."""
    return _checked_json(msgspec.json.encode(given), given)


def _checked_json(body: bytes, given: Any) -> bytes:
    # The encoder writes NaN and infinity as null, so an input without a null has none.
    if b"null" in body:
        _refuse_not_finite(given)
    return body


async def decode_answer(body: bytes, *, deadline: float) -> AnswerBody:
    """Return the answer in `body`. Raises ValueError, such as `msgspec.DecodeError`, or RecursionError.

    A byte order mark is skipped. A body of more than 256 KB is decoded in slices, one slice of one answer at a time,
    between which other tasks run. After `deadline`, in the time of the loop, the rest is decoded at once: an answer
    that was received in time is not lost because of its size.
    """
    text = body.removeprefix(BYTE_ORDER_MARK)
    if len(text) <= SLICED_ABOVE_BYTES:
        return _ANSWER.decode(text)
    return msgspec.convert(await _decode_in_slices(text, deadline=deadline), AnswerBody)


async def decode_json(body: bytes, *, deadline: float) -> Any:
    """Return what JSON `body` is. Raises, and decodes a large one in slices, as `decode_answer` does."""
    text = body.removeprefix(BYTE_ORDER_MARK)
    if len(text) <= SLICED_ABOVE_BYTES:
        return msgspec.json.decode(text)
    return await _decode_in_slices(text, deadline=deadline)


async def _decode_in_slices(text: bytes, *, deadline: float) -> Any:
    loop = asyncio.get_running_loop()
    decoder = SlicedDecoder(text)
    steps = decoder.steps()
    turns = _TURNS.setdefault(loop, asyncio.Lock())
    while loop.time() < deadline:
        async with turns:
            if next(steps, steps) is steps:
                break
            await asyncio.sleep(0)
    for _ in steps:
        pass
    return decoder.value


def _refuse_not_finite(given: Any) -> None:
    # A list of what is left, and no recursion: an input may be nested as deep as the encoder allows.
    left: list[Any] = [msgspec.to_builtins(given, str_keys=True)]
    while left:
        value = left.pop()
        if isinstance(value, float):
            if not math.isfinite(value):
                raise ValueError(f"JSON has no {value}; send null or leave the value out")
        elif isinstance(value, dict):
            left.extend(cast("dict[str, Any]", value).values())
        elif isinstance(value, list | tuple):
            left.extend(cast("list[Any]", value))
