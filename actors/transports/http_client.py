"""The HTTP client of one provider: it sends requests over one pool, within their time, and names what fails.

Every transport that speaks HTTP has one. It knows nothing of the bodies that are sent or answered.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from actors.errors.bodies import error_in_body
from actors.errors.classification import classify_status, is_own_answer
from actors.errors.exceptions import classify
from actors.errors.families import BulkheadFull, CallFailed, OutcomeUnknown, Transient
from actors.errors.words import with_words
from actors.masking import secrets_in, shown_url
from actors.policies.timeout import DeadlineTimers
from actors.transports.aiohttp_wire import AiohttpWire
from actors.transports.http_exchange import (
    BodyReader,
    Exchange,
    checked_headers,
    checked_url,
    merged_headers,
    without_credentials,
)
from actors.transports.wire import Wire, WireRequest
from actors.validation import check_count

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from actors.transports.transport import CallNotes, Idempotent

MAX_QUOTED = 200
"""Characters of a malformed answer that its error quotes."""
MAX_REPLY_BYTES = 4 * 1024 * 1024
OF_EACH_CALL = frozenset({"idempotency-key", "x-request-id"})
"""The headers that each call has a value of its own for, whatever was given for all requests."""


class HttpClient:
    """Sends requests to one provider; what fails is raised as a member of `CallFailed`.

    `host` is the one whose dialects of limits and errors the provider speaks (None: that of the URL). See
    `HttpTransport` for what the other options mean. It is opened by the first request, and again by one after `aclose`.
    Raises `ValueError` for a URL or header that could never be sent.
    """

    def __init__(
        self,
        provider: str,
        url: str,
        *,
        host: str | None = None,
        paid: bool,
        idempotent: Idempotent,
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
        self.secrets = secrets_in(headers=headers or {}, url=url, values=secrets)
        self.url, credentials = without_credentials(checked_url(url))
        self.host = host or urlsplit(self.url).hostname
        self.max_reply_bytes = max_reply_bytes
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
        self.wire = self._make_wire()
        self.ends_when_cancelled = bool(getattr(self.wire, "ends_when_cancelled", False))
        """Whether the wire says so of itself."""
        self._timers = DeadlineTimers()
        self.state = "unused"

    def __repr__(self) -> str:
        where = f"{self.provider} at {self.secrets.mask(shown_url(self.url))}"
        return f"HttpClient({where}, {self.state})"

    async def post(
        self, url: str, body: bytes, headers: dict[str, str], *, within: float, notes: CallNotes | None = None
    ) -> Exchange:
        """Post JSON, and return the answer, a 2xx; raises a `CallFailed`, by status and how far the request had come.

        `headers` are those of this call, beside those of all. All of it takes at most `within` seconds.
        """
        return await self.run(self.exchange(url, body, headers), within=within, notes=notes)

    def exchange(self, url: str, body: bytes, headers: dict[str, str]) -> Exchange:
        """Return the exchange by which JSON is posted, for `run`; it tells at any time how far the call has come."""
        request = WireRequest("POST", url, {**self._call_headers, **headers}, body)
        return Exchange(request, provider=self.provider, host=self.host)

    async def run(
        self, exchange: Exchange, *, within: float, reader: BodyReader | None = None, notes: CallNotes | None = None
    ) -> Exchange:
        """Post what an exchange holds, and have `reader` read the body of a 2xx while it comes; raises as `post`.

        `within` may grow while it is under way, as the `notes` of its call tell.
        """
        return await self._exchange(exchange, within=within, paid=self.paid, reader=reader, notes=notes)

    async def get(self, url: str, *, within: float) -> Exchange:
        """Return the answer to a GET that costs nothing, a 2xx; raises as `post` does.

        The error of a refusal has the wait that came with it.
        """
        exchange = Exchange(WireRequest("GET", url, self._headers), provider=self.provider, host=self.host)
        return await self._exchange(exchange, within=within, paid=False)

    async def aclose(self) -> None:
        """Close all connections. A later request opens them again, unless the wire is one of your own."""
        self.state = "closed"
        self._timers.close()
        await self.wire.aclose()

    async def _exchange(
        self,
        exchange: Exchange,
        *,
        within: float,
        paid: bool,
        reader: BodyReader | None = None,
        notes: CallNotes | None = None,
    ) -> Exchange:
        """Send and receive within `within` seconds; return a success, raise any other outcome as its error family."""
        if self.state == "closed":
            # It was idle, or its breaker open, and may be shared: `transport=lambda: this_one`.
            self.wire = self._make_wire()
        self.state = "open"
        time = _ExchangeTime(self._timers, within, reader=reader, notes=notes)
        try:
            await exchange.run(self.wire, max_reply_bytes=self.max_reply_bytes, reader=reader)
        except asyncio.CancelledError:
            if not time.end():
                raise
            if not (exchange.refused or (reader is not None and reader.is_complete)):
                raise self._failure(_timeout(exchange, time.given), exchange, paid=paid) from None
        except OSError as error:
            raise self._failure(error, exchange, paid=paid) from self.secrets.cause(error)
        finally:
            time.end()
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
        return with_words(failure, "", secrets=self.secrets)

    def _refusal(self, exchange: Exchange, *, paid: bool) -> CallFailed:
        failure = classify_status(
            exchange.status,
            provider=self.provider,
            host=self.host,
            body=exchange.text,
            headers=exchange.headers,
            paid=paid,
            idempotent=not paid or self.idempotent != "no",
            uncharged=paid and not self._charges_errors and is_own_answer(exchange.headers, exchange.json),
        )
        failure.wire_calls, failure.limits = exchange.wire_calls, exchange.limits
        return with_words(failure, exchange.text, secrets=self.secrets)

    def check_readable(self, exchange: Exchange) -> None:
        """Raise the error for a reply that is too large or compressed."""
        if exchange.size > self.max_reply_bytes:
            raise self.malformed(f"more than {self.max_reply_bytes} bytes", exchange)
        if exchange.encoding != "identity":
            raise self.malformed(f"compressed ({exchange.encoding}), although only identity is accepted", exchange)

    def raise_error_in(self, body: object, exchange: Exchange) -> None:
        """Raise what the body of a 2xx says, if that is an error; return if it is none."""
        failure = error_in_body(
            body,
            provider=self.provider,
            host=self.host,
            retry_after=exchange.retry_after,
            paid=self.paid,
            idempotent=not self.paid or self.idempotent != "no",
        )
        if failure is not None:
            with_words(failure, body, secrets=self.secrets)
            failure.wire_calls, failure.limits = exchange.wire_calls, exchange.limits
            raise failure

    def malformed(self, what: str, exchange: Exchange) -> CallFailed:
        """Return the error for an answer that cannot be used: the call ran, and was perhaps charged."""
        family = OutcomeUnknown if self.paid and self.idempotent == "no" else Transient
        failure = family(
            f"{self.provider!r} sent a malformed answer: {what}",
            provider=self.provider,
            charged="held" if self.paid else "no",
            wire_calls=exchange.wire_calls,
        )
        return with_words(failure, exchange.beginning, secrets=self.secrets, at_most=MAX_QUOTED)


class _ExchangeTime:
    """The time of one exchange: to the first piece of a stream, and then to its end; the `notes` may let it grow."""

    __slots__ = ("_began", "_deadline", "_has_ended", "_is_to_first", "_notes", "_timer")

    def __init__(
        self, timers: DeadlineTimers, within: float, *, reader: BodyReader | None, notes: CallNotes | None
    ) -> None:
        loop = asyncio.get_running_loop()
        self._began = loop.time()
        self._deadline = self._began + within
        self._is_to_first, self._has_ended = reader is not None, False
        self._notes = notes
        self._timer = timers.at(self._began + (within if reader is None else min(within, reader.first)), loop)
        if reader is not None:
            reader.on_first = self._first_came
        if notes is not None and notes.longest is not None:
            notes.on_more_time = self._grow

    @property
    def given(self) -> float:
        """The seconds after which it was over."""
        return (self._deadline if self._timer is None else self._timer.deadline) - self._began

    def end(self) -> bool:
        """Stop watching; return whether its time was over, and nothing else cancelled the exchange."""
        if self._has_ended:
            return False
        self._has_ended = True
        if self._notes is not None:
            self._notes.on_more_time = None
        return self._timer is not None and self._timer.end()

    def _first_came(self) -> None:
        self._is_to_first = False
        self._postpone(self._deadline)

    def _grow(self, seconds: float, to_first: float) -> None:
        self._deadline += seconds
        if self._timer is not None:
            self._postpone(self._timer.deadline + to_first if self._is_to_first else self._deadline)

    def _postpone(self, deadline: float) -> None:
        if self._timer is not None and not self._has_ended:
            self._timer.postpone(deadline)


def _timeout(exchange: Exchange, within: float) -> TimeoutError:
    return TimeoutError(f"no {'answer' if exchange.progress.may_be_sent else 'connection'} within {within:g} s")
