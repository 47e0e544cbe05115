"""Finds errors inside successful answers: a 2xx whose body holds an error, as gateways and streams send them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

import msgspec

from actors.errors.classification import classify_status
from actors.errors.dialects import dialects
from actors.errors.texts import classify_text
from actors.errors.waits import retry_after_of
from actors.errors.words import with_words, written

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actors.errors.families import CallFailed

CODE_FIELDS = ("code", "type", "status", "__type", "reason")
"""The fields in which the errors of known providers hold their code, the most precise first."""


def error_in_body(
    body: object,
    *,
    provider: str = "provider",
    host: str | None = None,
    retry_after: float | None = None,
    paid: bool = False,
    idempotent: bool = True,
) -> CallFailed | None:
    """Return the family of the error that the body of a successful answer holds, or None if it holds none.

    `body` is JSON as bytes or str, or the decoded object. An error is a value under "error" that is not empty:
    `{"error": {"code": 429, "message": ...}}`, `{"error": "overloaded"}`. It is classified by the status it names, as a
    number or as a word of dialects.toml; if it names none, by its text, as any error of a call that was sent. What
    it says is in the error, unmasked, and without `retry_after` the wait is what it tells. The other arguments are
    those of `classify_status`.

    >>> error_in_body('{"error": {"code": 429, "message": "slow down"}}', provider="acme")
    Throttled("'acme' answered 429 Too Many Requests: slow down")
    >>> error_in_body({"output": "fine", "error": None}) is None
    True
    """
    content = _decoded(body)
    error = cast("Mapping[str, Any]", content).get("error") if isinstance(content, Mapping) else None
    if not error:
        return None
    text = error if isinstance(error, str) else written(error)
    for status in _statuses(error):
        failure = classify_status(
            status,
            provider=provider,
            host=host,
            retry_after=retry_after,
            body=text,
            paid=paid,
            idempotent=idempotent,
        )
        break
    else:
        failure = classify_text(text[:1_000], provider=provider, sent=True, paid=paid, idempotent=idempotent)
        failure.args = (f"{provider!r} answered with an error",)  # What it says follows.
        failure.retry_after = retry_after_of({}, text, now=datetime.now(UTC)) if retry_after is None else retry_after
    return with_words(failure, error)


def _decoded(body: object) -> object:
    if not isinstance(body, bytes | str):
        return body
    try:
        return msgspec.json.decode(body)
    except (ValueError, RecursionError):  # Of text with a lone surrogate, that is no DecodeError.
        # A body that is not JSON is malformed; the transport decides what that means.
        return None


def _statuses(error: object) -> Iterator[int]:
    """Yield the statuses that an error names: numbers before words, because the meaning of words varies."""
    fields = cast("Mapping[str, object]", error) if isinstance(error, Mapping) else None
    codes: list[object] = [error] if fields is None else [fields.get(name) for name in CODE_FIELDS]
    for code in codes:
        if isinstance(code, int) and 300 <= code <= 599:
            yield code
        elif isinstance(code, str) and code.isascii() and code.isdigit() and 300 <= int(code[:4]) <= 599:
            yield int(code)
    for code in codes:
        status = dialects().status_of(code) if isinstance(code, str) else None
        if status is not None:
            yield status
