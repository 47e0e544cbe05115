"""The clients that are compared: each asks a model for a chat, whole or as a stream, as its own documents show it."""

from __future__ import annotations

import importlib
import importlib.util
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

from actors import BreakerConfig, Market, RequestOptions, Retry, Supervisor
from actors.errors import CallFailed
from actors.ledger import GetStatement
from actors.model_calls import TextDelta
from actors.models import chat, chat_stream, openai
from actors.tariffs import Tariff
from actors.transports.streaming import Restarted
from benchmarks.models.server import PRICES
from runtime import ActorSystem

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from contextlib import AbstractAsyncContextManager

MAX_TOKENS = 64
TIMEOUT = 30.0
CONCURRENCY = 50
"""The calls that a provider may have under way."""
RISK = "0.01"
"""More than one call costs, in dollars."""


class Asker(Protocol):
    """A client with its connections open."""

    errors: tuple[type[Exception], ...]

    async def ask(self, who: str, prompt: str) -> str:
        """Return the answer to a prompt."""
        ...

    async def stream(self, who: str, prompt: str, on_first: Callable[[], None]) -> str:
        """Return the answer to a prompt that was read as a stream; `on_first` is called at its first token."""
        ...

    async def spent(self) -> float | None:
        """Return the micro-dollars that the client knows it has spent; None if it does not count them."""
        ...


class Understudy:
    """Ours, with its defaults, but for short waits; `restarts` is the setting that repeats what broke off."""

    errors = (CallFailed,)

    def __init__(self, supervisor: Any, *, restarts: bool) -> None:
        self._supervisor = supervisor
        self._options = RequestOptions(strategy="cheapest", risk=RISK if restarts else None)
        self._after_cut: Any = "restart" if restarts else "fail"

    async def ask(self, who: str, prompt: str) -> str:
        result = await chat(
            self._supervisor, messages=prompt, max_tokens=MAX_TOKENS, options=self._options, timeout=TIMEOUT, user=who
        )
        return result.text

    async def stream(self, who: str, prompt: str, on_first: Callable[[], None]) -> str:
        reading = chat_stream(
            self._supervisor,
            messages=prompt,
            max_tokens=MAX_TOKENS,
            options=self._options,
            timeout=TIMEOUT,
            after_cut=self._after_cut,
            user=who,
        )
        text = ""
        async with reading as pieces:
            async for piece in pieces:
                if isinstance(piece, TextDelta):
                    if not text:
                        on_first()
                    text += piece.text
                elif isinstance(piece, Restarted):
                    text = ""
        return text

    async def spent(self) -> float | None:
        return float((await self._supervisor.ask(GetStatement(), timeout=TIMEOUT)).settled)


@asynccontextmanager
async def understudy(urls: list[str], *, restarts: bool = False) -> AsyncGenerator[Asker]:
    listings = [
        openai(
            "m",
            base_url=f"{url}/v1",
            api_key="x",
            name=f"server-{number}",
            tariff=Tariff(input=paid, output=written),
            max_concurrency=CONCURRENCY,
            timeout=TIMEOUT,
        )
        for number, (url, (paid, written)) in enumerate(zip(urls, PRICES, strict=False))
    ]
    market = Market(
        providers=listings,
        retry=Retry(base=0.05, cap=0.5),
        breaker=BreakerConfig(open_for=0.2, max_open_for=0.5),
    )
    async with ActorSystem("benchmark", log=False) as system:
        yield Understudy(system.spawn(lambda: Supervisor(market)), restarts=restarts)


class Sdk:
    """The openai SDK alone, which knows one server; its two retries are its default."""

    def __init__(self, client: Any, module: Any) -> None:
        self._client = client
        self.errors = (module.OpenAIError, OSError, ValueError, TypeError)

    def _create(self, who: str, prompt: str, **more: Any) -> Any:
        messages = [{"role": "user", "content": prompt}]
        return self._client.chat.completions.create(
            model="m", messages=messages, max_tokens=MAX_TOKENS, user=who, **more
        )

    async def ask(self, who: str, prompt: str) -> str:
        return text_in(await self._create(who, prompt))

    async def stream(self, who: str, prompt: str, on_first: Callable[[], None]) -> str:
        return await read(await self._create(who, prompt, stream=True), on_first)

    async def spent(self) -> float | None:
        return None


@asynccontextmanager
async def sdk(urls: list[str]) -> AsyncGenerator[Asker]:
    module: Any = importlib.import_module("openai")
    async with module.AsyncOpenAI(api_key="x", base_url=f"{urls[0]}/v1", timeout=TIMEOUT) as client:
        yield Sdk(client, module)


class LitellmRouter:
    """litellm's Router over all servers, with three retries."""

    def __init__(self, router: Any) -> None:
        self._router = router
        self._spent = 0.0
        self.errors = (Exception,)

    def _create(self, who: str, prompt: str, **more: Any) -> Any:
        messages = [{"role": "user", "content": prompt}]
        return self._router.acompletion(model="m", messages=messages, max_tokens=MAX_TOKENS, user=who, **more)

    async def ask(self, who: str, prompt: str) -> str:
        response = await self._create(who, prompt)
        self._spent += 1e6 * (response._hidden_params.get("response_cost") or 0.0)  # noqa: SLF001 - as its documents show.
        return text_in(response)

    async def stream(self, who: str, prompt: str, on_first: Callable[[], None]) -> str:
        return await read(await self._create(who, prompt, stream=True), on_first)

    async def spent(self) -> float | None:
        return self._spent


@asynccontextmanager
async def litellm_router(urls: list[str]) -> AsyncGenerator[Asker]:
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # It would fetch its prices.
    litellm: Any = importlib.import_module("litellm")
    litellm.suppress_debug_info = True
    models = [
        {
            "model_name": "m",
            "litellm_params": {
                "model": "openai/m",
                "api_base": f"{url}/v1",
                "api_key": "x",
                "timeout": TIMEOUT,
                "input_cost_per_token": float(paid) / 1e6,
                "output_cost_per_token": float(written) / 1e6,
            },
        }
        for url, (paid, written) in zip(urls, PRICES, strict=False)
    ]
    yield LitellmRouter(litellm.Router(model_list=models, num_retries=3, retry_after=0, timeout=TIMEOUT))


def text_in(response: Any) -> str:
    text = response.choices[0].message.content
    assert isinstance(text, str)
    return text


async def read(chunks: Any, on_first: Callable[[], None]) -> str:
    text, is_whole = "", False
    async for chunk in chunks:
        for choice in chunk.choices:
            if choice.delta.content:
                if not text:
                    on_first()
                text += choice.delta.content
            is_whole |= choice.finish_reason is not None
    if not is_whole:
        raise ConnectionError("the stream ended without a finish reason")
    return text


CLIENTS: dict[str, tuple[str, Callable[[list[str]], AbstractAsyncContextManager[Asker]]]] = {
    "understudy": ("actors", understudy),
    "understudy that restarts": ("actors", lambda urls: understudy(urls, restarts=True)),
    "openai": ("openai", sdk),
    "litellm": ("litellm", litellm_router),
}
"""For each client the package that it needs, and how it is opened."""


def is_installed(client: str) -> bool:
    return importlib.util.find_spec(CLIENTS[client][0]) is not None
