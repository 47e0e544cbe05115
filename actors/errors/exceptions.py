"""Classifies exceptions into families: by type and HTTP status, and at last by text."""

from __future__ import annotations

import errno
import socket
import ssl
from typing import cast

from actors.errors.classification import ambiguous, classify_status
from actors.errors.families import CallFailed, ConnectionFailed, Permanent
from actors.errors.texts import classify_text

TIMEOUT_STATUSES = frozenset({408, 504})
"""What client libraries put on their own timeouts, as if the server had said it."""
NO_ROUTE = frozenset({errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL})
NEVER_SENT = (ConnectionRefusedError, socket.gaierror, ssl.SSLCertVerificationError)
LOCAL_MISTAKES = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError)
CALLERS_MISTAKES = (ValueError, TypeError, LookupError, AttributeError, NotImplementedError)


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
        return ambiguous(f"{provider!r}: {text}", provider, paid=paid, idempotent=idempotent)
    if isinstance(error, LOCAL_MISTAKES + CALLERS_MISTAKES):
        # A mistake found after sending, such as an answer that does not parse, does not bring the money back.
        return Permanent(f"{provider!r}: {text}", provider=provider, charged="held" if sent and paid else "no")
    return classify_text(text, provider=provider, sent=sent, paid=paid, idempotent=idempotent)


def is_retryable_error(error: BaseException) -> bool:
    """Whether the same call may succeed if tried again: timeouts, refused connections, 503, 429, "temporary".

    False for a caller's mistakes (ValueError, 400, unauthorized), for missing money, for cancellation, and for errors
    that no rule knows: raise `Transient` to ask for a retry.

    >>> is_retryable_error(TimeoutError()), is_retryable_error(ValueError("a temporary name"))
    (True, False)
    """
    return isinstance(error, Exception) and classify(error, provider="provider").retryable


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
