"""A web service over models: tenants with budgets, answers that stream, and the HTTP status that each failure deserves.

A failure before the first word has a status of its own; after it, the stream ends with an `error` event. A client that
leaves ends its call, and its tenant pays what had come. Run as a program, it serves itself one answer from a model that
a server on this machine plays; in earnest, list `openai("gpt-5-mini")`, and run uvicorn.
"""

import asyncio
import json
import math
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Annotated

import aiohttp
import uvicorn
from fastapi import FastAPI, Header, HTTPException, Request
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel

from actors import AllProvidersFailed, CallFailed, Market, OutcomeUnknown, Permanent, Supervisor
from actors.fake import FakeConfig, FakeModel, FakePrice, fake_server
from actors.ledger import OpenAccount
from actors.model_calls import TextDelta
from actors.models import ChatPiece, ChatStream, chat_stream, compatible
from actors.tariffs import Tariff
from runtime import ActorSystem

STATUSES = {  # The first that is among a failure and its causes counts. What a client can wait for has a Retry-After.
    "BudgetExceeded": 402,
    "RateLimited": 429,
    "Throttled": 429,
    "TooManyWaiting": 429,
    "DeadlineTooShort": 504,
    "BreakerOpen": 503,
    "BulkheadFull": 503,
    "ConnectionFailed": 503,
    "LeftAlone": 503,
    "NoProvider": 503,
    "QuotaExhausted": 503,
    "Transient": 503,
}


def status_of(error: CallFailed, *, is_late: bool) -> int:
    match error:
        case Permanent(scope="request"):
            return 400
        case OutcomeUnknown():  # It may have been paid: under its key it is not paid twice.
            return 504 if is_late else 500
        case AllProvidersFailed():
            kinds = {*(attempt.kind for attempt in error.attempts), *(refusal.kind for refusal in error.refused)}
        case _:
            kinds = {error.kind}
    return next((status for kind, status in STATUSES.items() if kind in kinds), 502)


def wait_of(error: CallFailed) -> int:
    """Return the seconds after which it is worth to come again."""
    refusals = error.refused if isinstance(error, AllProvidersFailed) else ()
    return math.ceil(min((one.retry_after for one in (error, *refusals) if one.retry_after is not None), default=1.0))


async def events(stream: ChatStream, first: ChatPiece | None, open_until: AsyncExitStack) -> AsyncIterator[str]:
    """Yield the answer as server-sent events; leaving it ends the call."""
    async with open_until:
        try:
            piece = first
            while piece is not None:
                if isinstance(piece, TextDelta):
                    yield f"data: {json.dumps({'text': piece.text})}\n\n"
                piece = await anext(stream, None)
            yield f"event: end\ndata: {json.dumps({'cost': str(stream.result.cost)})}\n\n"
        except CallFailed as error:
            yield f"event: error\ndata: {json.dumps({'error': error.kind, 'key': error.key})}\n\n"


class Question(BaseModel):
    text: str
    max_tokens: int = 500
    seconds: float = 60.0


def make_app(market: Market, budgets: dict[str, str]) -> FastAPI:
    """Return a service; `budgets` are dollars by tenant."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        async with ActorSystem("service", log=False) as system:
            app.state.supervisor = supervisor = system.spawn(lambda: Supervisor(market))
            for tenant, budget in budgets.items():
                await supervisor.ask(OpenAccount(name=tenant, cap=budget), timeout=5.0)
            yield

    app = FastAPI(lifespan=lifespan)

    @app.exception_handler(CallFailed)
    async def refuse(request: Request, error: CallFailed) -> JSONResponse:
        status = status_of(error, is_late=asyncio.get_running_loop().time() >= request.state.deadline)
        headers = {"Retry-After": str(wait_of(error))} if status in {429, 503} else None
        return JSONResponse({"error": error.kind, "key": error.key}, status, headers)

    @app.post("/chat")
    async def answer(request: Request, question: Question, tenant: Annotated[str, Header()]) -> StreamingResponse:
        if tenant not in budgets:
            raise HTTPException(403, f"there is no tenant {tenant!r}")
        request.state.deadline = asyncio.get_running_loop().time() + question.seconds
        stream = chat_stream(
            app.state.supervisor,
            messages=question.text,
            max_tokens=question.max_tokens,
            timeout=question.seconds,
            account=tenant,
        )
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(stream)
            first = await anext(stream, None)  # Until it comes, a failure has a status.
            rest = stack.pop_all()
        return StreamingResponse(events(stream, first, rest), media_type="text/event-stream")

    return app


async def main() -> None:
    swift = FakeModel(name="swift", price=FakePrice(input="0.25", output="2.00"), token_speed=200)
    async with fake_server(FakeConfig(models=(swift,))) as models:
        listing = compatible("swift", base_url=f"{models.url}/v1", tariff=Tariff(input="0.25", output="2.00"))
        app = make_app(Market(providers=[listing]), {"acme": "1.00", "initech": "0.00"})
        listening = socket.create_server(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/chat"
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        async with aiohttp.ClientSession() as session:
            for tenant in ("acme", "initech"):
                async with session.post(url, json={"text": "Say hello."}, headers={"Tenant": tenant}) as response:
                    print(f"{tenant}: {response.status}, {(await response.text()).split()[-1]}")
        server.should_exit = True
        await serving


if __name__ == "__main__":
    asyncio.run(main())
