"""What happened, as facts: published on the event stream, and `Terminated`, told to those who watch."""

from __future__ import annotations

from enum import Enum
from typing import Any

from runtime.messages import Message
from runtime.ref import ActorRef  # noqa: TC001 - msgspec resolves the annotations below.
from runtime.supervision import Exit  # noqa: TC001 - msgspec resolves the annotations below.


class Event(Message, frozen=True):
    """The parent of every fact on the event stream; derive your own from it. Actors may handle events."""


class Terminated(Message, frozen=True):
    """Told once to every actor that watches `ref`, after the last message `ref` sent it."""

    ref: ActorRef
    exit: Exit


class DeadReason(Enum):
    """Why a message was not handled."""

    STOPPED = "stopped"
    FULL = "full"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    UNHANDLED = "unhandled"
    POISON = "poison"
    """Its handler crashed as often as its supervisor has it rerouted, or there was nobody to reroute it to."""
    REFUSED = "refused"
    """The handler refused it, and nobody had asked."""


class DeadLetter(Event, frozen=True):
    """A message that no handler will see, and why."""

    recipient: ActorRef
    message: Any
    reason: DeadReason


class ActorStarted(Event, frozen=True):
    """An actor has begun: its `started` hook, if it has one, returned."""

    ref: ActorRef


class ActorFailed(Event, frozen=True):
    """A handler or hook raised; what the supervisor decides follows as an event of its own."""

    ref: ActorRef
    error: Exception
    message: Any = None
    """The message being handled; None in a hook."""


class ActorRestarted(Event, frozen=True):
    """A fresh instance took over under the same ref."""

    ref: ActorRef
    attempt: int
    """Restarts since the last quiet spell, this one included."""
    cause: Exception | None


class ActorEnded(Event, frozen=True):
    """An actor has ended for good."""

    ref: ActorRef
    exit: Exit


class CancellationIgnored(Event, frozen=True):
    """A handler went on although it was cancelled: it shields itself, or swallows `CancelledError`."""

    ref: ActorRef
    message: Any
