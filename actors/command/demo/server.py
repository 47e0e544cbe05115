"""A provider that fails on purpose: an HTTP server on the loopback interface, for the demo and for failure drills.

`python -m actors.command.demo.server --name alder --price 0.002 --failure-rate 0.3` prints `{"port": N}`
when it is ready. It ends when its standard input closes, so it never outlives the program that started it.

- `POST /` with `{"service": "uppercase" | "word-count", "input": TEXT | {"text": TEXT}}` answers
  `{"output": ..., "cost": PRICE}`. A repeated idempotency key gets its first answer again, at no charge.
- `GET /health` answers 200, or 503 during the brown-out. `GET /stats` answers the counters of `Stats`.
"""

from __future__ import annotations

import argparse
import functools
import os
import signal
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from actors.command.demo.backend import DemoCall, DemoProvider, DemoSettings, Reply, refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class DemoHandler(BaseHTTPRequestHandler):
    """Handles HTTP/1.1 requests with keep-alive; all decisions are those of the provider."""

    protocol_version = "HTTP/1.1"
    timeout = 30.0  # Seconds after which an idle connection is closed.
    disable_nagle_algorithm = True
    wbufsize = -1  # Head and body leave in one segment.
    max_body_bytes = 1024 * 1024

    def __init__(self, provider: DemoProvider, request: socket.socket, client: Any, server: DemoServer) -> None:
        self.provider = provider
        super().__init__(request, client, server)

    def do_GET(self) -> None:
        """Answer /health and /stats."""
        if self.path == "/health":
            self._send(self.provider.health(now=time.monotonic()))
        elif self.path == "/stats":
            self._send(self.provider.counters())
        else:
            self._send(refusal(404, "there are GET /health, GET /stats and POST /"))

    def do_POST(self) -> None:
        """Answer a call."""
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit() or int(length) > self.max_body_bytes:
            self.close_connection = True  # The body stays unread, and nothing can be read after it.
            self._send(refusal(413, f"Content-Length must be at most {self.max_body_bytes}, got {length!r}"))
            return
        body = self.rfile.read(int(length))
        try:
            work = msgspec.json.decode(body, type=DemoCall)
        except msgspec.DecodeError as error:
            self._send(refusal(400, str(error)))
            return
        key = self.headers.get("Idempotency-Key", "")
        request_id = self.headers.get("X-Request-Id", "")
        reply = self.provider.answer(work, key=key, request_id=request_id, now=time.monotonic())
        time.sleep(reply.delay)
        self._send(reply)

    def _send(self, reply: Reply) -> None:
        body = msgspec.json.encode(reply.body)
        self.send_response(reply.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if reply.retry_after is not None:
            self.send_header("Retry-After", str(reply.retry_after))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the inherited name.
        """Write no log: standard output is for the port, and the counters have the rest."""


class DemoServer(ThreadingHTTPServer):
    """A thread per connection, at most `max_connections` of them; a further connection is closed at once."""

    daemon_threads = True
    request_queue_size = 128
    max_connections = 256

    def __init__(self, provider: DemoProvider, *, port: int) -> None:
        self._free_connections = threading.BoundedSemaphore(self.max_connections)
        super().__init__(("127.0.0.1", port), functools.partial(DemoHandler, provider))

    def server_bind(self) -> None:
        """Bind without looking up the host's name as `HTTPServer` does, which can hang without DNS."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "localhost", self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve this connection in a thread of its own, unless there are too many."""
        if self._free_connections.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve, and free the connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free_connections.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore a caller that closes the connection, which is normal. Report any other error as usual."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def _pair(separator: str) -> Callable[[str], tuple[float, float]]:
    def parse(text: str) -> tuple[float, float]:
        first, found, second = text.partition(separator)
        try:
            return float(first), float(second if found else first)
        except ValueError:
            raise argparse.ArgumentTypeError(f"expected A{separator}B in seconds, got {text!r}") from None

    return parse


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m actors.command.demo.server",
        description="A provider that fails on purpose, on 127.0.0.1. It ends when its standard input closes.",
    )
    parser.add_argument("--name", default="demo")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one (the default)")
    parser.add_argument("--price", default="0", help="US dollars a call, such as 0.002")
    parser.add_argument("--failure-rate", type=float, default=0.0, help="share of calls that fail, 0 to 1")
    parser.add_argument(
        "--unclear-rate", type=float, default=0.5, help="share of the failures that are 500s; the rest are 503s"
    )
    parser.add_argument("--latency", type=_pair("-"), default=(0.0, 0.0), metavar="LOW-HIGH", help="seconds")
    parser.add_argument("--brownout", type=_pair(":"), metavar="START:LENGTH", help="in seconds")
    parser.add_argument("--rate-limit", type=float, metavar="R", help="requests a second; beyond it, answers are 429")
    parser.add_argument("--burst", type=int, help="requests at once; by default those of one second")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def _end(_signal: int, _frame: object) -> NoReturn:
    raise SystemExit(0)


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until standard input closes, or SIGTERM or SIGINT comes. Exits with code 2 for bad arguments."""
    parser = _parser()
    options = vars(parser.parse_args(arguments))
    port = options.pop("port")
    try:
        provider = DemoProvider(DemoSettings(**options))
    except ValueError as error:
        parser.error(str(error))
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, _end)
    with DemoServer(provider, port=port) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True, name="serve").start()
        sys.stdout.write(msgspec.json.encode({"port": server.server_port}).decode() + "\n")
        sys.stdout.flush()
        try:
            # The main thread only waits here, where the handler of a signal can interrupt it.
            while os.read(sys.stdin.fileno(), 4096):
                pass
        finally:
            server.shutdown()


if __name__ == "__main__":
    main()
