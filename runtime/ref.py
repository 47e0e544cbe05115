"""The address of an actor, and all that may be done to it from outside: tell, send, ask, stop, kill."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Protocol, final

from typing_extensions import TypeVar

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Coroutine

    from runtime.messages import Asks, R
    from runtime.supervision import Exit

M_contra = TypeVar("M_contra", contravariant=True, default=Any)


class Recipient(Protocol):
    """What a ref needs of the cell behind it."""

    queue: deque[Any]
    room: int
    idle: bool

    @property
    def path(self) -> str: ...
    @property
    def closed(self) -> bool:
        """True once no more mail is taken."""
        ...

    @property
    def load(self) -> int:
        """Mail that waits, and handlers under way."""
        ...

    @property
    def home(self) -> Recipient:
        """The cell itself; that of the actor which a router stands before."""
        ...

    def schedule(self) -> None: ...
    def tell_slowly(self, message: Any) -> None: ...
    def send(self, message: Any, timeout: float | None) -> Coroutine[Any, Any, None]: ...
    def ask(self, message: Any, timeout: float) -> Coroutine[Any, Any, Any]: ...
    def take_over(self, item: Any) -> None: ...
    def request_stop(self) -> None: ...
    def kill(self) -> None: ...
    def join(self) -> Coroutine[Any, Any, Exit]: ...
    def describe(self) -> str: ...


@final
class ActorRef(Generic[M_contra]):
    """The address of one actor, over all its restarts: a hashable value that may be put in messages.

    There is one ref per actor, so two refs are equal if they are of the same actor. Use a ref only on the event
    loop its system runs in; another thread goes through `ActorSystem.from_thread`.
    """

    __slots__ = ("__weakref__", "recipient")

    def __init__(self, recipient: Recipient) -> None:
        self.recipient = recipient

    @property
    def path(self) -> str:
        """Where the actor stands in the tree, such as `bank/alice`."""
        return self.recipient.path

    def tell(self, message: M_contra) -> None:
        """Put a message in the mailbox and return at once.

        A stopped actor's mail becomes a dead letter. A full mailbox follows its overflow rule: by default it
        raises `MailboxFull`, and the message is not sent.
        """
        recipient = self.recipient
        queue = recipient.queue
        if len(queue) < recipient.room:
            if recipient.idle:
                recipient.schedule()  # Before the message is taken, because it raises in a wrong thread.
            queue.append(message)
        else:
            recipient.tell_slowly(message)

    def send(self, message: M_contra, *, timeout: float | None = None) -> Coroutine[Any, Any, None]:
        """Put a message in the mailbox, waiting for room while it is full: back-pressure.

        Waits at most `timeout` seconds (without one, until the deadline of the request being handled, if any), in
        the order of arrival. Raises `AskTimeout` when the time is up, and `ActorStopped` if the actor is
        stopped; in both cases the message was not sent.
        """
        return self.recipient.send(message, timeout)

    def ask(self, message: Asks[M_contra, R], *, timeout: float) -> Coroutine[Any, Any, R]:
        """Send a request, waiting for room, and return its answer.

        `timeout` (seconds, > 0) becomes an absolute deadline that travels with the request; inside a handler the
        deadline of the request being handled binds if it is earlier. When it passes, or the caller is
        cancelled, the handler is cancelled too.

        Raises `AskTimeout`; the actor's `Refusal`; `ActorCrashed` if the handler raised anything else;
        `ActorStopped` if the request was never handled; `Unhandled` if the actor has no handler for it.
        """
        return self.recipient.ask(message, timeout)

    def stop(self) -> None:
        """Let the actor finish its current message and end: children first, then its `stopped` hook.

        Mail that is still waiting becomes dead letters. Returns at once; `await ref.terminated()` waits.
        """
        self.recipient.request_stop()

    def kill(self) -> None:
        """Cancel the current handler at once, then end the actor as `stop` does."""
        self.recipient.kill()

    def terminated(self) -> Coroutine[Any, Any, Exit]:
        """Wait until the actor has ended for good, and return how."""
        return self.recipient.join()

    def __repr__(self) -> str:
        return f"<ActorRef {self.recipient.describe()}>"
