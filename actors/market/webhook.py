"""Where alerts are sent: a URL of the market file, the secret that signs them, and the bounds of what waits."""

from __future__ import annotations

import base64
import binascii
import ipaddress
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

import msgspec

from actors.market.listing import check_positive
from actors.masking import MASK, HidesSecrets
from actors.validation import check_count, check_text

if TYPE_CHECKING:
    from actors.market.tables import Table, TableReader

LEAST_SECRET_BYTES, MAX_SECRET_BYTES = 24, 64
SECRET_PREFIX = "whsec_"  # noqa: S105 - what stands before a secret.
WEBHOOK_EXPANDED = ("url", "secret")
"""The keys in whose values `${NAME}` stands for a variable of the environment."""


class Webhook(HidesSecrets, msgspec.Struct, frozen=True, kw_only=True):
    """A URL that is told of each alert that is raised, and of its end, at least once.

    `url` is https, or http on this machine; `secret` signs what is sent: 24 to 64 bytes in base64, after "whsec_" if
    wanted, as Standard Webhooks has them. Only alerts of these `rules` are sent (None: all). An attempt takes at most
    `timeout` seconds, at most `max_pending` alerts wait, and one is given up after `max_age` seconds.

    Raises ValueError for what cannot be used. The `repr` shows the host alone: a URL may hold a secret in any part.
    """

    url: str
    secret: str
    rules: tuple[str, ...] | None = None
    timeout: float = 10.0
    max_pending: int = 100
    max_age: float = 86_400.0

    def __post_init__(self) -> None:
        check_text("url of a webhook", self.url)
        check_text("secret of a webhook", self.secret)
        check_positive("timeout", self.timeout, "seconds")
        check_positive("max_age", self.max_age, "seconds")
        check_count("max_pending", self.max_pending, unit="alerts")
        check_webhook_url(self.url)
        key_of(self.secret)

    @property
    def host(self) -> str:
        """The host of the URL, by which logs name it."""
        return urlsplit(self.url).hostname or ""

    def shown_instead(self) -> dict[str, object]:
        return {"url": f"{urlsplit(self.url).scheme}://{self.host}/...", "secret": MASK}


def check_webhook_url(url: str) -> None:
    """Raise ValueError unless a URL is https, or http on this machine; the message has no part of it."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ValueError("url must be a URL such as https://alerts.example.com/hook") from None
    if parts.scheme not in {"https", "http"} or not host or not url.isprintable() or " " in url:
        raise ValueError("url must be a URL such as https://alerts.example.com/hook")
    if parts.username is not None or parts.password is not None:
        raise ValueError("url must have no user and no password; the signature tells who sends")
    if parts.scheme == "http" and not is_loopback(host):
        raise ValueError("url must be https, unless it is on this machine: alerts would be sent in the clear")


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine (RFC 6761 6.3 for the name).

    >>> [is_loopback(one) for one in ("localhost", "127.0.0.9", "::1", "127.0.0.1.example.com", "10.0.0.1")]
    [True, True, True, False, False]
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def key_of(secret: str) -> bytes:
    """Return the bytes of a secret. Raises ValueError, without a part of it."""
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not LEAST_SECRET_BYTES <= len(key) <= MAX_SECRET_BYTES:
        raise ValueError(
            f"secret must be {LEAST_SECRET_BYTES} to {MAX_SECRET_BYTES} bytes in base64; make one with "
            "`openssl rand -base64 32`"
        )
    return key


def read_webhooks(reader: TableReader, entries: Any) -> tuple[Webhook, ...]:
    """Return the webhooks of a market file, of the tables under [[alerts]]. Raises `MarketError`."""
    if entries is None:
        return ()
    if not isinstance(entries, list):
        raise reader.error("alerts", "expected a list of tables, each under [[alerts]]")
    webhooks: list[Webhook] = []
    for place, entry in enumerate(cast("list[Any]", entries)):
        key = f"alerts[{place}]"
        table: Table = reader.table(entry, key, "[[alerts]]")
        reader.refuse_unknown(table, key, Webhook.__struct_fields__)
        webhooks.append(reader.convert(table, key, Webhook))
    return tuple(webhooks)
