"""API keys of the door: an identity and 256 random bits, shown once; what is kept is a digest. Pure but for chance."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import TYPE_CHECKING

import msgspec

from actors.limits.class_queue import Priority  # noqa: TC001 - msgspec resolves the annotations below.

if TYPE_CHECKING:
    from collections.abc import Iterable

PREFIX = "usk"
ID_BYTES = 8
SECRET_BYTES = 32
PARTS = 3
MAX_KEY_LENGTH = 200
UNKNOWN = hashlib.sha256(b"").hexdigest()
"""The digest that is compared if the identity of a key is unknown, so that this takes as long."""


class ApiKey(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is kept of a key: `sha256` of its secret, and the tenant that it belongs to.

    `expires` and `revoked` are in seconds since 1970; None is never. `priority` is the class in which its requests wait
    if that is lower than their tenant's; None is the tenant's. Once it was revoked, a key that
    `cuts` ends what is under way for it, too.
    """

    id: str
    sha256: str
    tenant: str
    expires: float | None = None
    revoked: float | None = None
    priority: Priority | None = None
    cuts: bool = False

    def refusal(self, now: float) -> str | None:
        """Return why the key is not accepted at a time, or None.

        >>> ApiKey(id="1", sha256="", tenant="acme", revoked=5.0).refusal(6.0)
        'the key was revoked'
        """
        if self.revoked is not None and self.revoked <= now:
            return "the key was revoked"
        if self.expires is not None and self.expires <= now:
            return "the key has expired"
        return None


def new_key(tenant: str, *, expires: float | None = None, priority: Priority | None = None) -> tuple[str, ApiKey]:
    """Return a new key, which is shown once, and what is kept of it.

    >>> shown, kept = new_key("acme")
    >>> shown.startswith(f"usk-{kept.id}-"), KeyRing([kept]).find(shown, now=0.0) == kept
    (True, True)
    """
    identity, secret = secrets.token_hex(ID_BYTES), secrets.token_urlsafe(SECRET_BYTES)
    kept = ApiKey(id=identity, sha256=_digest(secret), tenant=tenant, expires=expires, priority=priority)
    return f"{PREFIX}-{identity}-{secret}", kept


class KeyRing:
    """The keys that are accepted."""

    def __init__(self, keys: Iterable[ApiKey] = ()) -> None:
        self._keys = {key.id: key for key in keys}

    def __len__(self) -> int:
        return len(self._keys)

    def __bool__(self) -> bool:
        return bool(self._keys)

    def all(self) -> tuple[ApiKey, ...]:
        """Return every key, also those that are no longer accepted."""
        return tuple(self._keys.values())

    def find(self, shown: str, *, now: float) -> ApiKey | None:
        """Return the key, or None if there is none such, or it is no longer accepted at `now` (seconds since 1970).

        How long that takes tells neither whether the identity is known, nor how much of the secret is right.
        """
        prefix, identity, secret = _parts(shown)
        key = self._keys.get(identity)
        is_right = hmac.compare_digest(_digest(secret), UNKNOWN if key is None else key.sha256)
        if key is None or not is_right or prefix != PREFIX or key.refusal(now) is not None:
            return None
        return key


def _parts(shown: str) -> tuple[str, str, str]:
    parts = shown[:MAX_KEY_LENGTH].split("-", PARTS - 1)
    return (parts[0], parts[1], parts[2]) if len(parts) == PARTS else ("", "", shown[:MAX_KEY_LENGTH])


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
