"""Classifies failures into families: by type and HTTP status, by a provider's dialect, and at last by text."""

from __future__ import annotations

import email.utils
import errno
import math
import re
import socket
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import cast

from actors.errors.dialects import dialects
from actors.errors.families import (
    CallFailed,
    ConnectionFailed,
    OutcomeUnknown,
    Permanent,
    QuotaExhausted,
    Throttled,
    Transient,
    Unclassified,
)

TEXTS: tuple[tuple[str, type[CallFailed]], ...] = (
    ("insufficient_quota", QuotaExhausted),
    ("insufficient funds", QuotaExhausted),
    ("budget exceeded", Permanent),
    ("unauthorized", Permanent),
    ("invalid input", Permanent),
    ("bad request", Permanent),
    ("too many requests", Throttled),
    ("temporar", Transient),  # "temporary", "temporarily"
    ("service unavailable", Transient),
    ("connection refused", Transient),
    ("timed out", Transient),
    ("timeout", Transient),
)
"""The meaning of a message (in lower case) if neither type nor status tells; the first match counts."""

TIMEOUT_STATUSES = frozenset({408, 504})
"""What client libraries put on their own timeouts, as if the server had said it."""
OWN_FIELDS = ("error", "errors", "detail", "message", "code", "__type")
"""Fields of the bodies in which providers describe an error."""
REQUEST_IDS = ("x-request-id", "request-id", "x-amzn-requestid", "apim-request-id")
NO_ROUTE = frozenset({errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL})
NEVER_SENT = (ConnectionRefusedError, socket.gaierror, ssl.SSLCertVerificationError)
LOCAL_MISTAKES = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError)
CALLERS_MISTAKES = (ValueError, TypeError, LookupError, AttributeError, NotImplementedError)
AMBIGUOUS = frozenset({302, 303, 408, 409, 425, 499})
"""Statuses below 500 that do not tell whether the call ran. 302 and 303 answer a POST that was accepted (RFC 9110
15.4); 408 and 425 may come from a proxy after it passed the request on; 409 is said while a call under the same key is
still at work; 499 is a proxy's word for a caller that hung up (nginx)."""
SAID_BY_PROXIES = AMBIGUOUS | {502, 504, *range(520, 528)}
"""Ambiguous statuses that a proxy may say, 520 to 527 being Cloudflare's: whatever the provider declares, such a call
may have been charged."""
MAX_MARKED = 4096  # Characters of a body or message that are searched; error codes stand near its beginning.


def classify(
    error: BaseException, *, provider: str, sent: bool = True, paid: bool = False, idempotent: bool = True
) -> CallFailed:
    """Return the family of `error`; a `CallFailed` is returned as it is. Raise the result `from error`.

    `sent` means that the request may have reached the provider. If a call is `paid` and not `idempotent`, repeating it
    may cost twice: a failure that leaves open whether the call happened is then `OutcomeUnknown`, not `Transient`.
    A cancellation (any BaseException that is not an Exception) is not a failure: it is raised again.
    """
    if isinstance(error, CallFailed):
        return error
    if not isinstance(error, Exception):
        raise error
    status = _status_of(error)
    if status is not None and not _is_timeout_of_client(error, status):
        return classify_status(status, provider=provider, body=str(error), paid=paid, idempotent=idempotent)
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    is_timeout = status is not None
    if is_timeout or (isinstance(error, OSError | EOFError) and not isinstance(error, LOCAL_MISTAKES)):
        # An expired timer or a broken pipe does not tell how far the call came; a failed connect does.
        if not sent or isinstance(error, NEVER_SENT) or getattr(error, "errno", None) in NO_ROUTE:
            return ConnectionFailed(provider, text)
        return _ambiguous(f"{provider!r}: {text}", provider, paid=paid, idempotent=idempotent)
    if isinstance(error, LOCAL_MISTAKES + CALLERS_MISTAKES):
        # A mistake found after sending, such as an answer that does not parse, does not bring the money back.
        return Permanent(f"{provider!r}: {text}", provider=provider, charged="held" if sent and paid else "no")
    return _by_text(text, provider, sent=sent, paid=paid, idempotent=idempotent)


def classify_status(
    status: int,
    *,
    provider: str,
    retry_after: float | None = None,
    body: str = "",
    host: str | None = None,
    paid: bool = False,
    idempotent: bool = True,
    uncharged: bool = False,
) -> CallFailed:
    """Return the family of an HTTP answer of `status` 300 or above; raise ValueError for one below.

    If the body matches a dialect (see dialects.toml) of `provider`, or of the provider at `host`, the dialect decides.
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
    dialect = dialects().find(status, body[:MAX_MARKED], provider=provider, host=host)
    if dialect is not None:
        message = f"{message}: {dialect.marker}"
        if dialect.means is Transient and not dialect.refused:
            if uncharged and not dialect.by_proxy:
                return _uncharged(message, provider, status=status, retry_after=retry_after)
            return _ambiguous(
                message, provider, paid=paid, idempotent=idempotent, status=status, retry_after=retry_after
            )
        return dialect.means(
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
            return Throttled(message, provider=provider, status=status, retry_after=retry_after)
        case 421 | 503:
            return Transient(message, provider=provider, status=status, retry_after=retry_after, outcome="not_started")
        case _ if status < 500 and status not in AMBIGUOUS:
            return Permanent(message, provider=provider, status=status)
        case _ if uncharged and status not in SAID_BY_PROXIES:
            return _uncharged(message, provider, status=status, retry_after=retry_after)
        case _:
            return _ambiguous(
                message, provider, paid=paid, idempotent=idempotent, status=status, retry_after=retry_after
            )


def is_retryable_error(error: BaseException) -> bool:
    """Whether the same call may succeed if tried again: timeouts, refused connections, 503, 429, "temporary".

    False for a caller's mistakes (ValueError, 400, unauthorized), for missing money, for cancellation, and for errors
    that no rule knows: raise `Transient` to ask for a retry.

    >>> is_retryable_error(TimeoutError()), is_retryable_error(ValueError("a temporary name"))
    (True, False)
    """
    return isinstance(error, Exception) and classify(error, provider="provider").retryable


def parse_retry_after(value: str, *, now: datetime) -> float | None:
    """Return the seconds that a `Retry-After` header asks for (RFC 9110 10.2.3), or None if it is malformed.

    It may hold seconds, also with a fraction, or an HTTP date, which is read against `now` (which needs a time zone).
    A date that has passed is 0.0.

    >>> parse_retry_after("120", now=datetime(2030, 1, 1, tzinfo=UTC))
    120.0
    """
    if now.tzinfo is None:
        raise ValueError(f"now must have a time zone, got {now!r}")
    value = value.strip()
    if re.fullmatch(r"\d+(\.\d+)?", value, re.ASCII):
        seconds = float(value)
        return seconds if math.isfinite(seconds) else None
    try:
        moment = email.utils.parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())


def _ambiguous(
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


def _by_text(text: str, provider: str, *, sent: bool, paid: bool, idempotent: bool) -> CallFailed:
    message = f"{provider!r}: {text}"
    marked = text[:MAX_MARKED].lower()
    family = next((means for marker, means in TEXTS if marker in marked), Unclassified)
    if family in {Transient, Unclassified} and sent and paid:
        if not idempotent:
            return OutcomeUnknown(message, provider=provider)
        return family(message, provider=provider, charged="held")
    return family(message, provider=provider)


def _status_of(error: Exception) -> int | None:
    """Return the HTTP status of an error of a client library, by the attribute names that such libraries use."""
    response = cast("object", getattr(error, "response", None))
    for holder in (error, response):
        for name in ("status_code", "status"):
            status = cast("object", getattr(holder, name, None))
            if isinstance(status, int) and status >= 300:
                return status
    return None


def _is_timeout_of_client(error: Exception, status: int) -> bool:
    """Tell whether a status is what a client library puts on its own timeout: no response has come with it."""
    is_named_so = any("timeout" in kind.__name__.lower() for kind in type(error).__mro__)
    return status in TIMEOUT_STATUSES and is_named_so and getattr(error, "response", None) is None


def _name_of(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)
