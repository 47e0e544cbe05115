"""The errors that the runtime raises, and `Refusal`, by which a handler answers "no" without a crash."""

from __future__ import annotations


class RuntimeFault(Exception):
    """The base class of the errors raised by `runtime` itself."""


class Refusal(Exception):
    """Raise a subclass in a handler to answer "no": the asker gets it, and the actor goes on.

    Any other exception that leaves a handler is a crash, and goes to the supervisor too.
    """


class MailboxFull(RuntimeFault):
    """The mailbox is full and its overflow rule is REJECT: the message was not accepted."""

    def __init__(self, actor: str, *, capacity: int) -> None:
        super().__init__(
            f"mailbox of {actor} is full ({capacity} messages); `await ref.send(...)` waits for room, "
            "or give the actor a larger capacity"
        )
        self.actor = actor
        self.capacity = capacity


class AskTimeout(RuntimeFault, TimeoutError):
    """No answer came before the deadline. The handler, if it had begun, has been cancelled."""

    def __init__(self, actor: str, request: str, *, timeout: float) -> None:
        super().__init__(f"{actor} did not answer {request} within {timeout:g} s")
        self.actor = actor
        self.request = request
        self.timeout = timeout


class ActorStopped(RuntimeFault):
    """The actor had stopped, or stopped before it came to this message, which was never handled."""

    def __init__(self, actor: str, request: str) -> None:
        super().__init__(f"{actor} is stopped; {request} was never handled")
        self.actor = actor
        self.request = request


class ActorCrashed(RuntimeFault):
    """The handler of this request ended without an answer; `__cause__` is the error it raised, if any.

    The asker cannot know how far the handler came.
    """

    def __init__(self, actor: str, request: str, *, reason: str) -> None:
        super().__init__(f"{actor} ended while handling {request}: {reason}")
        self.actor = actor
        self.request = request
        self.reason = reason


class Unhandled(RuntimeFault):
    """The actor has no handler for this type of request."""

    def __init__(self, actor: str, request: str, *, handled: list[str]) -> None:
        super().__init__(f"{actor} has no handler for {request}; it handles {', '.join(handled) or 'nothing'}")
        self.actor = actor
        self.request = request
        self.handled = handled


class WrongThread(RuntimeFault):
    """An actor was used from another thread than that of its event loop; nothing has been done."""

    def __init__(self, system: str) -> None:
        super().__init__(
            f"the actors of system {system!r} live in the thread of its event loop, and this is another; use "
            "system.from_thread, such as system.from_thread(ref.tell, message)"
        )
        self.system = system


class NameTaken(RuntimeFault):
    """A living child of the same parent already has this name."""

    def __init__(self, path: str) -> None:
        super().__init__(f"{path} is already running; stop it first, or spawn under another name")
        self.path = path


class SystemClosed(RuntimeFault):
    """The actor system is not running: it has not been entered, or it is being left."""

    def __init__(self, system: str, action: str) -> None:
        super().__init__(f"system {system!r} is not running: {action} needs an entered `async with ActorSystem(...)`")
        self.system = system
        self.action = action
