"""The events that the runtime publishes on the event stream, and `Terminated`, sent to the watchers of an actor."""

from __future__ import annotations

from enum import Enum
from typing import Any

from runtime.messages import Message
from runtime.ref import ActorRef  # noqa: TC001 - msgspec resolves the annotations below.
from runtime.supervision import Exit  # noqa: TC001 - msgspec resolves the annotations below.


class Event(Message, frozen=True):
    """The base class of everything on the event stream; derive your own events from it. Actors may handle events."""


class Terminated(Message, frozen=True):
    """Sent once to every actor that watches `ref`, after the last message that `ref` sent to it."""

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
    """Its handler crashed more often than it may be rerouted, or there was no actor to reroute it to."""
    REFUSED = "refused"
    """The handler raised a `Refusal`, and the message had no asker."""
    LOST = "lost"
    """It had left for another node, which was lost before it said that it had taken it."""


class DeadLetter(Event, frozen=True):
    """A message that no handler will see, and the reason."""

    recipient: ActorRef
    message: Any
    reason: DeadReason


class ActorStarted(Event, frozen=True):
    """An actor has started: its `started` hook, if it has one, has returned."""

    ref: ActorRef


class ActorFailed(Event, frozen=True):
    """A handler or hook raised; the supervisor's decision follows as an event of its own."""

    ref: ActorRef
    error: Exception
    message: Any = None
    """The message being handled; None in a hook."""


class ActorRestarted(Event, frozen=True):
    """A new instance of an actor took over under the same ref."""

    ref: ActorRef
    attempt: int
    """The restarts since the actor last ran for `Backoff.reset_after`, this one included."""
    cause: Exception | None


class ActorEnded(Event, frozen=True):
    """An actor has ended for good."""

    ref: ActorRef
    exit: Exit


class CancellationIgnored(Event, frozen=True):
    """A handler went on although it was cancelled: it is shielded, or catches `CancelledError`."""

    ref: ActorRef
    message: Any
