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
        if type(self.capacity) is not int or self.capacity < 1:
            raise ValueError(f"capacity must be a whole number of messages >= 1, got {self.capacity!r}")
        if not isinstance(self.overflow, Overflow):
            raise TypeError(f"overflow must be an Overflow, got {self.overflow!r}")


DEFAULT_MAILBOX = Mailbox()
