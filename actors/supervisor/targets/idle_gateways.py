"""The gateways that have nothing to do: closed after a while, the longest idle at once if there are many."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from runtime import ActorStopped, Message

if TYPE_CHECKING:
    from runtime import Context, Timer

CLOSE_IDLE_AFTER = 300.0
"""Seconds without a call, a check or a look-up after which a gateway is closed, and with it its connections."""
MAX_IDLE = 100
"""The idle gateways of one supervisor that stay open."""


class CloseIdleDue(Message, frozen=True):
    """The supervisor reminds itself that a gateway may have been idle for long."""


class Closable(Protocol):
    """What owns a gateway."""

    def close(self) -> None:
        """Close the gateway, and say so by `IdleGateways.discard`."""
        ...


class IdleGateways:
    """The owners whose gateway runs and has nothing to do, the longest idle first.

    There is one timer for all of them, and none while no gateway is idle.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._since: dict[Closable, float] = {}
        self._timer: Timer | None = None

    def add(self, owner: Closable) -> None:
        """Take note that a gateway is idle from now on, and close the one idle for longest if that is one too many."""
        now = self._context.now()
        self._since.pop(owner, None)
        self._since[owner] = now
        if len(self._since) > MAX_IDLE:
            next(iter(self._since)).close()
        if self._timer is None:
            self._be_reminded(now)

    def discard(self, owner: Closable) -> None:
        """Take note that a gateway is in use, or was closed."""
        self._since.pop(owner, None)

    def close_due(self) -> None:
        """Close the gateways that have been idle for long, and be reminded of the others."""
        now = self._context.now()
        for owner, since in tuple(self._since.items()):
            if now < since + CLOSE_IDLE_AFTER:
                break
            owner.close()
        self._timer = None
        if self._since:
            self._be_reminded(now)

    def _be_reminded(self, now: float) -> None:
        due = next(iter(self._since.values())) + CLOSE_IDLE_AFTER
        with suppress(ActorStopped):  # Then every gateway is stopped anyway.
            self._timer = self._context.timers.once(max(0.0, due - now), CloseIdleDue())

    def __len__(self) -> int:
        return len(self._since)

    def __repr__(self) -> str:
        return f"<IdleGateways {len(self)}>"
