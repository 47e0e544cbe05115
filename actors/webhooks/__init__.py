"""Alerts by webhook: each alert that is raised or cleared is posted, signed, until its receiver has taken it."""

from actors.webhooks.notice import sign, verify
from actors.webhooks.sender import WebhookSender
from actors.webhooks.senders import spawn_senders

__all__ = ["WebhookSender", "sign", "spawn_senders", "verify"]
