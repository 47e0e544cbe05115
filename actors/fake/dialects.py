"""How providers that speak alike differ on the wire, as data: their headers of limits, errors, usage and ids.

Sources: the vendors' documents of rate limits and errors, as of 2026; what is marked *seen* is from answers only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from actors.fake.config import DialectName


class FakeDialect(msgspec.Struct, frozen=True, kw_only=True):
    """One way to speak a form."""

    limit_headers: Literal["openai", "azure", "groq", "mistral", "together", "openrouter", "anthropic", "none"]
    errors: Literal["openai", "azure", "mistral", "openrouter", "gemini", "xai", "anthropic"]
    request_id: str = "x-request-id"
    retry_after: Literal["ms", "s", "none", "body"] = "s"
    """`ms` sends `retry-after-ms` beside `retry-after`, `body` says it in the error."""
    strict_fields: bool = False
    """Whether unknown fields of a request are refused."""
    usage_always: bool = False
    """Whether a stream tells its usage unasked, in the chunk that has the finish reason."""
    keep_alive: bytes = b""
    """What a stream sends before its first token, if that takes long."""
    id_prefix: str = "chatcmpl-"
    reasoning_field: str | None = None
    """The field of a chat message in which reasoning is shown; None hides it."""
    refusal_field: bool = False
    """Whether a chat message has a field for refusals; otherwise they are text."""
    busy: int = 503
    """The status of an overload."""


DIALECTS: dict[DialectName, FakeDialect] = {
    "openai": FakeDialect(
        limit_headers="openai", errors="openai", retry_after="ms", strict_fields=True, refusal_field=True
    ),
    "azure": FakeDialect(
        limit_headers="azure", errors="azure", retry_after="ms", request_id="apim-request-id", refusal_field=True
    ),
    "groq": FakeDialect(limit_headers="groq", errors="openai", reasoning_field="reasoning"),
    "mistral": FakeDialect(
        limit_headers="mistral",
        errors="mistral",
        retry_after="none",
        usage_always=True,
        id_prefix="",
        request_id="x-kong-request-id",
    ),
    "together": FakeDialect(limit_headers="together", errors="openai", id_prefix="", usage_always=True),
    "openrouter": FakeDialect(
        limit_headers="openrouter",
        errors="openrouter",
        retry_after="none",
        keep_alive=b": OPENROUTER PROCESSING\n\n",
        id_prefix="gen-",
        reasoning_field="reasoning",
        refusal_field=True,
    ),
    "deepseek": FakeDialect(
        limit_headers="none",
        errors="openai",
        retry_after="none",
        keep_alive=b": keep-alive\n\n",
        id_prefix="",
        reasoning_field="reasoning_content",
        usage_always=True,
    ),
    "xai": FakeDialect(
        limit_headers="openai",
        errors="xai",
        retry_after="none",
        id_prefix="",
        usage_always=True,
        reasoning_field="reasoning_content",
    ),
    "gemini": FakeDialect(limit_headers="none", errors="gemini", retry_after="body", id_prefix=""),
    "anthropic": FakeDialect(
        limit_headers="anthropic", errors="anthropic", request_id="request-id", strict_fields=True, busy=529
    ),
}
