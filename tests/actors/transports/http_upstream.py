"""A server on loopback that follows a script, and calls to make to it."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from actors.errors.families import CallFailed
from actors.transports.transport import ProviderCall
from tests.real_time import FAR

if TYPE_CHECKING:
    from actors.transports.http import HttpTransport


def answer(status: int = 200, body: Any = None, **headers: str) -> bytes:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(raw)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + raw


class Upstream:
    """Answers each request with the next entry of `script`: bytes are sent, HANG and CLOSE are done."""

    HANG = b"<hang>"
    CLOSE = b"<close>"

    def __init__(self) -> None:
        self.script: list[bytes] = []
        self.requests: list[tuple[str, dict[str, str], Any]] = []
        self.connections = 0
        self.closed_by_client = asyncio.Event()
        self.request_came = asyncio.Event()
        self.port = 0
        self.writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1/work"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while await self._serve_one(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            self.closed_by_client.set()
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        self.requests.append((first, headers, json.loads(body) if body else None))
        self.request_came.set()
        step = self.script.pop(0)
        if step.endswith(self.CLOSE):
            writer.write(step.removesuffix(self.CLOSE))
            return False
        if step.endswith(self.HANG):
            writer.write(step.removesuffix(self.HANG))
            await reader.readexactly(1)  # Nothing more is sent; the client hanging up ends this.
        writer.write(step)
        await writer.drain()
        return True

    async def has_had(self, requests: int) -> None:
        while len(self.requests) < requests:
            self.request_came.clear()
            await self.request_came.wait()

    async def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def a_call(**changes: Any) -> ProviderCall:
    fields = {
        "service": "uppercase",
        "input": {"text": "hello"},
        "request_id": "request-1",
        "idempotency_key": "key-1",
        "max_cost": "0.002",
        "timeout": FAR,
    }
    return ProviderCall(**(fields | changes))


async def failure(transport: HttpTransport, **changes: Any) -> CallFailed:
    with pytest.raises(CallFailed) as caught:
        await transport.call(a_call(**changes))
    assert caught.value.provider == "alder"
    return caught.value
