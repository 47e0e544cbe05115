"""What a mistyped or unknown name was meant to be. Pure."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

SYNONYMS: Mapping[str, str] = {
    "address": "url",
    "api_url": "url",
    "base_url": "url",
    "endpoint": "url",
    "uri": "url",
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


def closest(name: str, known: Collection[str]) -> str | None:
    """Return which of the known names was probably meant, or None if none is like it.

    >>> closest("max_retires", ["base", "cap", "max_retries"]), closest("Rate-Limit", ["rate_limit", "burst"])
    ('max_retries', 'rate_limit')
    >>> closest("rps", ["rate_limit", "burst"]), closest("colour", ["base", "cap"])
    ('rate_limit', None)
    """
    plain = name.strip().lower().replace("-", "_").replace(" ", "_")
    if plain in known:
        return plain
    if SYNONYMS.get(plain) in known:
        return SYNONYMS[plain]
    # A glued or camel-cased name is compared without its underscores.
    glued = {one.replace("_", ""): one for one in known}
    found = difflib.get_close_matches(plain.replace("_", ""), glued, n=1, cutoff=0.6)
    return glued[found[0]] if found else None


def unknown_name(what: str, name: str, known: Collection[str]) -> str:
    """Return "an unknown ...", with what was probably meant, or else all known names.

    >>> unknown_name("option", "prize", ["price", "service"])
    "an unknown option 'prize'; did you mean 'price'?"
    """
    meant = closest(name, known)
    hint = f"did you mean {meant!r}?" if meant is not None else f"known are {', '.join(sorted(known))}"
    return f"an unknown {what} {name!r:.100}; {hint}"
