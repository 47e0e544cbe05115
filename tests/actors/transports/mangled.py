"""Answers of providers when something goes wrong, drawn by a seed: bytes, events and values out of place."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.actors.model_calls.streams import REFUSALS, STREAMS, TOOLS

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random


ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1.5, -0.0, 1e308, 2**31, 2**63, 2**70, 10**40),
    *("", " ", "x", "null", "NaN", "\x00", "\ud800", "ü" * 300, "{", "[DONE]", "sk-secret-key-7351"),
    *([], [[]], [None], [{}], {}, {"": {}}, {"error": {}}, {"type": "error"}, [{"error": {"code": 429}}]),
)
"""What may stand where something else should."""
ERRORS: tuple[Any, ...] = (
    {"error": {"message": "slow down", "code": "rate_limit_exceeded", "type": "requests"}},
    {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
    {"object": "error", "message": "no capacity", "type": "rate_limited", "code": "1300"},
    [{"error": {"code": 503, "message": "no capacity", "status": "UNAVAILABLE"}}],
    {"error": "no"},
    {"detail": [{"msg": "field required", "loc": ["body"]}]},
)
STATUSES = (200,) * 12 + (201, 204, 206, 301, 400, 401, 402, 403, 404, 408, 409, 413, 422, 429, 500, 502, 503, 504, 529)
ODD_HEADERS: tuple[tuple[str, str], ...] = (
    *(("retry-after", one) for one in ("0", "-1", "1e9", "soon", "nan", "Wed, 21 Oct 2099 07:28:00 GMT")),
    ("retry-after-ms", "999999999999999999999"),
    ("x-ratelimit-limit-requests", "many"),
    ("x-ratelimit-remaining-tokens", "-5"),
    ("x-ratelimit-reset-requests", "1h90m"),
    ("anthropic-ratelimit-requests-reset", "yesterday"),
    ("ratelimit", '"default";r=50;t=30'),
    ("content-type", "text/html; charset=utf-16"),
    ("content-encoding", "gzip"),
    ("x-should-retry", "maybe"),
)
JUNK = (
    *(
        b": ping\n\n",
        b"data:\n\n",
        b"data: [DONE]\n\n",
        b"event: error\n",
        b"id: 7\nretry: 10\n",
        b"\n\n",
        b"\r",
        b"\r\n",
    ),
    *(b"data: {}\n\n", b"data: []\n\n", b"data: 7\n\n", b"data: {\n\n", b"\xef\xbb\xbf", b"\x00\xff\xfe", b"data"),
    *(b'data: {"error": {"message": "no", "code": 500}}\n\n', b'data: {"type": "error"}\n\n', b"<html>", b"[" * 2_000),
)


class MangledAnswer(NamedTuple):
    """An answer as it comes: in `parts`, with a connection that `breaks` after them or ends."""

    status: int
    headers: dict[str, str]
    parts: list[bytes]
    breaks: bool


def answer_of(form: str, chance: Random, *, streams: bool) -> MangledAnswer:
    """Draw an answer to a call: of its form most often, and more or less spoiled."""
    body = stream_of(form, chance) if streams and chance.random() < 0.9 else plain_body(form, chance)
    for spoil in chance.choices(SPOILS, k=chance.choice((0, 1, 1, 2, 4))):
        body = spoil(body, chance)
    headers = dict(chance.sample(ODD_HEADERS, k=chance.choice((0, 0, 1, 3))))
    return MangledAnswer(chance.choice(STATUSES), headers, parts_of(body, chance), chance.random() < 0.2)


def stream_of(form: str, chance: Random) -> bytes:
    events = list(chance.choice((STREAMS, TOOLS, REFUSALS))[form])
    for _ in range(chance.choice((0, 0, 1, 2, 5))):
        place = chance.randrange(len(events))
        match chance.randrange(6):
            case 0:
                del events[place]
            case 1:
                events.insert(place, events[chance.randrange(len(events))])
            case 2:
                events.insert(place, chance.choice(ERRORS))
            case 3:
                chance.shuffle(events)
            case _:
                events[place] = with_odd_value(events[place], chance)
        if not events:
            break
    end = chance.choice((b"\n\n", b"\r\n\r\n", b"\n\n", b"\r\r"))
    return b"".join(
        chance.choice((b"data: ", b"data:", b"event: message\ndata: ")) + as_json(one) + end for one in events
    )


def plain_body(form: str, chance: Random) -> bytes:
    if chance.random() < 0.15:
        return as_json(chance.choice(ERRORS))
    body: Any = chance.choice(BODIES[form])
    for _ in range(chance.choice((0, 1, 1, 2, 5))):
        body = with_odd_value(body, chance)
    return as_json(body)


def as_json(value: Any) -> bytes:
    return value.encode() if isinstance(value, str) and value == "[DONE]" else json.dumps(value).encode()


def with_odd_value(value: Any, chance: Random) -> Any:
    """Return a copy in which one value, at any depth, is another or missing."""
    if isinstance(value, dict) and value and chance.random() < 0.85:
        key = chance.choice(list(value))
        match chance.randrange(8):
            case 0:
                return {name: one for name, one in value.items() if name != key}
            case 1:
                return {**value, chance.choice(list(value)): value[key]}
            case _:
                return {**value, key: with_odd_value(value[key], chance)}
    if isinstance(value, list) and value and chance.random() < 0.85:
        place = chance.randrange(len(value))
        return [with_odd_value(one, chance) if at == place else one for at, one in enumerate(value)]
    return chance.choice(ODD_VALUES)


def cut(body: bytes, chance: Random) -> bytes:
    return body[: chance.randrange(len(body) + 1)]


def flipped(body: bytes, chance: Random) -> bytes:
    changed = bytearray(body)
    for _ in range(chance.choice((1, 1, 3, 20))):
        if changed:
            changed[chance.randrange(len(changed))] = chance.randrange(256)
    return bytes(changed)


def with_junk(body: bytes, chance: Random) -> bytes:
    place = chance.randrange(len(body) + 1)
    return body[:place] + chance.choice(JUNK) + body[place:]


def moved(body: bytes, chance: Random) -> bytes:
    low, high = sorted(chance.randrange(len(body) + 1) for _ in range(2))
    return chance.choice((body[:high] + body[low:], body[:low] + body[high:], body[low:high] + body))


SPOILS: tuple[Callable[[bytes, Random], bytes], ...] = (cut, flipped, with_junk, moved)


def parts_of(body: bytes, chance: Random) -> list[bytes]:
    """Return a body as it comes, in one part or in many; no part is empty."""
    step = chance.choice((1 << 20, 1 << 20, 200, 17, 1 if len(body) < 3_000 else 97))
    return [body[at : at + step] for at in range(0, len(body), step)]


USAGE = {
    "prompt_tokens": 12,
    "completion_tokens": 7,
    "total_tokens": 19,
    "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 3},
}
CALL = {"id": "t", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
BODIES: dict[str, tuple[Any, ...]] = {
    "http": ({"output": {"text": "Hi"}, "cost": "0.0015"}, {"output": "Hi", "cost": 0, "error": None}),
    "chat": (
        {
            "id": "c",
            "object": "chat.completion",
            "model": "m",
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"},
                {"index": 1, "message": {"role": "assistant", "content": "Ho"}, "finish_reason": "length"},
            ],
            "usage": {**USAGE, "cost": 0.000_12, "cost_in_usd_ticks": 37_756_000},
        },
        {
            "choices": [
                {
                    "message": {"content": None, "tool_calls": [CALL, CALL], "reasoning_content": "hm"},
                    "finish_reason": "tool_calls",
                }
            ],
            "usage": USAGE,
        },
    ),
    "responses": (
        {
            "id": "r",
            "object": "response",
            "status": "completed",
            "model": "m",
            "output": [
                {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hi"}]},
                {"type": "function_call", "call_id": "t", "name": "f", "arguments": '{"a":1}'},
            ],
            "usage": {"input_tokens": 12, "output_tokens": 7, "input_tokens_details": {"cached_tokens": 4}},
        },
    ),
    "messages": (
        {
            "id": "m",
            "type": "message",
            "role": "assistant",
            "model": "m",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s"},
                {"type": "text", "text": "Hi"},
                {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}},
            ],
            "stop_reason": "tool_use",
            "usage": {"input_tokens": 12, "output_tokens": 7, "cache_read_input_tokens": 4},
        },
    ),
    "embeddings": (
        {
            "object": "list",
            "data": [{"object": "embedding", "index": 0, "embedding": [0.1, 0.2]}],
            "model": "m",
            "usage": {"prompt_tokens": 3, "total_tokens": 3},
        },
    ),
}
