"""Whether a request is let in, by its headers alone: its key, and, if there are no keys, where it comes from. Pure."""

from __future__ import annotations

import functools
import ipaddress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from actors.serve.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

UNAUTHORIZED = 401
DECIDING = frozenset({"authorization", "x-api-key", "idempotency-key", "host", "origin", "content-type"})


def shown_key(headers: Mapping[str, str]) -> str | None:
    """Return the key that a request shows, or None. Raises `Problem` if it shows two.

    >>> shown_key({"authorization": "Bearer usk-1-x"}), shown_key({"x-api-key": "usk-1-x"}), shown_key({})
    ('usk-1-x', 'usk-1-x', None)
    """
    shown = headers.get("authorization", "").strip()
    scheme, _, bearer = shown.partition(" ")
    bearer = bearer.strip() if scheme.lower() == "bearer" else ""
    other = headers.get("x-api-key", "").strip()
    if shown and other and bearer != other:
        raise Problem(400, "Authorization and x-api-key show two different keys; send one", code="two_keys")
    return bearer or other or None


def check_once(contradictory: Collection[str]) -> None:
    """Raise `Problem` if a header that decides something came with several values: which of them counts is a guess."""
    for name in contradictory:
        if name in DECIDING or name.startswith("x-understudy-"):
            raise Problem(400, f"{name} has several values that differ; send one", code="two_values")


def not_let_in(why: str) -> Problem:
    """Return the refusal of a request without a key that is accepted."""
    return Problem(UNAUTHORIZED, f"{why}; send a key of this door", code="invalid_api_key", should_retry=False)


def check_local(headers: Mapping[str, str], *, origins: Collection[str]) -> None:
    """Refuse what a web page could have sent, because a door without keys spends for whoever can reach it.

    That is a request with an `Origin` that is not listed, or for a `Host` that is not of this machine, such as a name
    that a page has bound to it. Raises `Problem`.
    """
    origin = headers.get("origin")
    if origin is not None and origin not in origins:
        raise Problem(403, f"the web page {origin!r:.100} may not ask here; list it in origins", code="origin")
    host = headers.get("host", "")
    if not is_local(host):
        raise Problem(403, f"without keys, only this machine is served, not the host {host!r:.100}", code="host")


def check_json(headers: Mapping[str, str]) -> None:
    """Raise `Problem` if a body is not declared to be JSON; web pages may send other types without being asked."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise Problem(415, f"the body must be application/json, got {kind!r:.100}", code="content_type")


@functools.lru_cache(maxsize=64)
def is_local(host: str) -> bool:
    """Return whether a `Host` header names this machine's loopback.

    >>> [
    ...     is_local(host)
    ...     for host in ("127.0.0.1:8080", "[::1]:80", "localhost", "evil.example", "127.0.0.1.evil.example")
    ... ]
    [True, True, True, False, False]
    """
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
