"""Providers that speak plain JSON over HTTP and fail by seed, each a process of its own, for tests of the command.

`POST /` with a service and an input is answered with an output and its cost; a repeated idempotency key gets its first
answer again, at no charge. `GET /stats` answers the counters of `Stats`.
"""

from __future__ import annotations

import functools
import http.client
import math
import random
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import msgspec

from actors.money import to_micros

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class JsonSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a provider behaves: its latency is from the first to the second number of seconds."""

    name: str
    price: str
    failure_rate: float = 0.0
    latency: tuple[float, float] = (0.0, 0.0)
    rate_limit: float | None = None  # Requests a second.
    burst: int = 1
    seed: int = 0


class Stats(msgspec.Struct):
    """The calls and charges of a provider since it started."""

    calls: int = 0
    charged_micros: int = 0
    paid_twice: int = 0  # Charges for a request id that was charged before.


class JsonProvider:
    """The memory and the decisions of one provider, under one lock."""

    def __init__(self, settings: JsonSettings) -> None:
        self.settings, self.stats = settings, Stats()
        self._lock, self._random = threading.Lock(), random.Random(settings.seed)
        self._next_slot = -math.inf
        self._answers: dict[str, dict[str, Any]] = {}
        self._charged: set[str] = set()

    def answer(self, call: Any, *, key: str, request_id: str) -> tuple[int, Any, float, float]:
        """Return a status, a body, the seconds to take for it, and the seconds to wait after a 429."""
        with self._lock:
            self.stats.calls += 1
            delay = self._random.uniform(*self.settings.latency)
            if (wait := self._throttle(time.monotonic())) > 0:
                return 429, {"error": "too many requests"}, 0.0, wait
            if call["service"] != "uppercase":
                return 404, {"error": "no such service"}, 0.0, 0.0
            if key in self._answers:
                return 200, self._answers[key], 0.0, 0.0
            if self._random.random() < self.settings.failure_rate:
                return self._random.choice([500, 503]), {"error": "failed on purpose"}, delay, 0.0
            body = self._answers[key] = {"output": call["input"].upper(), "cost": self.settings.price}
            self.stats.charged_micros += to_micros(self.settings.price)
            self.stats.paid_twice += request_id in self._charged
            self._charged.add(request_id)
            return 200, body, delay, 0.0

    def _throttle(self, now: float) -> float:
        """Take a permit and return 0, or return the seconds until there is one (GCRA, ITU-T I.371)."""
        rate = self.settings.rate_limit
        if rate is None:
            return 0.0
        slot = max(now, self._next_slot)
        if (wait := slot - (self.settings.burst - 1) / rate - now) > 1e-9:  # Less is rounding.
            return wait
        self._next_slot = slot + 1 / rate
        return 0.0


class JsonHandler(BaseHTTPRequestHandler):
    """Handles HTTP/1.1 requests with keep-alive; all decisions are those of the provider."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # Head and body leave in one segment.

    def __init__(self, provider: JsonProvider, *args: Any) -> None:
        self.provider = provider
        super().__init__(*args)

    def do_GET(self) -> None:
        self._send(200, self.provider.stats)

    def do_POST(self) -> None:
        call = msgspec.json.decode(self.rfile.read(int(self.headers["Content-Length"])))
        key, request_id = self.headers["Idempotency-Key"], self.headers["X-Request-Id"]
        status, body, delay, wait = self.provider.answer(call, key=key, request_id=request_id)
        time.sleep(delay)
        self._send(status, body, **({"Retry-After": str(math.ceil(wait))} if wait else {}))

    def _send(self, status: int, body: Any, **headers: str) -> None:
        encoded = msgspec.json.encode(body)
        self.send_response(status)
        for name, value in {"Content-Length": str(len(encoded)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(encoded)

    def log_message(self, *args: Any) -> None:
        pass


class JsonServer(ThreadingHTTPServer):
    """A thread for each connection."""

    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # A caller may leave.
            super().handle_error(request, client_address)


def main() -> None:
    """Serve by the settings of the first argument: print the port, and end with standard input."""
    provider = JsonProvider(msgspec.json.decode(sys.argv[1], type=JsonSettings))
    with JsonServer(("127.0.0.1", 0), functools.partial(JsonHandler, provider)) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        sys.stdout.write(f"{server.server_port}\n")
        sys.stdout.flush()
        sys.stdin.read()
        server.shutdown()


class HttpProvider(msgspec.Struct, frozen=True):
    """A provider that listens on `port` of 127.0.0.1."""

    settings: JsonSettings
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def stats(self) -> Stats:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("GET", "/stats")
            with connection.getresponse() as response:
                return msgspec.json.decode(response.read(), type=Stats)
        finally:
            connection.close()


@contextmanager
def run_providers(settings: Sequence[JsonSettings]) -> Iterator[list[HttpProvider]]:
    """Run these providers within the block."""
    with ExitStack() as stack:
        started = [(one, stack.enter_context(_started(one))) for one in settings]
        yield [HttpProvider(one, int(process.stdout.readline())) for one, process in started]


@contextmanager
def _started(settings: JsonSettings) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, __file__, msgspec.json.encode(settings).decode()]
    # A process group of its own: an interrupt of the tests must not end it before it has told its counters.
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0)
    try:
        yield process
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait()


if __name__ == "__main__":
    main()
