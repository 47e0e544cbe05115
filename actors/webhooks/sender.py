"""The actor that posts alerts to one webhook, in their order, each until it was taken."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable  # noqa: TC003 - inspect.signature evaluates it.
from typing import TYPE_CHECKING, Any

import msgspec

from actors.events import AlertCleared, AlertRaised
from actors.market.webhook import Webhook  # noqa: TC001 - inspect.signature evaluates it.
from actors.transports.wire import Wire, WireProgress, WireRequest
from actors.webhooks.notice import ID, SIGNATURE, TIME, Incidents, Notice, dropped_from, sign
from runtime import Actor, Backoff, Message, handles

if TYPE_CHECKING:
    from runtime import Subscription

BACKOFF = Backoff(initial=1.0, cap=60.0, jitter=0.2)
"""The waits between attempts at one alert, in seconds."""
LAST_ATTEMPTS = 4.0
"""Seconds in which a sender that is stopped tries what is still pending, once each."""


class DeliverNow(Message, frozen=True):
    """Sent by the sender to itself if something is pending; `after_wait` if a backoff is over."""

    after_wait: bool = False


class ChangeWebhook(Message, frozen=True):
    """Send by other terms from now on: with another secret, or of other rules."""

    webhook: Webhook


def aiohttp_wire() -> Wire:
    """Return the wire of aiohttp, which follows no redirect and reads no proxy from the environment."""
    from actors.transports.aiohttp_wire import AiohttpWire  # noqa: PLC0415 - of the extra `http`.

    return AiohttpWire(max_connections=1)


class WebhookSender(Actor[DeliverNow | ChangeWebhook]):
    """Posts each alert of its system to one webhook at least once, in the order in which they came.

    An alert counts as taken if its receiver answers 2xx in time. Anything else, a redirect included, is tried again
    after a wait that grows to a minute, under the same id. What is pending outlives a restart of the actor, and not the
    program: then it is tried once more and logged. If more alerts are pending than the webhook allows, incidents that
    are over are left out first, which is logged too. Spawn it before the monitor, so that it is stopped later.
    """

    def __init__(
        self, webhook: Webhook, *, backoff: Backoff = BACKOFF, make_wire: Callable[[], Wire] = aiohttp_wire
    ) -> None:
        self.webhook = webhook
        self.backoff = backoff
        self.make_wire = make_wire
        self.wire: Wire | None = None
        self.is_waiting = False
        """True during a backoff."""
        self.is_told = False
        """True if a message to deliver is on its way."""
        self.failures = 0
        self.subscriptions: tuple[Subscription, ...] = ()

    def started(self) -> None:
        kept = self.context.kept
        self.webhook = kept.get("webhook", self.webhook)
        self.pending: list[Notice] = kept.setdefault("pending", [])
        self.incidents: Incidents = kept.setdefault("incidents", Incidents())
        self.wire = self.make_wire()
        self.subscriptions = tuple(
            self.context.events.subscribe(kind, self.receive) for kind in (AlertRaised, AlertCleared)
        )
        self._wake()

    def receive(self, event: AlertRaised | AlertCleared) -> None:
        """Note what is to be told of an alert; called by its publisher."""
        if self.webhook.rules is not None and event.rule not in self.webhook.rules:
            return
        incident = f"{self.context.random.getrandbits(96):024x}"
        self.incidents, notice = self.incidents.turn(event, incident=incident, at=time.time())
        self.context.kept["incidents"] = self.incidents
        if notice is None:
            return
        self.pending.append(msgspec.structs.replace(notice, noted=self.context.now()))
        if len(self.pending) > self.webhook.max_pending:
            self._drop(dropped_from(self.pending), f"more than {self.webhook.max_pending} alerts are pending")
        self._wake()

    @handles(ChangeWebhook)
    def change(self, message: ChangeWebhook) -> None:
        """Go by other terms, also after a restart."""
        self.webhook = self.context.kept["webhook"] = message.webhook

    @handles(DeliverNow)
    async def deliver(self, message: DeliverNow) -> None:
        """Post what is pending until that fails; then wait."""
        if message.after_wait:
            self.is_waiting = False
        else:
            self.is_told = False
        if self.is_waiting:
            return
        while self.pending:
            notice = self.pending[0]
            problem = await self._post(notice)
            if problem is None:
                self.failures = 0
                self._forget(notice)
                continue
            self.failures += 1
            age = self.context.now() - notice.noted
            if age > self.webhook.max_age:
                self._drop([notice], f"it was not taken for {age:.0f} s: {problem}")
                continue
            if self.failures & (self.failures - 1) == 0:  # Of many failures in a row, few are told.
                self.context.log.warning(
                    "alert {} could not be sent to {}: {}; {} attempts have failed, and it goes on",
                    notice.id,
                    self.webhook.host,
                    problem,
                    self.failures,
                )
            self.is_waiting = True
            wait = self.backoff.delay(self.failures, random=self.context.random.random())
            self.context.timers.once(wait, DeliverNow(after_wait=True))
            return

    async def stopped(self) -> None:
        for subscription in self.subscriptions:
            subscription.cancel()
        wire = self.wire
        if wire is None:
            return
        try:
            async with asyncio.timeout(LAST_ATTEMPTS):
                while self.pending and await self._post(self.pending[0]) is None:
                    self._forget(self.pending[0])
        except TimeoutError:
            pass
        finally:
            await wire.aclose()
        if self.pending:
            told = ", ".join(one.id for one in self.pending[:10])
            self.context.log.error("{} alerts were not taken by {}: {}", len(self.pending), self.webhook.host, told)

    async def _post(self, notice: Notice) -> str | None:
        """Post once; return why it was not taken, or None."""
        assert self.wire is not None  # noqa: S101 - the sender has started.
        try:
            async with asyncio.timeout(self.webhook.timeout):
                response = await self.wire.send(self._request(notice), WireProgress())
                response.close()
        except TimeoutError:
            return f"no answer within {self.webhook.timeout:g} s"
        except OSError as error:
            return f"{type(error).__name__}: {error}"
        if 200 <= response.status < 300:
            return None
        if 300 <= response.status < 400:
            return f"it answered {response.status}, and redirects are not followed; correct its url in the market file"
        return f"it answered {response.status}"

    def _request(self, notice: Notice) -> WireRequest:
        body, now = notice.body, int(time.time())
        headers = {
            "content-type": "application/json",
            "user-agent": "understudy",
            ID: notice.id,
            TIME: str(now),
            SIGNATURE: sign(self.webhook.secret, id=notice.id, time=now, body=body),
        }
        return WireRequest("POST", self.webhook.url, headers, body)

    def _wake(self) -> None:
        if self.pending and not self.is_waiting and not self.is_told:
            self.is_told = True
            self.context.ref.tell(DeliverNow())

    def _forget(self, notice: Notice) -> None:
        """Take a notice out of the queue, unless it was dropped meanwhile."""
        if notice in self.pending:
            self.pending.remove(notice)

    def _drop(self, notices: Any, why: str) -> None:
        for notice in tuple(notices):
            self._forget(notice)
            self.context.log.error("alert {} is not sent to {}: {}", notice.id, self.webhook.host, why)

    def __repr__(self) -> str:
        return f"<WebhookSender to {self.webhook.host}>"
