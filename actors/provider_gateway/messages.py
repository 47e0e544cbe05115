"""The requests to a provider gateway, and its answers."""

from __future__ import annotations

import msgspec

from actors.transports.reconciliation import Finding
from actors.transports.transport import ProviderCall, ProviderReply
from runtime import Request

TRANSPORT_GRACE = 0.25
"""Seconds beyond its own timeout that a transport has to report how a call or a check ended."""


class SentMarker(msgspec.Struct):
    """Whether a call was handed to its transport: set by the gateway, and read by its owner if no answer comes."""

    is_sent: bool = False


class Call(Request[ProviderReply], frozen=True):
    """Make one attempt; refused with a member of `CallFailed`."""

    call: ProviderCall
    marker: SentMarker = msgspec.field(default_factory=SentMarker)


class InlineCall(Call, frozen=True):
    """Make one attempt in the task of the asker, by a transport that ends soon after it is cancelled."""


class Health(msgspec.Struct, frozen=True):
    """The result of a health check at `checked_at`, in loop time; `problem` is None for a healthy provider.

    `is_its_own` is False if the problem is not the provider's fault: one that answers 404 may have no health check.
    """

    checked_at: float
    problem: str | None = None
    is_its_own: bool = True

    @property
    def is_healthy(self) -> bool:
        """True if the provider passed its check."""
        return self.problem is None

    @property
    def is_unwell(self) -> bool:
        """True if the provider failed its check by its own fault."""
        return self.problem is not None and self.is_its_own


class CheckHealth(Request[Health], frozen=True):
    """Ask for the provider's health, less than `max_age` seconds old; checking takes at most `timeout` seconds."""

    max_age: float = 30.0
    timeout: float = 2.0


class LookUpCall(Request[Finding], frozen=True):
    """Look up what became of a call, within `timeout` seconds; for transports that can (`LooksUp`)."""

    call: ProviderCall
    timeout: float


class CancelCall(Request[Finding], frozen=True):
    """Cancel a call at its provider, within `timeout` seconds; for transports that can (`Cancels`)."""

    call: ProviderCall
    timeout: float


class ResumeCall(Request[Finding], frozen=True):
    """Take up a call by its handle, and wait for its answer for `call.timeout` seconds; for transports that can.

    The transport has `timeout` seconds in all (see `Resumes`).
    """

    handle: str
    call: ProviderCall
    timeout: float
