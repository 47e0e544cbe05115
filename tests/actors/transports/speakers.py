"""Every transport that speaks to a fake server of models, with a request in the form that it speaks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx
import msgspec

from actors.fake import FakeConfig, FakeLimits, FakeModel, FakePrice
from actors.fake.config import ScriptedAnswer
from actors.model_calls import ModelRequest, preset_named
from actors.transports.aiohttp_wire import AiohttpWire
from actors.transports.function import FunctionTransport
from actors.transports.http import HttpTransport
from actors.transports.model_transport import ModelTransport
from actors.transports.streaming import CallStream, PieceChannel, StreamTerms
from actors.transports.transport import ProviderCall, ProviderReply
from tests.real_time import FAR

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from actors.fake import FakeServer
    from actors.transports.transport import Transport
    from actors.transports.wire import WireProgress, WireRequest, WireResponse

SECRET = "sk-secret-key-7351"  # noqa: S105 - no key of anything.
TEXT = "One answer of several words, some of them with ü and 語"
PRICE = FakePrice(input="1", output="5")
SPEED = 1e6
"""Tokens a second: nothing waits, and each token is an event of its own."""


class Speaker(NamedTuple):
    """A transport, the model that it asks for, what of, and whether it streams."""

    name: str
    model: str
    given: Any
    make: Callable[..., Transport]
    streams: bool = True

    def at(self, server: FakeServer, **options: Any) -> Transport:
        return self.make(f"{server.url}/v1", **options)


def of_preset(preset: str, model: str) -> Callable[..., Transport]:
    def make(url: str, *, key: str = SECRET, **options: Any) -> Transport:
        options = {"paid": True, "max_output": 20} | options
        return ModelTransport("alder", model, preset=preset_named(preset), base_url=url, api_key=key, **options)

    return make


class InputAloneWire:
    """Sends the input of a call as the body of a chat completion, and the completion back as the output.

    That way a transport of our own protocol speaks to a server of models, over a real connection.
    """

    ends_when_cancelled = True

    def __init__(self) -> None:
        self._wire = AiohttpWire()

    async def send(self, request: WireRequest, progress: WireProgress) -> WireResponse:
        if request.method == "POST":
            body = json.dumps(json.loads(request.body)["input"]).encode()
            request = msgspec.structs.replace(request, body=body)
        response = await self._wire.send(request, progress)
        return OutputAround(response) if request.method == "POST" and response.status == 200 else response

    async def aclose(self) -> None:
        await self._wire.aclose()


class OutputAround:
    """A response whose body is the output of an answer."""

    def __init__(self, response: WireResponse) -> None:
        self.response = response
        self.status, self.headers = response.status, response.headers

    async def chunks(self, *, gap: float | None = None) -> AsyncIterator[bytes]:
        yield b'{"output":'
        async for chunk in self.response.chunks(gap=gap):
            yield chunk
        yield b"}"

    def close(self) -> None:
        self.response.close()


def of_http(url: str, *, key: str = SECRET, **options: Any) -> Transport:
    return HttpTransport(
        "alder",
        f"{url}/chat/completions",
        **{"paid": True, "idempotent": "no"} | options,
        headers={"Authorization": f"Bearer {key}"},
        health_path="/v1/models",
        wire=InputAloneWire(),
    )


class ClientTransport(FunctionTransport):
    """A function around a client of its own, as programs write it."""

    def __init__(self, url: str, *, paid: bool, key: str) -> None:
        self._client = httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=FAR)
        super().__init__(
            self._ask,
            paid=paid,
            idempotent="no",
            provider="alder",
            check=self._check_models,
            ends_when_cancelled=True,
            secrets=(key,),
            client_retries=False,
        )

    async def _ask(self, call: ProviderCall) -> ProviderReply:
        response = await self._client.post("/chat/completions", json=call.input)
        body = response.raise_for_status().json()
        if "choices" not in body:
            raise ValueError("no choices in the answer")
        return ProviderReply(output=body)

    async def _check_models(self, _: float) -> None:
        (await self._client.get("/models")).raise_for_status()

    async def aclose(self) -> None:
        await super().aclose()
        await self._client.aclose()


def of_function(url: str, *, paid: bool = True, key: str = SECRET) -> Transport:
    return ClientTransport(url, paid=paid, key=key)


def chat_of(model: str) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "Hello"}]}


MESSAGES = ModelRequest(form="messages", body={**chat_of("messages"), "max_tokens": 20})
RESPONSES = ModelRequest(form="responses", body={"input": "Hello"})
EMBEDDINGS = ModelRequest(form="embeddings", body={"input": "Hello"})

FORMS = (
    Speaker("chat", "openai", chat_of("openai"), of_preset("openai", "openai")),
    Speaker("responses", "openai", RESPONSES, of_preset("openai", "openai")),
    Speaker("messages", "anthropic", MESSAGES, of_preset("anthropic", "anthropic")),
    Speaker("embeddings", "embedding", EMBEDDINGS, of_preset("openai", "embedding"), streams=False),
    Speaker("messages as chat", "groq", MESSAGES, of_preset("groq", "groq")),
    Speaker("chat as messages", "anthropic", chat_of("anthropic"), of_preset("anthropic", "anthropic")),
    Speaker("http", "openai", chat_of("openai"), of_http, streams=False),
    Speaker("function", "openai", chat_of("openai"), of_function, streams=False),
)
"""A transport for each form that goes over the wire, and for those that are translated."""
DIALECTS = ("openai", "azure", "groq", "mistral", "together", "openrouter", "deepseek", "xai", "gemini", "anthropic")
SPEAKERS = FORMS + tuple(
    Speaker(name, name, chat_of(name), of_preset(name, name))
    for name in DIALECTS
    if name not in {"openai", "anthropic"}
)
"""All of them, and one for every dialect of limits and errors."""


def models(limits: FakeLimits | None = None, **options: Any) -> FakeConfig:
    """Return what a server offers: one model for each dialect, by its name, and one of embeddings."""
    answers = (ScriptedAnswer(text=TEXT),)
    settings: dict[str, Any] = {"token_speed": SPEED, "output_tokens": 8.0, "price": PRICE, "answers": answers}
    options = settings | {"limits": limits or FakeLimits()} | options
    chats = tuple(FakeModel(name=name, dialect=name, **options) for name in DIALECTS)
    embedding = FakeModel(name="embedding", kind="embedding", dialect="openai", dimensions=4, **options)
    return FakeConfig(models=(*chats, embedding), seed=1, keys={"test": SECRET})


class Pieces:
    """A consumer that takes every piece at once."""

    def __init__(self) -> None:
        self.taken: list[Any] = []

    is_committed = False

    async def put(self, piece: Any, *, patience: float | None = None) -> None:
        self.taken.append(piece)


def call_of(given: Any, *, stream: Pieces | PieceChannel | None = None, **changes: Any) -> ProviderCall:
    """Return a call, as a stream if there is a consumer."""
    fields: Mapping[str, Any] = {
        "service": "chat",
        "input": given,
        "request_id": "r-1",
        "idempotency_key": "k-1",
        "max_cost": "0.01",
        "timeout": FAR,
        "stream": None if stream is None else CallStream(StreamTerms(sink=stream, gap=FAR), first=FAR),
    }
    return ProviderCall(**{**fields, **changes})
