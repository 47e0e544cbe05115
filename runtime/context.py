"""What the runtime offers an actor from within: itself, its children, its time and its randomness."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import msgspec

from runtime.mailbox import DEFAULT_MAILBOX, Mailbox
from runtime.supervision import Restart

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Mapping

    from runtime.actor import Actor
    from runtime.event_stream import EventStream
    from runtime.log import Logger
    from runtime.ref import ActorRef
    from runtime.registry import Registry
    from runtime.timers import Timers

M = TypeVar("M")


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


class Spawner(Protocol):
    """Whatever starts actors: a system, or the context of an actor, which then supervises them."""

    def spawn(
        self,
        factory: Callable[[], Actor[M]],
        *,
        name: str | None = None,
        mailbox: Mailbox = DEFAULT_MAILBOX,
        restart: Restart = Restart.TRANSIENT,
    ) -> ActorRef[M]:
        """Start an actor; see `ActorSystem.spawn`."""
        ...


class Context(Protocol):
    """An actor's view of the runtime, as `self.context`; valid from `started` on, not in `__init__`."""

    @property
    def ref(self) -> ActorRef[Any]:
        """The actor's own address."""
        ...

    @property
    def parent(self) -> ActorRef[Any] | None:
        """The address of the actor that spawned this one; None for one spawned by the system."""
        ...

    @property
    def children(self) -> Mapping[str, ActorRef[Any]]:
        """The living children by name, in start order."""
        ...

    @property
    def timers(self) -> Timers:
        """Messages to oneself, later or again and again; gone when the actor restarts or ends."""
        ...

    @property
    def deadline(self) -> float | None:
        """The deadline of the request being handled, in loop time; None where there is none."""
        ...

    @property
    def random(self) -> random.Random:
        """The system's randomness: seeded, so that a simulated run can be replayed."""
        ...

    @property
    def events(self) -> EventStream:
        """The system's event stream."""
        ...

    @property
    def kept(self) -> dict[str, Any]:
        """What this actor keeps over its restarts, by names of its own, and nobody else sees; gone when it ends.

        Everything else of an instance that crashed is given up, as what it crashed with. Keep what must not be lost.
        """
        ...

    @property
    def registry(self) -> Registry:
        """Who renders which service in this system: actors by key."""
        ...

    @property
    def log(self) -> Logger:
        """A logger whose lines carry the actor's path."""
        ...

    def now(self) -> float:
        """Return the event loop's time in seconds; the only clock the runtime knows."""
        ...

    def spawn(
        self,
        factory: Callable[[], Actor[M]],
        *,
        name: str | None = None,
        mailbox: Mailbox = DEFAULT_MAILBOX,
        restart: Restart = Restart.TRANSIENT,
        stop_timeout: float = 5.0,
    ) -> ActorRef[M]:
        """Start a child, supervised by this actor; see `ActorSystem.spawn`."""
        ...

    def watch(self, ref: ActorRef[Any]) -> None:
        """Have `Terminated` told to this actor, exactly once, when `ref` ends, or now where it has ended."""
        ...

    def unwatch(self, ref: ActorRef[Any]) -> None:
        """Undo `watch`; a `Terminated` that is already in the mailbox stays."""
        ...

    def stash(self, message: Any) -> Any:
        """Put the message being handled aside until `unstash_all`; `return` what this returns, also for a request.

        What is stashed survives a restart, and expires like other mail. Raises `MailboxFull` where as much is stashed
        as the mailbox holds, `RuntimeError` in a concurrent handler, and `ActorStopped` once the actor has ended.
        """
        ...

    def unstash_all(self) -> None:
        """Put what was stashed back in front of the mail, in its order."""
        ...

    def stop(self) -> None:
        """End this actor after the current message."""
        ...
