"""Who may look at the page and act on it: the operator's token, its sessions, and where a request comes from.

A page elsewhere can neither read nor act: the cookie is not sent to us from there (`SameSite=Strict`), its `Origin` is
not ours, and by DNS rebinding its `Host` is not ours either. Pure but for random numbers; `now` is an argument.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import re
import secrets
from typing import TYPE_CHECKING
from urllib.parse import quote

import msgspec

from actors.limits.failed_attempts import FailedAttempts

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

CUSTOM_HEADER = "x-understudy"
"""A header that a form of another page cannot send, and a script there only with our leave."""
MIN_TOKEN = 16
SESSION_SECONDS = 12 * 3600.0
MAX_SESSIONS = 100


class Session(msgspec.Struct, frozen=True):
    """One exchange of the token for a cookie; `name` is what its acts are recorded under.

    Its `key` is b"" for a request that shows the token itself.
    """

    name: str
    expires: float
    key: bytes = b""


BEARER = Session("operator", math.inf)


class TooManyGuesses(Exception):
    """An address has shown too many wrong tokens: for `wait` seconds, none that it shows is looked at."""

    def __init__(self, wait: float) -> None:
        super().__init__(f"this address has shown too many wrong tokens; wait {wait:.0f} s")
        self.wait = wait


def new_token() -> str:
    """Return a new operator's token, of 256 bits."""
    return secrets.token_urlsafe(32)


def with_token(address: str, token: str) -> str:
    """Return the address of a page with the operator's token, in the part that a browser keeps to itself.

    >>> with_token("http://127.0.0.1:80/", "100 % #1")
    'http://127.0.0.1:80/#100%20%25%20%231'
    """
    return f"{address}#{quote(token, safe='')}"


def digest(secret: bytes) -> bytes:
    """Return what is compared in place of a secret, so that neither its length nor its content shows in the time."""
    return hashlib.sha256(secret).digest()


def token_digest(token: str) -> bytes:
    """Return the digest of a token as it is typed or pasted, with spaces around it or without."""
    return digest(token.strip().encode(errors="surrogatepass"))


def host_name(host: str) -> str:
    """Return a host as it is compared: browsers leave the port of their scheme out.

    >>> host_name("Ops.example:443"), host_name("[::1]:8080")
    ('ops.example', '[::1]:8080')
    """
    return host.lower().removesuffix(":443").removesuffix(":80")


class Gate:
    """Knows the token, the sessions, and the `hosts` under which the page may be asked for, such as "127.0.0.1:8080".

    Raises ValueError for a token that is too short to be a secret.
    """

    def __init__(self, token: str, *, hosts: Collection[str] = ()) -> None:
        if len(token.strip()) < MIN_TOKEN:
            raise ValueError(
                f"the operator's token must have at least {MIN_TOKEN} characters; leave it out to have one made"
            )
        self._token = token_digest(token)
        self._hosts = {host_name(host) for host in hosts}
        self._sessions: dict[bytes, Session] = {}
        self._guesses = FailedAttempts()

    def allow(self, host: str) -> None:
        """Answer under one more name."""
        self._hosts.add(host_name(host))

    def allow_local(self, host: str, port: int) -> None:
        """Answer under the address that is listened at, and under the names of this machine for itself."""
        shown = f"[{host}]" if ":" in host else host
        for name in (shown, "127.0.0.1", "localhost", "[::1]"):
            self.allow(f"{name}:{port}")

    def is_our_host(self, headers: Mapping[str, str]) -> bool:
        """Tell whether a request is for a name that was stated."""
        return host_name(headers.get("host", "")) in self._hosts

    def is_our_origin(self, headers: Mapping[str, str]) -> bool:
        """Tell whether a request is not of a page elsewhere.

        A page under a stated name is ours by http and by https: behind a proxy that ends TLS, a browser tells of https
        and the proxy asks us by http, maybe under a name of its own choice.
        """
        origin = headers.get("origin")
        if origin is not None:
            scheme, _, host = origin.partition("://")
            if scheme.lower() not in {"http", "https"} or host_name(host) not in self._hosts:
                return False
        return headers.get("sec-fetch-site", "none") in {"same-origin", "none"}

    def _is_token(self, shown: bytes, *, address: str, now: float) -> bool:
        """Tell whether the digest is that of the token.

        An address that has guessed wrong too often has to wait before another one is compared, the right one too: a
        brake that lets it through would not slow a guesser down. Sessions that are open go on. Raises `TooManyGuesses`.
        """
        if wait := self._guesses.wait(address, now=now):
            raise TooManyGuesses(wait)
        if hmac.compare_digest(shown, self._token):
            return True
        self._guesses.count(address, now=now)
        return False

    def open(self, token: str, *, address: str, now: float) -> str | None:
        """Return the secret of a new session for the right token; None for any other. Raises `TooManyGuesses`."""
        if not self._is_token(token_digest(token), address=address, now=now):
            return None
        secret = secrets.token_urlsafe(32)
        self._sessions = {key: one for key, one in self._sessions.items() if one.expires > now}
        while len(self._sessions) >= MAX_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        key = digest(secret.encode())
        self._sessions[key] = Session(f"operator {secrets.token_hex(3)}", now + SESSION_SECONDS, key)
        return secret

    def close(self, headers: Mapping[str, str]) -> None:
        """End the session of a cookie."""
        self._sessions.pop(digest(cookie_of(headers)), None)

    def session(self, headers: Mapping[str, str], *, address: str, now: float) -> Session | None:
        """Return the session of a request, by its cookie or by the token itself as a bearer's; None if it has none.

        Raises `TooManyGuesses`.
        """
        found = self._sessions.get(digest(cookie_of(headers)))
        if found is not None and found.expires > now:
            return found
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        shown = digest(given.strip().encode("latin-1"))
        return BEARER if self._is_token(shown, address=address, now=now) else None

    def lasts(self, session: Session, *, now: float) -> bool:
        """Tell whether a session is open still."""
        return not session.key or (session.key in self._sessions and session.expires > now)


def cookie_name(headers: Mapping[str, str]) -> str:
    """Return the name of our cookie under the host that is asked: browsers send one to all ports of a host.

    Jupyter names its cookie so for the same reason, by `IdentityProvider.get_cookie_name` of jupyter_server.

    >>> cookie_name({"host": "127.0.0.1:8080"})
    'understudy-127-0-0-1-8080'
    """
    return "understudy-" + re.sub("[^a-z0-9]+", "-", host_name(headers.get("host", ""))).strip("-")


def cookie_of(headers: Mapping[str, str]) -> bytes:
    """Return the value of our cookie; b"" if there is none.

    >>> cookie_of({"host": "a:1", "cookie": "theme=dark; understudy-a-1=abc"})
    b'abc'
    """
    ours = cookie_name(headers)
    for part in headers.get("cookie", "").split(";"):
        name, _, value = part.strip().partition("=")
        if name == ours:
            return value.encode("latin-1")
    return b""
