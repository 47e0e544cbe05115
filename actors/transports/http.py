"""Providers that speak HTTP: JSON in, JSON out, over one pooled client.

A call is `POST url` with `{"service": ..., "input": ...}` and the headers `Idempotency-Key` and `X-Request-Id`, and
`traceparent` if it is traced. The answer is `{"output": ..., "cost": "0.002"}`, with an optional cost in US dollars, as
a string; or, with any status, `{"error": {"code": ..., "message": ...}}`. A health check is a GET, and so is the
request for a document, such as the list of a registry.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from actors.errors.families import Permanent, Transient
from actors.masking import shown_url
from actors.transports.http_client import MAX_REPLY_BYTES, HttpClient
from actors.transports.http_exchange import MAX_REFUSAL_BYTES, header_value, joined_url
from actors.transports.http_json import decode_answer, encode_call
from actors.transports.transport import Idempotent, ProviderCall, ProviderReply, UnreadableCost, shown_cost

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from actors.transports.http_exchange import Exchange
    from actors.transports.wire import Wire


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

    has_check = True

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
        self._client = HttpClient(
            provider,
            url,
            paid=paid,
            idempotent=idempotent,
            max_connections=max_connections,
            max_reply_bytes=max_reply_bytes,
            charges_errors=charges_errors,
            headers=headers,
            secrets=secrets,
            wire=wire,
        )
        self.provider = provider
        self.paid = paid
        self.idempotent: Idempotent = idempotent
        self.ends_when_cancelled = self._client.ends_when_cancelled
        """Whether the wire says so of itself."""
        self._health_url = joined_url(self._client.url, health_path)

    def __repr__(self) -> str:
        client = self._client
        where = f"{self.provider} at {client.secrets.mask(shown_url(client.url))}"
        return f"HttpTransport({where}, {client.state}, idempotent={self.idempotent!r})"

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
        deadline = asyncio.get_running_loop().time() + call.timeout
        headers = {
            "Idempotency-Key": header_value(call.idempotency_key),
            "X-Request-Id": header_value(call.request_id),
            **(call.trace or {}),
        }
        exchange = await self._client.post(self._client.url, body, headers, within=call.timeout, notes=call.notes)
        return await self._parse_reply(exchange, deadline=deadline + call.notes.more)

    async def check(self, *, timeout: float) -> None:  # noqa: ASYNC109 - the interface of `Transport`.
        """Return if GET on the health path answers 2xx within `timeout` seconds; raises `CallFailed` if not."""
        await self._client.get(self._health_url, within=timeout)

    async def fetch(self, *, timeout: float) -> bytes:  # noqa: ASYNC109 - as above.
        """Return the body of a GET of the URL, which costs nothing. Raises a `CallFailed`.

        The error of a refusal has the wait that came with it.
        """
        client = self._client
        exchange = await client.get(client.url, within=timeout)
        if exchange.size > client.max_reply_bytes:
            raise Transient(f"{self.provider!r} sent more than {client.max_reply_bytes} bytes", provider=self.provider)
        return exchange.body

    async def aclose(self) -> None:
        """Close all connections. A later call opens them again, unless the wire is one of your own."""
        await self._client.aclose()

    async def _parse_reply(self, exchange: Exchange, *, deadline: float) -> ProviderReply:
        client = self._client
        client.check_readable(exchange)
        try:
            answer = await decode_answer(exchange.body, deadline=deadline)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            if exchange.size <= MAX_REFUSAL_BYTES:
                client.raise_error_in(exchange.body, exchange)
            raise client.malformed(str(error), exchange) from client.secrets.cause(error)
        if answer.output is msgspec.UNSET or answer.output is None:
            # An output is used even if there is an error beside it: it may have been paid.
            is_small = answer.output is msgspec.UNSET and exchange.size <= MAX_REFUSAL_BYTES
            client.raise_error_in(exchange.body if is_small else {"error": answer.error}, exchange)
            if answer.output is msgspec.UNSET:
                raise client.malformed("neither output nor error", exchange)
        # The shortest text of a JSON number has the digits that the provider wrote.
        cost = repr(answer.cost) if isinstance(answer.cost, float) else answer.cost
        try:
            reply = ProviderReply(
                output=answer.output, cost=cost, wire_calls=exchange.wire_calls, limits=exchange.limits
            )
        except UnreadableCost as mistake:
            reply = mistake.reply
        if reply.unread_cost is not None and isinstance(cost, str):
            reply = msgspec.structs.replace(reply, unread_cost=shown_cost(client.secrets.mask(cost)))
        return reply
