"""Who may look at the page and act on it: the operator's token, its sessions, and where a request comes from.

A page elsewhere can neither read nor act: the cookie is not sent to us from there (`SameSite=Strict`), its `Origin` is
not ours, and by DNS rebinding its `Host` is not ours either. Pure but for random numbers; `now` is an argument.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

COOKIE = "understudy"
CUSTOM_HEADER = "x-understudy"
"""A header that a form of another page cannot send, and a script there only with our leave."""
MIN_TOKEN = 16
SESSION_SECONDS = 12 * 3600.0
MAX_SESSIONS = 100


class Session(msgspec.Struct, frozen=True):
    """One exchange of the token for a cookie; `name` is what its acts are recorded under."""

    name: str
    expires: float


def new_token() -> str:
    """Return a new operator's token, of 256 bits."""
    return secrets.token_urlsafe(32)


def digest(text: str) -> bytes:
    """Return what is compared in place of a secret, so that neither its length nor its content shows in the time."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()


class Gate:
    """Knows the token, the sessions, and the `hosts` under which the page may be asked for, such as "127.0.0.1:8080".

    Raises ValueError for a token that is too short to be a secret.
    """

    def __init__(self, token: str, *, hosts: Collection[str] = ()) -> None:
        if len(token) < MIN_TOKEN:
            raise ValueError(
                f"the operator's token must have at least {MIN_TOKEN} characters; leave it out to have one made"
            )
        self._token = digest(token)
        self.hosts = {host.lower() for host in hosts}
        self._sessions: dict[bytes, Session] = {}

    def allow_local(self, host: str, port: int) -> None:
        """Answer under the address that is listened at, and under the names of this machine for itself."""
        shown = f"[{host}]" if ":" in host else host
        self.hosts |= {f"{name}:{port}" for name in (shown.lower(), "127.0.0.1", "localhost", "[::1]")}

    def is_our_host(self, headers: Mapping[str, str]) -> bool:
        """Tell whether a request is for a name that was stated."""
        return headers.get("host", "").lower() in self.hosts

    def is_our_origin(self, headers: Mapping[str, str], scheme: str) -> bool:
        """Tell whether a request is not of a page elsewhere."""
        origin = headers.get("origin")
        if origin is not None and origin.lower() != f"{scheme}://{headers.get('host', '').lower()}":
            return False
        return headers.get("sec-fetch-site", "none") in {"same-origin", "none"}

    def open(self, token: str, *, now: float) -> str | None:
        """Return the secret of a new session for the right token; None for any other."""
        if not hmac.compare_digest(digest(token), self._token):
            return None
        secret = secrets.token_urlsafe(32)
        self._sessions = {key: one for key, one in self._sessions.items() if one.expires > now}
        while len(self._sessions) >= MAX_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        self._sessions[digest(secret)] = Session(f"operator {secrets.token_hex(3)}", now + SESSION_SECONDS)
        return secret

    def close(self, headers: Mapping[str, str]) -> None:
        """End the session of a cookie."""
        self._sessions.pop(digest(cookie_of(headers)), None)

    def session(self, headers: Mapping[str, str], *, now: float) -> Session | None:
        """Return the session of a request, by its cookie or by the token itself as a bearer's; None if it has none."""
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and hmac.compare_digest(digest(given.strip()), self._token):
            return Session("operator", now)
        found = self._sessions.get(digest(cookie_of(headers)))
        return found if found is not None and found.expires > now else None


def cookie_of(headers: Mapping[str, str]) -> str:
    """Return the value of our cookie; "" if there is none.

    >>> cookie_of({"cookie": "theme=dark; understudy=abc"})
    'abc'
    """
    for part in headers.get("cookie", "").split(";"):
        name, _, value = part.strip().partition("=")
        if name == COOKIE:
            return value
    return ""
