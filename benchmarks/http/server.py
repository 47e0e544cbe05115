"""A server that answers each call after 2 ms, in a process of its own, so that its work is not on the client's loop."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from typing import TYPE_CHECKING

from aiohttp import web

from actors.listening import listening_socket

if TYPE_CHECKING:
    from collections.abc import Iterator

LATENCY = 0.002
ANSWER = b'{"output":"HELLO, WORLD","cost":"0.000001"}'


async def answer(request: web.Request) -> web.Response:
    await request.read()
    await asyncio.sleep(LATENCY)
    return web.Response(body=ANSWER, content_type="application/json")


async def serve() -> None:
    """Serve until the standard input ends; the port is the first line of the output."""
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    listening = listening_socket("127.0.0.1")
    await web.SockSite(runner, listening, backlog=2_000).start()
    print(listening.getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await runner.cleanup()


@contextlib.contextmanager
def running_server() -> Iterator[str]:
    """Run the server; yield its URL."""
    command = [sys.executable, "-m", "benchmarks.http.server"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/"
        finally:
            process.stdin.close()


if __name__ == "__main__":
    asyncio.run(serve())
