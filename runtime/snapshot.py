"""What a system looks like at one moment: the tree of its actors as plain values, ready for JSON."""

from __future__ import annotations

from collections.abc import Iterator  # noqa: TC003 - msgspec looks at the names of this module.

import msgspec


class ActorSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """One actor at one moment, and those below it."""

    path: str
    actor: str
    """The name of its class."""
    phase: str
    """`starting`, `running`, `ending`, `awaiting restart` or `ended`."""
    waiting: int
    """Messages in the mailbox, those that wait for a place in a lane included, what is stashed not."""
    capacity: int
    working: int
    """Handlers under way, and answers that are still to come from a future."""
    idle: bool
    """True where the actor runs, and has neither mail nor work."""
    restarts: int
    """Restarts since the last quiet spell."""
    age: float
    """Seconds since it was spawned, over all its restarts."""
    children: tuple[ActorSnapshot, ...] = ()

    def walk(self) -> Iterator[ActorSnapshot]:
        """Yield this actor and all below it, depth first, in start order."""
        ahead: list[ActorSnapshot] = [self]
        while ahead:
            actor = ahead.pop()
            yield actor
            ahead.extend(reversed(actor.children))
