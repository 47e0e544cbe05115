"""The actor that serves requests on another node, for a program whose ledger has all the money."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from actors.errors.families import CallFailed, OutcomeUnknown
from actors.ledger.answers import encode
from actors.market.file import parse_market
from actors.rate_limiter.leased_limiter import LeasedLimiter
from actors.spread.messages import (
    FORWARDED,
    Fact,
    GetNodeStatus,
    NodeStatus,
    SeatTerms,
    ServeAway,
    ServedAway,
)
from actors.spread.share import for_seat, with_leased_limits
from actors.supervisor.client import ANSWER_GRACE
from actors.supervisor.messages import GetStatus
from actors.supervisor.supervisor import LEDGER_MAILBOX, MAX_REQUESTS, Supervisor
from runtime import Actor, ActorRef, Event, Restart, RuntimeFault, Terminated, handles

if TYPE_CHECKING:
    from actors.market.market import Market
    from runtime import Subscription

MAX_FACTS = 1_000
"""The events of providers that wait for the next answer; older ones are dropped."""
STATUS_TIMEOUT = 5.0
"""Seconds that the node's supervisor has to tell the state of its providers."""


class FactLog:
    """The events of the requests of one deputy, and of its providers, until they travel with an answer.

    Those of a request travel with its own answer, so that they are known before it.
    """

    def __init__(self, providers: set[str]) -> None:
        self._providers = providers
        self._of_requests: dict[str, list[Fact]] = {}
        self._others: list[Fact] = []

    def begin(self, request_id: str) -> None:
        """Collect the events of a request."""
        self._of_requests[request_id] = []

    def receive(self, event: Event) -> None:
        """Take note of an event; the node may serve other programs, whose requests and providers are not told."""
        if not isinstance(event, FORWARDED):
            return
        own = self._of_requests.get(getattr(event, "request_id", ""))
        if own is None and getattr(event, "provider", None) not in self._providers:
            return
        with suppress(TypeError):  # An answer that came late, and is not plain data, is told to nobody.
            (self._others if own is None else own).append(Fact.of(event))
        del self._others[:-MAX_FACTS]

    def take(self, request_id: str) -> tuple[Fact, ...]:
        """Return what is to travel with the answer to a request."""
        others, self._others = self._others, []
        return (*others, *self._of_requests.pop(request_id, ()))


class Deputy(Actor[ServeAway | GetNodeStatus | Terminated]):
    """Serves the requests of a program on its node, by a supervisor of its own; it ends with the program.

    Each call is reserved with the ledger at `home` before it is made, under the key of its request: so a key is paid
    once, whichever nodes are asked, and a node that is cut off begins no paid call. Limits are leased of their owners.
    """

    def __init__(self, market: Market, home: SeatTerms) -> None:
        self.market = for_seat(with_leased_limits(market), home.seat, home.seats)
        self.home = home
        self._facts = FactLog({one.provider.name for one in market.providers})
        self._subscription: Subscription | None = None

    def started(self) -> None:
        context, home = self.context, self.home
        quotas: dict[str, ActorRef[Any]] = {
            name: context.spawn(partial(LeasedLimiter, name, owner=owner), mailbox=LEDGER_MAILBOX)
            for name, owner in home.quotas.items()
        }
        # It is not restarted: by its end the ledger learns that its calls are to be held.
        self.supervisor = context.spawn(
            lambda: Supervisor(self.market, ledger=home.ledger, quotas=quotas),
            name="supervisor",
            restart=Restart.TEMPORARY,
        )
        self._subscription = context.events.subscribe(Event, self._facts.receive)
        context.watch(self.supervisor)
        context.watch(home.requests)

    def stopped(self) -> None:
        if self._subscription is not None:
            self._subscription.cancel()

    @handles(ServeAway, concurrent=MAX_REQUESTS, inline=True)
    async def serve(self, message: ServeAway) -> ServedAway:
        """Serve one request, and tell how it has ended, and what has happened meanwhile."""
        request = message.request
        key = request.request_id or ""
        self._facts.begin(key)
        facts: tuple[Fact, ...] = ()
        result, error = None, None
        try:
            result = await self.supervisor.ask(request, timeout=request.timeout + ANSWER_GRACE)
        except (CallFailed, RuntimeFault) as failure:
            error = encoded_failure(failure)
        finally:
            facts = self._facts.take(key)
        return ServedAway(result=result, error=error, facts=facts, now=self.context.now())

    @handles(GetNodeStatus, concurrent=100)
    async def tell_status(self, message: GetNodeStatus) -> NodeStatus:
        """Tell the state of every provider."""
        statuses = await self.supervisor.ask(GetStatus(check_health=message.check_health), timeout=STATUS_TIMEOUT)
        return NodeStatus(targets=statuses, now=self.context.now())

    @handles(Terminated)
    def end(self, message: Terminated) -> None:
        """End with the program, or with the supervisor; what is under way is cancelled, and its money is held."""
        self.context.stop()


def encoded_failure(failure: Exception) -> bytes:
    """Return an error as bytes; one that cannot travel by its text and what it says of the money."""
    try:
        return encode(failure)
    except TypeError:
        text = f"{type(failure).__name__}: {failure}"
        charged = failure.charged if isinstance(failure, CallFailed) else "held"
        return encode(OutcomeUnknown(text) if charged == "held" else CallFailed(text, charged=charged))


def deputy_by_text(text: str, path: str, home: SeatTerms) -> Deputy:
    """Make a deputy by the text of a market file; its `${NAME}` are variables of the node's environment."""
    return Deputy(parse_market(text, path=path, environ=os.environ), home)
