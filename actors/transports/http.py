"""Providers that speak HTTP: JSON in, JSON out, over one pooled client. The only module that imports httpx.

A call is `POST url` with `{"service": ..., "input": ...}` and the headers `Idempotency-Key` and `X-Request-Id`. The
answer is `{"output": ..., "cost": "0.002"}`, with an optional cost in US dollars as a string; or, with any status,
`{"error": {"code": ..., "message": ...}}`. A health check is a GET, and so is the request for a document, such as the
list of a registry.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from actors.errors.bodies import error_in_body
from actors.errors.classification import classify, classify_status, parse_retry_after
from actors.errors.families import BulkheadFull, CallFailed, OutcomeUnknown, Permanent, Transient
from actors.limits.headers import parse_limits
from actors.money import to_micros
from actors.transports.http_exchange import ExchangeProgress, bounded, checked_headers, header_value
from actors.transports.transport import Idempotent, ProviderCall, ProviderReply
from actors.validation import check_count

try:
    import httpx
except ImportError as error:
    raise ImportError('HttpTransport needs httpx; write: pip install "understudy[http]"') from error

if TYPE_CHECKING:
    from collections.abc import Mapping

    from actors.limits.reported import ReportedLimit

_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


class _Body(msgspec.Struct, frozen=True):
    """The body of a call."""

    service: str
    input: Any


class _Answer(msgspec.Struct, frozen=True):
    """The body of a 2xx answer. A cost given as a JSON number is refused: floats lose money."""

    output: Any = msgspec.UNSET
    cost: str | None = None
    error: Any = None


_ANSWER = msgspec.json.Decoder(_Answer)


class _Response(msgspec.Struct, frozen=True):
    """A response: its head, as much of its body as is allowed, and the number of requests that it took."""

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
        """The limits that the headers report."""
        return parse_limits(self.headers, now=datetime.now(UTC))

    @property
    def retry_after(self) -> float | None:
        return parse_retry_after(self.headers.get("Retry-After", ""), now=datetime.now(UTC))


class HttpTransport:
    """Reaches one provider by HTTP.

    `health_path` is resolved against `url` as a link would be: "/health" is at the root of the host. `headers` are sent
    with every request (an API key, for example). The pool holds `max_connections`, and one more so that a health check
    does not wait behind calls; a call that gets no connection within its timeout raises `BulkheadFull`. A reply larger
    than `max_reply_bytes` is malformed. Redirects are not followed, since a paid call must not be posted twice, and
    proxy settings of the environment are ignored.

    `wire` replaces the transport of httpx by another, such as `httpx.AsyncHTTPTransport(retries=2)`, with its own pool.
    If it passes on the "trace" extension of a request, `wire_calls` of the reply and of the error counts every request
    that it sends for an attempt; if it does not, an attempt that times out counts as sent.

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
        """True for the transport of httpx; not assumed of another `wire`."""
        self._url = _checked_url(url)
        try:
            self._health_url = self._url.join(health_path)
        except (httpx.InvalidURL, TypeError) as error:
            raise ValueError(f"health_path {health_path!r:.100} cannot be joined to {url}: {error}") from error
        self._pool_size = max_connections + 1
        self._max_reply_bytes = max_reply_bytes
        self._headers = checked_headers(headers or {})
        self._wire = wire
        self._client: httpx.AsyncClient | None = None
        self._closed = False
        check_count("max_connections", max_connections)

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open" if self._client else "unused"
        return f"HttpTransport({self.provider} at {self._url!r}, {state}, idempotent={self.idempotent!r})"

    async def call(self, call: ProviderCall) -> ProviderReply:
        """Post one attempt. Raises a `CallFailed`, by the status, the error and how far the request had come.

        If no byte of the request was sent, that is a `ConnectionFailed`. If the answer is a malformed 2xx, the call ran
        and was perhaps charged: that is an `OutcomeUnknown`, or a `Transient` if repeating costs nothing. A 2xx with an
        error instead of an output is classified as that error.
        """
        try:
            content = msgspec.json.encode(_Body(call.service, call.input))
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise Permanent(
                f"the input cannot be written as JSON: {error}", provider=self.provider, outcome="not_started"
            ) from error
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": header_value(call.idempotency_key),
            "X-Request-Id": header_value(call.request_id),
        }
        request = self._open_client().build_request("POST", self._url, content=content, headers=headers)
        response = await self._exchange(request, within=call.timeout, paid=self.paid)
        return self._parse_reply(response)

    async def check(self, *, timeout: float) -> None:  # noqa: ASYNC109 - the interface of `Transport`.
        """Return if GET on the health path answers 2xx within `timeout` seconds; raises `CallFailed` if not."""
        request = self._open_client().build_request("GET", self._health_url)
        await self._exchange(request, within=timeout, paid=False)

    async def fetch(self, *, timeout: float) -> bytes:  # noqa: ASYNC109 - as above.
        """Return the body of a GET of the URL, which costs nothing. Raises a `CallFailed`.

        The error of a refusal has the `Retry-After` that came with it.
        """
        response = await self._exchange(self._open_client().build_request("GET", self._url), within=timeout, paid=False)
        if len(response.body) > self._max_reply_bytes:
            raise Transient(f"{self.provider!r} sent more than {self._max_reply_bytes} bytes", provider=self.provider)
        return response.body

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
                # Compressed replies are not accepted: a bound on compressed bytes does not bound the reply.
                headers={"User-Agent": "understudy", **self._headers, "Accept-Encoding": "identity"},
                limits=httpx.Limits(max_connections=self._pool_size),
                timeout=None,  # noqa: S113 - `_exchange` sets one deadline for the whole attempt.
                follow_redirects=False,
                trust_env=False,
                transport=self._wire,
                # Building a TLS context blocks the event loop for some 20 ms; plain HTTP never uses it.
                verify=self._url.scheme == "https",
            )
        return self._client

    async def _exchange(self, request: httpx.Request, *, within: float, paid: bool) -> _Response:
        """Send and receive within `within` seconds; return a success, raise any other outcome as its error family."""
        progress = ExchangeProgress()
        request.extensions["trace"] = progress
        try:
            response = await bounded(self._receive(request, progress), within=within)
        except (httpx.TransportError, TimeoutError) as error:
            raise self._failure_before_response(error, progress, within=within, paid=paid) from error
        if not response.succeeded:
            failure = classify_status(
                response.status,
                provider=self.provider,
                host=self._url.host,
                retry_after=response.retry_after,
                body=response.text,
                paid=paid,
                idempotent=not paid or self.idempotent != "no",
            )
            failure.wire_calls, failure.limits = response.wire_calls, response.limits
            raise failure
        return response

    def _failure_before_response(
        self, error: httpx.TransportError | TimeoutError, progress: ExchangeProgress, *, within: float, paid: bool
    ) -> CallFailed:
        """Classify an error before there was a response, by how far the request had come."""
        sent = progress.sent
        if not progress.connecting:
            if self._wire is None and isinstance(error, TimeoutError):
                return BulkheadFull(self.provider, max_concurrency=self._pool_size)
            # A wire that traces nothing may have sent the request, unless its error says that it could not.
            sent = self._wire is not None and not isinstance(error, _NOT_SENT)
        failure = classify(
            _as_builtin(error, within=within, sent=sent),
            provider=self.provider,
            sent=sent,
            paid=paid,
            idempotent=not paid or self.idempotent != "no",
        )
        failure.wire_calls = progress.wire_calls
        return failure

    async def _receive(self, request: httpx.Request, progress: ExchangeProgress) -> _Response:
        """Read the body to its end, or until it is larger than allowed, which `_parse_reply` detects by its size."""
        response = await self._open_client().send(request, stream=True)
        body = bytearray()
        try:
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > self._max_reply_bytes:
                    break
        except httpx.TransportError:
            # A refusal whose body breaks off is still a refusal; a success needs its body.
            if response.is_success:
                raise
        finally:
            await response.aclose()
        return _Response(response.status_code, response.headers, bytes(body), progress.wire_calls)

    def _parse_reply(self, response: _Response) -> ProviderReply:
        if len(response.body) > self._max_reply_bytes:
            raise self._malformed(f"more than {self._max_reply_bytes} bytes", response)
        encoding = response.headers.get("Content-Encoding", "identity")
        if encoding != "identity":
            raise self._malformed(f"compressed ({encoding}), although only identity is accepted", response)
        try:
            answer = _ANSWER.decode(response.body)
            cost = None if answer.cost is None else to_micros(answer.cost)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise self._malformed(f"{error}: {response.text[:200]!r}", response) from error
        if answer.output is msgspec.UNSET or answer.output is None:
            # An output is used even if there is an error beside it: it may have been paid.
            self._raise_error_in(answer, response)
        return ProviderReply(output=answer.output, cost=cost, wire_calls=response.wire_calls, limits=response.limits)

    def _raise_error_in(self, answer: _Answer, response: _Response) -> None:
        failure = error_in_body(
            {"error": answer.error},
            provider=self.provider,
            host=self._url.host,
            retry_after=response.retry_after,
            paid=self.paid,
            idempotent=not self.paid or self.idempotent != "no",
        )
        if failure is not None:
            failure.wire_calls, failure.limits = response.wire_calls, response.limits
            raise failure
        if answer.output is msgspec.UNSET:
            raise self._malformed(f"neither output nor error: {response.text[:200]!r}", response)

    def _malformed(self, what: str, response: _Response) -> CallFailed:
        """Return the error for an answer that cannot be used: the call ran, and was perhaps charged."""
        family = OutcomeUnknown if self.paid and self.idempotent == "no" else Transient
        return family(
            f"{self.provider!r} sent a malformed answer: {what}",
            provider=self.provider,
            charged="held" if self.paid else "no",
            wire_calls=response.wire_calls,
        )


def _as_builtin(error: httpx.TransportError | TimeoutError, *, within: float, sent: bool) -> OSError:
    """Return the error as one of the standard library, which classification knows."""
    if isinstance(error, TimeoutError | httpx.TimeoutException):
        return TimeoutError(f"no {'answer' if sent else 'connection'} within {within:g} s")
    return ConnectionError(str(error) or type(error).__name__)


def _checked_url(url: str) -> httpx.URL:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ValueError(f"url {url!r} is not a URL: {error}") from error
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise ValueError(f'url must begin with http:// or https:// and name a host, got "{url}"')
    return parsed
