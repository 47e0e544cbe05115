"""The actor that makes all calls to one provider: it owns the connection, bounds the calls, and knows its health."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from actors.errors.error_tree import text_of
from actors.errors.exceptions import classify
from actors.errors.families import BulkheadFull, CallFailed, Permanent
from actors.errors.words import own_words
from actors.limits.reported import check_reported
from actors.provider_gateway.messages import (
    TRANSPORT_GRACE,
    Call,
    CancelCall,
    CheckHealth,
    Health,
    InlineCall,
    LookUpCall,
    ResumeCall,
)
from actors.provider_gateway.open_transports import OpenTransports
from actors.transports.function import FunctionTransport
from actors.transports.own_reading import own_reading
from actors.transports.reconciliation import Cancels, Finding, LooksUp, Resumes, is_finding
from actors.transports.threaded_calls import ThreadedCalls
from actors.transports.transport import ProviderReply, UnreadableCost
from runtime import Actor, handles, is_being_cancelled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator

    from actors.market.listing import Listing
    from actors.transports.own_reading import Classify

MAX_CONCURRENCY = 10_000
"""The most calls that a gateway can have under way, whatever its listing says."""


class TransportBug(ConnectionResetError):
    """A transport raised an error that it must not raise; to the caller it is as if the connection had broken."""


class ProviderGateway(Actor[Call | InlineCall | CheckHealth | LookUpCall | CancelCall | ResumeCall]):
    """Makes the calls to one provider, at most `max_concurrency` at the same time.

    It decides nothing: no retry, no breaker, no money. An error of a call that is not a `CallFailed` is a bug of the
    transport. It is logged, and counts as a broken connection; the other calls under way, which may be paid, are not
    affected. If a transport keeps failing so, the breaker opens, and the transport is replaced.

    `classify` is that of the market (see `Market`). Sync functions run in `threads`, which outlive this gateway. A
    transport that is among `open_transports` for other gateways too is closed by the last of them.
    """

    def __init__(
        self,
        listing: Listing,
        *,
        classify: Classify | None = None,
        threads: ThreadedCalls | None = None,
        open_transports: OpenTransports | None = None,
    ) -> None:
        self.listing = listing
        self.transport = listing.transport()
        self._classify = None if getattr(self.transport, "classify", None) is not None else classify
        self._threads = ThreadedCalls(listing.max_concurrency) if threads is None else threads
        if isinstance(self.transport, FunctionTransport):
            self.transport.use_threads(self._threads, provider=listing.provider.name)
        self._open_transports = OpenTransports() if open_transports is None else open_transports
        self._open_transports.take(self.transport)
        self.under_way = 0
        self.health: Health | None = None
        self._check: asyncio.Task[Health] | None = None

    async def stopped(self) -> None:
        try:
            if self._check is not None:
                self._check.cancel()
                await asyncio.wait([self._check])
        finally:
            if self._open_transports.leave(self.transport):
                await self.transport.aclose()

    @handles(InlineCall, concurrent=MAX_CONCURRENCY, inline=True)
    @handles(Call, concurrent=MAX_CONCURRENCY)
    async def call(self, message: Call) -> ProviderReply:
        """Make one call; raises `BulkheadFull` if too many are under way."""
        if self.under_way >= self.listing.max_concurrency:
            raise BulkheadFull(self.listing.provider.name, max_concurrency=self.listing.max_concurrency)
        self.under_way += 1
        message.marker.is_sent = True
        told: ProviderReply | CallFailed | None = None
        try:
            told = await self._make(message)
            return told  # noqa: TRY300
        except CallFailed as failure:
            told = failure
            raise
        finally:
            self.under_way -= 1
            if message.call.stream is not None:
                message.call.stream.end(told)

    async def _make(self, message: Call | InlineCall) -> ProviderReply:
        """Have the transport make a call; raises a `CallFailed`, also for its bugs."""
        try:
            try:
                reply = await self.transport.call(message.call)
            except UnreadableCost as mistake:
                reply = mistake.reply
            except CallFailed as failure:
                check_reported({}, failure.limits)  # The transport may have set it to anything.
                if failure.said:
                    failure.said = own_words(failure.said)
                raise
            if not isinstance(reply, ProviderReply):
                raise TypeError(f"it returned {reply!r:.200}, which is not a ProviderReply")
            return reply  # noqa: TRY300
        except CallFailed as failure:
            self._raise_own_reading(failure.__cause__ or failure, message)
            raise
        except (Exception, asyncio.CancelledError) as bug:
            if isinstance(bug, asyncio.CancelledError) and is_being_cancelled():
                raise
            name = self.listing.provider.name
            self.context.log.opt(exception=bug).error("a bug of the transport to {!r}: {}", name, text_of(bug))
            self._raise_own_reading(bug, message)
            raise classify(
                TransportBug(text_of(bug)),
                provider=name,
                paid=self.transport.paid or message.call.max_cost > 0,
                idempotent=self.transport.idempotent != "no",
            ) from bug

    def _raise_own_reading(self, error: BaseException, message: Call) -> None:
        """Raise what the market's `classify` makes of an error, if it makes anything of it."""
        if self._classify is None or not isinstance(error, Exception):
            return
        name = self.listing.provider.name
        if (own := own_reading(self._classify, error, message.call, provider=name)) is not None:
            check_reported({}, own.limits)
            if own is not error:
                raise own from error

    @handles(LookUpCall, concurrent=MAX_CONCURRENCY)
    async def look_up(self, message: LookUpCall) -> Finding:
        """Look up what became of a call; raises `Permanent` if the transport cannot."""
        if not isinstance(self.transport, LooksUp):
            name = self.listing.provider.name
            raise Permanent(f"the transport to {name!r} cannot look up calls; give it a look_up() method")
        return await self._reconcile(self.transport.look_up(message.call, timeout=message.timeout), message.timeout)

    @handles(CancelCall, concurrent=MAX_CONCURRENCY)
    async def cancel_call(self, message: CancelCall) -> Finding:
        """Cancel a call at its provider; raises `Permanent` if the transport cannot."""
        if not isinstance(self.transport, Cancels):
            name = self.listing.provider.name
            raise Permanent(f"the transport to {name!r} cannot cancel calls; give it a cancel() method")
        return await self._reconcile(self.transport.cancel(message.call, timeout=message.timeout), message.timeout)

    @handles(ResumeCall, concurrent=MAX_CONCURRENCY)
    async def resume(self, message: ResumeCall) -> Finding:
        """Take up a call by its handle; raises `Permanent` if the transport cannot."""
        if not isinstance(self.transport, Resumes):
            name = self.listing.provider.name
            raise Permanent(f"the transport to {name!r} cannot take up calls; give it a resume() method")
        return await self._reconcile(self.transport.resume(message.handle, message.call), message.timeout)

    async def _reconcile(self, finding: Awaitable[Finding], timeout: float) -> Finding:  # noqa: ASYNC109 - bounds a transport that may not bound itself.
        """Await what the transport finds out about a call, within `timeout` seconds; raises a `CallFailed`."""
        try:
            async with asyncio.timeout(timeout):
                found = await finding
            if not is_finding(found):
                raise TypeError(f"it found {found!r:.200}, which is not a Finding")
            return found  # noqa: TRY300
        except CallFailed:
            raise
        except Exception as error:
            # A bug of the transport too: that it cannot tell must not crash the other calls.
            raise classify(error, provider=self.listing.provider.name) from error

    @handles(CheckHealth)
    def check(self, message: CheckHealth) -> Health | asyncio.Future[Health]:
        """Answer with the last result while it is fresh; askers during a check share that check."""
        if self.health is not None and self.context.now() - self.health.checked_at < message.max_age:
            return self.health
        if self._check is None or self._check.done():
            self._check = asyncio.create_task(self._check_now(message.timeout))
        # Shielded, because an asker that gives up must not cancel the check of the others.
        return asyncio.shield(self._check)

    async def _check_now(self, timeout: float) -> Health:  # noqa: ASYNC109 - bounds a check that may not bound itself.
        problem: str | None = None
        is_its_own = True
        try:
            async with asyncio.timeout(timeout + TRANSPORT_GRACE):
                await self.transport.check(timeout=timeout)
        except CallFailed as error:
            problem, is_its_own = str(error), error.blames_provider
        except Exception as error:  # noqa: BLE001 - any error means that the provider was not found healthy.
            problem = f"its check failed: {text_of(error)}"
        self.health = Health(self.context.now(), problem=problem, is_its_own=is_its_own)
        return self.health

    def broken_invariants(self) -> Iterator[str]:
        if self.under_way:
            yield f"{self.under_way} calls to {self.listing.provider.name!r} never gave their slot back"
        if self._check is not None and not self._check.done():
            yield f"a health check of {self.listing.provider.name!r} never ended"

    def __repr__(self) -> str:
        return f"<ProviderGateway {self.listing.provider.name!r} {self.under_way} calls under way>"
