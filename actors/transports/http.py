"""Providers that speak HTTP: JSON in, JSON out, over one pooled client. The only module that imports httpx.

A call is `POST url` with `{"service": ..., "input": ...}` and the headers `Idempotency-Key` and `X-Request-Id`; the
answer is `{"output": ..., "cost": "0.002"}`, the cost in US dollars as a string, and optional; or, with whatever
status, `{"error": {"code": ..., "message": ...}}`. Health is a GET, and so is a document, such as a registry's list.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

import anyio
import msgspec

from actors.errors.bodies import error_in_body
from actors.errors.classification import classify, classify_status, parse_retry_after
from actors.errors.families import BulkheadFull, CallFailed, OutcomeUnknown, Permanent, Transient
from actors.limits.headers import parse_limits
from actors.money import to_micros
from actors.transports.transport import Idempotent, ProviderCall, ProviderReply
from actors.validation import check_count

try:
    import httpx
except ImportError as error:
    raise ImportError('HttpTransport needs httpx; write: pip install "understudy[http]"') from error

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

    from actors.limits.reported import ReportedLimit

T = TypeVar("T")

# Everything that may stand in a header's value, except "%", which marks what had to be escaped.
_HEADER_SAFE = "!#$&'()*+,/:;<=>?@[]^`{|}"
_NEVER_LEFT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


class _Body(msgspec.Struct, frozen=True):
    """What is posted."""

    service: str
    input: Any


class _Answer(msgspec.Struct, frozen=True):
    """What must come back with a 2xx status. A cost given as a JSON number is refused: floats lose money."""

    output: Any = msgspec.UNSET
    cost: str | None = None
    error: Any = None


_ANSWER = msgspec.json.Decoder(_Answer)


class _Arrived(msgspec.Struct, frozen=True):
    """A response whose head came in, as much of its body as is wanted, and the requests that it took."""

    status: int
    headers: httpx.Headers
    body: bytes
    wire_calls: int

    @property
    def succeeded(self) -> bool:
        return 200 <= self.status < 300

    @property
    def text(self) -> str:
        return self.body.decode(errors="replace")

    @property
    def limits(self) -> tuple[ReportedLimit, ...]:
        """What the headers say of the provider's limits."""
        return parse_limits(self.headers, now=datetime.now(UTC))

    @property
    def retry_after(self) -> float | None:
        return parse_retry_after(self.headers.get("Retry-After", ""), now=datetime.now(UTC))


class _Progress:
    """How far a request has come, told by the events that httpx traces."""

    def __init__(self) -> None:
        self.connecting = False
        self.sent = False
        self._heads = self._retries = 0
        self._stream: Any = None

    async def __call__(self, event: str, info: Mapping[str, Any]) -> None:
        self.connecting = True
        if event.endswith(".send_request_headers.started"):
            # From the first bytes of the head on, nobody can say any more that the call never ran.
            self.sent = True
            self._heads += 1
        elif event == "connection.retry.started":
            self._retries += 1
        elif event == "connection.connect_tcp.complete":
            self._stream = info["return_value"]
        elif event == "connection.start_tls.failed" and self._stream is not None:
            # httpcore leaves the socket open when a handshake is cancelled, as every deadline does.
            with anyio.CancelScope(shield=True):
                await self._stream.aclose()

    @property
    def wire_calls(self) -> int:
        """How many requests went out, with the connects that failed and were tried again."""
        return max(1, self._heads) + self._retries


class HttpTransport:
    """The door to one HTTP provider.

    `health_path` is resolved against `url` as a link would be: "/health" is at the root of the host. `headers` go
    with every request (an API key, say). The pool holds `max_connections`, and one more so that a health check
    does not queue behind as many calls; a call that gets none within its timeout is a `BulkheadFull`. A reply
    larger than `max_reply_bytes` is malformed. Redirects are not followed, since a paid call must not be posted
    twice, and proxy settings of the environment are ignored.

    `wire` replaces what carries the requests, such as `httpx.AsyncHTTPTransport(retries=2)`, with its own pool. What
    it sends beyond one request for each attempt is told by `wire_calls`, of the reply and of the error, if it passes
    on the request's "trace" extension; without that, an attempt that times out counts as sent.

    The client is opened by the first call. Raises `ValueError` for a URL or header that could never be sent.
    """

    def __init__(
        self,
        provider: str,
        url: str,
        *,
        paid: bool,
        idempotent: Idempotent,
        health_path: str = "/health",
        max_connections: int = 10,
        max_reply_bytes: int = 16 * 1024 * 1024,
        headers: Mapping[str, str] | None = None,
        wire: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.provider = provider
        self.paid = paid
        self.idempotent: Idempotent = idempotent
        self.ends_when_cancelled = wire is None
        """As httpx does; of a wire that somebody brought, nobody knows."""
        self._url = _checked_url(url)
        try:
            self._health_url = self._url.join(health_path)
        except (httpx.InvalidURL, TypeError) as error:
            raise ValueError(f"health_path {health_path!r:.100} cannot be joined to {url}: {error}") from error
        self._pool_size = max_connections + 1
        self._max_reply_bytes = max_reply_bytes
        self._headers = _checked_headers(headers or {})
        self._wire = wire
        self._client: httpx.AsyncClient | None = None
        self._closed = False
        check_count("max_connections", max_connections)

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open" if self._client else "unused"
        return f"HttpTransport({self.provider} at {self._url!r}, {state}, idempotent={self.idempotent!r})"

    async def call(self, call: ProviderCall) -> ProviderReply:
        """Post one attempt. Raises a member of `CallFailed`, by status, by what broke and by how far it had come.

        A request of which no byte was sent is a `ConnectionFailed`. When the answer is a 2xx that cannot be
        understood, the call ran and was perhaps charged: that is an `OutcomeUnknown`, or a `Transient` where
        repeating costs nothing. A 2xx with an error instead of an output is classified as that error.
        """
        try:
            content = msgspec.json.encode(_Body(call.service, call.input))
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise Permanent(
                f"the input cannot be written as JSON: {error}", provider=self.provider, outcome="not_started"
            ) from error
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": _header_value(call.idempotency_key),
            "X-Request-Id": _header_value(call.request_id),
        }
        request = self._open_client().build_request("POST", self._url, content=content, headers=headers)
        arrived = await self._exchange(request, within=call.timeout, paid=self.paid)
        return self._understand(arrived)

    async def check(self, *, timeout: float) -> None:  # noqa: ASYNC109 - the interface of `Transport`.
        """Return if GET on the health path answers 2xx within `timeout` seconds; raises `CallFailed` if not."""
        request = self._open_client().build_request("GET", self._health_url)
        await self._exchange(request, within=timeout, paid=False)

    async def fetch(self, *, timeout: float) -> bytes:  # noqa: ASYNC109 - as above.
        """Return what a GET of the URL answers, which is paid for by nobody. Raises a member of `CallFailed`.

        A refusal keeps the `Retry-After` that came with it.
        """
        arrived = await self._exchange(self._open_client().build_request("GET", self._url), within=timeout, paid=False)
        if len(arrived.body) > self._max_reply_bytes:
            raise Transient(f"{self.provider!r} sent more than {self._max_reply_bytes} bytes", provider=self.provider)
        return arrived.body

    async def aclose(self) -> None:
        """Close all connections. A call after this raises `RuntimeError`."""
        self._closed = True
        if self._client is not None:
            await self._client.aclose()

    def _open_client(self) -> httpx.AsyncClient:
        if self._closed:
            raise RuntimeError(f"the transport to {self.provider!r} is closed; make a new one")
        if self._client is None:
            self._client = httpx.AsyncClient(
                # Compressed replies are not asked for: a bound on compressed bytes bounds nothing.
                headers={"User-Agent": "understudy", **self._headers, "Accept-Encoding": "identity"},
                limits=httpx.Limits(max_connections=self._pool_size),
                timeout=None,  # noqa: S113 - one deadline holds for the whole attempt; see `_exchange`.
                follow_redirects=False,
                trust_env=False,
                transport=self._wire,
                # Building a TLS context blocks the event loop for some 20 ms; plain HTTP never uses it.
                verify=self._url.scheme == "https",
            )
        return self._client

    async def _exchange(self, request: httpx.Request, *, within: float, paid: bool) -> _Arrived:
        """Send and receive within so many seconds; return a success, raise every other outcome as its family."""
        progress = _Progress()
        request.extensions["trace"] = progress
        try:
            arrived = await _bounded(self._receive(request, progress), within=within)
        except (httpx.TransportError, TimeoutError) as error:
            raise self._failed_on_the_way(error, progress, within=within, paid=paid) from error
        if not arrived.succeeded:
            failure = classify_status(
                arrived.status,
                provider=self.provider,
                host=self._url.host,
                retry_after=arrived.retry_after,
                body=arrived.text,
                paid=paid,
                idempotent=not paid or self.idempotent != "no",
            )
            failure.wire_calls, failure.limits = arrived.wire_calls, arrived.limits
            raise failure
        return arrived

    def _failed_on_the_way(
        self, error: httpx.TransportError | TimeoutError, progress: _Progress, *, within: float, paid: bool
    ) -> CallFailed:
        """Classify what broke before there was an answer, by how far the request had come."""
        sent = progress.sent
        if not progress.connecting:
            if self._wire is None and isinstance(error, TimeoutError):
                return BulkheadFull(self.provider, max_concurrency=self._pool_size)
            # A wire that tells nothing may have sent it, unless it says that it could not.
            sent = self._wire is not None and not isinstance(error, _NEVER_LEFT)
        failure = classify(
            _as_builtin(error, within=within, sent=sent),
            provider=self.provider,
            sent=sent,
            paid=paid,
            idempotent=not paid or self.idempotent != "no",
        )
        failure.wire_calls = progress.wire_calls
        return failure

    async def _receive(self, request: httpx.Request, progress: _Progress) -> _Arrived:
        """Read the body to its end, or until it is larger than allowed, which `_understand` sees by its size."""
        response = await self._open_client().send(request, stream=True)
        body = bytearray()
        try:
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > self._max_reply_bytes:
                    break
        except httpx.TransportError:
            # A refusal whose explanation breaks off is still that refusal; a success needs its body.
            if response.is_success:
                raise
        finally:
            await response.aclose()
        return _Arrived(response.status_code, response.headers, bytes(body), progress.wire_calls)

    def _understand(self, arrived: _Arrived) -> ProviderReply:
        if len(arrived.body) > self._max_reply_bytes:
            raise self._malformed(f"more than {self._max_reply_bytes} bytes", arrived)
        encoding = arrived.headers.get("Content-Encoding", "identity")
        if encoding != "identity":
            raise self._malformed(f"compressed ({encoding}) although that was not asked for", arrived)
        try:
            answer = _ANSWER.decode(arrived.body)
            cost = None if answer.cost is None else to_micros(answer.cost)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise self._malformed(f"{error}: {arrived.text[:200]!r}", arrived) from error
        if answer.output is msgspec.UNSET or answer.output is None:
            # An output that came is used, whatever else is said: it may have been paid.
            self._raise_error_in(answer, arrived)
        return ProviderReply(output=answer.output, cost=cost, wire_calls=arrived.wire_calls, limits=arrived.limits)

    def _raise_error_in(self, answer: _Answer, arrived: _Arrived) -> None:
        failure = error_in_body(
            {"error": answer.error},
            provider=self.provider,
            host=self._url.host,
            retry_after=arrived.retry_after,
            paid=self.paid,
            idempotent=not self.paid or self.idempotent != "no",
        )
        if failure is not None:
            failure.wire_calls, failure.limits = arrived.wire_calls, arrived.limits
            raise failure
        if answer.output is msgspec.UNSET:
            raise self._malformed(f"neither output nor error: {arrived.text[:200]!r}", arrived)

    def _malformed(self, what: str, arrived: _Arrived) -> CallFailed:
        """Classify an answer that cannot be used: the call ran, and was perhaps charged."""
        family = OutcomeUnknown if self.paid and self.idempotent == "no" else Transient
        return family(
            f"{self.provider!r} sent a malformed answer: {what}",
            provider=self.provider,
            charged="held" if self.paid else "no",
            wire_calls=arrived.wire_calls,
        )


async def _bounded(work: Coroutine[Any, Any, T], *, within: float) -> T:
    """Await `work` for `within` seconds at most; raises TimeoutError. Ended early, it has still cleaned up.

    httpcore shields its bookkeeping against anyio's cancellation only. A plain `Task.cancel()` that comes while
    a connection is being given back goes through, and the pool counts that connection as busy for ever. So the
    work has a task of its own, which nothing but an anyio scope cancels, and which is awaited to its end.
    """
    scope = anyio.CancelScope(deadline=anyio.current_time() + within)

    async def run() -> T:
        with scope:
            return await work
        raise TimeoutError

    task = asyncio.create_task(run())
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        scope.cancel()
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # Its end is known; without this look it would be reported as unseen.
        raise


def _as_builtin(error: httpx.TransportError | TimeoutError, *, within: float, sent: bool) -> OSError:
    """Say in the standard library's words, which is what classification knows, what went wrong."""
    if isinstance(error, TimeoutError | httpx.TimeoutException):
        return TimeoutError(f"no {'answer' if sent else 'connection'} within {within:g} s")
    return ConnectionError(str(error) or type(error).__name__)


def _header_value(text: str) -> str:
    """Return `text` as a header can carry it: what is not printable ASCII is percent-escaped, as in a URL.

    >>> _header_value("order-7"), _header_value("Bäcker 1%")
    ('order-7', 'B%C3%A4cker%201%25')
    """
    return quote(text, safe=_HEADER_SAFE, errors="surrogatepass")


def _checked_url(url: str) -> httpx.URL:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ValueError(f"url {url!r} is not a URL: {error}") from error
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise ValueError(f'url must begin with http:// or https:// and name a host, got "{url}"')
    return parsed


def _checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        if not re.fullmatch(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", name):
            raise ValueError(f"{name!r} cannot be the name of a header")
        if not (value.isascii() and value.isprintable() and value == value.strip()):
            # The value may be a secret, so the message does not show it.
            raise ValueError(f"the value of header {name!r} must be printable ASCII without spaces around it")
    return dict(headers)
