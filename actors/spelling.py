"""What a mistyped or unknown name was meant to be. Pure."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

SYNONYMS: Mapping[str, str] = {
    "address": "url",
    "api_url": "url",
    "base_url": "url",
    "endpoint": "url",
    "uri": "url",
    "url": "base_url",
    "host": "base_url",
    "key": "api_key",
    "token": "api_key",
    "type": "kind",
    "provider": "preset",
    "cost": "price",
    "price_per_call": "price",
    "skill": "services",
    "tags": "capabilities",
    "features": "capabilities",
    "latency": "response_time",
    "concurrency": "max_concurrency",
    "parallel": "max_concurrency",
    "workers": "max_concurrency",
    "qps": "rate_limit",
    "rps": "rate_limit",
    "requests_per_second": "rate_limit",
    "attempts": "max_retries",
    "max_attempts": "max_retries",
    "retries": "max_retries",
    "backoff": "base",
    "base_delay": "base",
    "initial": "base",
    "initial_delay": "base",
    "max_delay": "cap",
    "max_wait": "cap",
    "cooldown": "open_for",
    "recovery_timeout": "open_for",
    "reset_timeout": "open_for",
    "max_failures": "failure_threshold",
    "threshold": "failure_threshold",
    "ttl": "max_age",
    "max_age": "ttl",
    "cache_ttl": "ttl",
    "percentile": "quantile",
    "max_cost": "budget",
    "max_spend": "budget",
    "timeout_seconds": "timeout",
}
"""What other libraries and people call these settings; a name counts only at a door that knows what it stands for."""
EXPLAINED: Mapping[str, str] = {
    "base_delay": "base, in seconds",
    "base_delay_ms": "base, in seconds",
    "jitter_factor": 'proportion, from 0 to 1, with jitter="proportional"',
    "max_attempts": "max_retries, which does not count the first attempt",
    "max_delay": "cap, in seconds",
    "max_delay_ms": "cap, in seconds",
    "reset_time_ms": "open_for, in seconds",
    "reset_timeout": "open_for, in seconds",
    "timeout_ms": "timeout, in seconds",
}
"""Those of them that are given otherwise here, such as in another unit."""


def same(name: str, known: Collection[str]) -> str | None:
    """Return which of the known names is `name` but for its spelling, or what it stands for; None if none is.

    >>> same("Rate-Limit", ["rate_limit"]), same("rps", ["rate_limit"]), same("max_retires", ["max_retries"])
    ('rate_limit', 'rate_limit', None)
    """
    glued = {_glued(one): one for one in known}
    plain = _glued(name)
    return glued.get(plain) or glued.get(_glued(GLUED_SYNONYMS.get(plain, "")))


def _glued(name: str) -> str:
    """Return a name without case and separators: camel-cased names and those with hyphens are alike."""
    return re.sub(r"[\s_-]", "", name).lower()


GLUED_SYNONYMS = {_glued(name): meant for name, meant in SYNONYMS.items()}
_EXPLAINED = {_glued(name): meant for name, meant in EXPLAINED.items()}


def closest(name: str, known: Collection[str], *, cutoff: float = 0.65) -> str | None:
    """Return which of the known names was probably meant, or None if none is like it.

    >>> closest("max_retires", ["base", "cap", "max_retries"]), closest("colour", ["base", "cap"])
    ('max_retries', None)
    """
    if (found := same(name, known)) is not None:
        return found
    glued = {_glued(one): one for one in known}
    near = difflib.get_close_matches(_glued(name), glued, n=1, cutoff=cutoff)
    return glued[near[0]] if near else None


def meant_key(name: str, known: Collection[str], headings: Mapping[str, Collection[str]]) -> str | None:
    """Return the key that was probably meant: one known here, or one that belongs under another heading.

    >>> meant_key("retries", ["budget", "retry"], {"[retry]": ["max_retries"]})
    "'max_retries' under [retry]"
    >>> meant_key("budgte", ["budget", "retry"], {"[retry]": ["max_retries"]})
    "'budget'"
    """
    if (here := same(name, known)) is not None:
        return repr(here)
    elsewhere = [(same(name, keys), heading) for heading, keys in headings.items()]
    if not any(found for found, _ in elsewhere):
        if (here := closest(name, known)) is not None:
            return repr(here)
        # Under another heading, only a slip of the fingers: what is merely like a key there would mislead.
        elsewhere = [(closest(name, keys, cutoff=0.85), heading) for heading, keys in headings.items()]
    return next((f"{found!r} under {heading}" for found, heading in elsewhere if found), None)


def option_meant(name: str, known: Collection[str]) -> str:
    """Return "is ..." or "may be ..." for an option that there is not, and how it is given here; or all that there are.

    >>> option_meant("baseDelayMs", ["base", "cap"]), option_meant("colour", ["base", "cap"])
    ('is base, in seconds', 'is none of base, cap')
    """
    explained = _EXPLAINED.get(_glued(name))
    if explained is not None and explained.split(",")[0] in known:
        return f"is {explained}"
    if (here := same(name, known)) is not None:
        return f"is {here}"
    near = closest(name, known)
    return f"is none of {', '.join(known)}" if near is None else f"may be {near}"


def unknown_name(what: str, name: str, known: Collection[str]) -> str:
    """Return "an unknown ...", with what was probably meant, or else all known names.

    >>> unknown_name("option", "prize", ["price", "service"])
    "an unknown option 'prize'; did you mean 'price'?"
    """
    meant = closest(name, known)
    hint = f"did you mean {meant!r}?" if meant is not None else f"known are {', '.join(sorted(known))}"
    return f"an unknown {what} {name!r:.100}; {hint}"
