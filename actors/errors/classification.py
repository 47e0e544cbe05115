"""Classifies answers with the status of a failure into families: by a provider's dialect, and by the status."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import cast

from actors.errors.dialects import dialects
from actors.errors.families import (
    CallFailed,
    OutcomeUnknown,
    Permanent,
    QuotaExhausted,
    Throttled,
    Transient,
)
from actors.errors.waits import is_day_spent, kind_of, retry_after_of

OWN_FIELDS = ("error", "errors", "detail", "message", "code", "__type")
"""Fields of the bodies in which providers describe an error."""
REQUEST_IDS = ("x-request-id", "request-id", "x-amzn-requestid", "apim-request-id")
AMBIGUOUS = frozenset({302, 303, 408, 409, 425, 499})
"""Statuses below 500 that do not tell whether the call ran. 302 and 303 answer a POST that was accepted (RFC 9110
15.4); 408 and 425 may come from a proxy after it passed the request on; 409 is said while a call under the same key is
still at work; 499 is a proxy's word for a caller that hung up (nginx)."""
SAID_BY_PROXIES = AMBIGUOUS | {502, 504, *range(520, 528)}
"""Ambiguous statuses that a proxy may say, 520 to 527 being Cloudflare's: whatever the provider declares, such a call
may have been charged."""
MAX_MARKED = 4096  # Characters of a body or message that are searched; error codes stand near its beginning.


def classify_status(
    status: int,
    *,
    provider: str,
    retry_after: float | None = None,
    body: str = "",
    headers: Mapping[str, str] | None = None,
    host: str | None = None,
    paid: bool = False,
    idempotent: bool = True,
    uncharged: bool = False,
) -> CallFailed:
    """Return the family of an HTTP answer of `status` 300 or above; raise ValueError for one below.

    If the body, or the kind that `headers` name, matches a dialect (see dialects.toml) of `provider`, or of the
    provider at `host`, the dialect decides. Without `retry_after` the wait is what headers and body tell. Too many
    calls for a quota of a day, of which it is not told when it resets, are `QuotaExhausted`: waiting is of no use.

    A status proves that a call never ran only if a specification or the provider's documents say so: 402, 421, 429
    (RFC 9110, RFC 6585), and 503 unless a proxy says it. The statuses of `AMBIGUOUS`, all others from 500 up, and those
    unknown to HTTP leave open whether the call took effect: for a call that is paid and not idempotent they are
    `OutcomeUnknown`. Every other status is the caller's mistake.

    `uncharged` says that the provider does not charge for errors that it answers itself, and that this is one (see
    `is_own_answer`): then an ambiguous status holds nothing, unless a proxy may have said it too.
    """
    if status < 300:
        raise ValueError(f"status {status} is not a failure; classify only answers with a status of 300 or above")
    message = f"{provider!r} answered {_name_of(status)}"
    told, now = headers or {}, datetime.now(UTC)
    dialect = dialects().find(status, f"{kind_of(told)} {body}"[:MAX_MARKED], provider=provider, host=host)
    heard = retry_after_of(told, body, now=now, host=host, status=status)
    retry_after = heard if retry_after is None else retry_after
    is_spent = is_day_spent(told, body, retry_after, now=now, host=host, provider=provider)
    throttled = QuotaExhausted if is_spent else Throttled
    if dialect is not None:
        message = f"{message}: {dialect.marker}"
        if dialect.means is Transient and not dialect.refused:
            if uncharged and not dialect.by_proxy:
                return _uncharged(message, provider, status=status, retry_after=retry_after)
            return ambiguous(
                message, provider, paid=paid, idempotent=idempotent, status=status, retry_after=retry_after
            )
        means = throttled if dialect.means is Throttled else dialect.means
        return means(
            message,
            provider=provider,
            status=status,
            retry_after=retry_after,
            outcome="not_started" if dialect.refused else None,
        )
    match status:
        case 402:
            return QuotaExhausted(message, provider=provider, status=status, retry_after=retry_after)
        case 429:
            return throttled(message, provider=provider, status=status, retry_after=retry_after)
        case 421 | 503:
            return Transient(message, provider=provider, status=status, retry_after=retry_after, outcome="not_started")
        case _ if status < 500 and status not in AMBIGUOUS:
            return Permanent(message, provider=provider, status=status)
        case _ if uncharged and status not in SAID_BY_PROXIES:
            return _uncharged(message, provider, status=status, retry_after=retry_after)
        case _:
            return ambiguous(
                message, provider, paid=paid, idempotent=idempotent, status=status, retry_after=retry_after
            )


def ambiguous(
    message: str,
    provider: str,
    *,
    paid: bool,
    idempotent: bool,
    status: int | None = None,
    retry_after: float | None = None,
) -> CallFailed:
    """Classify a failure after which it is not known whether the call took effect."""
    family = OutcomeUnknown if paid and not idempotent else Transient
    return family(message, provider=provider, status=status, retry_after=retry_after, charged="held" if paid else "no")


def _uncharged(message: str, provider: str, *, status: int, retry_after: float | None) -> CallFailed:
    """Classify an error of a provider that does not charge for it: nothing is held, and another may be called."""
    return Transient(message, provider=provider, status=status, retry_after=retry_after, outcome="done", charged="no")


def is_own_answer(headers: Mapping[str, str], body: object) -> bool:
    """Tell whether an error answer is in the provider's own form, and no proxy's: by its body or its request id.

    `headers` have names in lower case; `body` is the decoded JSON, or None if it is not JSON. A proxy's page is HTML or
    plain text, and a request id is added by the provider's own front.

    >>> is_own_answer({}, {"error": {"message": "internal error"}}), is_own_answer({}, None)
    (True, False)
    """
    if isinstance(body, Mapping):
        fields = cast("Mapping[object, object]", body)
        return any(fields.get(name) for name in OWN_FIELDS)
    return body is not None and any(headers.get(name) for name in REQUEST_IDS)


def _name_of(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)
