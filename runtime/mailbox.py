"""The capacity of an actor's mailbox, and what happens to a message that does not fit."""

from __future__ import annotations

from enum import Enum

import msgspec


class Overflow(Enum):
    """What `tell` does if the mailbox is full. A dropped message becomes a dead letter, so none is lost silently."""

    REJECT = "reject"
    """Raise `MailboxFull` at the sender."""
    DROP_NEWEST = "drop_newest"
    """Drop the message that does not fit."""
    DROP_OLDEST = "drop_oldest"
    """Drop the message that has waited longest, and accept the new one."""


class Mailbox(msgspec.Struct, frozen=True, kw_only=True):
    """The bound of an actor's mailbox. `send` and `ask` wait for room; `overflow` says what `tell` does instead."""

    capacity: int = 10_000
    overflow: Overflow = Overflow.REJECT

    def __post_init__(self) -> None:
        if type(self.capacity) is not int or self.capacity < 1:
            raise ValueError(f"capacity must be a whole number of messages >= 1, got {self.capacity!r}")
        if not isinstance(self.overflow, Overflow):
            raise TypeError(f"overflow must be an Overflow, such as Overflow.REJECT, got {self.overflow!r}")


DEFAULT_MAILBOX = Mailbox()
