"""The error bodies and headers of each dialect. Pure.

Sources: the vendors' references of errors, as of 2026; OpenAI's and Anthropic's SDKs read these bodies.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actors.fake.dialects import FakeDialect

OPENAI_TYPES = {
    401: "invalid_request_error",
    403: "invalid_request_error",
    404: "invalid_request_error",
    409: "invalid_request_error",
    429: "requests",
}
OPENAI_CODES = {401: "invalid_api_key", 404: "model_not_found", 429: "rate_limit_exceeded"}
ANTHROPIC_TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}
GOOGLE_STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
MESSAGES = {
    400: "The request is not valid.",
    401: "Incorrect API key provided.",
    402: "Insufficient Balance",
    429: "Rate limit reached for requests.",
    500: "The server had an error while processing your request.",
    503: "The engine is currently overloaded, please try again later.",
    529: "Overloaded",
}


def error_body(
    dialect: FakeDialect,
    status: int,
    *,
    message: str | None = None,
    code: str | None = None,
    param: str | None = None,
    retry_after: float | None = None,
) -> Any:
    """Return the body of an error, as a value to be written as JSON."""
    text = message or MESSAGES.get(status, f"The request failed with status {status}.")
    match dialect.errors:
        case "anthropic":
            kind = ANTHROPIC_TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
            return {"type": "error", "error": {"type": code or kind, "message": text}}
        case "azure":
            return {"error": {"code": code or (str(status)), "message": text, "param": param, "type": None}}
        case "mistral":
            return _mistral(status, text, code=code, param=param)
        case "openrouter":
            metadata = {} if code is None else {"provider_code": code, "raw": text}
            return {"error": {"code": status, "message": text} | ({"metadata": metadata} if metadata else {})}
        case "xai":
            return {"code": code or "The request failed", "error": text}
        case "gemini":
            return _gemini(status, text, retry_after)
        case "openai":
            kind = OPENAI_TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
            if code == "insufficient_quota":
                kind = code
            code = OPENAI_CODES.get(status) if code is None else code
            return {"error": {"message": text, "type": kind, "param": param, "code": code}}


def _mistral(status: int, text: str, *, code: str | None, param: str | None) -> dict[str, Any]:
    kind, number = {429: ("rate_limited", "1300"), 401: ("unauthorized", None)}.get(
        status, ("invalid_request_error" if status < 500 else "internal_server_error", None)
    )
    return {"object": "error", "message": text, "type": kind, "param": param, "code": code or number}


def _gemini(status: int, text: str, retry_after: float | None) -> list[dict[str, Any]]:
    """Return an array of one error, as Gemini's OpenAI form sends it."""
    error: dict[str, Any] = {
        "code": status,
        "message": text,
        "status": GOOGLE_STATUSES.get(status, "UNKNOWN"),
    }
    if status == 429:
        quota = "GenerateRequestsPerMinutePerProjectPerModel"
        details: list[dict[str, Any]] = [
            {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaId": quota}]}
        ]
        if retry_after is not None:
            details.append({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{retry_after:.9f}s"})
        error["details"] = details
    return [{"error": error}]


def retry_headers(dialect: FakeDialect, retry_after: float | None) -> list[tuple[bytes, bytes]]:
    """Return how the dialect says in headers when to try again; seconds are rounded up.

    >>> from actors.fake.dialects import DIALECTS
    >>> retry_headers(DIALECTS["openai"], 1.2)
    [(b'retry-after', b'2'), (b'retry-after-ms', b'1200')]
    """
    if retry_after is None or dialect.retry_after in {"none", "body"}:
        return []
    told = [(b"retry-after", b"%d" % math.ceil(retry_after))]
    if dialect.retry_after == "ms":
        told.append((b"retry-after-ms", b"%d" % math.ceil(retry_after * 1000)))
    return told


def context_exceeded(dialect: FakeDialect, *, wanted: int, window: int, output: int) -> tuple[str, str | None]:
    """Return message and code of a request that is too long for the window.

    >>> from actors.fake.dialects import DIALECTS
    >>> context_exceeded(DIALECTS["anthropic"], wanted=12, window=10, output=0)
    ('prompt is too long: 12 tokens > 10 maximum', None)
    """
    match dialect.errors:
        case "anthropic":
            return f"prompt is too long: {wanted} tokens > {window} maximum", None
        case "mistral":
            text = f"Prompt contains {wanted} tokens and {output} draft tokens, too large for model with {window} "
            return f"{text}maximum context length", "3051"
        case "gemini":
            return f"The input token count ({wanted}) exceeds the maximum number of tokens allowed ({window}).", None
        case _:
            text = (
                f"This model's maximum context length is {window} tokens. However, you requested {wanted + output} "
                f"tokens ({wanted} in the messages, {output} in the completion). Please reduce the length of the "
                "messages or completion."
            )
            return text, "context_length_exceeded"
