"""How much mail an actor keeps, and what happens to the message that does not fit."""

from __future__ import annotations

from enum import Enum

import msgspec


class Overflow(Enum):
    """What `tell` does with a full mailbox. Nothing is lost silently: what is dropped becomes a dead letter."""

    REJECT = "reject"
    """Raise `MailboxFull` at the sender."""
    DROP_NEWEST = "drop_newest"
    """Drop the message that does not fit."""
    DROP_OLDEST = "drop_oldest"
    """Drop the message that has waited longest, and take the new one."""


class Mailbox(msgspec.Struct, frozen=True, kw_only=True):
    """The bound of an actor's mail. `send` and `ask` wait for room; `overflow` says what `tell` does instead."""

    capacity: int = 10_000
    overflow: Overflow = Overflow.REJECT

    def __post_init__(self) -> None:
        if self.capacity < 1:
            raise ValueError(f"capacity must be >= 1 message, got {self.capacity}")


DEFAULT_MAILBOX = Mailbox()
