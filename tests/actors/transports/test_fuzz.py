"""Whatever a provider sends, a call ends in an outcome that has a type, a charge and no secret."""

from __future__ import annotations

import asyncio
import json
import random
from itertools import islice
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from actors.errors.families import CallFailed
from actors.model_calls import ModelRequest, preset_named
from actors.tariffs import Tariff
from actors.tariffs.usage import Usage
from actors.transports.http import HttpTransport
from actors.transports.model_transport import ModelTransport
from actors.transports.transport import ProviderReply
from tests.actors.transports.mangled import MangledAnswer, answer_of
from tests.actors.transports.speakers import SECRET, Pieces, call_of, chat_of
from tests.proofs import repeated

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from actors.transports.wire import WireProgress, WireRequest

CALLS = repeated(100_000, part=100)
"""For each transport; a hundredth of them outside a night."""
OVER_SOCKETS = repeated(300)
TARIFF = Tariff(input="1.1", output="4.4", cache_read="0.11", reasoning="4.4")
REQUESTS = {
    "chat": chat_of("m"),
    "responses": ModelRequest(form="responses", body={"input": "Hello"}),
    "messages": ModelRequest(form="messages", body={**chat_of("m"), "max_tokens": 20}),
    "embeddings": ModelRequest(form="embeddings", body={"input": "Hello"}),
}
WAYS = {
    "chat": ("openai", "chat", "chat"),
    "chat that is asked": ("openrouter", "chat", "chat"),
    "chat that runs on": ("mistral", "chat", "chat"),
    "responses": ("openai", "responses", "responses"),
    "messages": ("anthropic", "messages", "messages"),
    "embeddings": ("openai", "embeddings", "embeddings"),
    "messages as chat": ("groq", "messages", "chat"),
    "chat as messages": ("anthropic", "chat", "messages"),
    "responses as chat": ("together", "responses", "chat"),
}
"""For each name the preset, the form that is asked, and the form that the provider speaks."""


class MemoryWire:
    """Gives the answers that are put in it, without a socket."""

    ends_when_cancelled = True

    def __init__(self) -> None:
        self.answer = MangledAnswer(200, {}, [], breaks=False)

    async def send(self, request: WireRequest, progress: WireProgress) -> MemoryWire:
        progress.sending()
        return self

    @property
    def status(self) -> int:
        return self.answer.status

    @property
    def headers(self) -> dict[str, str]:
        return self.answer.headers

    async def chunks(self, *, gap: float | None = None) -> AsyncIterator[bytes]:
        for part in self.answer.parts:
            yield part
        if self.answer.breaks:
            raise ConnectionResetError("the connection broke")

    def close(self) -> None:
        pass

    async def aclose(self) -> None:
        pass


def model_at(preset: str, url: str = "http://127.0.0.1:9/v1", **options: Any) -> ModelTransport:
    return ModelTransport(
        "alder",
        "m",
        preset=preset_named(preset),
        base_url=url,
        api_key=SECRET,
        paid=True,
        max_output=20,
        max_reply_bytes=100_000,
        **options,
    )


async def outcome_of(transport: Any, given: Any, *, streams: bool) -> tuple[str, list[Any]]:
    """Make a call, and return what it came to; whatever else it ends in fails the test."""
    consumer = Pieces() if streams else None
    try:
        reply = await transport.call(call_of(given, stream=consumer, timeout=30.0))
    except CallFailed as failure:
        check_failure(failure)
        return repr(failure), consumer.taken if consumer else []
    check_reply(reply)
    return repr(reply), consumer.taken if consumer else []


def check_reply(reply: object) -> None:
    assert type(reply) is ProviderReply
    assert reply.usage is None or (type(reply.usage) is Usage and TARIFF.cost(reply.usage) >= 0)
    assert reply.cost is None or reply.cost >= 0
    msgspec.json.encode(reply.output)


def check_failure(failure: CallFailed) -> None:
    text = f"{failure}{failure!r}{failure.said}"
    assert failure.provider == "alder"
    assert failure.charged in {"no", "yes", "held"}
    assert failure.outcome in {"not_started", "done", "unknown"}
    assert failure.retry_after is None or failure.retry_after >= 0
    assert SECRET not in text
    assert len(text) < 5_000
    text.encode()
    if failure.answer is not None:
        check_reply(failure.answer)


@pytest.mark.parametrize("way", WAYS)
async def test_any_answer_of_a_model_ends_in_a_typed_outcome(way: str):
    preset, asked, spoken = WAYS[way]
    wire = MemoryWire()
    transport = model_at(preset, wire=wire)
    seen: set[str] = set()
    for seed in range(CALLS):
        chance = random.Random(f"{way} {seed}")
        streams = asked != "embeddings" and chance.random() < 0.7
        wire.answer = answer_of(spoken, chance, streams=streams)
        try:
            told, pieces = await outcome_of(transport, REQUESTS[asked], streams=streams)
            if streams and seed % 10 == 0:
                whole = b"".join(wire.answer.parts)
                wire.answer = wire.answer._replace(parts=[whole] if whole else [])
                # However its bytes come, a stream says the same: the end of a body that breaks off aside.
                again, same = await outcome_of(transport, REQUESTS[asked], streams=streams)
                assert (told.partition("(")[0], pieces) == (again.partition("(")[0], same)
        except Exception as error:
            error.add_note(f"seed {seed} of {way}, {'stream' if streams else 'plain'}: {wire.answer!r:.3000}")
            raise
        seen.add(told.partition("(")[0])
    assert {"ProviderReply", "Throttled", "Permanent"} <= seen
    await transport.aclose()


async def test_any_answer_of_our_own_protocol_ends_in_a_typed_outcome():
    wire = MemoryWire()
    transport = HttpTransport(
        "alder",
        "http://127.0.0.1:9/v1/work",
        paid=True,
        idempotent="no",
        headers={"Authorization": f"Bearer {SECRET}"},
        max_reply_bytes=100_000,
        wire=wire,
    )
    for seed in range(CALLS):
        chance = random.Random(f"http {seed}")
        wire.answer = answer_of("http", chance, streams=False)
        try:
            await outcome_of(transport, "Hello", streams=False)
        except Exception as error:
            error.add_note(f"seed {seed}: {wire.answer!r:.3000}")
            raise
    await transport.aclose()


async def serve_mangled(
    answers: list[MangledAnswer], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Answer the requests of one connection; an answer that breaks ends it in the middle of its body."""
    while head := await reader.readuntil(b"\r\n\r\n"):
        size = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(size)
        status, headers, parts, breaks = answers.pop(0)
        lines = [f"{name}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join([f"HTTP/1.1 {status} X", "Transfer-Encoding: chunked", *lines, "", ""]).encode())
        for part in islice(parts, 50):
            writer.write(b"%x\r\n%b\r\n" % (len(part), part))
            await asyncio.sleep(0)
        if breaks:
            break
        writer.write(b"0\r\n\r\n")
    writer.close()


@pytest.mark.real_time
@pytest.mark.parametrize("way", WAYS)
async def test_any_answer_over_a_socket_ends_in_a_typed_outcome(way: str):
    preset, asked, spoken = WAYS[way]
    answers: list[MangledAnswer] = []
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await serve_mangled(answers, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    transport = model_at(preset, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1")
    for seed in range(OVER_SOCKETS):
        chance = random.Random(f"socket {way} {seed}")
        streams = asked != "embeddings" and chance.random() < 0.7
        answers[:] = [answer_of(spoken, chance, streams=streams)]
        await outcome_of(transport, REQUESTS[asked], streams=streams)
    await transport.aclose()
    server.close()
    await asyncio.gather(*tasks)


def test_what_is_drawn_is_the_same_for_a_seed():
    drawn = [json.dumps([str(one) for one in answer_of("chat", random.Random(7), streams=True)]) for _ in range(2)]
    assert drawn[0] == drawn[1]
