"""The state of a system at one moment: the tree of its actors as plain values, ready for JSON."""

from __future__ import annotations

from collections.abc import Iterator  # noqa: TC003 - msgspec looks at the names of this module.

import msgspec


class ActorSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """One actor at one moment, with the actors below it."""

    path: str
    actor: str
    """The name of its class."""
    phase: str
    """`starting`, `running`, `ending`, `awaiting restart` or `ended`."""
    waiting: int
    """Messages in the mailbox, including those that wait for a place in a lane, without stashed ones."""
    capacity: int
    working: int
    """Handlers under way, and answers that a future is still to give."""
    idle: bool
    """True if the actor is running and has neither mail nor work."""
    restarts: int
    """The restarts since the actor last ran for `Backoff.reset_after`."""
    age: float
    """Seconds since it was spawned, over all its restarts."""
    children: tuple[ActorSnapshot, ...] = ()

    def walk(self) -> Iterator[ActorSnapshot]:
        """Yield this actor and all actors below it, depth first, in start order."""
        ahead: list[ActorSnapshot] = [self]
        while ahead:
            actor = ahead.pop()
            yield actor
            ahead.extend(reversed(actor.children))
