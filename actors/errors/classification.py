"""Classifies answers with the status of a failure into families: by a provider's dialect, and by the status."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import cast

from actors.errors.dialects import AMBIGUOUS, CONCERNS, SAID_BY_PROXIES, Dialect, dialects
from actors.errors.families import (
    CallFacts,
    CallFailed,
    OutcomeUnknown,
    Permanent,
    QuotaExhausted,
    Throttled,
    Transient,
)
from actors.errors.waits import is_day_spent, plain_headers, retry_after_of
from actors.errors.wording import Wording

OWN_FIELDS = ("error", "errors", "detail", "message", "code", "__type")
"""Fields of the bodies in which providers describe an error."""
DAY_SPENT = "; no calls are left for the day, or longer"
REQUEST_IDS = ("x-request-id", "request-id", "x-amzn-requestid", "apim-request-id")
STATUS_NAMES = frozenset(status.phrase.lower() for status in HTTPStatus)
KEY_REFUSED = frozenset({401, 407})
REFUSED_HERE = frozenset({403, 404, 405, 406, 410, 411, 413, 414, 415, 417, 426, 431, 451, *range(300, 400)})
"""Statuses that say nothing of the request elsewhere, and too little to leave the provider for other requests: its
address, its size, or a right. A 403 without words may be a firewall's."""
MAX_MARKED = 4096  # Characters of a message that are searched.


def classify_status(
    status: int,
    *,
    provider: str,
    retry_after: float | None = None,
    body: object = "",
    headers: Mapping[str, str] | None = None,
    host: str | None = None,
    paid: bool = False,
    idempotent: bool = True,
    uncharged: bool = False,
) -> CallFailed:
    """Return the family of an HTTP answer of `status` 300 or above; raise ValueError for one below.

    `body` is its text, or its JSON decoded. If body or `headers` match a dialect (see dialects.toml) of `provider`, or
    of the provider at `host`, the dialect decides. Otherwise the status does: 401 is the key; 402 is an empty account;
    403, 404, 413, redirects and others of their kind concern this request at this provider; every other status below
    500 is the caller's mistake. Without `retry_after` the wait is what headers and body tell. Too many calls for a
    quota of a day, of which it is not told when it resets, are `QuotaExhausted`: waiting is of no use.

    A status proves that a call never ran only if a specification or the provider's documents say so: 402, 421, 429
    (RFC 9110, RFC 6585), and 503 unless a proxy says it. The statuses of `AMBIGUOUS`, all others from 500 up, and those
    unknown to HTTP leave open whether the call took effect: for a call that is paid and not idempotent they are
    `OutcomeUnknown`.

    `uncharged` says that the provider does not charge for errors that it answers itself, and that this is one (see
    `is_own_answer`): then an ambiguous status holds nothing, unless a proxy may have said it too.
    """
    if status < 300:
        raise ValueError(f"status {status} is not a failure; classify only answers with a status of 300 or above")
    told, now = plain_headers(headers or {}), datetime.now(UTC)
    wording = Wording.of(body, told)
    row = dialects().find(status, wording, provider=provider, host=host)
    message = f"{provider!r} answered {_name_of(status)}" + (f": {row.says}" if row is not None else "")
    retry_after = retry_after_of(told, body, now=now, host=host, status=status) if retry_after is None else retry_after
    is_spent = is_day_spent(told, body, retry_after, now=now, host=host, provider=provider)
    # What is told beside a quota of a day is the wait for one of a minute.
    facts = CallFacts(provider=provider, status=status, retry_after=None if is_spent else retry_after)
    if row is not None and (row.means is not Transient or row.refused):
        return refusal_of(row, message, facts, paid=paid, is_day_spent=is_spent)
    by_proxy = status in SAID_BY_PROXIES or (row.by_proxy if row is not None else wording.form == "page")
    match status:
        case 402 if row is None:
            return QuotaExhausted(message, **facts)
        case 429:
            return QuotaExhausted(message + DAY_SPENT, **facts) if is_spent else Throttled(message, **facts)
        case 421:
            return Transient(message, **(facts | CallFacts(outcome="not_started")))
        case 503 if not by_proxy:
            return Transient(message, **(facts | CallFacts(outcome="not_started")))
        case _ if row is None and status < 500 and status not in AMBIGUOUS:
            if status in KEY_REFUSED:
                return Permanent(f"{message}: {CONCERNS['key']}", scope="provider", concerns="key", **facts)
            return Permanent(message, scope="here" if status in REFUSED_HERE else "request", **facts)
        case _ if uncharged and not by_proxy:
            # A provider that does not charge for its errors: nothing is held, and another may be called.
            return Transient(message, **(facts | CallFacts(outcome="done", charged="no")))
        case _:
            return ambiguous(
                message, provider, paid=paid, idempotent=idempotent, status=status, retry_after=retry_after
            )


def refusal_of(row: Dialect, message: str, facts: CallFacts, *, paid: bool, is_day_spent: bool = False) -> CallFailed:
    """Return the error for an answer that, by a dialect, refused the call; `is_day_spent` if for the rest of a day."""
    if paid and row.charged is not None:
        facts = facts | CallFacts(charged=row.charged)
    if row.means is Permanent:
        return Permanent(message, scope=row.scope, concerns=row.concerns, **facts)
    if row.refused:
        facts = facts | CallFacts(outcome="not_started")
    if is_day_spent and row.means is Throttled:
        return QuotaExhausted(message + DAY_SPENT, **facts)
    return row.means(message, **facts)


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


def is_own_answer(headers: Mapping[str, str], body: object) -> bool:
    """Tell whether an error answer is in the provider's own form, and no proxy's: by its body or its request id.

    `headers` have names in lower case; `body` is the decoded JSON, or None if it is not JSON. A proxy's page is HTML or
    plain text, and a request id is added by the provider's own front.

    >>> is_own_answer({}, {"error": {"message": "internal error"}}), is_own_answer({}, None)
    (True, False)
    """
    if isinstance(body, Mapping):
        fields = cast("Mapping[object, object]", body)
        told = {name: value for name in OWN_FIELDS if (value := fields.get(name))}
        # A gateway writes the name of the status where a provider writes what went wrong.
        return bool(told) and not (told.keys() == {"message"} and str(told["message"]).lower() in STATUS_NAMES)
    if isinstance(body, list) and body and isinstance(body[0], Mapping):
        return is_own_answer(headers, cast("object", body[0]))
    return body is not None and any(headers.get(name) for name in REQUEST_IDS)


def _name_of(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)
