"""The front door itself: lets requests in, and tells their clients of whatever goes wrong before an answer begins."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any

import msgspec

from actors.ledger.keys import scoped_key
from actors.ledger.messages import ForgetAnswer
from actors.limits.class_queue import Priority, lower
from actors.limits.failed_attempts import FailedAttempts
from actors.serve.bodies import BodyRoom, ClientGone
from actors.serve.door_request import KEY_HEADER
from actors.serve.exchange import DoorExchange
from actors.serve.keys import KeyRing
from actors.serve.places import TenantPlaces
from actors.serve.problems import Problem
from actors.serve.replies import lost_comment, written
from actors.serve.retries import OpenTries, retry_count, same_request
from actors.serve.tenants import TenantRates
from actors.serve.token_limits import TokenLimits, TokenShare, reserved_for
from actors.serve.visitors import check_local, check_once, not_let_in, shown_key
from actors.tariffs.estimate import demand_of
from runtime import RuntimeFault

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping
    from contextlib import AbstractContextManager

    from actors.model_calls.request import Form
    from actors.serve.config import DoorConfig
    from actors.serve.names import Names
    from actors.serve.places import Meanwhile, Place, PlaceWish
    from actors.serve.retries import Try
    from actors.serve.retry_log import RetryLog
    from actors.serve.tenants import Tenant
    from actors.serve.token_log import TokenLog
    from actors.tariffs.estimate import Form as DemandForm
    from runtime import ActorRef


class Visitor(msgspec.Struct, frozen=True):
    """Who asks: the tenant that a key belongs to, and the models that it may call. Without keys, none is there.

    `priority` is the class of its requests, and the highest that one may ask for; None is "normal", and any. At most
    `max_waiting` of them wait, and `token_limit` is what the tenant may use in a minute (None: no bound).
    """

    tenant: str | None = None
    allowed: frozenset[str] | None = None
    priority: Priority | None = None
    max_waiting: int | None = None
    token_limit: int | None = None
    key_id: str | None = None


ANYBODY = Visitor()
UNREAD = frozenset({401, 403, 408, 413, 415})
"""The statuses after which a body may be left unread, so that the connection is of no further use."""


class Door:
    """Lets the requests of clients in, to a supervisor."""

    def __init__(
        self, supervisor: ActorRef[Any], names: Names, config: DoorConfig, keys: KeyRing | None = None
    ) -> None:
        self.supervisor, self.names, self.config = supervisor, names, config
        self.keys = KeyRing() if keys is None else keys
        self.room = BodyRoom(config)
        self.clock: Callable[[], float] = time.time
        """Seconds since 1970."""
        self.rates = TenantRates()
        self.places = TenantPlaces(self._tenant_named, config.max_waiting)
        self.failures = FailedAttempts()
        self.tokens = TokenLimits()
        self.tries = OpenTries()
        self.retry_log: RetryLog | None = None
        self.is_draining = False
        self._exchanges: set[DoorExchange] = set()
        self._idle = asyncio.Event()

    @property
    def under_way(self) -> int:
        """The requests that are being answered."""
        return len(self._exchanges)

    async def until_idle(self, *, within: float) -> None:
        """Wait until no request is being answered, `within` seconds at most."""
        self._idle.clear()
        if self._exchanges:
            with suppress(TimeoutError):
                async with asyncio.timeout(within):
                    await self._idle.wait()

    def end_all(self, why: Problem | None = None, *, of_keys: Collection[str] | None = None) -> None:
        """End every request, or those `of_keys`: the call is cancelled, and the client told why.

        By default, that is because the door closes.
        """
        for exchange in list(self._exchanges):
            if of_keys is None or exchange.key_id in of_keys:
                exchange.end(why or closing())

    def let_in(self, headers: Mapping[str, str], address: str) -> Visitor:
        """Return who asks. Raises `Problem` for a request that is not let in; wrong keys are counted by `address`."""
        shown = shown_key(headers)
        if not self.keys:
            check_local(headers, origins=self.config.origins)
            return ANYBODY
        if shown is None:
            raise not_let_in("the request has no key")
        key = self.keys.find(shown, now=self.clock())
        if key is None:
            wait = self.failures.count(address, now=asyncio.get_running_loop().time())
            if wait:
                message = f"this address has shown too many wrong keys; wait {wait:.0f} s"
                raise Problem(429, message, code="too_many_attempts", retry_after=wait, should_retry=False)
            raise not_let_in("the key is not accepted")
        tenant = self.config.tenants.get(key.tenant)
        if tenant is None:
            raise not_let_in("the key belongs to no tenant of this door")
        priority = lower(tenant.priority, key.priority or tenant.priority)
        return Visitor(key.tenant, tenant.allowed, priority, tenant.max_waiting, tenant.token_limit, key.id)

    def place(self, visitor: Visitor, wish: PlaceWish, meanwhile: Meanwhile = None) -> Place | None:
        """Return a place of the tenant who asks, to be held within a block; None if it has as many as it likes."""
        tenant = None if visitor.tenant is None else self._tenant_named(visitor.tenant)
        if visitor.tenant is None or tenant is None or tenant.max_under_way is None:
            return None
        return self.places.held(visitor.tenant, wish, meanwhile)

    def _tenant_named(self, name: str) -> Tenant | None:
        return self.config.tenants.get(name)

    def remember_tokens(self, log: TokenLog) -> None:
        """Keep the tokens that tenants have used in a log, and count those of the life before."""
        self.tokens.remember(log, clock=self.clock(), now=asyncio.get_running_loop().time())

    def reserved(
        self, visitor: Visitor, body: dict[str, Any], form: DemandForm
    ) -> AbstractContextManager[TokenShare | None]:
        """Reserve the tokens of a request within the block; None if its tenant has no limit. Raises `Problem`, 429."""
        if visitor.tenant is None or visitor.token_limit is None:
            return nullcontext()
        now, tokens = asyncio.get_running_loop().time(), reserved_for(demand_of(body, form=form))
        return self.tokens.reserved(visitor.tenant, visitor.token_limit, tokens, clock=self.clock(), now=now)

    def remember_tries(self, log: RetryLog) -> None:
        """Keep the tries of clients in a log, and go on with those of the life before."""
        self.retry_log, self.tries = log, log.open(now=self.clock())

    def begin_try(self, exchange: DoorExchange, visitor: Visitor, body: bytes) -> Try | None:
        """Return which try of a request this is, or None if its client does not count them, or has a key of its own."""
        count = retry_count(exchange.headers)
        if count is None or KEY_HEADER in exchange.headers:
            return None
        asker = exchange.headers.get("x-api-key") or exchange.headers.get("authorization", "")
        same = same_request(f"{visitor.tenant}/{asker}", exchange.path, body)
        begun = self.tries.begin(
            same, count, now=self.clock(), tenant=visitor.tenant, is_there=lambda: not exchange.has_left
        )
        expired, self.tries.expired = self.tries.expired, []
        for one in expired:
            self._forget_answer(one)
        if self.retry_log is not None:
            with suppress(OSError):  # On a full disk, a try after a restart is a new request; the ledger tells of it.
                self.retry_log.begun(begun)
        return begun

    def _forget_answer(self, ended: Try) -> None:
        """Have the answer to a request let go of that was kept for its next try alone."""
        with suppress(RuntimeFault):  # Then it is kept for as long as others are.
            self.supervisor.tell(ForgetAnswer(scoped_key(ended.key, tenant=ended.tenant, account=ended.tenant)))

    def end_try(self, begun: Try | None, *, failed: Problem | None = None) -> None:
        """Note that the client of a try has its whole answer, or is told why it `failed`."""
        if begun is not None:
            if failed is None or failed.should_retry is False:
                self.tries.end(begun.key)
                if failed is None:  # What a client was told may have been paid it can ask for by its key.
                    self._forget_answer(begun)
            else:
                self.tries.tell(begun, now=self.clock(), wait=failed.told_wait)
            if self.retry_log is not None:
                with suppress(OSError):
                    self.retry_log.ended(begun.key, at=self.clock())

    async def serve(
        self,
        scope: Any,
        receive: Callable[[], Awaitable[Any]],
        send: Callable[[Any], Awaitable[None]],
        handle: Callable[[DoorExchange, Visitor, str], Awaitable[None]],
        *,
        form: Form | None,
    ) -> None:
        """Handle one request, and tell its client of whatever goes wrong before the answer begins."""
        exchange = DoorExchange(scope, receive, send, patience=self.config.patience)
        request_id = f"req_{os.urandom(16).hex()}"
        self._exchanges.add(exchange)
        try:
            if self.is_draining:
                raise closing()
            check_once(exchange.contradictory)
            visitor = self.let_in(exchange.headers, exchange.address)
            exchange.key_id = visitor.key_id
            if visitor.tenant is not None and (tenant := self.config.tenants.get(visitor.tenant)) is not None:
                self.rates.count(visitor.tenant, tenant, now=asyncio.get_running_loop().time())
            await handle(exchange, visitor, request_id)
        except ClientGone:
            return
        except Problem as problem:
            with suppress(ClientGone):
                await self._tell(problem, exchange, form, request_id)
        except Exception:
            broken = Problem(500, "the door itself has failed; its log says how", code="internal", should_retry=False)
            with suppress(ClientGone):
                await self._tell(broken, exchange, form, request_id)
            raise
        finally:
            self._exchanges.discard(exchange)
            if not self._exchanges:
                self._idle.set()

    async def _tell(self, problem: Problem, exchange: DoorExchange, form: Form | None, request_id: str) -> None:
        if exchange.has_begun:
            event = problem.event(form, request_id=request_id, number=exchange.events)
            await exchange.write(
                written(form or "chat", event) + lost_comment(problem.cost, problem.attempts), more=False
            )
            return
        headers = {**problem.headers(), "x-request-id": request_id}
        if self.is_draining or problem.status in UNREAD:
            headers["connection"] = "close"
        body = msgspec.json.encode(problem.body(form, request_id=request_id))
        await exchange.answer(problem.status, headers, body)


def closing() -> Problem:
    """Return why a door that is being closed answers nothing more."""
    return Problem(503, "the door is closing; ask again", code="closing", retry_after=1.0, should_retry=True)
