"""A web service over models in 40 lines: budgets of tenants, answers that stream, a status for each kind of failure.

The service is `Question`, `events` and `make_app`. A failure before the first word has a status of its own; after it,
the stream ends with an `error` event. A client that leaves ends its call, and its tenant pays what had come. Run as a
program, it serves itself one answer from a model that a server on this machine plays; in earnest, list
`openai("gpt-5-mini")`, and run uvicorn.
"""

import asyncio
import json
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Annotated

import aiohttp
import uvicorn
from fastapi import FastAPI, Header, HTTPException, Request
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel

from actors import CallFailed, Market, Supervisor
from actors.fake import FakeConfig, FakeModel, FakePrice, fake_server
from actors.ledger import OpenAccount
from actors.model_calls import TextDelta
from actors.models import ChatPiece, ChatStream, chat_stream, compatible
from actors.serve.problems import problem_of
from actors.tariffs import Tariff
from runtime import ActorSystem


class Question(BaseModel):
    text: str
    max_tokens: int = 500
    seconds: float = 60.0


async def events(stream: ChatStream, piece: ChatPiece | None, open_until: AsyncExitStack) -> AsyncIterator[str]:
    async with open_until:  # Leaving it ends the call.
        try:
            while piece is not None:
                if isinstance(piece, TextDelta):
                    yield f"data: {json.dumps({'text': piece.text})}\n\n"
                piece = await anext(stream, None)
            yield f"event: end\ndata: {json.dumps({'cost': str(stream.result.cost)})}\n\n"
        except CallFailed as error:
            yield f"event: error\ndata: {json.dumps({'error': error.kind, 'key': error.key})}\n\n"


def make_app(market: Market, budgets: dict[str, str]) -> FastAPI:
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
        problem = problem_of(error, is_late=asyncio.get_running_loop().time() >= request.state.deadline)
        return JSONResponse({"error": error.kind, "key": error.key}, problem.status, problem.headers())

    @app.post("/chat")
    async def answer(request: Request, asked: Question, tenant: Annotated[str, Header()]) -> StreamingResponse:
        if tenant not in budgets:
            raise HTTPException(403, f"there is no tenant {tenant!r}")
        request.state.deadline = asyncio.get_running_loop().time() + asked.seconds
        ask = partial(chat_stream, app.state.supervisor, account=tenant, timeout=asked.seconds)
        stream = ask(messages=asked.text, max_tokens=asked.max_tokens)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(stream)
            first = await anext(stream, None)  # Until it comes, a failure has a status.
            return StreamingResponse(events(stream, first, stack.pop_all()), media_type="text/event-stream")

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
