"""How a child is run: the options of spawn."""

from __future__ import annotations

import msgspec

from runtime.mailbox import DEFAULT_MAILBOX, Mailbox
from runtime.supervision import Restart


class SpawnOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a child is run; given to `spawn` as keywords of the same names."""

    mailbox: Mailbox = DEFAULT_MAILBOX
    restart: Restart = Restart.TRANSIENT
    stop_timeout: float = 5.0
    """Seconds for the current message, and again for the `stopped` hook, before it is cancelled."""

    def __post_init__(self) -> None:
        if not isinstance(self.mailbox, Mailbox):
            raise TypeError(f"mailbox must be a Mailbox, such as Mailbox(capacity=100), got {self.mailbox!r}")
        if not isinstance(self.restart, Restart):
            raise TypeError(f"restart must be a Restart, got {self.restart!r}")
        if not self.stop_timeout > 0:
            raise ValueError(f"stop_timeout must be > 0 seconds, got {self.stop_timeout}")


DEFAULT_OPTIONS = SpawnOptions()


TEMPORARY_OPTIONS = SpawnOptions(restart=Restart.TEMPORARY)


def options_of(mailbox: Mailbox, restart: Restart, stop_timeout: float) -> SpawnOptions:
    """Return the options of a child; those of a plain temporary one, the kind that comes in crowds, are shared."""
    if restart is Restart.TEMPORARY and mailbox is DEFAULT_MAILBOX and stop_timeout == DEFAULT_OPTIONS.stop_timeout:
        return TEMPORARY_OPTIONS
    return SpawnOptions(mailbox=mailbox, restart=restart, stop_timeout=stop_timeout)
