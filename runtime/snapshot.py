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

    def tree(self) -> str:
        """Return this actor and all below it as text for people, one line each, in start order."""
        rows: list[tuple[str, ActorSnapshot]] = []
        ahead = [("", "", self)]
        while ahead:
            lead, below, actor = ahead.pop()
            rows.append((lead + actor.path.rpartition("/")[2], actor))
            last = len(actor.children) - 1
            ahead += [
                (below + ("└─ " if place == last else "├─ "), below + ("   " if place == last else "│  "), child)
                for place, child in reversed(tuple(enumerate(actor.children)))
            ]
        names = max(len(name) for name, _ in rows)
        kinds = max(len(actor.actor) for _, actor in rows)
        return "\n".join(f"{name:{names}}  {actor.actor:{kinds}}  {_state(actor)}" for name, actor in rows)


class ActorRow(msgspec.Struct, frozen=True, kw_only=True):
    """One actor at one moment as a line of a list: without those below it, of which it tells the number."""

    path: str
    depth: int
    """How many actors are above it; 0 of the system's root."""
    actor: str
    """The name of its class."""
    phase: str
    waiting: int
    capacity: int
    working: int
    restarts: int
    started_at: float
    """When it was spawned, in loop time."""
    children: int


class ActorRows(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the tree of actors as lines: `rows` from line `first` on, of `total` lines in all."""

    total: int
    first: int
    rows: tuple[ActorRow, ...]


def _state(actor: ActorSnapshot) -> str:
    """Say in a few words how an actor is."""
    facts = [actor.phase]
    if actor.working:
        facts.append(f"{actor.working} working")
    if actor.waiting:
        facts.append(f"{actor.waiting} of {actor.capacity} waiting")
    if actor.restarts:
        facts.append(f"{actor.restarts} restarts")
    return ", ".join(facts)
