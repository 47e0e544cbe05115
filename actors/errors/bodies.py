"""Failures that arrive as successes: a 2xx whose body holds an error, as gateways and streams send them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import msgspec

from actors.errors.classification import classify, classify_status
from actors.errors.dialects import dialects

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actors.errors.families import CallFailed

WORDS = ("code", "type", "status", "__type", "reason")
"""Where the errors of the known providers bear their code, the most telling first."""


def error_in_body(
    body: object,
    *,
    provider: str = "provider",
    host: str | None = None,
    retry_after: float | None = None,
    paid: bool = False,
    idempotent: bool = True,
) -> CallFailed | None:
    """Return the family of the error that the body of a successful answer holds, or None where it holds none.

    `body` is JSON as bytes or str, or what was decoded of it. An error is what stands under "error", unless that is
    empty: `{"error": {"code": 429, "message": ...}}`, `{"error": "overloaded"}`. It is classified by the status it
    names, by number or by a word of dialects.toml, then as any error of a call that was sent, by its text. The other
    arguments are those of `classify_status`.

    >>> error_in_body('{"error": {"code": 429, "message": "slow down"}}', provider="acme")
    Throttled("'acme' answered 429 Too Many Requests")
    >>> error_in_body({"output": "fine", "error": None}) is None
    True
    """
    content = _decoded(body)
    error = cast("Mapping[str, Any]", content).get("error") if isinstance(content, Mapping) else None
    if not error:
        return None
    text = error if isinstance(error, str) else msgspec.json.encode(error, enc_hook=repr).decode()
    for status in _statuses(error):
        return classify_status(
            status,
            provider=provider,
            host=host,
            retry_after=retry_after,
            body=text,
            paid=paid,
            idempotent=idempotent,
        )
    return classify(ErrorInBody(text[:1_000]), provider=provider, paid=paid, idempotent=idempotent)


class ErrorInBody(Exception):
    """An error of which there is nothing but its text."""


def _decoded(body: object) -> object:
    if not isinstance(body, bytes | str):
        return body
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        # What is no JSON is malformed, and for others to judge.
        return None


def _statuses(error: object) -> Iterator[int]:
    """Yield the statuses that an error names: numbers before words, because words have dialects."""
    words = [cast("Mapping[str, object]", error).get(name) for name in WORDS] if isinstance(error, Mapping) else [error]
    for word in words:
        if isinstance(word, int) and 300 <= word <= 599:
            yield word
        elif isinstance(word, str) and word.isascii() and word.isdigit() and 300 <= int(word[:4]) <= 599:
            yield int(word)
    for word in words:
        status = dialects().status_of(word) if isinstance(word, str) else None
        if status is not None:
            yield status
