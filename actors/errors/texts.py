"""Classifies an error of which only its text is known."""

from __future__ import annotations

from actors.errors.classification import MAX_MARKED
from actors.errors.families import (
    CallFailed,
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


def classify_text(text: str, *, provider: str, sent: bool, paid: bool, idempotent: bool) -> CallFailed:
    """Return the family of an error by its text; the other arguments are those of `classify`."""
    message = f"{provider!r}: {text}"
    marked = text[:MAX_MARKED].lower()
    family = next((means for marker, means in TEXTS if marker in marked), Unclassified)
    if family in {Transient, Unclassified} and sent and paid:
        if not idempotent:
            return OutcomeUnknown(message, provider=provider)
        return family(message, provider=provider, charged="held")
    return family(message, provider=provider)
