"""What travels with a message: its deadline, and for a request the way back for the answer."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

from runtime.errors import ActorStopped, MailboxFull
from runtime.events import DeadReason, Terminated
from runtime.messages import Message, name_of

if TYPE_CHECKING:
    import asyncio

    from runtime.mailbox import Mailbox
    from runtime.propagation import Carried


class AskState(Enum):
    """How far a request has come."""

    WAITING = "waiting"
    RUNNING = "running"
    SETTLED = "settled"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


# Global names are read faster than attributes of an Enum, and every request reads them.
WAITING, RUNNING, SETTLED = AskState.WAITING, AskState.RUNNING, AskState.SETTLED
EXPIRED, CANCELLED = AskState.EXPIRED, AskState.CANCELLED


class Cancellable(Protocol):
    """What runs the handler of a request, and can cancel it: a task, a future, or an inline execution."""

    def cancel(self) -> Any: ...


class Addressee(Protocol):
    """The actor that an envelope is addressed to."""

    @property
    def path(self) -> str: ...
    @property
    def mailbox(self) -> Mailbox: ...


class Envelope:
    """A message on its way, with what travels along. A plain message, which most are, needs none."""

    __slots__ = ("message", "reroutes")

    message: Any
    reroutes: int
    """How often its handler has crashed, and another actor was given it."""

    def dead_letter(self, reason: DeadReason, addressee: Addressee) -> None:
        """Tell the asker, if any, that no handler will see the message."""


class Ask(Envelope):
    """A request in flight. It is settled once, by whichever comes first: answer, error, deadline, cancellation."""

    __slots__ = ("answerer", "carried", "deadline", "error", "execution", "progress", "tick", "value", "waiter")

    def __init__(self, message: Any, deadline: float) -> None:
        self.message = message
        self.deadline = deadline
        self.tick = 0
        self.reroutes = 0
        self.progress = WAITING
        self.value: Any = None
        self.error: BaseException | None = None
        self.waiter: asyncio.Future[None] | None = None
        self.execution: Cancellable | None = None
        """What runs its handler, if that can be cancelled."""
        self.carried: Carried = ()
        """The context variables that travel with it."""
        self.answerer: Any = None
        """The cell that is to give the answer, or gave it, which may not be the one that was asked."""

    def answer(self, value: Any) -> bool:
        """Settle with a value; False if the asker has given up, and the value is unclaimed."""
        if self.progress is not RUNNING:
            return False
        if self.waiter is not None and self.waiter.cancelled():
            # The asker has been cancelled, but its task has not had its turn to say so.
            self.progress = CANCELLED
            self.execution = None
            return False
        self.progress = SETTLED
        self.value = value
        self._wake()
        return True

    def fail(self, error: BaseException) -> None:
        """Settle with an error; an asker that has given up no longer wants it."""
        if self.progress is WAITING or self.progress is RUNNING:
            self.progress = SETTLED
            self.error = error
            self._wake()

    def dead_letter(self, reason: DeadReason, addressee: Addressee) -> None:
        if reason is DeadReason.STOPPED:
            self.fail(ActorStopped(addressee.path, name_of(self.message)))
        elif reason is DeadReason.FULL:
            self.fail(MailboxFull(addressee.path, capacity=addressee.mailbox.capacity))

    def expire(self) -> None:
        """Give up because the deadline has passed; the handler is cancelled."""
        if self._abandon(EXPIRED) and self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    def cancel(self) -> bool:
        """Give up because the asker was cancelled; False if the answer had already been given."""
        return self._abandon(CANCELLED)

    def put_back(self) -> None:
        """Let it be handled from the beginning, here or elsewhere, unless its asker has given up."""
        if self.progress is RUNNING:
            self.progress = WAITING
            self.execution = None  # One that was given up keeps it: what was cancelled for it has to know.

    def _abandon(self, progress: AskState) -> bool:
        if self.progress is WAITING or self.progress is RUNNING:
            self.progress = progress
            if self.execution is not None:
                self.execution.cancel()
        return self.progress is not SETTLED

    def _wake(self) -> None:
        self.execution = None
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    def __repr__(self) -> str:
        return f"<Ask {self.message!r} {self.progress.value}, deadline {self.deadline:.3f}>"


class Told(Envelope):
    """A message that was told, if more has to travel with it: a deadline, or how often it was rerouted."""

    __slots__ = ("deadline",)

    def __init__(self, message: Any, *, deadline: float | None = None, reroutes: int = 0) -> None:
        self.message = message
        self.deadline = deadline
        self.reroutes = reroutes


class Unclaimed(Message, frozen=True):
    """Told by the runtime to an actor whose answer came too late for its asker."""

    request: Any
    answer: Any


class Stashed:
    """Says that a request was put aside; what its handler returns in place of an answer."""

    __slots__ = ("ask",)

    def __init__(self, ask: Ask) -> None:
        self.ask = ask


def told(item: Any) -> Any:
    """Return the user's message in an item of a mailbox."""
    return item.message if isinstance(item, Envelope) else item


def deadline_of(item: Any) -> float | None:
    """Return the deadline that travels with an item of a mailbox, if any."""
    return item.deadline if isinstance(item, Ask | Told) else None


FROM_RUNTIME = (Terminated, Unclaimed)
"""What the runtime itself tells an actor: it is never dropped, and concerns no other actor."""
