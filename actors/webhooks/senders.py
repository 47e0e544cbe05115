"""The actor that has a sender for each webhook of a market, also after the market has been replaced."""

from __future__ import annotations

from collections.abc import Callable  # noqa: TC003 - inspect.signature evaluates it.
from typing import Any

from actors.market.webhook import Webhook
from actors.transports.wire import Wire  # noqa: TC001 - inspect.signature evaluates it.
from actors.webhooks.sender import ChangeWebhook, WebhookSender, aiohttp_wire
from runtime import Actor, ActorRef, ActorSystem, Message, handles


class ReplaceWebhooks(Message, frozen=True):
    """Tell these webhooks of alerts from now on, and no others."""

    webhooks: tuple[Webhook, ...]


class AlertSenders(Actor[ReplaceWebhooks]):
    """Supervises a sender for each of some webhooks, which may be replaced while alerts are raised.

    The sender of a webhook whose URL stays goes on, by its new terms, with the alerts that it knows. One whose URL is
    gone tries what is pending once more, and is stopped.
    """

    def __init__(self, webhooks: tuple[Webhook, ...], *, make_wire: Callable[[], Wire] = aiohttp_wire) -> None:
        self.webhooks = webhooks
        self.make_wire = make_wire
        self.senders: list[tuple[Webhook, ActorRef[Any]]] = []

    def started(self) -> None:
        self._go_by(self.context.kept.get("webhooks", self.webhooks))

    @handles(ReplaceWebhooks)
    def replace(self, message: ReplaceWebhooks) -> None:
        """Start, change and stop senders."""
        self.context.kept["webhooks"] = message.webhooks
        self._go_by(message.webhooks)

    def _go_by(self, webhooks: tuple[Webhook, ...]) -> None:
        left, kept = self.senders, dict[int, ActorRef[Any]]()
        # First those that stay as they are: several webhooks may have one URL, for other rules each.
        for is_same in (Webhook.__eq__, _has_same_url):
            for position, webhook in enumerate(webhooks):
                found = next((one for one in left if position not in kept and is_same(one[0], webhook)), None)
                if found is not None:
                    left = [one for one in left if one is not found]
                    kept[position] = found[1]
                    if found[0] != webhook:
                        found[1].tell(ChangeWebhook(webhook))
        for _, sender in left:
            sender.stop()
        self.senders = [
            (webhook, kept[position] if position in kept else self._start(webhook))
            for position, webhook in enumerate(webhooks)
        ]

    def _start(self, webhook: Webhook) -> ActorRef[Any]:
        return self.context.spawn(lambda: WebhookSender(webhook, make_wire=self.make_wire))

    def __repr__(self) -> str:
        return f"<AlertSenders to {', '.join(one.host for one, _ in self.senders)}>"


def _has_same_url(one: Webhook, other: Webhook) -> bool:
    return one.url == other.url


def spawn_senders(
    system: ActorSystem, webhooks: tuple[Webhook, ...], *, make_wire: Callable[[], Wire] = aiohttp_wire
) -> ActorRef[ReplaceWebhooks]:
    """Start a sender for each webhook of a market; do so before the monitor is spawned, whose last alerts they send."""
    return system.spawn(lambda: AlertSenders(webhooks, make_wire=make_wire), name="alerts")
