"""What a gateway is asked, and what it answers."""

from __future__ import annotations

import msgspec

from actors.transports.reconciliation import Finding
from actors.transports.transport import ProviderCall, ProviderReply
from runtime import Request

TRANSPORT_GRACE = 0.25
"""Seconds beyond its own timeout that a transport has to say how a call or a check ended."""


class SentMarker(msgspec.Struct):
    """Whether a call has been handed to its transport: marked by the gateway, read where its answer never came."""

    is_sent: bool = False


class Call(Request[ProviderReply], frozen=True):
    """Make one attempt; refused with a member of `CallFailed`."""

    call: ProviderCall
    sending: SentMarker = msgspec.field(default_factory=SentMarker)


class InlineCall(Call, frozen=True):
    """Make one attempt by a transport that ends soon after it is cancelled, in the task of whoever asks."""


class Health(msgspec.Struct, frozen=True):
    """What a health check found, at `checked_at` in loop time; `problem` is None for a healthy provider.

    `is_its_own` is False where the problem is not the provider's: who answers 404 to a check may just have none.
    """

    checked_at: float
    problem: str | None = None
    is_its_own: bool = True

    @property
    def is_healthy(self) -> bool:
        """True where the provider answered its check."""
        return self.problem is None

    @property
    def is_unwell(self) -> bool:
        """True where it did not, by its own fault."""
        return self.problem is not None and self.is_its_own


class CheckHealth(Request[Health], frozen=True):
    """Ask for the provider's health, less than `max_age` seconds old; checking takes at most `timeout` seconds."""

    max_age: float = 30.0
    timeout: float = 2.0


class LookUp(Request[Finding], frozen=True):
    """Find out what became of a call, within `timeout` seconds; for transports that can (`LooksUp`)."""

    call: ProviderCall
    timeout: float


class CancelCall(Request[Finding], frozen=True):
    """Call off a call, within `timeout` seconds; for transports that can (`Cancels`)."""

    call: ProviderCall
    timeout: float
