"""Classifies an error of which only its text is known."""

from __future__ import annotations

from datetime import UTC, datetime

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
from actors.errors.waits import is_day_spent, retry_after_of

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
    """Return the family of an error by its text, with the wait that it tells; other arguments are as for `classify`."""
    message, now = f"{provider!r}: {text}", datetime.now(UTC)
    marked = text[:MAX_MARKED].lower()
    family = next((means for marker, means in TEXTS if marker in marked), Unclassified)
    wait = None if family is Permanent else retry_after_of({}, text, now=now)
    if family is Throttled and is_day_spent({}, text, wait, now=now):
        family = QuotaExhausted
    charged = None
    if family in {Transient, Unclassified, Permanent} and sent and paid:
        # A mere text proves neither that the call never ran, nor whose words it is.
        charged = "held"
        family = family if idempotent else OutcomeUnknown
    return family(message, provider=provider, charged=charged, retry_after=wait)
