"""A server on loopback that answers each request by the next step of a script."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

STALL = 30.0
"""Seconds that a request is kept waiting at most, which is longer than any client of the tests waits."""


class Answer(NamedTuple):
    """An answer with a JSON body."""

    status: int
    body: dict[str, Any]
    headers: Mapping[str, str] = MappingProxyType({})


class Cut(NamedTuple):
    """The request is read, and the connection closed."""


class Stall(NamedTuple):
    """The request is read, and never answered; `closes` the port, so that the next connection is refused."""

    closes: bool = False


Step = Answer | Cut | Stall


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ScriptedServer

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as it is declared.
        """Write nothing."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        step = self.server.next_step()
        if isinstance(step, Answer):
            body = json.dumps(step.body).encode()
            self.send_response(step.status)
            for name, value in step.headers.items():
                self.send_header(name, value)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        if isinstance(step, Stall):
            if step.closes:
                self.server.socket.close()
            self.server.ended.wait(STALL)
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)


class ScriptedServer(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, script: tuple[Step, ...]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script = script
        self.calls = 0
        self.ended = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def server_activate(self) -> None:
        super().server_activate()
        self.port = self.server_address[1]

    def next_step(self) -> Step:
        step = self.script[min(self.calls, len(self.script) - 1)]
        self.calls += 1
        return step

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is none."""

    def serve(self) -> None:
        with suppress(OSError, ValueError):  # Its socket may be closed by a step.
            self.serve_forever(poll_interval=0.01)


@contextmanager
def serving(*script: Step) -> Iterator[ScriptedServer]:
    """Serve the steps in turn, the last one for ever."""
    server = ScriptedServer(script)
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.ended.set()
        server.shutdown()
        server.server_close()
        thread.join(STALL)


def refused_url() -> str:
    """Return an address at which connections are refused."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"
