"""What travels with a request: its deadline, and the way back for the answer."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import asyncio


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
    """Whoever runs the handler of a request, and can cancel it: a task, a future, or a cell."""

    def cancel(self) -> Any: ...


class Ask:
    """A request in flight. It is settled once, by whichever comes first: answer, error, deadline, cancellation."""

    __slots__ = (
        "answerer",
        "deadline",
        "error",
        "handling",
        "message",
        "progress",
        "reroutes",
        "tick",
        "value",
        "waiter",
    )

    def __init__(self, message: Any, deadline: float) -> None:
        self.message = message
        self.deadline = deadline
        self.tick = 0
        self.reroutes = 0
        self.progress = WAITING
        self.value: Any = None
        self.error: BaseException | None = None
        self.waiter: asyncio.Future[None] | None = None
        self.handling: Cancellable | None = None
        self.answerer: Any = None
        """The cell that gave the answer, who may not be the one that was asked."""

    def answer(self, value: Any) -> bool:
        """Settle with a value; False where the asker has given up, and the value is unclaimed."""
        if self.progress is not RUNNING:
            return False
        if self.waiter is not None and self.waiter.cancelled():
            # The asker has been cancelled, but its task has not had its turn to say so.
            self.progress = CANCELLED
            self.handling = None
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

    def expire(self) -> None:
        """Give up because the deadline has passed; the handler is cancelled."""
        if self._abandon(EXPIRED) and self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    def cancel(self) -> bool:
        """Give up because the asker was cancelled; False where the answer had already been given."""
        return self._abandon(CANCELLED)

    def put_back(self) -> None:
        """Let it be handled from the beginning, here or elsewhere, unless its asker has given up."""
        if self.progress is RUNNING:
            self.progress = WAITING
            self.handling = None  # One that was given up keeps it: whoever was cancelled for it has to know.

    def _abandon(self, progress: AskState) -> bool:
        if self.progress is WAITING or self.progress is RUNNING:
            self.progress = progress
            if self.handling is not None:
                self.handling.cancel()
        return self.progress is not SETTLED

    def _wake(self) -> None:
        self.handling = None
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    def __repr__(self) -> str:
        return f"<Ask {self.message!r} {self.progress.value}, deadline {self.deadline:.3f}>"


class Told:
    """A message that was told, where more has to travel with it: a deadline, or how often it was rerouted."""

    __slots__ = ("deadline", "message", "reroutes")

    def __init__(self, message: Any, *, deadline: float | None = None, reroutes: int = 0) -> None:
        self.message = message
        self.deadline = deadline
        self.reroutes = reroutes


class Stashed:
    """Says that a request was put aside; what its handler returns in place of an answer."""

    __slots__ = ("ask",)

    def __init__(self, ask: Ask) -> None:
        self.ask = ask


def told(item: Any) -> Any:
    """Return the user's message in an item of a mailbox."""
    return item.message if isinstance(item, Ask | Told) else item


def deadline_of(item: Any) -> float | None:
    """Return the deadline that travels with an item of a mailbox, if any."""
    return item.deadline if isinstance(item, Ask | Told) else None
