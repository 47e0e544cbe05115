"""Providers that speak HTTP: JSON in, JSON out, over one pooled client.

A call is `POST url` with `{"service": ..., "input": ...}` and the headers `Idempotency-Key` and `X-Request-Id`. The
answer is `{"output": ..., "cost": "0.002"}`, with an optional cost in US dollars, as a string; or, with any status,
`{"error": {"code": ..., "message": ...}}`. A health check is a GET, and so is the request for a document, such as the
list of a registry.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from actors.errors.bodies import error_in_body
from actors.errors.classification import classify_status, is_own_answer
from actors.errors.exceptions import classify
from actors.errors.families import BulkheadFull, CallFailed, OutcomeUnknown, Permanent, Transient
from actors.errors.words import with_words
from actors.masking import secrets_in, shown_url
from actors.policies.timeout import DeadlineTimers
from actors.transports.aiohttp_wire import AiohttpWire
from actors.transports.http_exchange import (
    MAX_REFUSAL_BYTES,
    Exchange,
    checked_headers,
    checked_url,
    header_value,
    joined_url,
    merged_headers,
    without_credentials,
)
from actors.transports.http_json import decode_answer, encode_call
from actors.transports.transport import Idempotent, ProviderCall, ProviderReply, UnreadableCost, shown_cost
from actors.transports.wire import Wire, WireRequest
from actors.validation import check_count

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

MAX_QUOTED = 200
"""Characters of a malformed answer that its error quotes."""
MAX_REPLY_BYTES = 4 * 1024 * 1024
OF_EACH_CALL = frozenset({"idempotency-key", "x-request-id"})
"""The headers that each call has a value of its own for, whatever was given for all requests."""


class HttpTransport:
    """Reaches one provider by HTTP.

    `health_path` is resolved against `url` as a link would be: "/health" is at the root of the host. `headers` are sent
    with every request (an API key, for example). The pool holds `max_connections`, and one more so that a health check
    does not wait behind calls; a call that gets no connection within its timeout raises `BulkheadFull`. A reply larger
    than `max_reply_bytes` is malformed; one of more than 256 KB is decoded in slices, so that it holds up no other
    task for long. Redirects are not followed, since a paid call must not be posted twice, and proxy settings of the
    environment are ignored. With `charges_errors=False` a paid provider does not charge for an error that it answers
    itself: nothing is held for it, and another provider is called. That covers no error that a proxy may have answered,
    nor one inside a 200. Idle connections are closed after 30 seconds at the latest.

    Errors end with what the provider itself said. In them, and in the `repr`, the values of `headers`, what the URL has
    of user, password and query, and further `secrets` are masked.

    `wire` sends the requests; by default, an `AiohttpWire` of its own. It is closed with the transport.

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
        max_reply_bytes: int = MAX_REPLY_BYTES,
        charges_errors: bool = True,
        headers: Mapping[str, str] | None = None,
        secrets: Collection[str] = (),
        wire: Wire | None = None,
    ) -> None:
        check_count("max_connections", max_connections)
        check_count("max_reply_bytes", max_reply_bytes, unit="byte")
        self.provider = provider
        self.paid = paid
        self.idempotent: Idempotent = idempotent
        self._secrets = secrets_in(headers=headers or {}, url=url, values=secrets)
        self._url, credentials = without_credentials(checked_url(url))
        self._health_url = joined_url(self._url, health_path)
        self._host = urlsplit(self._url).hostname
        self._max_reply_bytes = max_reply_bytes
        self._charges_errors = charges_errors
        self._headers = merged_headers(
            # Compressed replies are not accepted: a bound on compressed bytes does not bound the reply.
            {"User-Agent": "understudy"},
            credentials,
            checked_headers(headers or {}),
            {"Accept-Encoding": "identity"},
        )
        call_headers = merged_headers(self._headers, {"Content-Type": "application/json"})
        self._call_headers = {name: one for name, one in call_headers.items() if name.lower() not in OF_EACH_CALL}
        self._make_wire: Callable[[], Wire] = partial(AiohttpWire, max_connections=max_connections + 1)
        if wire is not None:
            self._make_wire = lambda: wire
        self._wire = self._make_wire()
        self.ends_when_cancelled = bool(getattr(self._wire, "ends_when_cancelled", False))
        """Whether the wire says so of itself."""
        self._timers = DeadlineTimers()
        self._state = "unused"

    def __repr__(self) -> str:
        where = f"{self.provider} at {self._secrets.mask(shown_url(self._url))}"
        return f"HttpTransport({where}, {self._state}, idempotent={self.idempotent!r})"

    async def call(self, call: ProviderCall) -> ProviderReply:
        """Post one attempt. Raises a `CallFailed`, by the status, the error and how far the request had come.

        If no byte of the request was sent, that is a `ConnectionFailed`. If the answer is a malformed 2xx, the call ran
        and was perhaps charged: that is an `OutcomeUnknown`, or a `Transient` if repeating costs nothing. A 2xx with an
        error instead of an output is classified as that error. An input that is not JSON, such as one that contains
        NaN or infinity, is `Permanent` and is never sent.
        """
        try:
            body = encode_call(call.service, call.input)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise Permanent(
                f"the input cannot be written as JSON: {error}", provider=self.provider, outcome="not_started"
            ) from error
        headers = {
            **self._call_headers,
            "Idempotency-Key": header_value(call.idempotency_key),
            "X-Request-Id": header_value(call.request_id),
        }
        deadline = asyncio.get_running_loop().time() + call.timeout
        request = WireRequest("POST", self._url, headers, body)
        exchange = await self._exchange(request, within=call.timeout, paid=self.paid)
        return await self._parse_reply(exchange, deadline=deadline)

    async def check(self, *, timeout: float) -> None:  # noqa: ASYNC109 - the interface of `Transport`.
        """Return if GET on the health path answers 2xx within `timeout` seconds; raises `CallFailed` if not."""
        await self._exchange(WireRequest("GET", self._health_url, self._headers), within=timeout, paid=False)

    async def fetch(self, *, timeout: float) -> bytes:  # noqa: ASYNC109 - as above.
        """Return the body of a GET of the URL, which costs nothing. Raises a `CallFailed`.

        The error of a refusal has the wait that came with it.
        """
        exchange = await self._exchange(WireRequest("GET", self._url, self._headers), within=timeout, paid=False)
        if exchange.size > self._max_reply_bytes:
            raise Transient(f"{self.provider!r} sent more than {self._max_reply_bytes} bytes", provider=self.provider)
        return exchange.body

    async def aclose(self) -> None:
        """Close all connections. A later call opens them again, unless the wire is one of your own."""
        self._state = "closed"
        self._timers.close()
        await self._wire.aclose()

    async def _exchange(self, request: WireRequest, *, within: float, paid: bool) -> Exchange:
        """Send and receive within `within` seconds; return a success, raise any other outcome as its error family."""
        if self._state == "closed":
            # It was idle, or its breaker open, and may be shared: `transport=lambda: this_one`.
            self._wire = self._make_wire()
        self._state = "open"
        exchange = Exchange(request, provider=self.provider, host=self._host)
        loop = asyncio.get_running_loop()
        timer = self._timers.at(loop.time() + within, loop)
        is_watched = timer is not None
        try:
            await exchange.run(self._wire, max_reply_bytes=self._max_reply_bytes)
        except asyncio.CancelledError:
            is_watched = False
            if timer is None or not timer.end():
                raise
            if not exchange.refused:
                raise self._failure(_timeout(exchange, within), exchange, paid=paid) from None
        except OSError as error:
            raise self._failure(error, exchange, paid=paid) from self._secrets.cause(error)
        finally:
            if timer is not None and is_watched:
                timer.end()
        if exchange.refused:
            raise self._refusal(exchange, paid=paid)
        return exchange

    def _failure(self, error: OSError, exchange: Exchange, *, paid: bool) -> CallFailed:
        """Classify an error for which there is no status, by how far the request had come."""
        progress = exchange.progress
        if progress.stage == "waiting" and isinstance(error, TimeoutError):
            return BulkheadFull(self.provider, max_concurrency=progress.max_concurrency)
        failure = classify(
            error,
            provider=self.provider,
            sent=progress.may_be_sent,
            paid=paid,
            idempotent=not paid or self.idempotent != "no",
        )
        failure.wire_calls = exchange.wire_calls
        return with_words(failure, "", secrets=self._secrets)

    def _refusal(self, exchange: Exchange, *, paid: bool) -> CallFailed:
        failure = classify_status(
            exchange.status,
            provider=self.provider,
            host=self._host,
            body=exchange.text,
            headers=exchange.headers,
            paid=paid,
            idempotent=not paid or self.idempotent != "no",
            uncharged=paid and not self._charges_errors and is_own_answer(exchange.headers, exchange.json),
        )
        failure.wire_calls, failure.limits = exchange.wire_calls, exchange.limits
        return with_words(failure, exchange.text, secrets=self._secrets)

    async def _parse_reply(self, exchange: Exchange, *, deadline: float) -> ProviderReply:
        if exchange.size > self._max_reply_bytes:
            raise self._malformed(f"more than {self._max_reply_bytes} bytes", exchange)
        encoding = exchange.headers.get("content-encoding", "identity")
        if encoding != "identity":
            raise self._malformed(f"compressed ({encoding}), although only identity is accepted", exchange)
        try:
            answer = await decode_answer(exchange.body, deadline=deadline)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            if exchange.size <= MAX_REFUSAL_BYTES:
                self._raise_error_in(exchange.body, exchange)
            raise self._malformed(str(error), exchange) from self._secrets.cause(error)
        if answer.output is msgspec.UNSET or answer.output is None:
            # An output is used even if there is an error beside it: it may have been paid.
            is_small = answer.output is msgspec.UNSET and exchange.size <= MAX_REFUSAL_BYTES
            self._raise_error_in(exchange.body if is_small else {"error": answer.error}, exchange)
            if answer.output is msgspec.UNSET:
                raise self._malformed("neither output nor error", exchange)
        # The shortest text of a JSON number has the digits that the provider wrote.
        cost = repr(answer.cost) if isinstance(answer.cost, float) else answer.cost
        try:
            reply = ProviderReply(
                output=answer.output, cost=cost, wire_calls=exchange.wire_calls, limits=exchange.limits
            )
        except UnreadableCost as mistake:
            reply = mistake.reply
        if reply.unread_cost is not None and isinstance(cost, str):
            reply = msgspec.structs.replace(reply, unread_cost=shown_cost(self._secrets.mask(cost)))
        return reply

    def _raise_error_in(self, body: object, exchange: Exchange) -> None:
        failure = error_in_body(
            body,
            provider=self.provider,
            host=self._host,
            retry_after=exchange.retry_after,
            paid=self.paid,
            idempotent=not self.paid or self.idempotent != "no",
        )
        if failure is not None:
            with_words(failure, body, secrets=self._secrets)
            failure.wire_calls, failure.limits = exchange.wire_calls, exchange.limits
            raise failure

    def _malformed(self, what: str, exchange: Exchange) -> CallFailed:
        """Return the error for an answer that cannot be used: the call ran, and was perhaps charged."""
        family = OutcomeUnknown if self.paid and self.idempotent == "no" else Transient
        failure = family(
            f"{self.provider!r} sent a malformed answer: {what}",
            provider=self.provider,
            charged="held" if self.paid else "no",
            wire_calls=exchange.wire_calls,
        )
        return with_words(failure, exchange.beginning, secrets=self._secrets, at_most=MAX_QUOTED)


def _timeout(exchange: Exchange, within: float) -> TimeoutError:
    return TimeoutError(f"no {'answer' if exchange.progress.may_be_sent else 'connection'} within {within:g} s")
