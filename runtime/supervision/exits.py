"""How an actor ends, and whether that end calls for a restart. Pure."""

from __future__ import annotations

from enum import Enum

import msgspec


class ExitReason(Enum):
    """Why an actor is gone for good."""

    STOPPED = "stopped"
    """It was asked to stop, by itself or from outside, or its parent ended."""
    KILLED = "killed"
    """It was cancelled at once."""
    CRASHED = "crashed"
    """A handler or hook raised, and its supervisor did not restart it."""


class Exit(msgspec.Struct, frozen=True):
    """The end of an actor: the reason, and for a crash the error that caused it."""

    reason: ExitReason
    error: Exception | None = None


STOPPED = Exit(ExitReason.STOPPED)
KILLED = Exit(ExitReason.KILLED)


def ended_by(error: Exception | None) -> Exit:
    """Return the exit of an actor that ended on its own: by a crash, or (no error) by stopping itself.

    >>> ended_by(None)
    Exit(reason=<ExitReason.STOPPED: 'stopped'>, error=None)
    """
    return STOPPED if error is None else Exit(ExitReason.CRASHED, error)


class Restart(Enum):
    """When a child is restarted by its supervisor. A stop or kill from outside is always final."""

    PERMANENT = "permanent"
    """Whenever it ends on its own, by a crash or by stopping itself."""
    TRANSIENT = "transient"
    """When it crashes."""
    TEMPORARY = "temporary"
    """Never."""


def calls_for_restart(restart: Restart, *, crashed: bool) -> bool:
    """Tell whether a child that ended on its own is to be restarted.

    >>> calls_for_restart(Restart.TRANSIENT, crashed=False)
    False
    """
    match restart:
        case Restart.PERMANENT:
            return True
        case Restart.TRANSIENT:
            return crashed
        case Restart.TEMPORARY:
            return False
