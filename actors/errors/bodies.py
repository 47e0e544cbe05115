"""Finds errors inside successful answers: a 2xx whose body holds an error, as gateways and streams send them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

from actors.errors.classification import classify_status, refusal_of
from actors.errors.dialects import dialects
from actors.errors.families import CallFacts, CallFailed, Transient
from actors.errors.texts import classify_text
from actors.errors.waits import retry_after_of
from actors.errors.wording import Wording, decoded, plain_code
from actors.errors.words import with_words, written

if TYPE_CHECKING:
    from collections.abc import Iterator

CODE_FIELDS = ("code", "status_code", "http_code", "statusCode", "type", "status", "__type", "reason", "error_type")
"""The fields in which the errors of known providers hold their code, the most precise first."""
BARE_FIELDS = frozenset(
    {"code", "message", "msg", "detail", "details", "type", "status", "title", "param", "object", "id", "path"}
    | {"request_id", "requestid", "trace_id", "timestamp", "instance", "__type", "error_type", "raw_status_code"}
    | {"jsonrpc", "success", "ok", "statuscode", "status_code", "cost", "reason"}
    | {"errormessage", "errortype", "stacktrace"}  # AWS Lambda.
    | {"error_code", "error_msg", "error_message", "errcode", "errmsg", "err_code", "err_msg"}
)
"""A body of these fields alone, in any case, is an error itself if it says what went wrong."""
BARE_CODES = (
    *("code", "status", "type", "__type", "error_type"),
    *("statuscode", "status_code", "error_code", "errcode", "err_code", "errortype"),
)
BARE_WORDS = ("message", "msg", "title", "errormessage", "error_msg", "error_message", "errmsg", "err_msg")
NO_ERROR = frozenset({"0", "200", "ok", "success", "succeeded", "completed", "none", ""})
"""Codes of a success, as `plain_code` spells them."""
XML_ERROR = re.compile(r"\s*(<\?xml[^>]{0,200}\?>\s*)?<error(response)?\b", re.IGNORECASE)


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

    `body` is JSON as bytes or str, or the decoded object; or XML whose root is `Error`. An error is a value under
    "error" or "errors" that is not empty, also in a list of objects. A body without these is an error if it says
    `"success": false`, or has nothing but a code with a message, or a "detail". It is classified by the status it
    names, as a number or as a word of dialects.toml; if it names none, by the codes and words of the dialects, and at
    last by its text, as any error of a call that was sent. What it says is in the error, unmasked, and without
    `retry_after` the wait is what it tells. The other arguments are those of `classify_status`.

    >>> error_in_body('{"error": {"code": 429, "message": "slow down"}}', provider="acme")
    Throttled("'acme' answered 429 Too Many Requests: slow down")
    >>> error_in_body({"output": "fine", "error": None}) is None
    True
    """
    error = _error_of(body)
    if error is None:
        return None
    for status in _statuses(error):
        failure = classify_status(
            status,
            provider=provider,
            host=host,
            retry_after=retry_after,
            body=error,
            paid=paid,
            idempotent=idempotent,
        )
        return with_words(failure, error)
    if retry_after is None:
        retry_after = retry_after_of({}, error, now=datetime.now(UTC))
    wording = Wording.of(error)
    facts = CallFacts(provider=provider, retry_after=retry_after)
    for status in (0, 400):  # Without a status, words that refuse are taken for those of a 400.
        row = dialects().find(status, wording, provider=provider, host=host)
        if row is not None and row.means is not Transient:
            message = f"{provider!r} answered with an error: {row.says}"
            return with_words(refusal_of(row, message, facts, paid=paid), error)
    return _by_text(error, facts, paid=paid, idempotent=idempotent)


def _by_text(error: object, facts: CallFacts, *, paid: bool, idempotent: bool) -> CallFailed:
    """Classify an error that names no status, and of whose codes and words none is known."""
    provider = facts.get("provider") or "provider"
    text = error if isinstance(error, str) else written(error)
    failure = classify_text(text[:1_000], provider=provider, sent=True, paid=paid, idempotent=idempotent)
    failure.args = (f"{provider!r} answered with an error",)  # What it says follows.
    failure.retry_after = facts.get("retry_after")
    return with_words(failure, error)


def _error_of(body: object) -> object | None:
    """Return what describes the error of a body; None if there is none."""
    fields = decoded(body)
    if fields is None:
        # A body that is not JSON is malformed, unless it is an XML error; the transport decides what that means.
        text = body.decode(errors="replace") if isinstance(body, bytes) else body
        return text if isinstance(text, str) and XML_ERROR.match(text) else None
    if isinstance(fields, list):
        return next((error for one in _mappings(fields) if (error := _error_of(one)) is not None), None)
    inner = fields.get("Response", fields.get("meta"))
    if isinstance(inner, Mapping) and len(fields) == 1:
        fields = cast("Mapping[str, object]", inner)
    for name in ("error", "errors", "Error", "Errors"):
        if fields.get(name):
            return fields if name in {"errors", "Errors"} or isinstance(fields[name], bool) else fields[name]
    answered = fields.get("base_resp")
    if isinstance(answered, Mapping) and not _is_success(cast("Mapping[str, object]", answered).get("status_code")):
        return cast("object", answered)
    return fields if _is_bare_error(fields) else None


def _is_bare_error(fields: Mapping[str, object]) -> bool:
    if fields.get("isError") is True or any(fields.get(name) is False for name in ("success", "ok", "succeeded")):
        return True
    if fields.get("type") == "error":
        return True
    if not {str(name).lower() for name in fields} <= BARE_FIELDS:
        return False
    named = {str(name).lower(): value for name, value in fields.items()}
    codes = [named.get(name) for name in BARE_CODES]
    has_words = any(named.get(name) for name in BARE_WORDS)
    return bool(named.get("detail")) or (has_words and any(not _is_success(code) for code in codes))


def _is_success(code: object) -> bool:
    return code is None or isinstance(code, Mapping | list) or plain_code(str(code)) in NO_ERROR


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
        if isinstance(code, str) or (isinstance(code, int) and code < 0):
            status = dialects().status_of(str(code))
            if status is not None:
                yield status
    if fields is not None:
        for name in ("error", "errors", "detail", "details", "extensions"):
            for inner in _mappings(fields.get(name)):
                yield from _statuses(inner)


def _mappings(value: object) -> list[object]:
    values = cast("list[object]", value)[:100] if isinstance(value, list) else [value]
    return [one for one in values if isinstance(one, Mapping)]
