"""What a watchdog publishes on the event stream."""

from __future__ import annotations

from runtime.events import Event


class LoopStalled(Event, frozen=True, kw_only=True):
    """The event loop did not turn for `seconds`, because one handler, or the code at `place`, did not let go.

    `actor` is the path of the actor and `message` the type of what it handled; None if it was no handler, or many short
    ones. `place` is the file, the line and the function, as far as one was seen.
    """

    seconds: float
    actor: str | None
    message: str | None
    place: str


class MailboxGrows(Event, frozen=True, kw_only=True):
    """The mailbox of an actor has grown with every look at it, and has `waiting` messages; `capacity` fit.

    It is published again once the mailbox has been less than half as full in between.
    """

    actor: str
    waiting: int
    capacity: int


class ClockJumped(Event, frozen=True, kw_only=True):
    """The wall clock was set forward by `seconds`, or back if they are negative: dates jump, durations do not."""

    seconds: float


class Suspended(Event, frozen=True, kw_only=True):
    """The machine slept, or the process was stopped, for about `seconds`: deadlines and leases may have passed."""

    seconds: float
