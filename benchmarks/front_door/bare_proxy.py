"""A reverse proxy of a dozen lines, starlette over aiohttp: the floor, which decides nothing and keeps no books.

`python -m benchmarks.front_door.bare_proxy URL` serves until its standard input ends; its first line names its URL.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import TYPE_CHECKING

import aiohttp
import uvicorn
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from actors.listening import listening_socket
from actors.serve.server import loop_factory

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.requests import Request


def bare_proxy(target: str) -> Starlette:
    """Return an application that hands each request to `target`."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[None]:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            app.state.session = session
            yield

    async def forward(request: Request) -> Response:
        body, headers = await request.body(), {"content-type": "application/json"}
        url = f"{target}{request.url.path}"
        async with request.app.state.session.post(url, data=body, headers=headers) as answer:
            return Response(await answer.read(), answer.status, media_type="application/json")

    return Starlette(routes=[Route("/{path:path}", forward, methods=["POST"])], lifespan=lifespan)


async def serve(target: str) -> None:
    listening = listening_socket("127.0.0.1")
    config = uvicorn.Config(bare_proxy(target), http="httptools", log_level="error", access_log=False)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    print(f"http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    server.should_exit = True
    await serving


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory()) as runner:  # That of our door.
        runner.run(serve(sys.argv[1]))
