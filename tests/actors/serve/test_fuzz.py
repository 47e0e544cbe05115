"""Hostile requests at the door: whatever comes, a typed error in the client's form, and nothing that stays behind."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

from actors import GetStatus
from actors.fake import FakeModel
from actors.ledger.messages import GetStatement
from actors.serve import DoorConfig
from actors.serve.app import DoorApp
from tests.actors.serve.doors import HELLO, serving

COUNT = 1_000
CONFIG = DoorConfig(max_body=20_000, max_bodies=60_000, body_timeout=5.0, patience=5.0, linger=1.0, timeout=20.0)
PATHS = (
    "/v1/chat/completions",
    "/v1/responses",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1/embeddings",
    "/v1/services/chat",
    "/v1/services/",
    "/v1/services/a/../b%00",
    "/v1/models",
    "/v1//chat/completions",
    "/v1/chat/completions/",
    "/\ud800",
    "/healthz",
    "/" + "x" * 5_000,
)
DEEP = json.loads("[" * 90 + "]" * 90)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**70, -(2**70), 1e308, 0.5, "", "x", "\ud800", "\x00", "x" * 3_000, "é" * 500),
    *([], {}, [None], [[]], [{}], {"": {}}, {"a": DEEP}, [1, "a", None], ["x"] * 500, {"role": "user"}, DEEP),
    *({"type": "text"}, {"type": "image_url", "image_url": 3}, {"role": 3, "content": {"a": 1}}, [{"role": "tool"}]),
)
FIELDS = (
    *("model", "messages", "input", "stream", "stream_options", "max_tokens", "max_output_tokens", "tools", "n"),
    *("max_completion_tokens", "system", "instructions", "tool_choice", "response_format", "metadata", "dimensions"),
    *("previous_response_id", "background", "prompt", "prompt_cache_key", "encoding_format", "temperature", "user"),
)
RAW = (
    *(b"", b"{", b"null", b"[]", b"3", b'"x"', b"\xff\xfe", b'{"model": NaN}', b'{"a":1,}', b"{}{}", b"\x00" * 100),
    *(b'{"model":"\xc3\x28"}', b"[" * 5_000, b'{"a":' * 200 + b"1" + b"}" * 200, b'{"model": 1e999}', b"x" * 25_000),
    b'{"model":"auto","model":"auto","messages":[]}',
)
HEADERS = (
    *("authorization", "x-api-key", "content-type", "content-length", "idempotency-key", "x-understudy-timeout"),
    *("x-stainless-retry-count", "x-stainless-timeout", "x-stainless-read-timeout", "anthropic-version", "origin"),
    *(
        "anthropic-beta",
        "openai-beta",
        "host",
        "transfer-encoding",
        "x-understudy-priority",
        "cookie",
        "x-forwarded-for",
    ),
)
HEADER_VALUES = (
    *(
        b"",
        b" ",
        b"0",
        b"-1",
        b"1",
        b"2",
        b"nan",
        b"inf",
        b"1e400",
        b"9" * 5_000,
        b"\xff\xfe",
        b"Bearer ",
        b"Bearer x y",
    ),
    *(
        b"application/json",
        b"application/json; charset=\xff",
        b"text/plain",
        b"127.0.0.1",
        b"evil.example",
        b"[::1",
        b"x" * 9_000,
    ),
)


class Client:
    """One client: sends a body in parts, may leave or take no bytes, and keeps what it was told."""

    def __init__(self, rng: random.Random) -> None:
        self.path = rng.choice(PATHS[:6] if rng.random() < 0.8 else PATHS)
        self.method = "POST" if rng.random() < 0.9 else rng.choice(("GET", "HEAD", "PUT", "OPTIONS", "X" * 300))
        self.headers = {"host": b"127.0.0.1", "content-type": b"application/json"}
        for _ in range(rng.choice((0, 0, 1, 3))):
            self.headers[rng.choice(HEADERS)] = rng.choice(HEADER_VALUES)
        body = body_of(rng, self.path)
        cuts = sorted(rng.randrange(len(body) + 1) for _ in range(rng.choice((0, 0, 2))))
        self.parts = [body[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]
        self.pause = rng.choice((0.0, 0.0, 0.0, 1.0, 4.0))
        self.breaks_off = rng.random() < 0.1
        self.stays = rng.choice((1e9, 1e9, 1e9, 0.05, 0.5, 3.0))
        self.takes = rng.choice((1e9, 1e9, 1e9, 0, 1, 3))
        self.status, self.told, self.is_whole = 0, b"", False

    async def receive(self) -> dict[str, Any]:
        if self.parts:
            await asyncio.sleep(self.pause)
            part = self.parts.pop(0)
            if self.breaks_off and not self.parts:
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": part, "more_body": bool(self.parts)}
        await asyncio.sleep(self.stays)
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        if not self.takes:
            await asyncio.sleep(1e6)
        self.takes -= 1
        if message["type"] == "http.response.start":
            assert not self.status, "two statuses"
            self.status = message["status"]
            for name, value in message["headers"]:
                assert isinstance(name, bytes)
                assert not set(b"\r\n\x00") & set(value), (name, value)
        else:
            assert self.status, "a body before its status"
            assert not self.is_whole, "more than the whole answer"
            self.told += message.get("body", b"")
            self.is_whole = not message.get("more_body", False)

    def scope(self) -> dict[str, Any]:
        headers = [(name.encode(), value) for name, value in self.headers.items()]
        return {
            "type": "http",
            "method": self.method,
            "path": self.path,
            "headers": headers,
            "client": ("127.0.0.1", 1),
        }

    def check(self) -> None:
        """Check that what was told is an answer, or an error in the form of the path; nothing if it has left."""
        if not self.is_whole:
            assert self.breaks_off or self.stays < 1e9 or self.takes <= 0, self.__dict__
            return
        assert self.status != 500, self.__dict__
        if self.status == 200 and b"event" in self.told[:200] + self.told[-2_000:]:
            return
        if self.status == 200:
            assert self.told
            return
        error = json.loads(self.told)
        if "messages" in self.path and self.path in PATHS and self.method == "POST":
            assert error["type"] == "error"
            assert error["error"].keys() >= {"type", "message"}
        else:
            assert error["error"].keys() >= {"message", "type", "param", "code"}
        assert error["error"]["message"]


def body_of(rng: random.Random, path: str) -> bytes:
    if rng.random() < 0.25:
        return rng.choice(RAW)
    said = {"input": "Hello"} if "responses" in path or "embed" in path else {"messages": HELLO}
    body = {"model": "auto", "max_tokens": 5, **said, "stream": rng.random() < 0.5}
    for _ in range(rng.choice((0, 1, 1, 2, 4))):
        field, value = rng.choice(FIELDS), rng.choice(VALUES)
        if rng.random() < 0.3:
            value = [value] if rng.random() < 0.5 else [{"role": "user", "content": value}]
        body[field] = value
    text = json.dumps(body).encode()
    if rng.random() < 0.1:
        at = rng.randrange(len(text))
        text = text[:at] + bytes([rng.randrange(256)]) + text[at + 1 :]
    return text


async def test_whatever_comes_is_told_what_is_wrong_and_nothing_stays_behind():
    rng = random.Random(7)
    async with serving(FakeModel(name="swift", output_tokens=5.0), config=CONFIG) as stage:
        app, before = DoorApp(stage.door), asyncio.all_tasks()
        for _ in range(COUNT // 20):
            clients = [Client(rng) for _ in range(20)]
            async with asyncio.TaskGroup() as group:
                for client in clients:
                    group.create_task(app(client.scope(), client.receive, client.send))
            for client in clients:
                client.check()
        await asyncio.sleep(60.0)
        assert asyncio.all_tasks() == before
        assert (stage.door.under_way, stage.door.room.held) == (0, 0)
        assert all(status.under_way == 0 for status in await stage.supervisor.ask(GetStatus(), timeout=5.0))
        statement = await stage.ledger.ask(GetStatement(), timeout=5.0)
        assert statement.reserved == 0
